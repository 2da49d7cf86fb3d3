"""What some images of a class share, in some window: directions among the inner products of pairs of its images.

Knows codes (`whitening`) only. A window's Gram matrix is a sum over cells. Directions start from the images with the closest
company and from the leading axes of the class; what most of a class shares a little of (a background, a look) hides what a
few share, so the closest company is looked for once more with the axes taken away. The best windows are then sharpened:
their images give the direction, the direction gives the images.

A pattern that is added to images is as long in each of them, but a textured cell's code keeps less of it. Scores are
divided by what an image's codes keep, so that the images that carry a pattern form a narrow mode.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .levels import Level, Window
from .modes import second_modes
from .whitening import CODE

NEIGHBOUR = 3.5  # robust standard deviations of products: two images share something
MEMBER = 5.0  # robust standard deviations of scores: an image carries a direction
COMPANY = 32  # images that make a direction, at most; the strongest
SEEDS = 8  # images of a window that directions are started from, before and after the axes are taken away
AXES = 12  # leading axes, or a tenth as many as there are images
FLOOR = 4.0  # robust standard deviations: scores below it tell nothing of a direction
WIDTH = 2.0  # likewise: no mode is narrower
TO_NORMAL = 1.4826  # of a normal: standard deviation over median absolute deviation
SMOOTH = 0.02  # least share of its energy that a pattern keeps in a textured cell
SHARPENED = 6  # windows of a class, those where evidence times distance is largest: evidence alone grows in sharpening
ROUNDS = 6  # of sharpening, at most
MEMORY = 2**27  # inner products of units that are held at a time


@dataclass(frozen=True, eq=False)
class Codes:
    """The images of a class at one level.

    cells: by (row, column), int8 (n, d); kept: float32 (n, rows, columns), share of its length that a pattern keeps in
    the codes of each cell; level: theirs.
    """

    cells: dict[tuple[int, int], Tensor]
    kept: Tensor
    level: Level

    @classmethod
    def of(cls, cells: dict[tuple[int, int], Tensor], level: Level) -> Codes:
        n = len(next(iter(cells.values())))
        kept = torch.ones(n, *level.grid)
        for (row, column), values in cells.items():
            energy = values.float().square().mean(1) / CODE**2
            kept[:, row, column] = (1 - energy).clamp_min(SMOOTH).sqrt()
        return cls(cells, kept, level)

    def __len__(self) -> int:
        return len(self.kept)

    def inside(self, window: Window) -> list[tuple[int, int]]:
        top, left, height, width = window
        return [(row, column) for row in range(top, top + height) for column in range(left, left + width)]


@dataclass(frozen=True, eq=False)
class Found:
    """The best direction in one window.

    level: number of the level; window: (top, left, height, width) in cells; members: int64, images in the mode; scores:
    float32 (n,), of all images, in robust standard deviations; evidence (nats), low, high, centre: of the mode.
    """

    level: int
    window: Window
    members: np.ndarray
    scores: np.ndarray
    evidence: float
    low: float
    high: float
    centre: float


def search(levels: list[Codes], seed: int = 0) -> list[Found]:
    """The best windows of a class, most evidence first; none where no window has a second mode."""
    candidates: list[tuple[float, int, Window, Tensor, np.ndarray]] = []
    for number, codes in enumerate(levels):
        rows = chosen_rows(codes, seed)
        for window, products in windows(codes, rows):
            standard = standardise_products(products, codes, window, rows)
            if standard is not None:
                best = look(standard)
                if best is not None:
                    candidates.append((float(best[1][0] * best[1][3]), number, window, *best))
    candidates.sort(key=lambda candidate: -candidate[0])
    found = [
        sharpen(levels[number], number, window, scores, table)
        for _, number, window, scores, table in candidates[:SHARPENED]
    ]
    return sorted(found, key=lambda each: -each.evidence)


def chosen_rows(codes: Codes, seed: int) -> np.ndarray:
    """Images whose products with all others are held: all, as long as memory allows it, or as many at random."""
    rows, columns = codes.level.grid
    units, n = -(-rows // 2) * -(-columns // 2), len(codes)
    most = max(64, MEMORY // (units * n))
    if n <= most:
        return np.arange(n)
    return np.sort(np.random.default_rng((seed, n)).choice(n, most, replace=False))


def windows(codes: Codes, rows: np.ndarray) -> Iterator[tuple[Window, Tensor]]:
    """(window, int32 (r, n) inner products of codes) of every window of a level, exact."""
    units, some = {}, torch.from_numpy(rows)
    height, width = codes.level.grid
    for top in range(0, height, 2):
        for left in range(0, width, 2):
            unit = (top, left, min(2, height - top), min(2, width - left))
            values = torch.cat([codes.cells[place] for place in codes.inside(unit)], dim=1)
            units[top, left] = integer_products(values if len(rows) == len(codes) else values[some], values)
    for top, left, tall, wide in codes.level.windows:
        parts = [units[r, c] for r in range(top, top + tall, 2) for c in range(left, left + wide, 2)]
        total = parts[0].clone()
        for part in parts[1:]:
            total += part
        yield (top, left, tall, wide), total


def integer_products(left: Tensor, right: Tensor) -> Tensor:
    """int8 (r, d) and (n, d) -> int32 (r, n)."""
    if len(left) <= 16:
        return left.int() @ right.int().T
    padding = (0, -left.shape[1] % 8)
    left, right = (torch.nn.functional.pad(side, padding).contiguous() for side in (left, right))
    return torch._int_mm(left, right.T)


@dataclass(frozen=True, eq=False)
class Products:
    """A window's inner products in robust standard deviations: between (r, n) float32, zero where an image meets itself;
    own: (n,), of images with themselves; kept: (n,), of a pattern's length in the codes; rows: (r,), which images."""

    between: Tensor
    own: Tensor
    kept: Tensor
    rows: Tensor


