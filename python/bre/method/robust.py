"""Centre and spread of scores of which up to MOST_PLANTED are of another mode, further up."""

from __future__ import annotations

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


def centre_and_spread(scores: Tensor) -> tuple[Tensor, Tensor]:
    """Median and robust standard deviation, (P, 1) each, of scores (P, n); where they clearly fall apart into two modes
    and the upper has MOST_PLANTED of them at most, those of the lower: a median of two modes lies between them, and its
    absolute deviations tell their distance.

    The modes are parted where the variance between them is largest (Otsu, IEEE Transactions on Systems, Man, and
    Cybernetics 1979).
    """
    count = scores.shape[1]
    ordered = scores.sort(1).values
    centre = ordered[:, (count - 1) // 2, None].clone()
    spread = TO_NORMAL * (scores - centre).abs().median(1, keepdim=True).values
    least = max(2, int((1 - MOST_PLANTED) * count))
    if count - 2 <= least:
        return centre, spread
    ordered = (ordered - centre).double()
    sums, squares = ordered.cumsum(1), ordered.square().cumsum(1)
    low = torch.arange(1, count + 1, dtype=torch.float64, device=scores.device)
    high = count - low
    mean_low, mean_high = sums / low, (sums[:, -1:] - sums) / high.clamp_min(1)
    at = (low * high * (mean_high - mean_low).square())[:, : count - 2].argmax(1, keepdim=True)
    deviation_low = (squares / low - mean_low.square()).gather(1, at).clamp_min(0).sqrt()
    deviation_high = ((squares[:, -1:] - squares) / high.clamp_min(1) - mean_high.square()).gather(1, at)
    apart = (mean_high - mean_low).gather(1, at) / (deviation_low + deviation_high.clamp_min(0).sqrt()).clamp_min(1e-12)
    two = (apart >= APART) & (at + 1 >= least)
    for row in torch.nonzero(two[:, 0])[:, 0].tolist():
        lower = ordered[row, : int(at[row]) + 1]
        middle = lower.median()
        centre[row] += middle
        spread[row] = TO_NORMAL * (lower - middle).abs().median()
    return centre, spread
