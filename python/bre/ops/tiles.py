"""How an image is cut: tiles, units and cells, and the order of its values that goes with them.

A tile is a square of pixels, smaller at the right and lower edge; all tiles of one size are one grid, of which an image
has up to four. A tile consists of cells of 8 x 8 pixels in z-order, so that every aligned square of 2, 4, ... cells a
side is contiguous; a unit is such a square of 2 x 2 cells. Values come tile by tile (row by row), in a tile cell
by cell, in a cell channel by channel, in a channel row by row.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

CELL = 8  # pixels; a side of a cell; source: derived, JPEG's blocks
UNIT = 2 * CELL  # pixels; a side of what is worked on at once; source: derived, two cells
TILE = 16  # pixels; a side of a tile, unless told otherwise; source: chosen
MAX_TILE = 32  # pixels; a side of a tile, at most; source: chosen, its covariance is square in its values


class Grid(NamedTuple):
    """Tiles of height x width pixels: `down` rows of `across` of them, `step` pixels apart, from (top, left) on."""

    top: int
    left: int
    down: int
    across: int
    height: int
    width: int
    step: int


class Cell(NamedTuple):
    """Where a cell lies in the image, in pixels, and where its values begin in the image's order."""

    top: int
    left: int
    height: int
    width: int
    start: int


class Unit(NamedTuple):
    """Up to four cells side by side: `size` values from `start` on in the image's order."""

    start: int
    size: int
    cells: tuple[Cell, ...]


def grids(H: int, W: int, tile: int = TILE) -> list[Grid]:
    """Those of an image of H x W pixels that have tiles: interior, right edge, lower edge, corner."""
    down, across = H // tile, W // tile
    below, beside = H % tile, W % tile
    every = [
        Grid(0, 0, down, across, tile, tile, tile),
        Grid(0, W - beside, down, 1, tile, beside, tile),
        Grid(H - below, 0, 1, across, below, tile, tile),
        Grid(H - below, W - beside, 1, 1, below, beside, tile),
    ]
    return [grid for grid in every if grid.down * grid.across * grid.height * grid.width]


def units(C: int, H: int, W: int, tile: int = TILE) -> list[Unit]:
    """All units of an image, in the order of their values."""
    found: list[Unit] = []
    start = 0
    for top in range(0, H, tile):
        for left in range(0, W, tile):
            placed = []
            for y, x in z_order(min(tile, H - top), min(tile, W - left)):
                height, width = min(CELL, H - top - y), min(CELL, W - left - x)
                placed.append(Cell(top + y, left + x, height, width, start))
                start += C * height * width
            own: dict[tuple[int, int], list[Cell]] = {}
            for cell in placed:
                own.setdefault(((cell.top - top) // UNIT, (cell.left - left) // UNIT), []).append(cell)
            for cells in own.values():
                size = sum(C * cell.height * cell.width for cell in cells)
                found.append(Unit(cells[0].start, size, tuple(cells)))
    return found


@cache
def z_order(height: int, width: int) -> tuple[tuple[int, int], ...]:
    """(top, left) of the cells of height x width pixels, in pixels, in z-order."""

    def key(place: tuple[int, int]) -> int:
        row, column = place[0] // CELL, place[1] // CELL
        return sum((row >> bit & 1) << (2 * bit + 1) | (column >> bit & 1) << (2 * bit) for bit in range(16))

    return tuple(sorted(((y, x) for y in range(0, height, CELL) for x in range(0, width, CELL)), key=key))


@cache
def tile_order(C: int, height: int, width: int) -> Tensor:
    """(d,) int64: which value of a tile (C, height, width), row by row, comes when in the order of cells."""
    value = torch.arange(C * height * width).view(C, height, width)
    return torch.cat([value[:, y : y + CELL, x : x + CELL].flatten() for y, x in z_order(height, width)])


def channel_of(C: int, height: int, width: int) -> Tensor:
    """(d,) int64: the channel of each value of a tile, in the order of cells."""
    return tile_order(C, height, width) // (height * width)


def cut(images: Tensor, grid: Grid) -> Tensor:
    """images: (M, C, H, W) -> (M, down * across, d): the tiles of one grid, values in the order of cells."""
    C, (top, left, down, across, height, width, step) = images.shape[1], grid
    rows = images[:, :, top : top + (down - 1) * step + height, left : left + (across - 1) * step + width]
    tiles = rows.unfold(2, height, step).unfold(3, width, step)  # (M, C, down, across, height, width)
    flat = tiles.permute(0, 2, 3, 1, 4, 5).reshape(len(images), down * across, C * height * width)
    return flat[:, :, tile_order(C, height, width).to(images.device)]