def standardise_products(products: Tensor, codes: Codes, window: Window, rows: np.ndarray) -> Products | None:
    """products: int32 (r, n) of codes. None if all pairs are alike."""
    places, some = codes.inside(window), torch.from_numpy(rows)
    between = products.float()
    sampled = between[:: max(1, len(rows) // 64)].flatten()
    middle = sampled.median()
    spread = TO_NORMAL * (sampled - middle).abs().median()
    if not spread > 0:
        return None
    squared = torch.stack([codes.kept[:, row, column].square() for row, column in places])
    sizes = torch.tensor([codes.cells[place].shape[1] for place in places], dtype=torch.float32)
    own = CODE**2 * (sizes @ (1 - squared))
    between.sub_(middle).div_(spread)[torch.arange(len(rows)), some] = 0.0
    kept = (sizes @ squared / sizes.sum()).sqrt()
    return Products(between, (own - middle) / spread, kept, some)


def look(products: Products) -> tuple[Tensor, np.ndarray] | None:
    """Of some directions the one with most evidence of a second mode: scores float32 (n,), row of `second_modes` (5,)."""
    between, own, rows = products.between, products.own, products.rows
    values, vectors = axes(between[:, rows], max(1, min(AXES, len(rows) // 10)))
    along = (vectors / values.clamp_min(1e-6)).T @ between  # of all images, on the scale of the vectors
    scale = values.clamp_min(0)
    without = between - (vectors * scale) @ along
    without[torch.arange(len(rows)), rows] = 0.0
    rest = own - along.square().T @ scale
    ends = standardised(torch.cat([along, -along]) / products.kept)[:, rows]
    starts = ((between, own, ends, 3.0), (between, own, company(between, rows), NEIGHBOUR),
              (without, rest, company(without, rows), NEIGHBOUR))  # fmt: skip
    best: tuple[Tensor, np.ndarray] | None = None
    for matrix, diagonal, start, floor in starts:
        scores = mean_shift(Products(matrix, diagonal, products.kept, rows), start, floor)
        if len(scores):
            table = second_modes(scores.numpy(), FLOOR, WIDTH)
            row = int(table[:, 0].argmax())
            if table[row, 0] > (best[1][0] if best else 0.0):
                best = scores[row].clone(), table[row]
    return best


def axes(between: Tensor, count: int, rounds: int = 4) -> tuple[Tensor, Tensor]:
    """Leading eigenvalues (count,) and eigenvectors (n, count) of a symmetric (n, n), by subspace iteration."""
    basis = torch.randn(len(between), count, generator=torch.Generator().manual_seed(0))
    for _ in range(rounds):
        basis, _ = torch.linalg.qr(between @ basis)
    values, inner = torch.linalg.eigh(basis.T @ (between @ basis))
    return values.flip(0), (basis @ inner).flip(1)


def company(between: Tensor, rows: Tensor) -> Tensor:
    """Rows (P, r) of the images with the closest company, none of them company of one before; infinite at themselves."""
    square = between[:, rows] if len(rows) < between.shape[1] else between
    closeness = torch.relu(square - NEIGHBOUR).sum(1)
    chosen: list[int] = []
    free = closeness > 0
    for index in closeness.topk(min(len(square), 8 * SEEDS)).indices.tolist():
        if free[index]:
            chosen.append(index)
            free &= square[index] <= NEIGHBOUR
        if len(chosen) == SEEDS:
            break
    seeds = square[chosen]
    seeds[torch.arange(len(chosen)), chosen] = torch.inf
    return seeds


def mean_shift(products: Products, start: Tensor, floor: float, rounds: int = 3) -> Tensor:
    """Scores (P, n) along directions, each the sum of the COMPANY images that lie furthest along the one before.

    start: (P, r), how far the rows' images lie along the first; floor: least that counts there. Where fewer than two images
    are left, there is no direction any more.
    """
    scores = start
    for number in range(rounds):
        if not len(scores):
            break
        top = scores.topk(min(COMPANY, scores.shape[1]), dim=1)
        members = torch.zeros_like(scores).scatter_(
            1, top.indices, (top.values > (floor if not number else MEMBER)).float()
        )
        everywhere = standardised(left_out(members[members.sum(1) >= 2], products) / products.kept)
        scores = everywhere[:, products.rows]
    return everywhere if len(scores) else scores


def left_out(members: Tensor, products: Products) -> Tensor:
    """Scores (P, n) of images along the sums of members (P, r), each image left out of its own."""
    along = members @ products.between
    inside, own = along[:, products.rows], products.own[products.rows]
    squared = (members * inside).sum(1, keepdim=True) + members @ own[:, None]
    without = squared.repeat(1, along.shape[1])
    without[:, products.rows] -= members * (2 * inside + own)
    return along / without.clamp_min(1e-6).sqrt()


def standardised(scores: Tensor) -> Tensor:
    """(P, n) in robust standard deviations from the median."""
    centred = scores - scores.median(1, keepdim=True).values
    return centred / (TO_NORMAL * centred.abs().median(1, keepdim=True).values).clamp_min(1e-9)


def sharpen(codes: Codes, number: int, window: Window, scores: Tensor, table: np.ndarray) -> Found:
    """Images in the mode -> the direction that they share -> the mode of all images' scores along it, to a fixed point, or
    to less evidence. scores: (n,); table: (5,), of their mode."""
    members = (scores >= table[1]) & (scores <= table[2] + WIDTH)
    best = scores, table
    for _ in range(ROUNDS):
        if members.sum() < 2:
            break
        scores = standardised(shares(codes, window, members)[None])[0]
        table = second_modes(scores[None].numpy(), FLOOR, WIDTH)[0]
        if table[0] > best[1][0]:
            best = scores, table
        inside = (scores >= table[1]) & (scores <= table[2] + WIDTH)
        if torch.equal(inside, members):
            break
        members = inside
    scores, (evidence, low, high, centre, _) = best
    inside = np.flatnonzero(((scores >= low) & (scores <= high + WIDTH)).numpy())
    return Found(number, window, inside, scores.numpy(), float(evidence), float(low), float(high), float(centre))


def shares(codes: Codes, window: Window, members: Tensor) -> Tensor:
    """(n,) float32: how much of what the members share each image carries, 1 expected of a member; members bool (n,).

    In every cell what members share has the energy of their sum's square less their own squares. An image that carries
    it is expected to lie as far along the sum as its codes keep of it, cell by cell. A member is left out of its own sum.
    """
    count = int(members.sum())
    along, expected, own = (torch.zeros(len(codes)) for _ in range(3))
    for place in codes.inside(window):
        values, kept = codes.cells[place], codes.kept[:, place[0], place[1]]
        total = values[members].sum(0, dtype=torch.float32)
        squares = CODE**2 * values.shape[1] * (1 - kept.square())
        energy = float(total @ total - squares[members].sum())
        along += values.float() @ total
        own += squares
        expected += kept * max(energy, 0.0) / kept[members].sum()
    along = torch.where(members, (along - own) * (count / max(count - 1, 1)), along)
    return (along - along.median()) / expected.clamp_min(1e-6)
