"""How images of one size are cut: levels of a pyramid, tiles that share one covariance, cells, windows.

A level is the image at 1, 1/2, 1/4, ... of its size; the coarsest one has no side above MAX_TILE and is one tile. On
finer levels tiles of TILE x TILE pixels lie on the image's own grid, ragged at the right and lower edge. A tile
consists of cells of CELL x CELL pixels, which are whitened in the order in which they lie in it. Windows are
rectangles of cells. Knows numbers only.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from .. import ops
from ..ops import tiles as cuts
from ..ops.tiles import CELL, MAX_TILE, TILE

Window = tuple[int, int, int, int]  # top, left, height, width, in cells


@dataclass(frozen=True)
class Level:
    """One size of the images.

    shape: (C, H, W) of the level; factor: how many times smaller than the images a side is.
    """

    shape: tuple[int, int, int]
    factor: int

    @property
    def size(self) -> int:
        """D of this level."""
        return int(np.prod(self.shape))

    @property
    def tile(self) -> int:
        """Pixels a side of a tile, as `ops.whiten` takes it."""
        return MAX_TILE if max(self.shape[1:]) <= MAX_TILE else TILE

    @cached_property
    def grids(self) -> list[ops.Grid]:
        """Tiles of one size each, the largest first."""
        return ops.grids(*self.shape[1:], self.tile)

    @cached_property
    def units(self) -> list[ops.Unit]:
        """Squares of up to 2 x 2 cells, in the order of codes."""
        return cuts.units(*self.shape, self.tile)

    @property
    def tile_sides(self) -> tuple[int, int]:
        """Height and width of a full tile."""
        height, width = self.shape[1:]
        if max(height, width) <= MAX_TILE:
            return height, width
        return min(TILE, height), min(TILE, width)

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of cells."""
        return -(-self.shape[1] // CELL), -(-self.shape[2] // CELL)

    @cached_property
    def tiles(self) -> list[tuple[int, int, int, int]]:
        """(top, left, height, width) of every tile, row by row."""
        (height, width), (tall, wide) = self.shape[1:], self.tile_sides
        return [
            (top, left, min(tall, height - top), min(wide, width - left))
            for top in range(0, height, tall)
            for left in range(0, width, wide)
        ]

    def cell_places(self, top: int, left: int, height: int, width: int) -> list[tuple[int, int, np.ndarray]]:
        """The cells of a tile in the order of whitening: (row, column) in the grid and the flat places of its
        values."""
        out = []
        for inner_top, inner_left in cuts.z_order(height, width):
            rows = np.arange(top + inner_top, top + min(inner_top + CELL, height))
            columns = np.arange(left + inner_left, left + min(inner_left + CELL, width))
            out.append((int(rows[0]) // CELL, int(columns[0]) // CELL, self.places(rows, columns)))
        return out

    def places(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """(k,) flat places of a rectangle's values in an image, channel by channel, row by row."""
        channels, height, width = self.shape
        planes = np.arange(channels)[:, None, None] * height * width
        flat: np.ndarray = (planes + rows[:, None] * width + columns).ravel()
        return flat

    def in_image(self, window: Window, image_shape: tuple[int, int, int]) -> Window:
        """A window's (top, left, height, width) in pixels of the images themselves."""
        top, left, height, width = (self.factor * CELL * place for place in window)
        return top, left, min(height, image_shape[1] - top), min(width, image_shape[2] - left)

    @cached_property
    def windows(self) -> list[Window]:
        """(top, left, height, width) in cells: squares of 2, 4, 8, ... cells a side that overlap by half, and all of
        it.

        Squares of 2 cells do not overlap: their Gram matrices are what the larger ones are summed from.
        """
        rows, columns = self.grid
        out, side = [], 2
        while side < max(rows, columns):
            step = max(2, side // 2)
            tops, lefts = (range(0, max(1, n - (0 if side == 2 else step)), step) for n in (rows, columns))
            out += [(top, left, min(side, rows - top), min(side, columns - left)) for top in tops for left in lefts]
            side *= 2
        return [*out, (0, 0, rows, columns)]


def levels(shape: tuple[int, int, int]) -> list[Level]:
    """From the images' own size to the first that has no side above MAX_TILE."""
    out, factor = [Level(shape, 1)], 1
    while max(out[-1].shape[1:]) > MAX_TILE:
        factor *= 2
        channels, height, width = out[-1].shape
        out.append(Level((channels, -(-height // 2), -(-width // 2)), factor))
    return out


def halve(images: np.ndarray) -> np.ndarray:
    """uint8 (m, C, H, W) at half the size, sides rounded up: see `ops.halve`."""
    halved: np.ndarray = ops.halve(torch.from_numpy(np.ascontiguousarray(images))).numpy()
    return halved


def pyramid(images: np.ndarray, sizes: list[Level]) -> list[np.ndarray]:
    """The images, uint8 (m, C, H, W), at every level."""
    out = [images]
    for _ in sizes[1:]:
        out.append(halve(out[-1]))
    return out
