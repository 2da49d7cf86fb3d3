"""Classes that are too large for the products of all pairs: searched in blocks, every image of the class in one.

Each block gives the directions that a few of its images share. All blocks' images are scored along the best of them:
a pattern that too few images of any one block carry to make a mode there makes one in the class. The images in the
best modes make directions once more, and all are scored along those.

Of the scores of a block its middle and spread are kept, and those that lie far out: memory grows with the number of
directions, and hardly with that of images. Arrays only.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from .clusters import MODE_FLOOR, MODE_WIDTH, is_another, looked_along
from .codes import MAX_PRODUCTS, Codes, held
from .directions import Direction, along, shared_by
from .levels import Level
from .linalg import single_thread
from .robust import centre_and_spread
from .stats import MIN_MODE_VALUES, second_modes

# images; of a block, that make a direction; source: derived, of 50 images among 100 000 some block of 2 000 or more
# holds three or more, and pairs that are alike by themselves are many more than threes
BLOCK_MEMBERS = 3
BLOCK_DIRECTIONS = 8  # directions; that a block gives; source: chosen, the first is the planted one where there is one
# directions; of all blocks, that all images of a class are scored along; source: chosen, this takes as long as
# whitening them
MAX_BLOCK_DIRECTIONS = 192
SETTLED = 8  # directions; that are made once more, from their modes in the class; source: chosen
MAX_SETTLED_MEMBERS = 1024  # images; that a direction is made from once more; source: chosen, more change nothing
# robust standard deviations; of a block's scores, from which on they are kept; source: derived, below MODE_FLOOR by
# more than a block's own middle and spread are wrong
TAIL_START_Z = 3.0
# images; of a block, that tell how a class scores along a filter; source: chosen, of all blocks they are thousands
USUAL = 512
# times MODE_FLOOR; floors that a mode is looked for above: a class of 100 000 has hundreds of images somewhat above the
# lowest, which say nothing of those far out; source: chosen
FLOORS = (1, 2, 4, 8)


@dataclass(frozen=True, eq=False)
class Candidate:
    """direction: what some images of a block share; worth: evidence times distance of their mode in the block; members:
    int64, those images, places in the block."""

    direction: Direction
    worth: float
    members: np.ndarray


@dataclass(frozen=True, eq=False)
class Tail:
    """Scores of n images along a direction. middle, spread: their median and robust standard deviation, of the lower
    mode where there are two, in shares of the direction; rows: int64, images that lie further out than TAIL_START_Z;
    scores: float64, theirs, in shares. Along a matched filter of the direction, where there is one, float32: filtered,
    scores of the rows; usual: of up to USUAL of the other images."""

    middle: float
    spread: float
    rows: np.ndarray
    scores: np.ndarray
    filtered: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))
    usual: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))

    def along(self, scores: np.ndarray) -> Tail:
        """With scores (n,) along a filter."""
        others = np.delete(scores, self.rows)
        return replace(self, filtered=scores[self.rows], usual=others[:: max(1, -(-len(others) // USUAL))])


@dataclass(frozen=True, eq=False)
class ClassMode:
    """The second mode of a class along a direction. evidence: nats, less what was looked at for it; low, high, centre:
    robust standard deviations; members: int64, images in it, places in the class."""

    evidence: float
    low: float
    high: float
    centre: float
    members: np.ndarray

    @property
    def worth(self) -> float:
        return self.evidence * self.centre if self.evidence else 0.0


def block_size(levels: Sequence[Level]) -> int:
    """Images of a block: as many as the products of all pairs allow."""
    return math.isqrt(MAX_PRODUCTS // max(map(held, levels)))


def candidates(levels: Sequence[Codes], starts: Sequence[Direction] = ()) -> list[Candidate]:
    """What a few images of a block share, most promising first: BLOCK_DIRECTIONS or fewer, no two of the same images.
    levels: the block's codes at every level; starts: as for `clusters.looked_along`."""
    found: list[tuple[float, int, tuple[int, int, int, int], np.ndarray]] = []
    with single_thread():
        for number, window, looked in looked_along(levels, starts, 0, BLOCK_MEMBERS, len(levels[0])):
            scores = looked.numpy()
            table = second_modes(scores, floor=MODE_FLOOR, width=MODE_WIDTH, least=BLOCK_MEMBERS)
            for row in np.argsort(-table[:, 0], kind="stable")[:BLOCK_DIRECTIONS]:
                evidence, low, high, centre, _ = table[row]
                if evidence > 0:
                    inside = np.flatnonzero((scores[row] >= low) & (scores[row] <= high + MODE_WIDTH))
                    found.append((float(evidence * centre), number, window, inside))
        found.sort(key=lambda each: -each[0])
        out: list[Candidate] = []
        for worth, number, window, inside in found:
            if len(out) == BLOCK_DIRECTIONS:
                break
            if is_another(inside, (other.members for other in out)):
                direction = shared_by(levels[number], window, torch.from_numpy(inside), number)
                out.append(Candidate(direction, worth, inside))
    return out


