"""Which images of a class carry a pattern, and how much of it each carries, cell by cell of equal noise.

An image's share of the pattern is estimated by weighted least squares: textured cells, whose own noise is large, count for
less. Its uncertainty is known from the same cells. The odds are those of `carriers`.

Knows arrays only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from . import carriers
from .recovery import Displacement
from .whitening import Whitening

LEAST_NOISE = 0.02  # mean square of a whitened cell, at least: what is flat in an image is so because it was rounded


@dataclass(frozen=True, eq=False)
class Shares:
    """share: float64 (n,), of the pattern in each image, 1 in one that carries all of it; noise: float64 (n,) > 0, its
    standard deviation, from the image's own texture."""

    share: np.ndarray
    noise: np.ndarray


def shares(whitening: Whitening, whitened: Sequence[Tensor], pattern: Sequence[Tensor]) -> Shares:
    """Of whitened images (m, T, d) by kind of tile, along a displacement (T, d) by kind that they have no part in."""
    along, expected, variance = (torch.zeros(len(whitened[0]), dtype=torch.float64) for _ in range(3))
    for kind, values, planted in zip(whitening.kinds, whitened, pattern, strict=True):
        seen = planted.square().sum(1) > 0
        if not seen.any():
            continue
        for part, template in zip(
            values[:, seen].split(kind.sizes, dim=2), planted[seen].split(kind.sizes, dim=1), strict=True
        ):
            energy = template.square().sum(1)  # (T,)
            square = part.square().mean(2).double()  # (m, T)
            weight = 1 / (1 + square)
            along += (weight * (part * template.float()).sum(2)).sum(1)
            expected += weight @ energy
            rest = (square - energy / part.shape[2]).clamp_min(LEAST_NOISE)
            variance += (weight.square() * torch.minimum(square.clamp_min(LEAST_NOISE), 2 * rest)) @ energy
    expected = expected.clamp_min(1e-9)
    return Shares((along / expected).numpy(), (variance.sqrt() / expected).numpy())


def log_odds(found: Shares, reach: np.ndarray) -> np.ndarray:
    """(n,) float64, that each image carries the pattern. reach: (n,), see `carriers.unsaturated_share`."""
    unit = float(np.median(found.noise))
    return carriers.log_odds(found.share / unit, np.maximum(found.noise / unit, 0.05), reach, 1 / unit)


def restrict(displacement: Displacement, mask: Sequence[Tensor]) -> list[Tensor]:
    """Tiles (T, d) by kind, zero where the mask (T,) bool is not set."""
    return [tiles * inside[:, None] for tiles, inside in zip(displacement.tiles, mask, strict=True)]
