"""What some images of a class share, in some window: directions among the inner products of pairs of its images.

Directions start from the images with the closest company, from the leading axes of the class and from the waves of its
mean (`waves.py`). What most of a class shares a little of (a background, a look) hides what a few share, so the closest
company is looked for once more with the axes taken away. Where there are many windows, a glance at each from its
closest company alone tells which are worth that. The best are then sharpened: their images give the direction, the
direction gives the images.

A pattern that is added to images is as long in each of them, but a textured cell's code keeps less of it. Scores are
divided by what an image's codes keep, so that the images that carry a pattern form a narrow mode.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from .. import ops
from .codes import Codes
from .directions import Direction, shared_by
from .directions import along as scores_along
from .levels import Window
from .linalg import single_thread
from .robust import centre_and_spread
from .stats import MIN_MODE_VALUES, TO_NORMAL, second_modes

NEIGHBOUR_Z = 3.5  # robust standard deviations; of products, from which on two images share something; source: chosen
MEMBER_Z = 5.0  # robust standard deviations; of scores, from which on an image carries a direction; source: chosen
AXIS_Z = 3.0  # robust standard deviations; along an axis, from which on an image is at its end; source: chosen
MAX_NEIGHBOURS = (
    32  # images; that make a direction, the strongest; source: chosen, more blur it where few carry a pattern
)
SEEDS = 8  # images; of a window that directions are started from, before and after axes are taken away; source: chosen
GLANCE_SEEDS = 4  # images; likewise, at a glance; source: chosen
GLANCE_AXES = 2  # axes; whose longer tails start directions at a glance; source: chosen, time grows with it
GLANCE_AXIS_ROUNDS = 2  # rounds; of subspace iteration for them; source: chosen, time grows with it
# axes; the leading ones, whose ends start a direction however near they are: of what half a class carries none is far
# out; source: chosen
HALVING = 2
MAX_AXES = 12  # axes; that are taken away, or a tenth as many as there are images; source: chosen
MODE_FLOOR = 4.0  # robust standard deviations; below which scores tell nothing of a direction; source: chosen
MODE_WIDTH = 2.0  # robust standard deviations; of the narrowest mode; source: chosen, twice a normal's spread
LOOKED_AT = (
    24  # windows; of a class that are looked at closely after a glance at all; source: chosen, time grows with it
)
SHARPENED = 12  # windows; where evidence times distance is largest; source: chosen
SHARPENED_LOCAL = 6  # windows; likewise, of those where a mark may lie; source: chosen, likewise
SHIFTS = 3  # rounds; from images to the direction that they share and back; source: chosen
MAX_SHARPENINGS = 6  # rounds; at most; source: chosen, it mostly ends after two
LEAST_DIVISOR = 1e-9  # for zero in a denominator; source: chosen, nothing real is as small
GLANCED_TOGETHER = 16  # windows; that are glanced at together; source: chosen, memory grows with it
SAMPLED_SIDE = 48  # images; rows and columns whose products tell middle and spread; source: chosen, 3% of error
SAME = 0.5  # share; of a mode's images that are another's, from which on they show the same; source: chosen
GLANCE_ROUNDS = 3  # rounds; of a glance; source: chosen, as many as in a look


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


class Best(NamedTuple):
    """Of a class, most evidence first, none where no window has a second mode. anywhere: the best windows; local: those
    that are not all of the image, by what narrow modes far out are worth, see `falling` of `stats.second_modes`."""

    anywhere: list[Found]
    local: list[Found]


def is_another(members: np.ndarray, others: Iterable[np.ndarray]) -> bool:
    """Whether a mode is of other images than those before, each int64."""
    return all(len(np.intersect1d(members, each)) < SAME * len(members) for each in others)


def search(levels: Sequence[Codes], starts: Sequence[Direction] = (), seed: int = 0) -> Best:
    """The best windows of a class. starts: as for `looked_along`."""
    with single_thread():
        anywhere, local = list[Candidate](), list[Candidate]()
        for number, window, scores in looked_along(levels, starts, seed):
            host, whole = scores.cpu().numpy(), window == levels[number].level.windows[-1]
            anywhere += _candidate(number, window, scores, host, falling=False)
            local += [] if whole else _candidate(number, window, scores, host, falling=True)
        return Best(_sharpened(levels, anywhere, SHARPENED), _sharpened(levels, local, SHARPENED_LOCAL))


def _sharpened(levels: Sequence[Codes], candidates: list[Candidate], most: int) -> list[Found]:
    """Those where evidence times distance is largest, since evidence grows in sharpening; most evidence first."""
    candidates = sorted(candidates, key=lambda each: -float(each.table[0] * each.table[3]))[:most]
    return sorted((sharpen(levels[each.number], each) for each in candidates), key=lambda each: -each.evidence)


@dataclass(frozen=True, eq=False)
class Candidate:
    """The direction of most evidence in a window. scores: (n,); table: (5,), of their mode; falling: see
    `stats.second_modes`."""

    number: int
    window: Window
    scores: Tensor
    table: np.ndarray
    falling: bool


def _candidate(number: int, window: Window, scores: Tensor, host: np.ndarray, *, falling: bool) -> list[Candidate]:
    """None or one. scores: (P, n), along some directions; host: the same in host memory."""
    table = second_modes(host, floor=MODE_FLOOR, width=MODE_WIDTH, falling=falling)
    best = int(table[:, 0].argmax()) if len(table) else 0
    if not len(table) or table[best, 0] <= 0:
        return []
    return [Candidate(number, window, scores[best], table[best], falling)]


def looked_along(
    levels: Sequence[Codes],
    starts: Sequence[Direction],
    seed: int,
    least: int = MIN_MODE_VALUES,
    most_rows: int | None = None,
) -> Iterator[tuple[int, Window, Tensor]]:
    """(number of the level, window, scores (P, n)) of everything that is looked along. starts: directions that are
    known without looking at pairs of images; the rest as for `promising`."""
    for level, codes in enumerate(levels):
        of_level = [direction for direction in starts if direction.level == level]
        for direction, scores in zip(of_level, scores_along(of_level, codes) if of_level else (), strict=True):
            shares = (scores - scores.median()) / direction.expected(codes).clamp_min(LEAST_DIVISOR)
            yield level, direction.window, standardised(shares[None])
    for number, window, products in promising(levels, seed, least, most_rows):
        yield number, window, look(products)


def promising(
    levels: Sequence[Codes], seed: int, least: int = MIN_MODE_VALUES, most_rows: int | None = None
) -> Iterator[tuple[int, Window, Products]]:
    """(number of the level, window, products) of the windows to look at: the whole image at every level, all of the
    coarsest level, and the LOOKED_AT others where a glance shows most evidence times distance; least: values that make
    a mode; most_rows: images whose products with all others are taken, None for the usual number."""
    kept: list[tuple[float, int, Window, Tensor]] = []  # a heap, the least promising first
    for number, codes in enumerate(levels):
        rows, waiting = codes.chosen_rows(seed, most_rows), list[tuple[Window, Tensor]]()
        there = torch.from_numpy(rows).to(codes.device)
        for window, products in codes.windows(rows):
            if number == len(levels) - 1 or window == codes.level.windows[-1]:
                standard = standardise_products(products, codes, window, rows)
                if standard is not None:
                    yield number, window, standard
            else:
                waiting.append((window, products.clone()))
            if len(waiting) == GLANCED_TOGETHER:
                _keep_best(kept, number, waiting, glance(codes, waiting, there, least))
        if waiting:
            _keep_best(kept, number, waiting, glance(codes, waiting, there, least))
    for _, number, window, products in sorted(kept, key=lambda entry: entry[:3], reverse=True):
        standard = standardise_products(products, levels[number], window, levels[number].chosen_rows(seed, most_rows))
        if standard is not None:
            yield number, window, standard


def _keep_best(
    kept: list[tuple[float, int, Window, Tensor]], number: int, waiting: list[tuple[Window, Tensor]], worth: np.ndarray
) -> None:
    """Puts windows of a level among the LOOKED_AT best; none waits any more. worth: (B,), of each."""
    for (window, products), value in zip(waiting, worth.tolist(), strict=True):
        heapq.heappush(kept, (value, number, window, products))
        if len(kept) > LOOKED_AT:
            heapq.heappop(kept)
    waiting.clear()


@dataclass(frozen=True, eq=False)
class Products:
    """A window's inner products in robust standard deviations: between (r, n) float32, zero where an image meets
    itself; own: (n,), of images with themselves; kept: (n,), of a pattern's length in the codes; rows: (r,), which
    images."""

    between: Tensor
    own: Tensor
    kept: Tensor
    rows: Tensor

    @property
    def of_rows(self) -> Products:
        """Between the rows alone."""
        return self if len(self.rows) == self.between.shape[1] else self._of_rows

    @cached_property
    def _of_rows(self) -> Products:
        every = torch.arange(len(self.rows), device=self.rows.device)
        return Products(self.between[:, self.rows], self.own[self.rows], self.kept[self.rows], every)


def middle_and_spread(products: Tensor) -> tuple[float, float]:
    """Median of unrelated pairs' products, (r, n), and their robust standard deviation, from a sample."""
    step = [max(1, size // SAMPLED_SIDE) for size in products.shape]
    sampled = products[:: step[0], :: step[1]].float().flatten()
    middle = sampled.median()
    return float(middle), TO_NORMAL * float(sampled.sub_(middle).abs_().median())


def standardise_products(products: Tensor, codes: Codes, window: Window, rows: np.ndarray) -> Products | None:
    """products: int32 (r, n) of codes. None if all pairs are alike."""
    middle, spread = middle_and_spread(products)
    if not spread > 0:
        return None
    some, between = torch.from_numpy(rows).to(products.device), products.float()
    own, whole = codes.own_and_whole(window)
    between.sub_(middle).div_(spread)[torch.arange(len(rows), device=some.device), some] = 0.0
    return Products(between, (own - middle) / spread, whole, some)


def glance(
    codes: Codes, windows: Sequence[tuple[Window, Tensor]], rows: Tensor, least: int = MIN_MODE_VALUES
) -> np.ndarray:
    """(B,) float64, of each of some windows: evidence times distance, along the directions that start from the
    GLANCE_SEEDS images with the closest company and from the longer tail along each of the GLANCE_AXES leading axes, of
    the best after the first round of `mean_shift` and the last. windows: with int32 products (r, n); rows: (r,).

    Integers are taken as they are, and many windows at once: turning all products into standard deviations, one window
    after another, would take most of the time.
    """
    starts = [_start(codes, window, products, rows) for window, products in windows]
    scores, floor = _start_scores(starts)
    count = len(scores) // len(windows)
    middle, spread = (
        torch.tensor(each, dtype=torch.float32, device=rows.device).repeat_interleave(count)[:, None]
        for each in ([start.middle for start in starts], [start.spread for start in starts])
    )
    whole = torch.stack([start.kept for start in starts]).repeat_interleave(count, 0)
    own = (torch.stack([start.own for start in starts]).repeat_interleave(count, 0) - middle) / spread
    worth = torch.zeros(len(windows), dtype=torch.float64, device="cpu")
    for number in range(GLANCE_ROUNDS):
        best = scores.topk(min(MAX_NEIGHBOURS, len(rows)), dim=1)
        weight = (best.values > (MEMBER_Z if number else floor)).float()
        weight *= weight.sum(1, keepdim=True) >= 2
        summed = [
            _sums(products, best.indices[place : place + count], weight[place : place + count])
            for place, (_, products) in zip(range(0, len(weight), count), windows, strict=True)
        ]
        along = (torch.cat(summed) - weight.sum(1, keepdim=True) * middle) / spread
        everywhere = standardised(_without_themselves(along, rows[best.indices], weight, own) / whole)
        if number in (0, GLANCE_ROUNDS - 1):
            host = everywhere.cpu().numpy()
            table = second_modes(host, floor=MODE_FLOOR, width=MODE_WIDTH, least=least, falling=True)
            value = np.where(table[:, 0] > 0, table[:, 0] * np.where(table[:, 0] > 0, table[:, 3], 0), 0)
            worth = torch.maximum(worth, torch.from_numpy(value).view(-1, count).amax(1))
        scores = everywhere[:, rows]
    return worth.numpy()


@dataclass(frozen=True, eq=False)
class _Start:
    """Of a window: median and robust standard deviation of its products; company: (GLANCE_SEEDS, r), how far the rows'
    images lie along those with the closest company, infinite at themselves; axes: (GLANCE_AXES, r), along the leading
    axes, of any scale and sign; own, kept: (n,), see `Codes.own_and_whole`."""

    middle: float
    spread: float
    company: Tensor
    axes: Tensor
    own: Tensor
    kept: Tensor


def _start(codes: Codes, window: Window, products: Tensor, rows: Tensor) -> _Start:
    (middle, spread), (own, kept) = middle_and_spread(products), codes.own_and_whole(window)
    spread = max(spread, LEAST_DIVISOR)
    near = int(middle + NEIGHBOUR_Z * spread)
    closeness = ops.sum_grams([products], rows=rows, floor=near, out=products).excess
    seeds = closeness.topk(min(GLANCE_SEEDS, len(rows))).indices
    some = products if len(rows) == products.shape[1] else products[:, rows]
    square = some.float().sub_(middle).div_(spread)
    company = square[seeds].scatter_(1, seeds[:, None], torch.inf)
    square.fill_diagonal_(0.0)
    _, vectors = axes(square, min(GLANCE_AXES, len(rows)), GLANCE_AXIS_ROUNDS)
    return _Start(middle, spread, company, vectors.T / kept[rows], own, kept)


def _start_scores(starts: Sequence[_Start]) -> tuple[Tensor, Tensor]:
    """Of all windows, P directions each: scores (B P, r) of the rows' images, and (B P, 1) from which on they count."""
    company, along = torch.stack([start.company for start in starts]), torch.cat([start.axes for start in starts])
    along = standardised(along)
    along = along * torch.where((along**3).mean(1, keepdim=True) < 0, -1.0, 1.0)  # fewer carry a pattern than do not
    ends = along.view(len(starts), -1, along.shape[1])
    floor = along.new_tensor([NEIGHBOUR_Z] * company.shape[1] + [AXIS_Z] * ends.shape[1]).repeat(len(starts))
    return torch.cat([company, ends], dim=1).flatten(0, 1), floor[:, None]


def _sums(products: Tensor, members: Tensor, weight: Tensor) -> Tensor:
    """(P, n) float32: sums of rows of int32 products (r, n), members (P, m) with weights (P, m)."""
    most = max(1, int(torch.count_nonzero(weight, dim=1).max()))  # they come with the heaviest first
    weight, members = weight[:, :most], members[:, :most]
    each = products.index_select(0, members.flatten()).view(*members.shape, -1).float()
    return torch.bmm(weight[:, None], each)[:, 0]


def _without_themselves(along: Tensor, members: Tensor, weight: Tensor, own: Tensor) -> Tensor:
    """Scores (P, n) of images along sums of members (P, m) of weights 0 and 1, each image left out of its own.
    along: (P, n), inner products with the sums, used up; own: (P, n), of images with themselves."""
    inside, themselves = along.gather(1, members), own.gather(1, members)
    squared = (weight * inside).sum(1, keepdim=True).repeat(1, along.shape[1])
    squared.scatter_add_(1, members, weight * (themselves - 2 * inside))
    return along.scatter_add_(1, members, -weight * themselves) / squared.clamp_min(1e-6).sqrt()


def look(products: Products) -> Tensor:
    """Scores (P, n) along some directions of a window. Its products are used up."""
    between, own, rows = products.between, products.own, products.rows
    square = products.of_rows.between
    values, vectors = axes(square, max(1, min(MAX_AXES, len(rows) // 10)))
    along = (vectors / values.clamp_min(1e-6)).T @ between  # of all images, on the scale of the vectors
    scale = values.clamp_min(0)
    ends = standardised(torch.cat([along, -along]) / products.kept)[:, rows]
    halves = torch.cat([ends[:HALVING], ends[len(values) : len(values) + HALVING]])
    found = [
        mean_shift(products, ends, AXIS_Z),
        mean_shift(products, halves, 0.0, 0.0, max(MAX_NEIGHBOURS, len(rows) // 4)),
        mean_shift(products, company(square, SEEDS), NEIGHBOUR_Z),
    ]
    without = between.addmm_(vectors * scale, along, alpha=-1)  # in place: as much memory again takes as long
    without[torch.arange(len(rows), device=rows.device), rows] = 0.0
    rest = Products(without, own - along.square().T @ scale, products.kept, rows)
    return torch.cat([*found, mean_shift(rest, company(rest.of_rows.between, SEEDS), NEIGHBOUR_Z)])


def axes(between: Tensor, count: int, rounds: int = 4) -> tuple[Tensor, Tensor]:
    """Leading eigenvalues (count,) and eigenvectors (n, count) of a symmetric (n, n), by subspace iteration."""
    basis = torch.randn(
        len(between), count, generator=torch.Generator("cpu").manual_seed(0), dtype=torch.float32, device="cpu"
    ).to(between.device)
    for _ in range(rounds):
        basis, _ = torch.linalg.qr((basis.T @ between).T)  # in this order, many times as quick
    values, inner = torch.linalg.eigh(basis.T @ (basis.T @ between).T)
    return values.flip(0), (basis @ inner).flip(1)


def company(square: Tensor, count: int) -> Tensor:
    """Rows (P, r) of the products (r, r) between the rows, of the images with the closest company, none of them company
    of one before; infinite at themselves."""
    closeness = (square - NEIGHBOUR_Z).clamp_min_(0).sum(1)
    top = closeness.topk(min(len(square), 8 * count)).indices
    far = (square[top][:, top] <= NEIGHBOUR_Z).cpu().numpy()
    chosen: list[int] = []
    free = (closeness[top] > 0).cpu().numpy()
    for place in range(len(top)):
        if free[place] and len(chosen) < count:
            chosen.append(place)
            free &= far[place]
    seeds = square[top[chosen]]
    seeds[torch.arange(len(chosen), device=top.device), top[chosen]] = torch.inf
    return seeds


def mean_shift(
    products: Products, start: Tensor, floor: float, member_floor: float = MEMBER_Z, most: int = MAX_NEIGHBOURS
) -> Tensor:
    """Scores (P, n) along directions, each the sum of at most `most` images that lie furthest along the one before.

    start: (P, r), how far the rows' images lie along the first; floor, member_floor: least that counts there, and in
    the rounds after. Where fewer than two images are left, there is no direction any more. All images are scored in the
    last round: until then the rows' own scores are all that is asked for.
    """
    scores, rows = start, products.of_rows
    for number in range(SHIFTS):
        top = scores.topk(min(most, scores.shape[1]), dim=1)
        members = torch.zeros_like(scores).scatter_(1, top.indices, (top.values > floor).float())
        members = members[members.sum(1) >= 2]
        if not len(members):
            return products.between[:0]
        scored = rows if number < SHIFTS - 1 else products
        scores, floor = standardised(left_out(members, scored) / scored.kept), member_floor
    return scores


def left_out(members: Tensor, products: Products) -> Tensor:
    """Scores (P, n) of images along the sums of members (P, r), each image left out of its own."""
    along = members @ products.between
    inside, own = along[:, products.rows], products.own[products.rows]
    squared = (members * inside).sum(1, keepdim=True) + members @ own[:, None]
    without = squared.repeat(1, along.shape[1])
    without[:, products.rows] -= members * (2 * inside + own)
    return along / without.clamp_min(1e-6).sqrt()


def standardised(scores: Tensor) -> Tensor:
    """(P, n) in robust standard deviations from the median, of the lower mode where there clearly are two."""
    centre, spread = centre_and_spread(scores)
    return (scores - centre) / spread.clamp_min(1e-9)


def sharpen(codes: Codes, candidate: Candidate) -> Found:
    """Images in the mode -> the direction that they share -> the mode of all images' scores along it, to a fixed
    point, or to less evidence."""
    scores, table, window = candidate.scores, candidate.table, candidate.window
    members = (scores >= table[1]) & (scores <= table[2] + MODE_WIDTH)
    best = scores, table
    for _ in range(MAX_SHARPENINGS):
        if members.sum() < 2:
            break
        scores = standardised(shares(codes, window, members)[None])[0]
        host = scores[None].cpu().numpy()
        table = second_modes(host, floor=MODE_FLOOR, width=MODE_WIDTH, falling=candidate.falling)[0]
        if table[0] > best[1][0]:
            best = scores, table
        inside = (scores >= table[1]) & (scores <= table[2] + MODE_WIDTH)
        if torch.equal(inside, members):
            break
        members = inside
    scores, (evidence, low, high, centre, _) = best
    inside = np.flatnonzero(((scores >= low) & (scores <= high + MODE_WIDTH)).cpu().numpy())
    found = scores.cpu().numpy()
    return Found(candidate.number, window, inside, found, float(evidence), float(low), float(high), float(centre))


def shares(codes: Codes, window: Window, members: Tensor) -> Tensor:
    """(n,) float32: how much of what the members share each image carries, 1 expected of a member; members bool (n,).
    A member is left out of its own sum."""
    count = int(members.sum())
    along, expected = shared_by(codes, window, torch.nonzero(members)[:, 0]).along(codes)
    own = codes.own_and_whole(window)[0]
    along = torch.where(members, (along - own) * (count / max(count - 1, 1)), along)
    return (along - along.median()) / expected.clamp_min(1e-6)
