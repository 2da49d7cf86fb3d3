"""The ops on csrc/cuda, on torch's current stream. Nothing waits for the device."""

from __future__ import annotations

import torch
from torch import Tensor

from . import _geometry as geometry
from ._centring import centred_moments
from ._native import Native
from .tiles import Grid

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


class OnDevice(Native):
    """Where a kernel wants what the CPU's does not: tables of a grid, workspace, sums without an order of classes."""

    def tables(self, C: int, grid: Grid, H: int, W: int, device: torch.device) -> dict[str, Tensor]:
        return {"places": geometry.places(C, grid, H, W, device)}

    def tile_moments(
        self, tiles: Tensor, group: Tensor, *, groups: int, sums: Tensor, area: int, shape: tuple[int, int, int]
    ) -> tuple[Tensor, Tensor]:
        def add(images: Tensor, second: Tensor) -> None:
            self._run("add_second_moment", images=images, M=len(images), D=len(second), second=second)

        return centred_moments(add, tiles, group, groups=groups, sums=sums, area=area, shape=shape)


native = OnDevice(_cuda, _launch)
apply_pattern = native.apply_pattern
loss_head = native.loss_head
update_pattern = native.update_pattern
moments = native.moments
gram = native.gram
cross_gram = native.cross_gram
sum_grams = native.sum_grams
halve = native.halve
channel_sums = native.channel_sums
cut_tiles = native.cut_tiles
tile_moments = native.tile_moments
whiten = native.whiten
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
