"""The ops as Triton kernels, for NVIDIA GPUs from sm_80 on; on the CPU only under Triton's interpreter, to test them.

Kernels run on the tensors' device and on torch's current stream of it; nothing here waits for them. Results and
scratch come from torch's caching allocator, so that every op can be captured in a CUDA graph.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from .._centring import centred_moments
from ..moments import Moments
from .launching import ceil_div, launch, power_of_2

try:
    from . import for_tiles, kernels

    halve, channel_sums, cut_tiles = for_tiles.halve, for_tiles.channel_sums, for_tiles.cut_tiles
    sum_grams, whiten = for_tiles.sum_grams, for_tiles.whiten
except ImportError as error:
    kernels = None  # type: ignore[assignment]
    _missing = str(error)

# numbers; per program; source: derived, 16 for each of 128 threads, so that each reads 16 bytes of image at once
_TILE = 2048
_CHUNK = 2**16  # images; per launch of second_moment; source: derived, int32 sums hold no more
_MINIMUM = (8, 0)  # compute capability; of the device; source: derived, the oldest with bfloat16


def unavailable(device: torch.device) -> str | None:
    if kernels is None:
        return f"triton did not load ({_missing}); install it with: pip install 'bre-engine[triton]'"
    if device.type == "cpu":
        if kernels.INTERPRETED:
            return None
        return "it computes on GPUs, the tensors are on cpu (to test it there, start python with TRITON_INTERPRET=1)"
    if device.type != "cuda":
        return f"it computes on NVIDIA GPUs, the tensors are on {device}"
    if torch.version.hip is not None:
        return f"it computes on NVIDIA GPUs, this torch ({torch.__version__}) is built for ROCm"
    if not torch.cuda.is_available():
        return f"torch sees no CUDA device ({_why_not()})"
    if (device.index or 0) >= torch.cuda.device_count():
        return f"there is no {device}: torch sees {torch.cuda.device_count()} device(s)"
    capability = torch.cuda.get_device_capability(device)
    if capability < _MINIMUM:
        return f"{torch.cuda.get_device_name(device)} is {_sm(capability)}; it needs {_sm(_MINIMUM)} or later"
    return None


def apply_pattern(images: Tensor, *, layout: str, out: Tensor, **given: Tensor) -> None:
    p = SimpleNamespace(**given)
    T, N = p.index.shape
    _, C, H, W = images.shape
    rows = 4
    channels, pixels = _tile(C, H * W, _TILE)
    launch(
        kernels.apply_pattern,
        (T * ceil_div(N, rows) * ceil_div(H * W, pixels),),
        *(images, p.index, p.sign, p.pattern, p.mean, p.std, out, N),
        C=C,
        A=H * W,
        NHWC=layout == "nhwc",
        ROWS=rows,
        CHANNELS=channels,
        PIXELS=pixels,
    )


def loss_head(logits: Tensor, *, target: Tensor, sign: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    T, N = sign.shape
    K = logits.shape[1]
    loss, grad, success = torch.empty_like(weight), torch.empty_like(logits), torch.empty_like(sign, dtype=torch.bool)
    block = min(power_of_2(K), 2048)
    launch(
        kernels.loss_head,
        (T * N,),
        *(logits, target, sign, weight, loss, grad, success, N),
        K=K,
        BLOCK=block,
        num_warps=min(max(block // 256, 1), 8),
    )
    return loss, grad, success


def update_pattern(grad: Tensor, *, images: Tensor, pattern: Tensor, **given: Any) -> Tensor:
    p = SimpleNamespace(**given)
    T, N = p.index.shape
    _, C, H, W = images.shape
    rows = 8
    channels, pixels = _tile(C, H * W, _TILE // rows)
    tiles = ceil_div(H * W, pixels)
    gradient, norms = torch.empty_like(pattern), pattern.new_empty(T)
    squares = pattern.new_empty(T, tiles, dtype=torch.float64)
    launch(
        kernels.sum_gradient,
        (T * tiles,),
        *(grad, images, p.index, p.sign, pattern, p.active, p.std, gradient, squares, N),
        C=C,
        A=H * W,
        NHWC=not grad.is_contiguous(),
        ROWS=rows,
        CHANNELS=channels,
        PIXELS=pixels,
    )
    D = C * H * W
    block = min(power_of_2(D), 2048)
    launch(
        kernels.descend,
        (T,),
        *(gradient, squares, p.active, p.momentum, pattern, norms, tiles, p.step, p.decay, p.bound),
        D=D,
        BLOCK=block,
        num_warps=min(max(block // 128, 1), 16),
    )
    return norms


def moments(images: Tensor, labels: Tensor, *, classes: int, out: Moments) -> None:
    out.count.index_add_(0, labels, torch.ones_like(labels))
    for x, label in zip(torch.split(images.flatten(1), _CHUNK), torch.split(labels, _CHUNK), strict=True):
        M, D = x.shape
        block = min(power_of_2(D), 128)
        rows = _TILE // block
        launch(
            kernels.sum_classes,
            (ceil_div(M, rows), ceil_div(D, block)),
            *(x, label, out.sum, M),
            D=D,
            ROWS=rows,
            BLOCK=block,
        )
        add_second_moment(x, out.second)


def add_second_moment(x: Tensor, second: Tensor) -> None:
    """second (D, D) int64 += x^T x, of bytes x (M, D).

    The int8 tensor cores want the index that is summed, the image, innermost in both factors: one transposed copy, 2
    bytes moved per pixel, against D multiply-adds. Padded with zeros to whole tiles, so that the inner loop has no
    masks. (torch._int_mm would do the product, into another (D, D) array, and is private.)
    """
    for part in torch.split(x, _CHUNK):
        M, D = part.shape
        tile, depth = min(max(power_of_2(D), 16), 64), 128
        columns = depth * ceil_div(M, depth)
        centred = torch.zeros(tile * ceil_div(D, tile), columns, dtype=torch.int8, device=x.device)
        centred[:D, :M] = (part ^ 128).view(torch.int8).T  # x - 128
        launch(
            kernels.second_moment,
            (ceil_div(D, tile), ceil_div(D, tile)),
            *(centred, part.sum(0, dtype=torch.int64), second, M, columns),
            D=D,
            TILE=tile,
            DEPTH=depth,
            num_warps=4,
        )


def tile_moments(
    tiles: Tensor, group: Tensor, *, groups: int, sums: Tensor, area: int, shape: tuple[int, int, int]
) -> tuple[Tensor, Tensor]:
    return centred_moments(add_second_moment, tiles, group, groups=groups, sums=sums, area=area, shape=shape)


def gram(codes: Tensor, *, out: Tensor) -> None:
    cross_gram(codes, codes, out=out)


def cross_gram(left: Tensor, right: Tensor, *, out: Tensor) -> None:
    (r, n), D = out.shape, left.shape[1]
    high, wide = (min(max(power_of_2(size), 16), 64) for size in (r, n))
    launch(
        kernels.gram,
        (ceil_div(r, high), ceil_div(n, wide)),
        *(left, right, out, r, n),
        D=D,
        HIGH=high,
        WIDE=wide,
        DEPTH=128,
        num_warps=4,
    )


def project(images: Tensor, *, templates: Tensor) -> Tensor:
    M, (P, D) = len(images), templates.shape
    scores = templates.new_empty(M, P)
    rows, columns, block = 8, min(power_of_2(P), 4), min(power_of_2(D), 256)
    launch(
        kernels.project,
        (ceil_div(M, rows) * ceil_div(P, columns),),
        *(images, templates, scores, M, P),
        D=D,
        ROWS=rows,
        COLUMNS=columns,
        BLOCK=block,
    )
    return scores


def _why_not() -> str:
    """Why torch has no CUDA: no support built in, no driver, one too old."""
    try:
        torch.cuda.init()  # type: ignore[no-untyped-call]
    except (RuntimeError, AssertionError) as error:
        return str(error).strip().partition("\n")[0]
    return "it does not say why"


def _tile(C: int, A: int, numbers: int) -> tuple[int, int]:
    """Channels (all) and pixels of a tile of at most so many numbers, powers of two."""
    channels = power_of_2(C)
    return channels, min(power_of_2(A), max(numbers // channels, 1))


def _sm(capability: tuple[int, int]) -> str:
    return "sm_{}{}".format(*capability)
