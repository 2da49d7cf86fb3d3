"""What classes share, looked for in images of other classes: one pass over a sample of all images for many classes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from ..method import levels, marks, matched_filters
from ..method.clusters import Found
from ..method.matched_filters import MatchedFilter
from ..runs import packing
from ..runs.run import Run
from ..runs.work import Work
from .class_search import MIN_IMAGES, ClassSearch, Searched

# images; of all classes, that what a class shares is looked for in, at most; source: chosen, a few hundred of them are
# in the tail
ELSEWHERE_IMAGES = 4096
# bytes; of filters that one pass is for, but for one class's; source: chosen, small beside what a search holds
FILTER_BYTES = 2**28
ELSEWHERE_BYTES = 2**26  # bytes; of images that are scored at a time; source: chosen, likewise


@dataclass(frozen=True, eq=False)
class RareMark:
    """found: a mark that is rarer in other classes; images: int64, those of the dataset that carry it."""

    found: Found
    images: np.ndarray


@dataclass(frozen=True, eq=False)
class Compared:
    """A class beside the others. searched: with the best direction as evident as it stays; marks: that are rare."""

    searched: Searched
    marks: tuple[RareMark, ...]


def compared(
    search: ClassSearch, found: Iterable[tuple[int, Searched]], run: Run, least: float
) -> Iterator[tuple[int, Compared]]:
    """Of each class that is large enough. least: nats, that a mark has to be rarer elsewhere by."""
    waiting, held = list[tuple[int, Searched]](), 0
    for label, searched in found:
        if len(searched.images) < MIN_IMAGES:
            continue
        waiting.append((label, searched))
        held += sum(each.template.nbytes for each in _filters(searched))
        if held > FILTER_BYTES:
            yield from _beside_others(search, waiting, run, least)
            waiting, held = [], 0
    yield from _beside_others(search, waiting, run, least)


def _filters(searched: Searched) -> tuple[MatchedFilter, ...]:
    return (*searched.modes, *searched.marks)


def _beside_others(
    search: ClassSearch, searched: list[tuple[int, Searched]], run: Run, least: float
) -> Iterator[tuple[int, Compared]]:
    labels, scores = _scores(search, [_filters(each) for _, each in searched], run)
    for (label, each), along in zip(searched, scores, strict=True):
        elsewhere = along[:, labels != label]
        modes, rest = elsewhere[: len(each.modes)], elsewhere[len(each.modes) :]
        evidence = [mode.evidence(there) for mode, there in zip(each.modes, modes, strict=True)]
        rare = []
        for mark, there in zip(each.marks, rest, strict=True):
            surplus, carriers = marks.carriers(mark, there)
            if surplus >= least:
                rare.append(RareMark(mark.found, each.images[carriers]))
        yield label, Compared(each.compared(evidence), tuple(rare))


@dataclass(frozen=True, eq=False)
class _Filters:
    """What the tasks need: the filters of each class, as (number of the level, template)."""

    search: ClassSearch
    each: list[list[tuple[int, np.ndarray]]]


def _scores(
    search: ClassSearch, filters: list[tuple[MatchedFilter, ...]], run: Run
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Labels (m,) of a sample of all images, and of each class their scores along its filters, float32 (P, m)."""
    rows = sample_of(search)
    if not any(filters):
        return search.passes.images.labels[rows], [np.zeros((0, len(rows)), np.float32)] * len(filters)
    context = _Filters(search, [[(each.found.level, each.template) for each in some] for some in filters])
    name = packing.digest_of(context.each)  # tasks are named by what they are made from
    parts = -(-len(rows) * search.passes.size // ELSEWHERE_BYTES)
    tasks = [(part, name) for part in np.array_split(rows, parts)]
    blocks = run.all(ELSEWHERE, tasks, context, memory=2 * ELSEWHERE_BYTES)
    return search.passes.images.labels[rows], [np.concatenate(each, axis=1) for each in zip(*blocks, strict=True)]


def sample_of(search: ClassSearch) -> np.ndarray:
    """int64 (m,), ascending: images of all classes, of each as many as it has, up to equally many."""
    return np.sort(search.backgrounds.sample[:ELSEWHERE_IMAGES])


Material = tuple[list[list[tuple[int, np.ndarray]]], np.ndarray, list[levels.Level]]


def _read(context: _Filters, rows: np.ndarray, name: str) -> Material:
    return context.each, context.search.passes.read(rows), context.search.passes.levels


def _score(
    filters: list[list[tuple[int, np.ndarray]]], images: np.ndarray, sizes: list[levels.Level]
) -> list[np.ndarray]:
    """Of each class, float32 (P, m). A class's filters go together, wherever others stand, for the same last digits."""
    pyramid, out = levels.pyramid(images, sizes), []
    for some in filters:
        scores = np.empty((len(some), len(images)), np.float32)
        for level in {level for level, _ in some}:
            there = [number for number, each in enumerate(some) if each[0] == level]
            scores[there] = matched_filters.score([some[number][1] for number in there], pyramid[level])
        out.append(scores)
    return out


ELSEWHERE = Work("elsewhere", _read, _score)
