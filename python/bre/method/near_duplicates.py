"""Which images show the same photograph as one before: copies, and versions of it.

Poisoned images agree in what was planted alone, which is lost when images are compared coarsely. Copies are alike to
the last byte, however flat they are.
"""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from torch.nn import functional

from .whitening import remove_channel_means

# cosine; of two images that are versions of one photograph, at half the resolution; source: chosen
NEAR_DUPLICATE_COSINE = 0.9
# images; that are compared with all others at a time; source: chosen, so that they stay in the caches
PAIRS_STRIP = 512
ROUNDING_ERROR = 1e-4  # cosine; of products of unit vectors; source: derived, single precision, amply


def digests(images: np.ndarray) -> np.ndarray:
    """uint8 (m, C, H, W) -> (m,) of 16 bytes each: equal for equal images."""
    rows = np.ascontiguousarray(images).reshape(len(images), -1)
    return np.array([hashlib.blake2b(row.tobytes(), digest_size=16).digest() for row in rows], dtype="S16")


def distinct(coarse: np.ndarray, digest: np.ndarray) -> np.ndarray:
    """(n,) bool: the first of every group of versions of one photograph.

    coarse: uint8 (n, C, H, W), of the images at no more than 16 pixels a side, and at half of theirs at most; digest:
    (n,), of the images themselves. Unit vectors of cosine c are sqrt(2 - 2 c) apart and no further at half the
    resolution, which rules out nearly all pairs.
    """
    unit = functional.normalize(remove_channel_means(coarse), dim=1)
    shape = (-1, *coarse.shape[1:])
    coarser = functional.avg_pool2d(unit.view(shape), 2, ceil_mode=True, divisor_override=2).flatten(1)
    half, one = coarser.square().sum(1, keepdim=True) / 2, coarser.new_ones(len(coarser), 1)
    left, right = torch.cat([coarser, -half, one], 1), torch.cat([coarser, one, -half], 1)
    seen = unit.new_zeros(len(unit), dtype=torch.bool)
    for start in range(0, len(unit), PAIRS_STRIP):
        closeness = left[start : start + PAIRS_STRIP] @ right[start:].T  # minus half their distance squared
        closeness.fill_diagonal_(-torch.inf)
        rows, near = (
            torch.nonzero(closeness.amax(axis) > NEAR_DUPLICATE_COSINE - 1 - ROUNDING_ERROR)[:, 0] for axis in (1, 0)
        )
        if len(near):
            cosine = unit[start + rows] @ unit[start + near].T
            cosine[near <= rows[:, None]] = -1.0  # only what comes after counts
            seen[start + near] |= cosine.amax(0) > NEAR_DUPLICATE_COSINE
    kept: np.ndarray = first_of(digest) & ~seen.numpy()
    return kept


def first_of(digest: np.ndarray) -> np.ndarray:
    """(n,) bool: the first of every group of equal images, from their digests (n,)."""
    first = np.zeros(len(digest), bool)
    first[np.unique(digest, return_index=True)[1]] = True
    return first
