"""How a grid's tiles consist of cells, as small tables on a device: brought there once, since that waits for it."""

from __future__ import annotations

import itertools
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from .tiles import CELL, Grid, channel_of, tile_order, units

MOST_TABLES = 256  # grids and devices; whose tables are kept; source: chosen, they are small


class Cells(NamedTuple):
    """A tile's cells in their order. start: int32 (n + 1,), where their values begin, and where the last one's end;
    unit: int32 (2, n), where their unit's values begin, and how many it has; widest: values of the largest cell."""

    start: Tensor
    unit: Tensor
    widest: int


@lru_cache(MOST_TABLES)
def cells(C: int, grid: Grid, device: torch.device) -> Cells:
    of_unit = units(C, grid.height, grid.width, grid.step)
    start = [cell.start for unit in of_unit for cell in unit.cells] + [C * grid.height * grid.width]
    unit = [[u.start for u in of_unit for _ in u.cells], [u.size for u in of_unit for _ in u.cells]]
    widest = max(b - a for a, b in itertools.pairwise(start))
    return Cells(_table(start, device), _table(unit, device), widest)


@lru_cache(MOST_TABLES)
def places(C: int, grid: Grid, H: int, W: int, device: torch.device) -> Tensor:
    """int32 (d,): where each value of a tile lies in its image, from the tile's upper left corner on."""
    order = tile_order(C, grid.height, grid.width)
    channel, inside = order // (grid.height * grid.width), order % (grid.height * grid.width)
    return _table(channel * (H * W) + inside // grid.width * W + inside % grid.width, device)


@lru_cache(MOST_TABLES)
def channels(C: int, height: int, width: int, device: torch.device) -> Tensor:
    """`channel_of`."""
    return channel_of(C, height, width).to(device)


def cells_before(grid: Grid, W: int) -> tuple[int, int]:
    """Rows of cells in a tile, and cells in a row of the image: before the tile at (row, column), in pixels, come
    row // CELL * the second + column // CELL * the first. Tiles above and to the left are as high as this one's row."""
    return -(-grid.height // CELL), -(-W // CELL)


def _table(values: Tensor | list[int] | list[list[int]], device: torch.device) -> Tensor:
    return torch.as_tensor(values, dtype=torch.int32, device="cpu").to(device)
