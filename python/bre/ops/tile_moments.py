from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from . import _check
from ._backends import implementation


class TileMoments(NamedTuple):
    """Sums over tiles of d values each, in the order of cells."""

    count: Tensor  # type: ignore[assignment]  # (G,) int64: tiles of each group
    second: Tensor  # (G, d, d) float64: sum over the tiles of each group of x x^T


def tile_moments(
    tiles: Tensor,
    group: Tensor,
    *,
    groups: int,
    sums: Tensor,
    area: int,
    shape: tuple[int, int, int],
    backend: str = "auto",
) -> TileMoments:
    """Second moments of tiles, each channel's mean over its whole image taken away.

    tiles:    (M, Q, d) uint8, from `cut_tiles`
    group:    (M,) int64, values in [0, G): of the images
    groups:   G; every group takes 8 * d * d bytes
    sums:     (M, C) int64, `channel_sums` of the whole images
    area:     H * W of the whole images, at most 2^20
    shape:    (C, height, width) of a tile
    returns:  TileMoments, second in grey levels squared

    The sums are of integers, exact up to the last division, and do not depend on the number of threads.

    Equivalent to, for each image and its group g:
        x = tiles[image] - (sums[image] / area)[channel_of(*shape)]
        count[g] += Q; second[g] += x.T @ x

    Raises InputError. Values of group are looked at only in host memory.
    """
    C, height, width = shape
    _check.tensor("tiles", tiles, ("M", "Q", C * height * width), torch.uint8)
    M = len(tiles)
    _check.tensor("group", group, (M,), torch.int64, like=tiles)
    _check.tensor("sums", sums, (M, C), torch.int64, like=tiles)
    if groups < 1:
        _check.refuse("groups", "G >= 1", groups)
    _check.values("group", group, 0, groups - 1)
    if not 1 <= area <= 2**20:
        _check.refuse("area", "1 to 2**20 pixels", area)
    function = implementation("tile_moments", backend, tiles.device)
    return TileMoments(*function(tiles, group, groups=groups, sums=sums, area=area, shape=shape))
