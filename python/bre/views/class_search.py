"""Every class of a set searched for what some of its images share: one task for a class, or several for a large one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from .. import ops
from ..method import class_property, clusters, codes, levels, marks, matched_filters, near_duplicates, stats, waves
from ..method.blocks import block_size
from ..method.directions import Direction
from ..method.matched_filters import MatchedFilter
from ..method.robust import MOST_PLANTED
from ..method.uploads import Upload, in_host_memory
from ..method.whitening import HOST, Whitening
from ..runs.run import Run
from ..runs.work import Work
from .backgrounds import Backgrounds
from .cuda_graph import out_of_memory
from .passes import Passes
from .streams import stream

# images; of a class without near duplicates, that a search takes; source: chosen, its two halves must say something
MIN_IMAGES = 50
# images; of a class that are searched together, at most: a larger one is searched in blocks; source: chosen, one in
# eight is compared with all others then
MAX_SEARCH = 8192
# blocks; that a class of as many images is still searched together: so many times as many are compared with too few
# others to be worth more than a search in blocks; source: chosen, one in twelve is compared with all others then
MOST_BLOCKS = 3.5
# bytes; of a class's images that are searched; source: chosen, their codes and Gram matrices take a few times as much
SEARCH_BYTES = 2**28
# values; of images that are whitened at a time; source: chosen, small beside all that a search holds on a device
ENCODED_VALUES = 2**24
# images; of the sample that classes are compared with for properties; source: chosen, a thousandth of them are two
PROPERTY_IMAGES = 2048


def most_together(sizes: Sequence[levels.Level]) -> int:
    """Images of a class that are searched together; sizes: the levels of images."""
    most = min(MAX_SEARCH, SEARCH_BYTES // sizes[0].size, int(MOST_BLOCKS * block_size(sizes)))
    return max(MIN_IMAGES, most)


@dataclass(frozen=True, eq=False)
class Searched:
    """What the search of a class says. images: int64 (n,), those that were searched, without near duplicates; best: the
    best direction, its members counted among them, None if there is none; common: what most of the class shares, None
    if that is nothing; blocks: that the class was searched in; modes: what more of the class shares than natural
    classes do of anything, to be compared with other classes; marks: what a few images share in one place, likewise,
    where the class was searched at once."""

    images: np.ndarray
    best: clusters.Found | None
    common: class_property.ClassProperty | None
    blocks: int = 1
    modes: tuple[MatchedFilter, ...] = ()
    marks: tuple[MatchedFilter, ...] = ()

    def compared(self, evidence: Sequence[float]) -> Searched:
        """With the mode that stays most evident as the best; evidence: of each mode, that it is rarer elsewhere. The
        filters are as large as images, and have served."""
        best = self.best
        if self.modes:
            both = [min(mode.found.evidence, each) for mode, each in zip(self.modes, evidence, strict=True)]
            most = int(np.argmax(both))
            best = replace(self.modes[most].found, evidence=both[most])
        return replace(self, best=best, modes=(), marks=())

    @property
    def members(self) -> np.ndarray:
        """int64: the images of the dataset in the best direction's mode."""
        return self.images[self.best.members] if self.best is not None else self.images[:0]

    @property
    def counts_for(self) -> int:
        """Images that the class's evidence is scaled by."""
        return len(self.images) if self.blocks == 1 else stats.IN_BLOCKS_IMAGES

    @property
    def evidence(self) -> float:
        """Nats, of a minority of the class: what most of it shares is a property of the class."""
        if self.best is None or len(self.best.members) > MOST_PLANTED * len(self.images):
            return 0.0
        return self.best.evidence


