"""The ops on csrc/cpu: addresses and sizes go to bre._core, on as many threads as torch uses."""

from __future__ import annotations

import torch
from torch import Tensor

from bre.ops._check import dtype_name
from bre.ops.moments import Moments

try:  # after torch, whose OpenMP runtime it then shares
    from bre import _core
except ImportError as error:
    _core = None  # type: ignore[assignment]
    _missing = str(error)


def unavailable(device: torch.device) -> str | None:
    if _core is None:
        return f"the compiled module bre._core did not load ({_missing}); build it with: pip install ."
    return None if device.type == "cpu" else f"it computes on the CPU, the tensors are on {device}"


def apply_pattern(
    images: Tensor,
    *,
    index: Tensor,
    sign: Tensor,
    pattern: Tensor,
    mean: Tensor,
    std: Tensor,
    layout: str,
    out: Tensor,
) -> None:
    T, N = index.shape
    _core.apply_pattern(
        images=images.data_ptr(),
        **_image_shape(images),
        index=index.data_ptr(),
        sign=sign.data_ptr(),
        T=T,
        N=N,
        pattern=pattern.data_ptr(),
        mean=mean.data_ptr(),
        std=std.data_ptr(),
        layout=_layout(layout == "nhwc"),
        dtype=_dtype(out),
        out=out.data_ptr(),
        threads=torch.get_num_threads(),
    )


def loss_head(logits: Tensor, *, target: Tensor, sign: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    T, N = sign.shape
    loss, grad, success = weight.new_empty(T, N), torch.empty_like(logits), weight.new_empty(T, N, dtype=torch.bool)
    _core.loss_head(
        logits=logits.data_ptr(),
        dtype=_dtype(logits),
        target=target.data_ptr(),
        sign=sign.data_ptr(),
        weight=weight.data_ptr(),
        T=T,
        N=N,
        K=logits.shape[1],
        loss=loss.data_ptr(),
        grad=grad.data_ptr(),
        success=success.data_ptr(),
        threads=torch.get_num_threads(),
    )
    return loss, grad, success


def update_pattern(
    grad: Tensor,
    *,
    images: Tensor,
    index: Tensor,
    sign: Tensor,
    pattern: Tensor,
    momentum: Tensor,
    active: Tensor,
    std: Tensor,
    step: float,
    decay: float,
    bound: float,
) -> Tensor:
    T, N = index.shape
    norms = pattern.new_empty(T)
    _core.update_pattern(
        grad=grad.data_ptr(),
        dtype=_dtype(grad),
        layout=_layout(not grad.is_contiguous()),
        images=images.data_ptr(),
        **_image_shape(images),
        index=index.data_ptr(),
        sign=sign.data_ptr(),
        T=T,
        N=N,
        pattern=pattern.data_ptr(),
        momentum=momentum.data_ptr(),
        active=active.data_ptr(),
        std=std.data_ptr(),
        step=step,
        decay=decay,
        bound=bound,
        norms=norms.data_ptr(),
        threads=torch.get_num_threads(),
    )
    return norms


def moments(images: Tensor, labels: Tensor, *, classes: int, out: Moments) -> None:
    _core.moments(
        images=images.data_ptr(),
        M=len(images),
        D=images.shape[1:].numel(),
        labels=labels.data_ptr(),
        count=out.count.data_ptr(),
        sum=out.sum.data_ptr(),
        second=out.second.data_ptr(),
        threads=torch.get_num_threads(),
    )


def project(images: Tensor, *, templates: Tensor) -> Tensor:
    scores = templates.new_empty(len(images), len(templates))
    _core.project(
        images=images.data_ptr(),
        M=len(images),
        D=images.shape[1:].numel(),
        templates=templates.data_ptr(),
        P=len(templates),
        out=scores.data_ptr(),
        threads=torch.get_num_threads(),
    )
    return scores


def _image_shape(images: Tensor) -> dict[str, int]:
    _, C, H, W = images.shape
    return {"C": C, "A": H * W}


def _layout(nhwc: bool) -> _core.Layout:
    return _core.Layout.nhwc if nhwc else _core.Layout.nchw


def _dtype(tensor: Tensor) -> _core.Dtype:
    dtype: _core.Dtype = getattr(_core.Dtype, dtype_name(tensor))
    return dtype
