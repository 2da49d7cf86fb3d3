"""The codes of the images of a class at one level, and the inner products of pairs of them in windows.

Codes are bytes (`ops.whiten`), unit by unit: a unit is up to 2 x 2 cells. A window's inner products are sums over its units,
exact in integers. Where a class is so large that products of all pairs would take too much memory or time, they are
taken between some of its images, drawn at random, and all.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from .. import ops
from .levels import CELL, Level, Window

CODE_UNIT = ops.CODE_UNIT  # codes; of one standard deviation; source: derived, as `ops.whiten` writes them
# share; of its energy that a pattern keeps in a textured cell, at least; source: chosen, a cell whose codes were cut off
# at 127 would seem to keep nothing
LEAST_KEPT = 0.02
MAX_PRODUCTS = 2**27  # inner products; of all units, held at a time; source: chosen, 512 MiB
MAX_ROWS = 2048  # images; whose products with all others are held, at most; source: chosen, time grows with it


@dataclass(frozen=True, eq=False)
class Codes:
    """The images of a class at one level.

    units: int8 (n, size), one for each of the level's units; kept: float32 (n, rows, columns), what share of its length
    a pattern keeps in each cell; level: theirs.
    """

    units: list[Tensor]
    kept: Tensor
    level: Level

    @classmethod
    def of(cls, coded: ops.Codes, level: Level, rows: np.ndarray | None = None) -> Codes:
        """From what `Whitening.encode` wrote; rows: int64, ascending, of the images to keep, or None for all. What was
        written is used up."""
        images = coded.kept.shape[1]
        some = None if rows is None or len(rows) == images else torch.from_numpy(rows)
        units = []
        for unit in level.units:
            held = coded.values[images * unit.start : images * (unit.start + unit.size)].view(images, unit.size)
            if some is not None:
                held[: len(some)] = held[some]  # in place: ascending rows never overwrite one that is still wanted
                held = held[: len(some)]
            units.append(held)
        kept = coded.kept if some is None else coded.kept[:, some]
        down, across = level.grid
        placed = torch.ones(down * across, kept.shape[1])
        cells = [cell for unit in level.units for cell in unit.cells]
        placed[[cell.top // CELL * across + cell.left // CELL for cell in cells]] = kept
        return cls(units, placed.clamp_min_(LEAST_KEPT**0.5).T.reshape(-1, down, across).contiguous(), level)

    def __len__(self) -> int:
        return len(self.kept)

    @cached_property
    def places(self) -> dict[tuple[int, int], int]:
        """Number of a unit by the (row, column) of its first cell."""
        return {(unit.cells[0].top // CELL, unit.cells[0].left // CELL): i for i, unit in enumerate(self.level.units)}

    def inside(self, window: Window) -> list[int]:
        """Numbers of the units of a window."""
        top, left, height, width = window
        return [self.places[r, c] for r in range(top, top + height, 2) for c in range(left, left + width, 2)]

    def sizes(self, window: Window) -> Tensor:
        """(height, width) float32: how many values each cell of a window has."""
        top, left, height, width = window
        tall = [min(CELL, self.level.shape[1] - CELL * row) for row in range(top, top + height)]
        wide = [min(CELL, self.level.shape[2] - CELL * column) for column in range(left, left + width)]
        return self.level.shape[0] * torch.tensor(tall).outer(torch.tensor(wide)).float()

    def kept_inside(self, window: Window) -> Tensor:
        """(n, height * width) float32: `kept` of the cells of a window."""
        top, left, height, width = window
        return self.kept[:, top : top + height, left : left + width].flatten(1)

    def own(self, window: Window) -> Tensor:
        """(n,) float32: inner product of each image with itself in a window."""
        return CODE_UNIT**2 * ((1 - self.kept_inside(window).square()) @ self.sizes(window).flatten())

    def whole(self, window: Window) -> Tensor:
        """(n,) float32: what share of its length a pattern keeps in a window, were it as strong in every value."""
        sizes = self.sizes(window).flatten()
        return (self.kept_inside(window).square() @ (sizes / sizes.sum())).sqrt()

    def chosen_rows(self, seed: int) -> np.ndarray:
        """int64, ascending: the images whose products with all others are held: all, as long as MAX_PRODUCTS and MAX_ROWS
        allow it, or as many at random."""
        n = len(self)
        most = min(MAX_ROWS, max(64, MAX_PRODUCTS // (len(self.units) * max(n, 1))))
        if n <= most:
            return np.arange(n)
        return np.sort(np.random.default_rng((seed, n)).choice(n, most, replace=False))

    def windows(self, rows: np.ndarray) -> Iterator[tuple[Window, Tensor]]:
        """(window, int32 (r, n) inner products of codes) of every window of the level, exact; rows: (r,)."""
        some = torch.from_numpy(rows)
        by_unit = [inner_products(unit, None if len(rows) == len(self) else some) for unit in self.units]
        squares: dict[Window, Tensor] = {}  # those that larger ones are summed from
        for window in self.level.windows:
            top, left, height, width = window
            quarters = _quarters(window)
            if quarters and all(part in squares for part in quarters):
                parts = [squares[part] for part in quarters]
            else:
                parts = [by_unit[number] for number in self.inside(window)]
            total = parts[0].clone()
            for part in parts[1:]:
                total += part
            if max(height, width) == 2 * UNITS_HELD:
                squares[window] = total.clone()
            yield window, total


UNITS_HELD = (
    4  # units; a side of the windows that are held beside units; source: chosen, few of them make most sums short
)


def _quarters(window: Window) -> list[Window]:
    """What a window of two held ones a side consists of, or nothing."""
    top, left, height, width = window
    side = 2 * UNITS_HELD
    if height % side or width % side:
        return []
    return [(r, c, side, side) for r in range(top, top + height, side) for c in range(left, left + width, side)]


def inner_products(codes: Tensor, rows: Tensor | None) -> Tensor:
    """int8 (n, d) -> int32 (r, n), of some rows (r,) with all, exact; None for all rows."""
    if rows is None:
        return ops.gram(codes)
    left, padding = codes[rows], (0, -codes.shape[1] % 8)
    if len(left) <= 16:  # fewer than torch's integer product takes
        return left.int() @ codes.int().T
    left, right = (torch.nn.functional.pad(side, padding).contiguous() for side in (left, codes))
    return torch._int_mm(left, right.T)
