"""Known attacks, to measure a defence against the truth: what is put into images, and which get which label.

A trigger is a pattern that `embed` adds, covers or blends, the same in every image; or a `Trigger`, which makes of each
image what its publication says. `plant` puts either into a set.
"""

from __future__ import annotations

from .colours import ChromaCosines, Quantised, Tint
from .patches import PartialBlend, PartialPatches, PatchAnywhere
from .patterns import chessboard, grid, local, low_frequency, low_pass, patch, random_sign, sine
from .planting import Covers, Poisoned, Trigger, embed, plant, triggered
from .reflections import Reflection
from .warps import NoisyWarp, Warp, elastic_field, wanet_field

__all__ = [
    "ChromaCosines",
    "Covers",
    "NoisyWarp",
    "PartialBlend",
    "PartialPatches",
    "PatchAnywhere",
    "Poisoned",
    "Quantised",
    "Reflection",
    "Tint",
    "Trigger",
    "Warp",
    "chessboard",
    "elastic_field",
    "embed",
    "grid",
    "local",
    "low_frequency",
    "low_pass",
    "patch",
    "plant",
    "random_sign",
    "sine",
    "triggered",
    "wanet_field",
]
