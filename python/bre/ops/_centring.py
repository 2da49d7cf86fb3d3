"""Second moments of tiles about their images' channel means, on a device, by exact moments of bytes about zero.

The product of all pairs of values is the backend's kernel; what is left is small and plain torch. Nothing waits for the
device.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ._geometry import channels

# bits; that integers are cut at, so that sums of their products are exact in float64; source: derived, sums of 2^21
# products of 2^15 with 2^17
_CUT = 14


def centred_moments(
    add_second_moment: Callable[[Tensor, Tensor], None],
    tiles: Tensor,
    group: Tensor,
    *,
    groups: int,
    sums: Tensor,
    area: int,
    shape: tuple[int, int, int],
) -> tuple[Tensor, Tensor]:
    """What `tile_moments` of a backend returns. add_second_moment: adds x^T x of bytes x (n, d) to int64 (d, d).

    With s the sum of an image's Q tiles x and m its channels' means as a tile,
    sum (x - m)(x - m)^T = sum x x^T - s m^T - m s^T + Q m m^T. Images of other groups count as black.
    """
    Q, d = tiles.shape[1:]
    channel = channels(*shape, tiles.device)
    count = group.new_zeros(groups)
    second = tiles.new_empty(groups, d, d, dtype=torch.float64)
    own = tiles.sum(1, dtype=torch.int64)
    for g in range(groups):
        member = group == g
        count[g] = Q * member.sum()
        kept = tiles if groups == 1 else torch.where(member[:, None, None], tiles, 0)
        exact = group.new_zeros(d, d)
        add_second_moment(kept.flatten(0, 1), exact)
        total = sums * member[:, None]
        with_sum = (_products(own, total) / area)[:, channel]
        with_mean = _products(total, total) * (Q / area**2)
        second[g] = exact.double() - with_sum - with_sum.T + with_mean[channel][:, channel]
    return count, second


def _products(left: Tensor, right: Tensor) -> Tensor:
    """left^T right in float64, of integers (M, a) and (M, b) up to 2^28, rounded once or twice. CUDA has no product of
    matrices of int64."""
    parts = [((side >> _CUT).double(), (side & (2**_CUT - 1)).double()) for side in (left, right)]  # each below 2^14
    (a, b), (c, d) = parts
    products: Tensor = (a.T @ c) * 4.0**_CUT + (a.T @ d + b.T @ c) * 2.0**_CUT + b.T @ d
    return products