@dataclass(frozen=True, eq=False)
class ClassSearch:
    """What the tasks of a search need. backgrounds: what classes are whitened with; seed: of the blocks of a class that
    is too large."""

    passes: Passes
    backgrounds: Backgrounds
    seed: int

    def __getstate__(self) -> dict[str, Any]:
        return {"passes": self.passes, "backgrounds": self.backgrounds, "seed": self.seed}

    @cached_property
    def counts(self) -> np.ndarray:
        """int64 (K,): images of each class."""
        return np.bincount(self.passes.images.labels, minlength=len(self.passes.images.class_names))

    @cached_property
    def large(self) -> list[int]:
        """Classes with images enough to compare."""
        labels: list[int] = np.flatnonzero(self.counts >= MIN_IMAGES).tolist()
        return labels

    @property
    def most(self) -> int:
        """Images of a class that are searched together."""
        return most_together(self.passes.levels)

    @cached_property
    def members(self) -> list[np.ndarray]:
        """By class, int64, its images."""
        order = np.argsort(self.passes.images.labels, kind="stable")
        return np.split(order, np.cumsum(self.counts)[:-1])

    def members_but(self, label: int, left_out: np.ndarray | None) -> np.ndarray:
        """int64, ascending: the images of a class that are not left out, (n,)."""
        members = self.members[label]
        return members if left_out is None else np.setdiff1d(members, left_out, assume_unique=True)

    def blocks(self, label: int, left_out: np.ndarray | None = None) -> list[np.ndarray]:
        """int64 each, ascending: the images of a class that are not left out, in parts that are searched together."""
        members = self.members_but(label, left_out)
        if len(members) <= self.most:
            return [members]
        parts = -(-len(members) // max(MIN_IMAGES, min(self.most, block_size(self.passes.levels))))
        order = stream(self.seed, f"blocks of class {label}").permutation(members)
        return [np.sort(part) for part in np.array_split(order, parts)]

    @property
    def looks(self) -> int:
        """Windows and waves that a class is looked at by, over all levels."""
        return sum(len(level.windows) + waves.MAX_WAVES for level in self.passes.levels)

    @property
    def worker_memory(self) -> int:
        """Bytes that the search of one class, or of a block, holds: images and codes, a few of them in floating point,
        and inner products."""
        searched = min(self.most, int(self.counts.max()))
        most = searched * min(searched, codes.MAX_GRAM_ROWS) * max(map(codes.held, self.passes.levels))
        products = min(codes.MAX_PRODUCTS, most)
        return 4 * searched * self.passes.size + waves.IN_MEMORY * self.passes.size + 4 * products

    def run(self, run: Run, report: Callable[[float], None]) -> Iterator[tuple[int, Searched]]:
        """(label, what its search says) of the classes large enough, in any order. report: called with the fraction
        done."""
        from .large_classes import search_large

        whole = [label for label in self.large if self.counts[label] <= self.most]
        in_groups = sorted(whole, key=lambda label: (self.backgrounds.group[label], label))
        total, done = max(int(self.counts[self.large].sum()), 1), 0
        for number, found in run.map(CLASS, [(label,) for label in in_groups], self, memory=self.worker_memory):
            yield in_groups[number], found
            done += int(self.counts[in_groups[number]])
            report(done / total)
        for label in sorted(set(self.large) - set(whole)):
            part = int(self.counts[label])
            yield label, search_large(self, label, run, lambda f, d=done, p=part: report((d + f * p) / total))  # type: ignore[misc]
            done += part

    def again(self, run: Run, label: int, left_out: np.ndarray) -> Searched:
        """What the search of a class says without some of its images, int64 (n,)."""
        from .large_classes import search_large

        if len(self.members_but(label, left_out)) > self.most:
            return search_large(self, label, run, lambda fraction: None, left_out)
        found: Searched = run.one(CLASS, (label, left_out), self, memory=self.worker_memory)
        return found

    @cached_property
    def _sample(self) -> tuple[np.ndarray, np.ndarray]:
        """Labels (m,) and coarsest images (m, C, h, w) of the sample that classes are compared with."""
        rows = np.sort(self.backgrounds.sample[:PROPERTY_IMAGES])
        return self.passes.images.labels[rows], self.passes.read(rows, len(self.passes.levels) - 1)

    def others(self, label: int) -> np.ndarray:
        """uint8 (m, C, h, w): images of other classes at the coarsest level."""
        labels, coarse = self._sample
        chosen: np.ndarray = coarse[labels != label]
        return chosen


def _read_class(
    context: ClassSearch, label: int, left_out: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray, list[Whitening], np.ndarray, list[str]]:
    members, others, passes = context.members_but(label, left_out), context.others(label), context.passes
    return members, passes.read(members), context.backgrounds.without(label), others, passes.placement.spilled


def search(
    members: np.ndarray,
    images: np.ndarray,
    whitenings: list[Whitening],
    others: np.ndarray,
    spilled: list[str] | None = None,
) -> Searched:
    """The best direction among images of a class, and what most of them share.

    members: int64 (n,), places in the dataset; images: uint8 (n, C, H, W); whitenings: by level; others: uint8
    (m, C, h, w), images of other classes at the coarsest level; spilled: where it is written down that the whitenings'
    device ran out of memory, and the class was searched in host memory.
    """
    pyramid = levels.pyramid(images, [whitening.level for whitening in whitenings])
    coarse = levels.halve(pyramid[-1])
    kept = np.flatnonzero(near_duplicates.distinct(coarse, near_duplicates.digests(images)))
    if len(kept) < MIN_IMAGES:
        return Searched(members[kept], None, None)
    common = class_property.look(whitenings[-1], pyramid[-1][kept], others)
    try:
        found = directions(whitenings, pyramid, kept)
    except (RuntimeError, MemoryError) as error:
        if in_host_memory(whitenings[0].device) or not out_of_memory(error):
            raise
        found = None
    if found is None:  # beyond the handler, whose traceback holds what is on the device
        (spilled if spilled is not None else []).append(f"{len(kept)} images were compared in host memory")
        found = directions([each.on(HOST) for each in whitenings], pyramid, kept)
    best, modes, marked = found
    return Searched(members[kept], best, common, modes=modes, marks=marked)


Filters = tuple[MatchedFilter, ...]


def directions(
    whitenings: list[Whitening], pyramid: list[np.ndarray], kept: np.ndarray
) -> tuple[clusters.Found | None, Filters, Filters]:
    """The best direction, the modes that are beyond nature, and the marks, of images at every level, of which some are
    kept, int64."""
    coded, starts = codes_and_waves(whitenings, pyramid, kept)
    found = clusters.search(coded, starts)
    return (found.anywhere[0] if found.anywhere else None, *to_compare(whitenings, coded, found, pyramid, kept))


def to_compare(
    whitenings: list[Whitening],
    coded: list[codes.Codes],
    found: clusters.Best,
    pyramid: list[np.ndarray],
    kept: np.ndarray,
) -> tuple[Filters, Filters]:
    """Filters of what was found that other classes are asked for: the modes and the marks; arguments as for
    `directions`."""
    modes = matched_filters.different([each for each in found.anywhere if stats.is_unusual(each.evidence, len(kept))])
    filters = matched_filters.of_class(whitenings, coded, [*modes, *marks.among(coded, found.local)], pyramid, kept)
    return tuple(filters[: len(modes)]), tuple(filters[len(modes) :])


def codes_and_waves(
    whitenings: list[Whitening], pyramid: list[np.ndarray], kept: np.ndarray
) -> tuple[list[codes.Codes], list[Direction]]:
    """What a search starts from; arguments as for `directions`."""
    coded = [encoded(whitening, each, kept) for whitening, each in zip(whitenings, pyramid, strict=True)]
    return coded, waves.of_levels(whitenings, coded)


CLASS = Work("class", _read_class, search, (Searched, clusters.Found, class_property.ClassProperty, MatchedFilter))


def encoded(whitening: Whitening, images: np.ndarray, kept: np.ndarray) -> codes.Codes:
    """Codes of some of the images, uint8 (n, C, H, W), made a few at a time, fewer where a device has no room for as
    many; kept: int64, ascending, which."""
    out = ops.Codes.empty(len(images), whitening.level.shape, whitening.level.tile, whitening.device)
    rows, upload = max(1, ENCODED_VALUES // whitening.level.size), Upload(whitening.device)
    start = 0
    while start < len(images):
        try:
            whitening.encode(images[start : start + rows], out, start, upload)
            start += rows
        except (RuntimeError, MemoryError) as error:
            if rows == 1 or in_host_memory(whitening.device) or not out_of_memory(error):
                raise
            rows = -(-rows // 2)
    return codes.Codes.of(out, whitening.level, kept)
