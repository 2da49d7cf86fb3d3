"""Which images of a class carry a pattern, and how much of it each carries, cell by cell of equal noise.

An image's share of the pattern is estimated by weighted least squares: textured cells, whose own noise is large,
count for less. Its uncertainty is known from the same cells. The odds are those of `carriers`.

Knows arrays only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from . import carriers
from .robust import centre_and_spread
from .stats import TO_NORMAL
from .whitening import Whitening

# of the median noise; no image's is taken to be smaller; source: chosen
LEAST_RATIO = 0.05
MIN_CALIBRATED = 20  # images; below the median, that can tell how noise grows with texture; source: chosen
SMALL_DISTANCES = 0.02  # share; of distances from the median that are too small for a logarithm; source: chosen
# square; mean of a whitened cell, at least: what is flat in an image is so because it was rounded; source: chosen
LEAST_NOISE = 0.02


@dataclass(frozen=True, eq=False)
class Shares:
    """share: float64 (n,), of the pattern in each image, 1 in one that carries all of it; noise: float64 (n,) > 0, its
    standard deviation, from the image's own texture."""

    share: np.ndarray
    noise: np.ndarray


def shares(whitening: Whitening, whitened: Sequence[Tensor], pattern: Sequence[Tensor]) -> Shares:
    """Of whitened images (m, T, d) by kind of tile, along a displacement (T, d) by kind that they have no part in."""
    cells: list[tuple[Tensor, Tensor, Tensor, int]] = []  # along (m, T), mean square (m, T), energy (T,), values
    for kind, values, planted in zip(whitening.kinds, whitened, pattern, strict=True):
        seen = planted.square().sum(1) > 0
        if not seen.any():
            continue
        parts, templates = torch.split(values[:, seen], kind.sizes, 2), torch.split(planted[seen], kind.sizes, 1)
        for part, template in zip(parts, templates, strict=True):
            along = (part * template.float()).sum(2).double()
            cells.append((along, part.square().mean(2).double(), template.square().sum(1), part.shape[2]))
    total, expected, variance = (whitened[0].new_zeros(len(whitened[0]), dtype=torch.float64) for _ in range(3))
    for along, square, energy, _ in cells:
        weight = 1 / (1 + square)
        total += (weight * along).sum(1)
        expected += weight @ energy
    expected = expected.clamp_min(1e-9)
    share = total / expected
    for along, square, energy, size in cells:
        carried = share[:, None] * (share[:, None] * energy - 2 * along)  # what the share takes from the square
        rest = (square + carried / size).clamp_min(LEAST_NOISE)
        variance += (1 + square).pow(-2) * torch.minimum(square.clamp_min(LEAST_NOISE), 2 * rest) @ energy
    return Shares(share.numpy(), (variance.sqrt() / expected).numpy())


def log_odds(found: Shares, reach: np.ndarray) -> np.ndarray:
    """(n,) float64, that each image carries the pattern. reach: (n,), see `carriers.unsaturated_share`."""
    noise = calibrated(found)
    unit = float(np.median(noise))
    return carriers.log_odds(found.share / unit, np.maximum(noise / unit, LEAST_RATIO), reach, 1 / unit)


def calibrated(found: Shares) -> np.ndarray:
    """(n,) float64 > 0: the noise of each image's share, as the shares below the median show it: a power of what was
    computed from the image's texture, at most the first, times a factor.

    The texture of a few pixels is not that of their cell: a flat image's noise is larger than its cells say, a textured
    one's smaller. What carries the pattern lies above the median, so the lower half tells. Few images tell nothing.
    """
    centre, _ = centre_and_spread(torch.from_numpy(found.share)[None])
    below = found.share - float(centre)
    low = below < 0
    if low.sum() < MIN_CALIBRATED:
        return found.noise
    distance, noise = -below[low], np.log(found.noise[low])
    logs = np.log(np.maximum(distance, np.quantile(distance, SMALL_DISTANCES)))
    varied = np.square(noise - noise.mean()).sum()
    slope = float(((noise - noise.mean()) * logs).sum() / varied) if varied > 0 else 1.0
    power = found.noise ** float(np.clip(slope, 0.0, 1.0))
    scale = TO_NORMAL * float(np.median(distance / power[low]))
    fitted: np.ndarray = power * scale
    return fitted if scale > 0 else found.noise
