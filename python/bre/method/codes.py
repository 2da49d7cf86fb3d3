"""The codes of the images of a class at one level, and the inner products of pairs of them in windows.

Codes are bytes (`ops.whiten`), unit by unit: a unit is up to 2 x 2 cells. A window's inner products are sums over
its units, exact in integers. Where a class is so large that products of all pairs would take too much memory or
time, they are taken between some of its images, drawn at random, and all.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from .. import ops
from ..ops import CODE_UNIT
from ..ops.tiles import CELL
from .levels import Level, Window
from .uploads import in_host_memory

# share; of its energy that a pattern keeps in a textured cell, at least; source: chosen, a cell whose codes were cut
# off at 127 would seem to keep nothing
LEAST_KEPT = 0.02
MAX_PRODUCTS = 2**27  # inner products; held at a time; source: chosen, 512 MiB
MAX_HELD = 120  # windows and units; whose products are held at a time; source: derived, see `clusters.promising`
# cells; a side of the windows whose products are held for larger ones; source: chosen, most sums are short then
SIDE_HELD = 8
MAX_GRAM_ROWS = 1024  # images; whose products with all others are held, at most; source: chosen, time grows with it


def held(level: Level) -> int:
    """Windows and units of a level whose products are held at a time."""
    return min(MAX_HELD, len(level.units) + len(level.windows))


def rows_held(level: Level, count: int, most_rows: int | None = None) -> int:
    """Of so many images, those whose products with all others are held: all, as long as MAX_PRODUCTS and `most_rows`
    (MAX_GRAM_ROWS) allow it."""
    return min(count, most_rows or MAX_GRAM_ROWS, max(64, MAX_PRODUCTS // (held(level) * max(count, 1))))


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
        some = None if rows is None or len(rows) == images else torch.from_numpy(rows).to(coded.kept.device)
        units = []
        for unit in level.units:
            held = coded.values[images * unit.start : images * (unit.start + unit.size)].view(images, unit.size)
            if some is not None:
                held[: len(some)] = held[some]  # in place: ascending rows never overwrite one that is still wanted
                held = held[: len(some)]
            units.append(held)
        kept = coded.kept if some is None else coded.kept[:, some]
        down, across = level.grid
        placed = kept.new_ones(down * across, kept.shape[1])
        cells = [cell for unit in level.units for cell in unit.cells]
        placed[[cell.top // CELL * across + cell.left // CELL for cell in cells]] = kept
        return cls(units, placed.clamp_min_(LEAST_KEPT**0.5).T.reshape(-1, down, across).contiguous(), level)

    def __len__(self) -> int:
        return len(self.kept)

    @property
    def device(self) -> torch.device:
        """Where they lie."""
        return self.kept.device

    @cached_property
    def places(self) -> dict[tuple[int, int], int]:
        """Number of a unit by the (row, column) of its first cell."""
        return {(unit.cells[0].top // CELL, unit.cells[0].left // CELL): i for i, unit in enumerate(self.level.units)}

    def inside(self, window: Window) -> list[int]:
        """Numbers of the units of a window."""
        top, left, height, width = window
        return [self.places[r, c] for r in range(top, top + height, 2) for c in range(left, left + width, 2)]

    @cached_property
    def sizes(self) -> Tensor:
        """(rows, columns) float32, in host memory: how many values each cell has."""
        channels, height, width = self.level.shape
        down, across = self.level.grid
        tall = torch.tensor([min(CELL, height - CELL * row) for row in range(down)], device="cpu")
        wide = torch.tensor([min(CELL, width - CELL * column) for column in range(across)], device="cpu")
        return channels * tall.outer(wide).float()

    @cached_property
    def _sums(self) -> Tensor:
        """(rows + 1, columns + 1, 1 + n) float64: sums over all cells above and left, of `sizes` and of what images
        keep of as many values' energy."""
        down, across = self.level.grid
        sizes = self.sizes.to(self.device)
        energy = self.kept.square().mul_(sizes).permute(1, 2, 0)
        out = torch.zeros(down + 1, across + 1, 1 + len(self), dtype=torch.float64, device=self.device)
        each = torch.cat([sizes[:, :, None], energy], dim=2).double()
        if in_host_memory(self.device):
            out[1:, 1:] = each.cumsum(0).cumsum(1)
        else:  # a device's cumulative sums need not be the same twice, its products are
            rows, columns = (torch.ones(n, n, dtype=torch.float64, device=self.device).tril_() for n in self.level.grid)
            out[1:, 1:] = (columns @ (rows @ each.flatten(1)).view(each.shape)).contiguous()
        return out

    def own_and_whole(self, window: Window) -> tuple[Tensor, Tensor]:
        """(n,) float32 each: inner product of each image with itself in a window, and what share of its length a
        pattern keeps there, were it as strong in every value."""
        top, left, height, width = window
        sums, below, beside = self._sums, top + height, left + width
        total = sums[below, beside] - sums[top, beside] - sums[below, left] + sums[top, left]
        energy, size = total[1:].float(), float(self.sizes[top:below, left:beside].sum(dtype=torch.float64))
        return (size - energy) * CODE_UNIT**2, (energy / size).sqrt_()

    def chosen_rows(self, seed: int, most_rows: int | None = None) -> np.ndarray:
        """int64, ascending: the images whose products with all others are held, as many as `rows_held` says, at
        random."""
        n, most = len(self), rows_held(self.level, len(self), most_rows)
        if n <= most:
            return np.arange(n)
        return np.sort(np.random.default_rng((seed, n)).choice(n, most, replace=False))

    def windows(self, rows: np.ndarray) -> Iterator[tuple[Window, Tensor]]:
        """(window, int32 (r, n) inner products of codes) of every window of the level, exact; the whole image comes
        last. rows: (r,). What is given is overwritten when the next one is asked for."""
        order = sorted(self.level.windows, key=lambda window: (window[0] + window[2], window[2] * window[3]))
        squares = {window for window in order if window[2:] == (SIDE_HELD, SIDE_HELD)}
        plans = [self._parts(window, squares) for window in order]
        last = {part: number for number, parts in enumerate(plans) for part in parts}
        store = _Store(self.units, None if len(rows) == len(self) else torch.from_numpy(rows).to(self.device))
        total = torch.empty(len(rows), len(self), dtype=torch.int32, device=self.device)
        for number, (window, parts) in enumerate(zip(order, plans, strict=True)):
            products = [store.take(part) for part in parts]
            torch.add(products[0], products[1], out=total) if len(products) > 1 else total.copy_(products[0])
            for part in products[2:]:
                total += part
            if window in squares and last.get(window, 0) > number:
                store.put(window, total)
            store.forget(part for part in parts if last[part] == number)
            yield window, total

    def _parts(self, window: Window, held: set[Window]) -> list[int | Window]:
        """What a window's products are summed from: squares that are held, and numbers of units."""
        top, left, height, width = window
        squares = [
            square
            for row in range(top, top + height - SIDE_HELD + 1, SIDE_HELD)
            for column in range(left, left + width - SIDE_HELD + 1, SIDE_HELD)
            if (square := (row, column, SIDE_HELD, SIDE_HELD)) in held and square != window
        ]
        covered = {number for square in squares for number in self.inside(square)}
        return [*squares, *(number for number in self.inside(window) if number not in covered)]


