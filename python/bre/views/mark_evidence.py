"""Marks of classes, tested on their own images and on a sample of all: one pass over each class that has any."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ..method import levels
from ..method import marks as marks_of
from ..method.clusters import Found
from ..method.marks import Mark, Tested
from ..runs.run import Run
from ..runs.work import Work
from .class_search import ClassSearch, Searched

# images; of all classes, that marks are compared with, at most; source: chosen, a few hundred of them are in the tail
MARK_SAMPLE_IMAGES = 4096
MARK_SAMPLE_BYTES = 2**28  # bytes; of these images, at most; source: chosen, as many as of a class
# nats; that a mark is rarer elsewhere, beyond the logarithm of the windows of all classes; source: derived, from the
# bound in `marks.rarer_elsewhere`: one false mark in twenty sets, and a class is called by its images' look only
SURPLUS = float(np.log(20 * 5))
# p-value; of a mark's images' look, from which on they look like their class; source: chosen, what is said in a note
NATURAL = 0.05


@dataclass(frozen=True, eq=False)
class MarkEvidence:
    """p_values: float64 (K,), of each class's marks, 1 where it has none; marks: by class, the one of least p-value;
    natural: by class, of the marks whose images look like it, the one that most of them carry, and how many do."""

    p_values: np.ndarray
    marks: Mapping[int, Mark]
    natural: Mapping[int, tuple[Mark, int]]


def look_at_marks(search: ClassSearch, searched: Mapping[int, Searched], run: Run, classes: int) -> MarkEvidence:
    """Of some of the `classes` that were searched. A mark that images of other classes carry as well is none; the
    p-values of all that are left are corrected for their number."""
    labels = [label for label, each in sorted(searched.items()) if each.marks]
    least = SURPLUS + float(np.log(search.looks * classes))
    tasks = [(label, searched[label].images, searched[label].marks, least) for label in labels]
    found: list[tuple[float, int, Mark]] = []
    natural = dict[int, tuple[Mark, int]]()
    for label, tested in zip(labels, run.all(MARKS, tasks, _MarkTests(search), kinds=KINDS), strict=True):
        for mark, each in zip(searched[label].marks, tested, strict=True):
            if each.evidence < least:
                continue
            found.append((each.p_value, label, mark))
            if each.p_value > NATURAL and len(each.members) > natural.get(label, (mark, 0))[1]:
                natural[label] = mark, len(each.members)
    p_values, marks = np.ones(len(search.counts)), dict[int, Mark]()
    for p_value, label, mark in sorted(found, key=lambda each: each[:2]):
        p_values[label] = min(p_values[label], p_value * len(found))
        marks.setdefault(label, mark)
    return MarkEvidence(p_values, marks, natural)


@dataclass(frozen=True, eq=False)
class _MarkTests:
    """What the tasks need: the search, and a sample of images that is read once."""

    search: ClassSearch

    def __getstate__(self) -> dict[str, Any]:
        return {"search": self.search}

    @cached_property
    def sample(self) -> tuple[np.ndarray, list[np.ndarray], np.ndarray]:
        """Labels (m,), images by level, uint8 (m, C, h, w), and thumbnails of some images of all classes."""
        passes = self.search.passes
        most = max(1, min(MARK_SAMPLE_IMAGES, MARK_SAMPLE_BYTES // passes.size))
        rows = np.sort(self.search.backgrounds.sample[:most])
        images = passes.read(rows)
        return passes.images.labels[rows], levels.pyramid(images, passes.levels), marks_of.thumbnails(images)


Material = tuple[
    tuple[Mark, ...], float, np.ndarray, list[np.ndarray], list[np.ndarray], np.ndarray, list[levels.Level]
]


def _read(context: _MarkTests, label: int, members: np.ndarray, marks: tuple[Mark, ...], least: float) -> Material:
    (labels, sample, thumbnails), passes = context.sample, context.search.passes
    elsewhere = [marks_of.scores(mark.template, sample[mark.found.level])[labels != label] for mark in marks]
    images = levels.pyramid(passes.read(members), passes.levels)
    return marks, least, members, images, elsewhere, thumbnails[labels != label], passes.levels


def compare(
    marks: tuple[Mark, ...],
    least: float,
    members: np.ndarray,
    images: list[np.ndarray],
    elsewhere: list[np.ndarray],
    others: np.ndarray,
    sizes: list[levels.Level],
) -> tuple[Tested, ...]:
    """least: nats, evidence below which a mark's images are not looked at; members: int64 (n,), ascending, places in
    the dataset; images: theirs by level, uint8 (n, C, h, w); elsewhere: by mark, scores (m,) of images of other classes
    along it; others: their thumbnails; sizes: the levels."""
    out, thumbnails = [], None
    for mark, scores in zip(marks, elsewhere, strict=True):
        level, p_value = mark.found.level, 1.0
        own = marks_of.scores(mark.template, images[level])
        evidence, carriers = marks_of.carriers(mark, members, own, scores)
        if evidence >= least:
            thumbnails = marks_of.thumbnails(images[0]) if thumbnails is None else thumbnails
            carry = np.isin(members, carriers)
            p_value = marks_of.foreign(thumbnails, others, carry, sizes[level], mark.found.window)
        out.append(Tested(evidence, p_value, carriers))
    return tuple(out)


MARKS = Work("marks", _read, compare, (Tested,))
KINDS = (Mark, Found, *MARKS.kinds)
