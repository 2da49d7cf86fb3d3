"""Near duplicates: copies and re-encodings of one picture, which would look like a common pattern.

Arrays only. All floats are grey levels (0 to 255), not pixels of [0, 1].
"""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional

from .linalg import STRIP
from .whitening import remove_channel_means

NEAR_DUPLICATE_COSINE = 0.9  # cosine: two images above it are near duplicates
ROUNDING_ERROR = 1e-4  # of products of unit vectors in single precision, amply


def distinct(images: np.ndarray) -> np.ndarray:
    """The first of every group of near duplicates: (n,) bool for uint8 (n, C, H, W) images.

    Near duplicates agree in their content, poisoned images only in the pattern, which is lost at half the resolution,
    where images are compared. Unit vectors of cosine c
    are sqrt(2 - 2 c) apart and no further at a quarter of the resolution, which rules out nearly all pairs.
    """
    coarse = functional.avg_pool2d(torch.from_numpy(images).float(), 2, ceil_mode=True)
    unit = functional.normalize(remove_channel_means(coarse), dim=1)
    coarser = functional.avg_pool2d(unit.view(coarse.shape), 2, ceil_mode=True, divisor_override=2).flatten(1)
    half = coarser.square().sum(1) / 2
    seen = unit.new_zeros(len(unit), dtype=torch.bool)
    for start in range(0, len(unit), STRIP):
        strip = slice(start, start + STRIP)
        closest = torch.addmm(-half[strip, None], coarser[strip], coarser[start:].T).amax(0) - half[start:]
        near = torch.nonzero(closest > NEAR_DUPLICATE_COSINE - 1 - ROUNDING_ERROR)[
            :, 0
        ]  # minus half their distance squared
        cosine = unit[strip] @ unit[start + near].T
        cosine[near <= torch.arange(len(cosine), device="cpu")[:, None]] = -1.0  # only what comes after counts
        seen[start + near] |= cosine.amax(0) > NEAR_DUPLICATE_COSINE
    flat = torch.nonzero(unit.square().sum(1) < 0.5)[:, 0].numpy()  # at half the resolution: no cosine tells them apart
    kept: np.ndarray = ~seen.numpy() & ~_copies(images, flat)
    return kept


def _copies(images: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """(n,) bool, the images at `rows` that are copies, byte for byte, of one before them there."""
    copies = np.zeros(len(images), bool)
    copies[rows] = True
    first: dict[bytes, int] = {}
    for row in rows.tolist():
        first.setdefault(images[row].tobytes(), row)
    copies[list(first.values())] = False
    return copies
