"""How images of one size are cut: levels of a pyramid, tiles that share one covariance, cells, windows.

A level is the image at 1, 1/2, 1/4, ... of its size; the coarsest one has no side above WHOLE and is one tile. On finer
levels tiles of TILE x TILE pixels lie on the image's own grid, ragged at the right and lower edge. A tile consists of
cells of CELL x CELL pixels, which are whitened in the order in which they lie in it. Windows are rectangles of cells.
Knows numbers only.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

Window = tuple[int, int, int, int]  # top, left, height, width, in cells
TILE = 16  # pixels a side: what one covariance covers; two blocks of JPEG
CELL = 8  # pixels a side: JPEG's blocks
WHOLE = 32  # pixels a side up to which a level is one tile


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
    def tile_sides(self) -> tuple[int, int]:
        """Height and width of a full tile."""
        height, width = self.shape[1:]
        if max(height, width) <= WHOLE:
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
        """The cells of a tile in the order of whitening: (row, column) in the grid and the flat places of its values."""
        out = []
        for inner_top, inner_left in morton(-(-height // CELL), -(-width // CELL)):
            rows = np.arange(top + CELL * inner_top, min(top + CELL * inner_top + CELL, top + height))
            columns = np.arange(left + CELL * inner_left, min(left + CELL * inner_left + CELL, left + width))
            out.append((rows[0] // CELL, columns[0] // CELL, self.places(rows, columns)))
        return out

    def places(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """Flat places of a rectangle's values in an image, channel by channel, row by row."""
        channels, height, width = self.shape
        return (np.arange(channels)[:, None, None] * height * width + rows[:, None] * width + columns).ravel()

    @cached_property
    def windows(self) -> list[Window]:
        """(top, left, height, width) in cells: squares of 2, 4, 8, ... cells a side that overlap by half, and all of it.

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


def morton(rows: int, columns: int) -> list[tuple[int, int]]:
    """Places of a grid in z-order: every aligned square of 2^k places is contiguous."""

    def key(place: tuple[int, int]) -> int:
        return sum(((place[0] >> bit & 1) << (2 * bit + 1)) | ((place[1] >> bit & 1) << (2 * bit)) for bit in range(16))

    return sorted(((row, column) for row in range(rows) for column in range(columns)), key=key)


def levels(shape: tuple[int, int, int]) -> list[Level]:
    """From the images' own size to the first that has no side above WHOLE."""
    out, factor = [Level(shape, 1)], 1
    while max(out[-1].shape[1:]) > WHOLE:
        factor *= 2
        channels, height, width = out[-1].shape
        out.append(Level((channels, -(-height // 2), -(-width // 2)), factor))
    return out


def halve(images: np.ndarray) -> np.ndarray:
    """uint8 (m, C, H, W) at half the size, sides rounded up: means of 2 x 2 pixels (fewer at an odd edge), rounded."""
    height, width = images.shape[2:]
    even = np.pad(images, ((0, 0), (0, 0), (0, height % 2), (0, width % 2)), mode="edge").astype(np.uint16)
    total = even[:, :, ::2, ::2] + even[:, :, 1::2, ::2] + even[:, :, ::2, 1::2] + even[:, :, 1::2, 1::2]
    return ((total + 2) >> 2).astype(np.uint8)


def pyramid(images: np.ndarray, sizes: list[Level]) -> list[np.ndarray]:
    """The images, uint8 (m, C, H, W), at every level."""
    out = [images]
    for _ in sizes[1:]:
        out.append(halve(out[-1]))
    return out
