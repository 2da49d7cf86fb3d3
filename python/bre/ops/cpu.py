"""The ops on csrc/cpu, on as many threads as torch uses."""

from __future__ import annotations

import torch

from ._native import Native

try:  # after torch, whose OpenMP runtime it then shares
    from .. import _core
except ImportError as error:
    _core = None  # type: ignore[assignment]
    _missing = str(error)


def _launch(device: torch.device) -> dict[str, int]:
    return {"threads": torch.get_num_threads()}


native = Native(_core, _launch)
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
        return f"the compiled module bre._core did not load ({_missing}); build it with: pip install ."
    return None if device.type == "cpu" else f"it computes on the CPU, the tensors are on {device}"


def instruction_set() -> str | None:
    """What the compiled kernels use: "avx512" (F, BW, DQ, VL, VNNI), "avx2" or "baseline"; None without any."""
    return None if native.extension is None else str(native.extension.isa())
