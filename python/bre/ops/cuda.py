"""The ops on csrc/cuda: addresses, sizes and torch's current stream go to bre._cuda. Nothing waits for the device."""

from __future__ import annotations

import torch
from torch import Tensor

from bre.ops._check import dtype_name
from bre.ops.moments import Moments

try:
    from bre import _cuda
except ImportError as error:
    _cuda = None  # type: ignore[assignment]
    _missing = str(error)

OLDEST = 80  # compute capability sm_80: bfloat16, and the oldest for which the kernels are compiled


def unavailable(device: torch.device) -> str | None:
    if _cuda is None:
        return f"this build of bre has no CUDA kernels ({_missing}); build it from source where nvcc is found"
    if device.type != "cuda":
        return f"it computes on CUDA devices, the tensors are on {device}"
    if torch.version.cuda is None:
        return f"this torch ({torch.__version__}) is built without CUDA"
    try:
        count = _cuda.device_count()
        ordinal = _ordinal(device)
        if ordinal >= count:
            return f"there is no {device}: CUDA sees {count} device(s)"
        capability = _cuda.capability(ordinal)
    except RuntimeError as error:  # no driver, or one older than the runtime these kernels were built with
        return str(error)
    if capability < OLDEST:
        return f"{device} is of capability sm_{capability}, the kernels need sm_{OLDEST} or later"
    if not _compiled_for(capability):
        return f"{device} is of capability sm_{capability}, this build's kernels are for {_cuda.architectures}"
    return None


def _compiled_for(capability: int) -> bool:
    """Whether the machine code of some architecture runs there (of the same major number), or its PTX."""
    for name in _cuda.architectures.split():  # as CMake writes them: 90-real has machine code, 90-virtual PTX, 90 both
        number, _, kind = name.partition("-")
        if not number.isdigit():
            return True  # "native", "90a": let CUDA say
        made = int(number)
        if made <= capability and (kind != "real" or made // 10 == capability // 10):
            return True
    return False


def architectures() -> str | None:
    """What the kernels were compiled for; None in a build without them."""
    return None if _cuda is None else _cuda.architectures


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
    _cuda.apply_pattern(
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
        **_queue(images.device),
    )


def loss_head(logits: Tensor, *, target: Tensor, sign: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    T, N = sign.shape
    loss, success = torch.empty_like(weight), torch.empty_like(weight, dtype=torch.bool)
    grad = torch.empty_like(logits)
    _cuda.loss_head(
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
        **_queue(logits.device),
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
    gradient, norms = torch.empty_like(pattern), pattern.new_empty(T)
    _cuda.update_pattern(
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
        gradient=gradient.data_ptr(),
        norms=norms.data_ptr(),
        **_queue(grad.device),
    )
    return norms


def moments(images: Tensor, labels: Tensor, *, classes: int, out: Moments) -> None:
    ordered, order = labels.sort(stable=True)  # each class's images in a row: no atomics, any number of classes
    offsets = torch.searchsorted(ordered, torch.arange(classes + 1, device=labels.device))
    _cuda.moments(
        images=images.data_ptr(),
        M=len(images),
        D=images.shape[1:].numel(),
        order=order.data_ptr(),
        offsets=offsets.data_ptr(),
        K=classes,
        count=out.count.data_ptr(),
        sum=out.sum.data_ptr(),
        second=out.second.data_ptr(),
        **_queue(images.device),
    )


def project(images: Tensor, *, templates: Tensor) -> Tensor:
    scores = templates.new_empty(len(images), len(templates))
    _cuda.project(
        images=images.data_ptr(),
        M=len(images),
        D=images.shape[1:].numel(),
        templates=templates.data_ptr(),
        P=len(templates),
        out=scores.data_ptr(),
        **_queue(images.device),
    )
    return scores


def _queue(device: torch.device) -> dict[str, int]:
    """Where kernels for tensors on `device` go: torch's current stream there."""
    return {"device": _ordinal(device), "stream": torch.cuda.current_stream(device).cuda_stream}


def _ordinal(device: torch.device) -> int:
    return torch.cuda.current_device() if device.index is None else device.index


def _image_shape(images: Tensor) -> dict[str, int]:
    _, C, H, W = images.shape
    return {"C": C, "A": H * W}


def _layout(nhwc: bool) -> _cuda.Layout:
    return _cuda.Layout.nhwc if nhwc else _cuda.Layout.nchw


def _dtype(tensor: Tensor) -> _cuda.Dtype:
    dtype: _cuda.Dtype = getattr(_cuda.Dtype, dtype_name(tensor))
    return dtype
