"""Centre and spread of scores of which up to MOST_PLANTED are of another mode, further up."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .stats import TO_NORMAL

# share; of a class that may be planted, at most: what more of it shares is a property of the class; source: chosen, a
# tenth of ten equal classes, poisoned, makes half of one; natural properties that were seen had 0.62 and more
MOST_PLANTED = 0.6
# ratio; of the distance of two modes to the sum of their standard deviations, from which on they are two; source:
# simulated, halves of 100 normal draws have 1.7 once in a thousand, of uniform ones 2.3; two normals at five standard
# deviations have 2.5
APART = 2.3


def median_and_spread(values: np.ndarray) -> tuple[float, float]:
    """Median and robust standard deviation of one sample (n,)."""
    middle = float(np.median(values))
    return middle, TO_NORMAL * float(np.median(np.abs(values - middle)))


def centre_and_spread(scores: Tensor) -> tuple[Tensor, Tensor]:
    """Median and robust standard deviation, (P, 1) each, of scores (P, n); where they clearly fall apart into two modes
    and the upper has MOST_PLANTED of them at most, those of the lower: a median of two modes lies between them, and its
    absolute deviations tell their distance.

    In host memory, wherever the scores are: numpy sorts several times as quickly as torch, and most scores are few.
    """
    centre, spread = _centre_and_spread(scores.cpu().numpy())
    return torch.from_numpy(centre).to(scores), torch.from_numpy(spread).to(scores)


def _centre_and_spread(scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """As above, of the scores' type."""
    count = scores.shape[1]
    ordered = np.sort(scores, axis=1)
    centre = ordered[:, (count - 1) // 2, None].copy()
    spread = TO_NORMAL * _lower_median(np.abs(scores - centre))
    least = max(2, int((1 - MOST_PLANTED) * count))
    if count - 2 <= least:
        return centre, spread
    ordered = (ordered - centre).astype(np.float64)
    apart, at = _parted(ordered)
    for row in np.flatnonzero((apart >= APART) & (at + 1 >= least)):
        lower = ordered[row, : at[row] + 1]
        middle = lower[(len(lower) - 1) // 2]
        centre[row] += middle
        spread[row] = TO_NORMAL * _lower_median(np.abs(lower - middle)[None])[0]
    return centre, spread


def _lower_median(values: np.ndarray) -> np.ndarray:
    """(P, n) -> (P, 1), of each row; the lower one of two."""
    middle = (values.shape[1] - 1) // 2
    found: np.ndarray = np.partition(values, middle, axis=1)[:, middle, None]
    return found


def _parted(ordered: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scores (P, n) float64, in order, n > 2, parted where the variance between the two parts is largest (Otsu, IEEE
    Transactions on Systems, Man, and Cybernetics 1979): the distance of their means over the sum of their standard
    deviations, (P,), and the place of the lower part's last, int64 (P,). The upper part has two scores at least."""
    rows, count = np.arange(len(ordered)), ordered.shape[1]
    low = np.arange(1.0, count - 1)
    sums = np.cumsum(ordered, axis=1)
    total, below = sums[:, -1:], sums[:, :-2]
    at = np.argmax(np.square(below * count - total * low) / (low * (count - low)), axis=1)
    low, below, square_below = at + 1.0, below[rows, at], np.cumsum(np.square(ordered), axis=1)
    means = below / low, (total[:, 0] - below) / (count - low)
    squares = square_below[rows, at] / low, (square_below[:, -1] - square_below[rows, at]) / (count - low)
    deviations = [np.sqrt(np.maximum(square - mean**2, 0)) for square, mean in zip(squares, means, strict=True)]
    return (means[1] - means[0]) / np.maximum(deviations[0] + deviations[1], 1e-12), at