class _Store:
    """Products of units and of squares, int32 (r, n), as long as they are wanted."""

    def __init__(self, units: list[Tensor], rows: Tensor | None):
        self.units, self.rows = units, rows
        self._held: dict[int | Window, Tensor] = {}
        self._free: list[Tensor] = []  # fresh memory costs as much as the products

    def take(self, part: int | Window) -> Tensor:
        if part not in self._held:
            assert isinstance(part, int)
            self._held[part] = inner_products(self.units[part], self.rows, self._room())
        return self._held[part]

    def put(self, part: Window, products: Tensor) -> None:
        self._held[part] = self._room().copy_(products)

    def forget(self, parts: Iterable[int | Window]) -> None:
        self._free += [self._held.pop(part) for part in parts]

    def _room(self) -> Tensor:
        if self._free:
            return self._free.pop()
        count, device = len(self.units[0]), self.units[0].device
        return torch.empty(count if self.rows is None else len(self.rows), count, dtype=torch.int32, device=device)


def inner_products(codes: Tensor, rows: Tensor | None, out: Tensor) -> Tensor:
    """int8 (n, d) -> out, int32 (r, n), of some rows (r,) with all, exact; None for all rows."""
    if rows is None:
        return ops.gram(codes, out=out.zero_())
    return ops.cross_gram(codes[rows], codes, out=out.zero_())
