"""A class that is too large to be searched at once: in blocks, every image in one; see `method.blocks`.

Blocks are compared in host memory, wherever other classes are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ..method import blocks as blocks_of
from ..method import class_property, clusters, levels, matched_filters, near_duplicates, stats
from ..method.blocks import Candidate, Tail
from ..method.directions import Direction, shared_by
from ..method.levels import Window
from ..method.matched_filters import MatchedFilter
from ..method.whitening import Whitening
from ..runs.run import Run
from ..runs.work import Work
from .class_search import MIN_IMAGES, ClassSearch, Searched, codes_and_waves, encoded
from .evidence import evenly_spaced

# of the work of a large class; done after each of its passes over the images; source: chosen, for the progress shown
PASSES_DONE = (0.6, 0.8, 1.0)


@dataclass(frozen=True, eq=False)
class BlockFound:
    """images: int64 (n,), those of the block without near duplicates; digests: uint8 (n, 16), equal for equal images;
    candidates: what a few of them share; common: what most of them share, of the first block only."""

    images: np.ndarray
    digests: np.ndarray
    candidates: tuple[Candidate, ...]
    common: class_property.ClassProperty | None


def search_large(
    search: ClassSearch,
    label: int,
    run: Run,
    report: Callable[[float], None],
    left_out: np.ndarray | None = None,
) -> Searched:
    """What the search of a class says, from three passes over its images. report: called with the fraction done;
    left_out: int64 (n,), images of the class that are not searched, None for none."""
    memory, parts = search.worker_memory, search.blocks(label, left_out)
    but = () if left_out is None else (left_out,)

    def up_to(done: int) -> Callable[[float], None]:
        start = PASSES_DONE[done - 1] if done else 0.0
        return lambda fraction: report(start + fraction * (PASSES_DONE[done] - start))

    found = run.all(BLOCK, [(label, i, *but) for i in range(len(parts))], search, memory=memory, report=up_to(0))
    images = [each.images for each in found]
    together = np.concatenate(images)
    if len(together) < MIN_IMAGES:
        return Searched(together, None, None, len(parts))
    counted = near_duplicates.first_of(np.concatenate([each.digests for each in found]).view("S16")[:, 0])
    directions, members = _most_promising(found)
    modes = _modes(search, label, run, images, counted, directions, members, up_to(1))
    best = blocks_of.best_of(modes, blocks_of.SETTLED)
    if not best:
        return Searched(together, None, found[0].common, len(parts))
    chosen = [evenly_spaced(modes[number].members, blocks_of.MAX_SETTLED_MEMBERS) for number in best]
    chosen = [rows[np.argsort(together[rows])] for rows in chosen]  # as images are read
    again = [
        (label, directions[number].level, directions[number].window, together[rows])
        for number, rows in zip(best, chosen, strict=True)
    ]
    settled = run.all(DIRECTION, again, search, memory=memory)
    modes = _modes(
        search, label, run, images, counted, [each.direction for each in settled], chosen, up_to(2),
        [each.template for each in settled],
    )  # fmt: skip
    each_mode = zip(modes, settled, chosen, strict=True)
    filters = sorted(
        (_filter(search, together, counted, *each) for each in each_mode), key=lambda each: -each.found.evidence
    )
    usual = [each.found for each in filters if stats.is_unusual(each.found.evidence, stats.IN_BLOCKS_IMAGES)]
    asked = matched_filters.different(usual)
    compared = tuple(each for each in filters if each.found in asked)
    best_found = filters[0].found if filters[0].found.evidence else None
    return Searched(together, best_found, found[0].common, len(parts), compared)


def _most_promising(found: Sequence[BlockFound]) -> tuple[list[Direction], list[np.ndarray]]:
    """Directions that all images of the class are scored along, and the places in the class of the images that each was
    made from."""
    each, start = [], 0
    for block in found:
        each += [(candidate, candidate.members + start) for candidate in block.candidates]
        start += len(block.images)
    each.sort(key=lambda pair: -pair[0].worth)
    each = each[: blocks_of.MAX_BLOCK_DIRECTIONS]
    return [candidate.direction for candidate, _ in each], [members for _, members in each]


def _modes(
    search: ClassSearch,
    label: int,
    run: Run,
    images: Sequence[np.ndarray],
    counted: np.ndarray,
    directions: Sequence[Direction],
    members: Sequence[np.ndarray],
    report: Callable[[float], None],
    templates: Sequence[np.ndarray] = (),
) -> list[_Mode]:
    """The class's mode along each direction. images: by block; members: places in the class of the images that each
    direction was made from; templates: filters of the directions, none where these are not asked for."""
    sizes = [len(block) for block in images]
    ends = np.cumsum(sizes)
    tasks = []
    for block, size, end in zip(images, sizes, ends.tolist(), strict=True):
        own = tuple(rows[(rows >= end - size) & (rows < end)] - (end - size) for rows in members)
        tasks.append((label, block, tuple(directions), own, tuple(templates)))
    tails = run.all(TAILS, tasks, search, memory=4 * max(sizes) * search.passes.size, kinds=(Direction,), report=report)
    by_direction = [[block[number] for block in tails] for number in range(len(directions))]
    return [_Mode(each, sizes, blocks_of.class_mode(each, sizes, counted)) for each in by_direction]


@dataclass(frozen=True, eq=False)
class _Mode:
    """What `class_mode` says of a direction, and of what."""

    tails: list[Tail]
    sizes: list[int]
    mode: blocks_of.ClassMode

    @property
    def members(self) -> np.ndarray:
        return self.mode.members

    @property
    def evidence(self) -> float:
        return self.mode.evidence

    @property
    def worth(self) -> float:
        return self.mode.worth


def _without_versions(
    search: ClassSearch, images: np.ndarray, counted: np.ndarray, found: _Mode
) -> blocks_of.ClassMode:
    """The mode without images that are versions of one photograph in other blocks."""
    members = found.members
    if not 0 < len(members) <= search.most:
        return found.mode
    block = search.passes.read(images[members])
    coarse = levels.halve(levels.pyramid(block, search.passes.levels)[-1])
    first = near_duplicates.distinct(coarse, near_duplicates.digests(block))
    if first.all():
        return found.mode
    counted = counted.copy()
    counted[members[~first]] = False
    return blocks_of.class_mode(found.tails, found.sizes, counted)


def _filter(
    search: ClassSearch, images: np.ndarray, counted: np.ndarray, found: _Mode, settled: Settled, chosen: np.ndarray
) -> MatchedFilter:
    """A mode and its filter. chosen: int64, places in the class of the images that were settled, in their order. The
    class counts for no more than IN_BLOCKS_IMAGES: a sample of others cannot tell what one in ten thousand has."""
    mode, direction = _without_versions(search, images, counted, found), settled.direction
    made = chosen[settled.made]
    order = np.argsort(made)
    scores = blocks_of.filtered(found.tails, found.sizes, mode.members, made[order], settled.own[order])
    best = clusters.Found(
        direction.level, direction.window, mode.members, np.zeros(0, np.float32),
        mode.evidence, mode.low, mode.high, mode.centre,
    )  # fmt: skip
    return MatchedFilter(best, settled.template, *scores, min(len(images), stats.IN_BLOCKS_IMAGES))


def _read_block(
    context: ClassSearch, label: int, number: int, left_out: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray, list[Whitening], np.ndarray | None]:
    members = context.blocks(label, left_out)[number]
    others = context.others(label) if number == 0 else None
    return members, context.passes.read(members), context.backgrounds.in_host_memory(label), others


def _search_block(
    members: np.ndarray, images: np.ndarray, whitenings: list[Whitening], others: np.ndarray | None
) -> BlockFound:
    """others: uint8 (m, C, h, w), of other classes at the coarsest level, None where the block is not to be compared
    with them."""
    pyramid = levels.pyramid(images, [whitening.level for whitening in whitenings])
    digests = near_duplicates.digests(images)
    kept = np.flatnonzero(near_duplicates.distinct(levels.halve(pyramid[-1]), digests))
    common = None
    if others is not None and len(kept) >= MIN_IMAGES:
        common = class_property.look(whitenings[-1], pyramid[-1][kept], others)
    found = []
    if len(kept) >= MIN_IMAGES:
        found = blocks_of.candidates(*codes_and_waves(whitenings, pyramid, kept))
    return BlockFound(members[kept], digests[kept, None].view(np.uint8), tuple(found), common)


def _read_some(
    context: ClassSearch, label: int, images: np.ndarray, *arguments: object
) -> tuple[list[Whitening], np.ndarray, *tuple[object, ...]]:
    return context.backgrounds.in_host_memory(label), context.passes.read(images), *arguments


def _score_block(
    whitenings: list[Whitening],
    images: np.ndarray,
    directions: Sequence[Direction],
    own: Sequence[np.ndarray],
    templates: Sequence[np.ndarray],
) -> tuple[Tail, ...]:
    """Tails of images, uint8 (n, C, H, W), along directions; own: see `blocks.tails`; templates: filters of the
    directions, or none."""
    pyramid = levels.pyramid(images, [whitening.level for whitening in whitenings])
    used = {direction.level for direction in directions}
    every = np.arange(len(images))
    coded = {number: encoded(whitenings[number], pyramid[number], every) for number in used}
    tails = blocks_of.tails(coded, directions, own)
    for number, template in enumerate(templates):
        tails[number] = tails[number].along(matched_filters.score([template], pyramid[directions[number].level])[0])
    return tuple(tails)


def _read_for_direction(
    context: ClassSearch, label: int, level: int, window: Window, images: np.ndarray
) -> tuple[Whitening, np.ndarray, int, Window]:
    return context.backgrounds.in_host_memory(label)[level], context.passes.read(images, level), level, window


@dataclass(frozen=True, eq=False)
class Settled:
    """What images share: a direction of codes; a filter of pixels, float32 (D,), made of some of them; made: int64
    (k,), which; own: float32 (k,), what each of these made of its own score along it."""

    direction: Direction
    template: np.ndarray
    made: np.ndarray
    own: np.ndarray


def _direction_of(whitening: Whitening, images: np.ndarray, level: int, window: Window) -> Settled:
    """What images of a level, uint8 (m, C, h, w), share in a window."""
    every = np.arange(len(images))
    coded = encoded(whitening, images, every)
    direction = shared_by(coded, window, torch.from_numpy(every), level)
    some = evenly_spaced(every, matched_filters.FILTER_IMAGES)  # whitened at once
    template, own = matched_filters.template_of(whitening, coded, window, images[some], some)
    return Settled(direction, template, some, own)


BLOCK = Work("block", _read_block, _search_block, (BlockFound, Candidate, Direction, class_property.ClassProperty))
TAILS = Work("tails", _read_some, _score_block, (Tail,))
DIRECTION = Work("direction", _read_for_direction, _direction_of, (Settled, Direction))