def tails(levels: Mapping[int, Codes], directions: Sequence[Direction], own: Sequence[np.ndarray]) -> list[Tail]:
    """Scores of a block's images along directions. own: for each, int64, the images of the block that it was made
    from: each is left out of its own; levels: codes by number of the level."""
    out: list[Tail | None] = [None] * len(directions)
    with single_thread():
        for level, codes in levels.items():
            places = [place for place, direction in enumerate(directions) if direction.level == level]
            scores = along([directions[place] for place in places], codes)
            for place, row in zip(places, scores, strict=True):
                out[place] = _tail(directions[place], codes, row, torch.from_numpy(own[place]))
    return [tail for tail in out if tail is not None]


def _tail(direction: Direction, codes: Codes, along: Tensor, inside: Tensor) -> Tail:
    """along: (n,), of images along the direction, used up; inside: int64, those that it was made from."""
    themselves = codes.own_and_whole(direction.window)[0][inside]
    along[inside] = (along[inside] - themselves) * (direction.count / max(direction.count - 1, 1))
    shares = ((along - along.median()) / direction.expected(codes).clamp_min(1e-6)).double()
    middle, spread = (float(each) for each in centre_and_spread(shares[None]))
    rows = torch.nonzero(shares > middle + TAIL_START_Z * spread)[:, 0]
    return Tail(middle, spread, rows.numpy(), shares[rows].numpy())


def class_mode(blocks: Sequence[Tail], sizes: Sequence[int], counted: np.ndarray) -> ClassMode:
    """Of a class along one direction, from its blocks' tails.

    sizes: images of each block, which follow each other in the class; counted: bool (n,), images that count: the first
    of equal ones. The evidence is that above the best of FLOORS, less the logarithms of the number of floors and of
    blocks, which each gave directions: so a class of many blocks is looked at no more closely than one of few.
    """
    share = np.array(sizes) / max(sum(sizes), 1)
    middle = float(share @ [tail.middle for tail in blocks])
    spread = max(float(share @ [tail.spread for tail in blocks]), 1e-9)
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.int64)
    rows = np.concatenate([tail.rows + start for tail, start in zip(blocks, starts, strict=True)])
    scores = (np.concatenate([tail.scores for tail in blocks]) - middle) / spread
    rows, scores = rows[counted[rows]], scores[counted[rows]]
    best = (0.0, np.inf, np.inf, np.inf)
    for floor in FLOORS:
        evidence, low, high, centre, _ = second_modes(scores[None], floor=MODE_FLOOR * floor, width=MODE_WIDTH)[0]
        best = max(best, (float(evidence), float(low), float(high), float(centre)), key=lambda each: each[0])
    evidence, low, high, centre = best
    inside = (scores >= low) & (scores <= high + MODE_WIDTH)
    evidence = max(0.0, evidence - math.log(len(FLOORS) * len(blocks)))
    return ClassMode(evidence, low, high, centre, np.sort(rows[inside]))


def filtered(
    tails: Sequence[Tail], sizes: Sequence[int], members: np.ndarray, made: np.ndarray, own: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores of images of a class along a filter, float32 (s,); which of these are of members, int64 (k,), places in
    the class; and which are not of tails. made: int64, ascending, places of the images that the filter was made of;
    own: what of each one's score it made itself; sizes: as for `class_mode`."""
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.int64)
    rows = np.concatenate([tail.rows + start for tail, start in zip(tails, starts, strict=True)])
    scores = np.concatenate([*(tail.filtered for tail in tails), *(tail.usual for tail in tails)])
    _, there, which = np.intersect1d(rows, made, assume_unique=True, return_indices=True)
    scores[there] -= own[which]
    return scores, np.searchsorted(rows, members), np.arange(len(rows), len(scores))


class HasMode(Protocol):
    """What a mode is chosen by."""

    @property
    def worth(self) -> float: ...
    @property
    def evidence(self) -> float: ...
    @property
    def members(self) -> np.ndarray: ...


def best_of(modes: Sequence[HasMode], most: int) -> list[int]:
    """Numbers of the modes of most evidence times distance, no two of the same images; `most` at most."""
    chosen: list[int] = []
    for number in sorted(range(len(modes)), key=lambda each: -modes[each].worth):
        mode = modes[number]
        if len(chosen) == most or not mode.evidence or len(mode.members) < MIN_MODE_VALUES:
            continue
        if is_another(mode.members, (modes[other].members for other in chosen)):
            chosen.append(number)
    return chosen
