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
    marks: Mapping[int, Found]
    natural: Mapping[int, tuple[Found, int]]


def look_at_marks(search: ClassSearch, searched: Mapping[int, Searched], run: Run, classes: int) -> MarkEvidence:
    """Of some of the `classes` that were searched. A mark that images of other classes carry as well is none; the
    p-values of all that are left are corrected for their number."""
    all_marks = {label: each.marks for label, each in sorted(searched.items()) if each.marks}
    least = SURPLUS + float(np.log(search.looks * classes))
    tasks = [(label, searched[label].images, least) for label in all_marks]
    found: list[tuple[float, int, Found]] = []
    natural = dict[int, tuple[Found, int]]()
    tests = run.all(MARKS, tasks, _MarkTests(search, all_marks), memory=search.worker_memory)
    for label, tested in zip(all_marks, tests, strict=True):
        for mark, each in zip(searched[label].marks, tested, strict=True):
            if each.evidence < least:
                continue
            found.append((each.p_value, label, mark.found))
            if each.p_value > NATURAL and len(each.members) > natural.get(label, (mark.found, 0))[1]:
                natural[label] = mark.found, len(each.members)
    p_values, marks = np.ones(len(search.counts)), dict[int, Found]()
    for p_value, label, best in sorted(found, key=lambda each: each[:2]):
        p_values[label] = min(p_values[label], p_value * len(found))
        marks.setdefault(label, best)
    return MarkEvidence(p_values, marks, natural)


@dataclass(frozen=True, eq=False)
class _MarkTests:
    """What the tasks need: the search, and the marks of all classes, which one pass over a sample is for."""

    search: ClassSearch
    marks: dict[int, tuple[Mark, ...]]

    def __getstate__(self) -> dict[str, Any]:
        return {"search": self.search, "marks": self.marks}

    @cached_property
    def sample(self) -> tuple[np.ndarray, dict[int, np.ndarray], np.ndarray]:
        """Labels (m,), by class scores (P, m) along its marks, and thumbnails of some images of all classes."""
        passes, marks = self.search.passes, [mark for each in self.marks.values() for mark in each]
        rows = np.sort(self.search.backgrounds.sample[:MARK_SAMPLE_IMAGES])
        scores, thumbnails, start = np.empty((len(marks), len(rows)), np.float32), [], 0
        for _, block in passes.blocks(rows):
            along = slice(start, start + len(block))
            for level, images in enumerate(levels.pyramid(block, passes.levels)):
                there = [number for number, mark in enumerate(marks) if mark.found.level == level]
                if there:
                    scores[there, along] = marks_of.scores([marks[number].template for number in there], images)
            thumbnails.append(marks_of.thumbnails(block))
            start += len(block)
        ends = np.cumsum([len(each) for each in self.marks.values()])[:-1]
        by_class = dict(zip(self.marks, np.split(scores, ends), strict=True))
        return passes.images.labels[rows], by_class, np.concatenate(thumbnails)


Material = tuple[tuple[Mark, ...], float, np.ndarray, np.ndarray, np.ndarray, np.ndarray, list[levels.Level]]


def _read(context: _MarkTests, label: int, members: np.ndarray, least: float) -> Material:
    (labels, scores, thumbnails), passes = context.sample, context.search.passes
    marks, others = context.marks[label], labels != label
    return marks, least, members, passes.read(members), scores[label][:, others], thumbnails[others], passes.levels


def compare(
    marks: tuple[Mark, ...],
    least: float,
    members: np.ndarray,
    images: np.ndarray,
    elsewhere: np.ndarray,
    others: np.ndarray,
    sizes: list[levels.Level],
) -> tuple[Tested, ...]:
    """least: nats, evidence below which a mark's images are not looked at; members: int64 (n,), ascending, places in
    the dataset; images: theirs, uint8 (n, C, H, W); elsewhere: (P, m), scores of images of other classes along the
    marks; others: their thumbnails; sizes: the levels."""
    out, thumbnails, pyramid = [], None, levels.pyramid(images, sizes)
    for mark, scores in zip(marks, elsewhere, strict=True):
        level, p_value = mark.found.level, 1.0
        own = marks_of.scores([mark.template], pyramid[level])[0]
        evidence, carriers = marks_of.carriers(mark, members, own, scores)
        if evidence >= least:
            thumbnails = marks_of.thumbnails(images) if thumbnails is None else thumbnails
            carry = np.isin(members, carriers)
            p_value = marks_of.foreign(thumbnails, others, carry, sizes[level], mark.found.window)
        out.append(Tested(evidence, p_value, carriers))
    return tuple(out)


MARKS = Work("marks", _read, compare, (Tested,))
