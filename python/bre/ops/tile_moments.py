from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from . import _check
from ._backends import implementation
from .tiles import Grid, grids


class TileMoments(NamedTuple):
    """Sums over the tiles of a grid, d values each in the order of cells."""

    count: Tensor  # type: ignore[assignment]  # (G,) int64: tiles of each group
    second: Tensor  # (G, d, d) float64: sum over the tiles of each group of x x^T


def tile_moments(
    images: Tensor, group: Tensor, *, groups: int, grid: Grid, step: int = 1, backend: str = "auto"
) -> TileMoments:
    """Second moments of the tiles of images, each channel's mean over its image taken away.

    images:   (M, C, H, W) uint8
    group:    (M,) int64, values in [0, G)
    groups:   G; every group wants d * d * 8 bytes
    grid:     one of the `grids(H, W)`
    step:     >= 1: of each image's tiles, row by row, every step-th counts
    returns:  TileMoments, second in grey levels squared

    The sums are of integers, exact up to the last division, and do not depend on the number of threads.

    Equivalent to, for each image x and its group g:
        tiles = cut(x - x.mean((1, 2), keepdim=True), grid)[::step]
        count[g] += len(tiles); second[g] += tiles.T @ tiles

    Raises InputError. Values of group are looked at only in host memory.
    """
    _check.images(images)
    M, _, H, W = images.shape
    _check.tensor("group", group, (M,), torch.int64, like=images)
    if groups < 1:
        _check.refuse("groups", "G >= 1", groups)
    _check.values("group", group, 0, groups - 1)
    if grid not in grids(H, W):
        _check.refuse("grid", f"one of {grids(H, W)}", grid)
    if step < 1:
        _check.refuse("step", "a number >= 1", step)
    function = implementation("tile_moments", backend, images.device)
    return TileMoments(*function(images, group, groups=groups, grid=grid, step=step))
