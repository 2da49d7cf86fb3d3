from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from . import _check
from ._backends import implementation

Layout = Literal["nchw", "nhwc"]
_FORMATS = {"nchw": torch.contiguous_format, "nhwc": torch.channels_last}


def apply_pattern(
    images: Tensor,
    *,
    index: Tensor,
    sign: Tensor,
    pattern: Tensor,
    mean: Tensor,
    std: Tensor,
    layout: Layout = "nchw",
    dtype: torch.dtype = torch.float32,
    out: Tensor | None = None,
    backend: str = "auto",
) -> Tensor:
    """Add patterns to images, or take them away, and normalise for the network, in one pass over bytes.

    images:   (M, C, H, W) uint8
    index:    (T, N) int64, values in [0, M): which image each row uses
    sign:     (T, N) int8: +1 adds the pattern, -1 takes it away, 0 leaves the image
    pattern:  (T, C, H, W) float32, pixel units of [0, 1], finite
    mean:     (C,) float32, pixel units; what the network's training subtracted
    std:      (C,) float32, pixel units, > 0; what it divided by
    layout:   "nchw", or "nhwc" for the same shape in torch.channels_last memory
    dtype:    of the result: float32, bfloat16 or float16
    out:      (T*N, C, H, W) of that layout and dtype, to be overwritten; None allocates it
    returns:  (T*N, C, H, W), row t*N + n holds target t's n-th image

    Equivalent to:
        x = images[index.flatten()] / 255 + sign.view(-1, 1, 1, 1) * pattern.repeat_interleave(N, 0)
        (x.clamp(0, 1) - mean.view(C, 1, 1)) / std.view(C, 1, 1)

    Raises InputError. Values of index and sign are looked at only in host memory.
    """
    _check.images(images)
    _check.tensor("index", index, ("T", "N"), torch.int64, like=images)
    T, N = index.shape
    M, C, H, W = images.shape
    _check.tensor("sign", sign, (T, N), torch.int8, like=images)
    _check.tensor("pattern", pattern, (T, C, H, W), torch.float32, like=images)
    _check.tensor("mean", mean, (C,), torch.float32, like=images)
    _check.tensor("std", std, (C,), torch.float32, like=images)
    _check.values("index", index, 0, M - 1)
    _check.values("sign", sign, -1, 1)
    if layout not in _FORMATS:
        _check.refuse("layout", "'nchw' or 'nhwc'", repr(layout))
    if dtype not in _check.FLOATS:
        _check.refuse("dtype", " or ".join(map(str, _check.FLOATS)), dtype)

    memory_format = _FORMATS[layout]
    if out is None:
        out = torch.empty((T * N, C, H, W), dtype=dtype, device=images.device, memory_format=memory_format)
    else:
        _check.dense("out", out, (T * N, C, H, W), dtype, like=images)
        if not out.is_contiguous(memory_format=memory_format):
            _check.refuse("out", f"{layout} memory", f"strides {tuple(out.stride())}")

    function = implementation("apply_pattern", backend, images.device)
    function(images, index=index, sign=sign, pattern=pattern, mean=mean, std=std, layout=layout, out=out)
    return out
