"""What some images of a class share in one window, as a direction that any image's codes can be scored along."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..ops import CODE_UNIT
from ..ops.tiles import CELL
from .codes import Codes
from .levels import Window


@dataclass(frozen=True, eq=False)
class Direction:
    """level: number of the level; window: (top, left, height, width) in cells; total: float32 (S,), the members' codes
    summed, of the window's units one after another; shared: float32 (cells of the window,), how far an image that
    carries it is expected to lie along the sum, for each share of its length that its codes keep; count: members."""

    level: int
    window: Window
    total: Tensor
    shared: Tensor
    count: int

    def along(self, codes: Codes) -> tuple[Tensor, Tensor]:
        """(n,) float32 each: how far images lie along the sum, and how far they would if they carried it."""
        return along([self], codes)[0], self.expected(codes)

    def expected(self, codes: Codes) -> Tensor:
        """(n,) float32: how far images would lie along the sum if they carried it."""
        top, left, height, width = self.window
        kept = codes.kept[:, top : top + height, left : left + width].flatten(1)
        return kept @ self.shared


def along(directions: Sequence[Direction], codes: Codes) -> Tensor:
    """(P, n) float32: how far images lie along the sums of P directions of one level.

    Every unit of the codes becomes floating point once, whatever P is: for each direction anew, that takes most of the
    time, and leaves memory in pieces.
    """
    parts: dict[int, list[tuple[int, Tensor]]] = {}
    for place, direction in enumerate(directions):
        start = 0
        for number in codes.inside(direction.window):
            size = codes.units[number].shape[1]
            parts.setdefault(number, []).append((place, direction.total[start : start + size]))
            start += size
    out = codes.kept.new_zeros(len(directions), len(codes))
    for number, used in sorted(parts.items()):
        places = torch.tensor([place for place, _ in used], device=out.device)
        out[places] += torch.stack([total for _, total in used]) @ codes.units[number].float().T
    return out


def shared_by(codes: Codes, window: Window, members: Tensor, level: int = 0) -> Direction:
    """What some of the images share; members: int64 (m,), which; level: number of the codes' level.

    In every cell what members share has the energy of their sum's square less their own squares. An image that carries
    it is expected to lie as far along the sum as its codes keep of it, cell by cell.
    """
    totals, energy = [], codes.kept.new_zeros(codes.level.grid)
    for number in codes.inside(window):
        total = codes.units[number][members].sum(0, dtype=torch.int32).float()
        totals.append(total)
        start = 0
        for cell in codes.level.units[number].cells:
            part = total[start : start + codes.level.shape[0] * cell.height * cell.width]
            energy[cell.top // CELL, cell.left // CELL] = part @ part
            start += len(part)
    top, left, height, width = window
    area = slice(top, top + height), slice(left, left + width)
    kept = codes.kept[members][:, area[0], area[1]].flatten(1)
    squares = CODE_UNIT**2 * (1 - kept.square()).sum(0) * codes.sizes[area].flatten().to(codes.device)
    shared = (energy[area].flatten() - squares).clamp_min(0)
    return Direction(level, window, torch.cat(totals), shared / kept.sum(0), len(members))
