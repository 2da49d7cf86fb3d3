"""How an image is cut: tiles of 16 x 16 pixels, smaller ones at the right and lower edge, of up to four cells of 8 x 8.

An image's values are ordered tile by tile (row by row of them), in a tile cell by cell (row by row), in a cell channel
by channel, in a channel row by row. All tiles of one size are one grid, of which an image has up to four.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

TILE = 16  # pixels: two of JPEG's blocks, so that tiles lie the same in every image
CELL = 8


class Grid(NamedTuple):
    """Tiles of one size: `down` rows of `across` tiles of height x width pixels, TILE apart, from (top, left) on."""

    top: int
    left: int
    down: int
    across: int
    height: int
    width: int


class Cell(NamedTuple):
    """Where a cell lies in the image, and where its values begin in the image's order."""

    top: int
    left: int
    height: int
    width: int
    start: int


def grids(H: int, W: int) -> list[Grid]:
    """Those of an image of H x W pixels that have tiles: interior, right edge, lower edge, corner."""
    down, across = H // TILE, W // TILE
    below, beside = H % TILE, W % TILE
    every = [
        Grid(0, 0, down, across, TILE, TILE),
        Grid(0, W - beside, down, 1, TILE, beside),
        Grid(H - below, 0, 1, across, below, TILE),
        Grid(H - below, W - beside, 1, 1, below, beside),
    ]
    return [grid for grid in every if grid.down * grid.across * grid.height * grid.width]


def cells(C: int, H: int, W: int) -> list[Cell]:
    """All cells of an image, in the order of their values."""
    found: list[Cell] = []
    start = 0
    for y in range(0, H, TILE):
        for x in range(0, W, TILE):
            for top in range(y, min(y + TILE, H), CELL):
                for left in range(x, min(x + TILE, W), CELL):
                    height, width = min(CELL, H - top), min(CELL, W - left)
                    found.append(Cell(top, left, height, width, start))
                    start += C * height * width
    return found


@cache
def tile_order(C: int, height: int, width: int) -> Tensor:
    """(d,) int64: which value of a tile (C, height, width), row by row, comes when in the order of cells."""
    value = torch.arange(C * height * width).view(C, height, width)
    parts = [
        value[:, y : y + CELL, x : x + CELL].flatten() for y in range(0, height, CELL) for x in range(0, width, CELL)
    ]
    return torch.cat(parts)


def cut(images: Tensor, grid: Grid) -> Tensor:
    """images: (M, C, H, W) -> (M, down * across, d): the tiles of one grid, values in the order of cells."""
    M, C = images.shape[:2]
    top, left, down, across, height, width = grid
    shape = (M, C, down, across, height, width)
    strides = images.stride()
    step = (strides[0], strides[1], TILE * strides[2], TILE * strides[3], strides[2], strides[3])
    view = images[:, :, top:, left:].as_strided(
        shape, step, images.storage_offset() + top * strides[2] + left * strides[3]
    )
    rows = view.permute(0, 2, 3, 1, 4, 5).reshape(M, down * across, C * height * width)
    return rows[:, :, tile_order(C, height, width).to(images.device)]
