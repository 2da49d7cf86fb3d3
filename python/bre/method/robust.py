"""Centre and spread of scores of which up to MOST_PLANTED are of another mode, further up."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .stats import TO_NORMAL
from .uploads import in_host_memory

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
    ordered = ascending(scores)
    centre = ordered[:, (count - 1) // 2, None].clone()
    spread = TO_NORMAL * lower_median((scores - centre).abs_())
    least = max(2, int((1 - MOST_PLANTED) * count))
    if count - 2 <= least:
        return centre, spread
    ordered = (ordered - centre).double()
    apart, at = _parted(ordered)
    two = torch.nonzero(((apart >= APART) & (at + 1 >= least))[:, 0])[:, 0]
    if len(two):
        rows = zip(ordered[two].cpu().numpy(), at[two, 0].tolist(), strict=True)
        lower = [row[: end + 1] for row, end in rows]
        middles = [float(row[(len(row) - 1) // 2]) for row in lower]
        deviations = [float(_median(np.abs(row - middle))) for row, middle in zip(lower, middles, strict=True)]
        centre[two] += centre.new_tensor(middles)[:, None]
        spread[two] = TO_NORMAL * spread.new_tensor(deviations)[:, None]
    return centre, spread


def _parted(ordered: Tensor) -> tuple[Tensor, Tensor]:
    """Scores (P, n) float64, in order, n > 2, where the variance between the two parts is largest: the distance of
    their means over the sum of their standard deviations, (P, 1), and the place of the lower part's last, int64 (P, 1).
    The upper part has two scores at least."""
    count = ordered.shape[1]
    sums, squares = ordered.cumsum(1), ordered.square().cumsum(1)
    low = torch.arange(1, count + 1, dtype=torch.float64, device=ordered.device)
    high = (count - low).clamp_min_(1)
    mean_low, mean_high = sums / low, (sums[:, -1:] - sums) / high
    at = (low * high * (mean_high - mean_low).square_())[:, : count - 2].argmax(1, keepdim=True)
    square_low, square_high = (squares / low).gather(1, at), ((squares[:, -1:] - squares) / high).gather(1, at)
    mean_low, mean_high = mean_low.gather(1, at), mean_high.gather(1, at)
    deviations = [
        (square - mean.square()).clamp_min_(0).sqrt_()
        for square, mean in ((square_low, mean_low), (square_high, mean_high))
    ]
    return (mean_high - mean_low) / (deviations[0] + deviations[1]).clamp_min_(1e-12), at


def ascending(values: Tensor) -> Tensor:
    """(P, n), each row in order. In host memory numpy sorts several times as quickly as torch."""
    return torch.from_numpy(np.sort(values.numpy(), 1)) if in_host_memory(values.device) else values.sort(1).values


def lower_median(values: Tensor) -> Tensor:
    """(P, n) -> (P, 1), of each row; the lower one of two."""
    if not in_host_memory(values.device):
        return values.median(1, keepdim=True).values
    return torch.from_numpy(_median(values.numpy())[:, None])


def _median(values: np.ndarray) -> np.ndarray:
    """(..., n) -> (...), the lower one of two."""
    middle = (values.shape[-1] - 1) // 2
    found: np.ndarray = np.partition(values, middle, axis=-1)[..., middle]
    return found
