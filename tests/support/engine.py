"""The steps from images to codes as a screen takes them, without classes, files or memory limits."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bre import ops
from bre.method.codes import Codes
from bre.method.levels import levels, pyramid
from bre.method.whitening import TileMoments, Whitening


def whitenings(images: np.ndarray, seed: int = 0) -> list[Whitening]:
    """One for every level, from images uint8 (M, C, H, W)."""
    random = np.random.default_rng(seed)
    halves, groups = np.arange(len(images)) % 2, np.zeros(len(images), np.int64)
    found = []
    for level, block in zip(levels(images.shape[1:]), pyramid(images, levels(images.shape[1:])), strict=True):
        moments = TileMoments(level, 16)
        moments.add(block, groups, halves, random)
        found.append(moments.whitening())
    return found


def codes(whitened_by: Sequence[Whitening], images: np.ndarray) -> list[Codes]:
    """Of images uint8 (n, C, H, W), at every level."""
    found = []
    for whitening, block in zip(whitened_by, pyramid(images, levels(images.shape[1:])), strict=True):
        out = ops.Codes.empty(len(images), whitening.level.shape, whitening.level.tile)
        whitening.encode(block, out)
        found.append(Codes.of(out, whitening.level))
    return found
