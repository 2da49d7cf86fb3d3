from __future__ import annotations

import torch
from torch import Tensor

from . import _check
from ._backends import implementation
from .tiles import Grid, grids


def cut_tiles(images: Tensor, *, grid: Grid, chosen: Tensor | None = None, backend: str = "auto") -> Tensor:
    """Tiles of images, as they are.

    images:   (M, C, H, W) uint8
    grid:     one of the `grids(H, W, tile)`; P = down * across
    chosen:   (M, Q) int64, values in [0, P): which tiles of each image, numbered row by row; None takes all
    returns:  (M, Q, d) uint8, values in the order of cells

    Equivalent to:
        cut(images, grid)[arange(M)[:, None], chosen]

    Raises InputError. Values of chosen are looked at only in host memory.
    """
    _check.images(images)
    M, C, H, W = images.shape
    if grid not in grids(H, W, grid.step):
        _check.refuse("grid", f"one of {grids(H, W, grid.step)}", grid)
    P = grid.down * grid.across
    if chosen is None:
        chosen = torch.arange(P, device=images.device).repeat(M, 1)
    _check.tensor("chosen", chosen, (M, "Q"), torch.int64, like=images)
    _check.values("chosen", chosen, 0, P - 1)
    out = images.new_empty(M, chosen.shape[1], C * grid.height * grid.width)
    implementation("cut_tiles", backend, images.device)(images, grid=grid, chosen=chosen, out=out)
    return out
