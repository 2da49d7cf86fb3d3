"""The ops on csrc/cuda, on torch's current stream. Nothing waits for the device."""

from __future__ import annotations

import torch

from ._native import Native

try:
    from .. import _cuda
except ImportError as error:
    _cuda = None  # type: ignore[assignment]
    _missing = str(error)

OLDEST = 80  # compute capability; sm_80, for bfloat16; source: derived, the oldest for which the kernels are compiled


def _launch(device: torch.device) -> dict[str, int]:
    return {"device": _ordinal(device), "stream": torch.cuda.current_stream(device).cuda_stream}


def _ordinal(device: torch.device) -> int:
    return torch.cuda.current_device() if device.index is None else device.index


native = Native(_cuda, _launch)
apply_pattern = native.apply_pattern
loss_head = native.loss_head
update_pattern = native.update_pattern
moments = native.moments
gram = native.gram
project = native.project


def unavailable(device: torch.device) -> str | None:
    if native.extension is None:
        return f"this build of bre has no CUDA kernels ({_missing}); build it from source where nvcc is found"
    if device.type != "cuda":
        return f"it computes on CUDA devices, the tensors are on {device}"
    if torch.version.cuda is None:
        return f"this torch ({torch.__version__}) is built without CUDA"
    try:
        count = native.extension.device_count()
        ordinal = _ordinal(device)
        if ordinal >= count:
            return f"there is no {device}: CUDA sees {count} device(s)"
        capability = native.extension.capability(ordinal)
    except RuntimeError as error:  # no driver, or one older than the runtime these kernels were built with
        return str(error)
    if capability < OLDEST:
        return f"{device} is of capability sm_{capability}, the kernels need sm_{OLDEST} or later"
    if not _compiled_for(capability):
        return f"{device} is of capability sm_{capability}, this build's kernels are for {architectures()}"
    return None


def _compiled_for(capability: int) -> bool:
    """Whether the machine code of some architecture runs there (of the same major number), or its PTX."""
    for name in (architectures() or "").split():  # as CMake has them: 90-real is machine code, 90-virtual PTX, 90 both
        number, _, kind = name.partition("-")
        if not number.isdigit():
            return True  # "native", "90a": let CUDA say
        made = int(number)
        if made <= capability and (kind != "real" or made // 10 == capability // 10):
            return True
    return False


def architectures() -> str | None:
    """What the kernels were compiled for; None in a build without them."""
    return None if native.extension is None else str(native.extension.architectures)
