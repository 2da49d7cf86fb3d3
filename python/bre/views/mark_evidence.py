"""Marks of classes, that are rare in others: whether the images that carry them look like their class."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ..method import marks as marks_of
from ..method.clusters import Found
from ..method.levels import Level, Window
from ..runs.run import Run
from ..runs.work import Work
from .class_search import ClassSearch
from .elsewhere import Compared, sample_of

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


def least_surplus(search: ClassSearch) -> float:
    """Nats, that a mark has to be rarer elsewhere by."""
    return SURPLUS + float(np.log(search.looks * max(1, len(search.large))))


def look_at_marks(search: ClassSearch, compared: Mapping[int, Compared], run: Run) -> MarkEvidence:
    """Of classes beside others. The p-values of all rare marks are corrected for their number."""
    asked = {label: each for label, each in sorted(compared.items()) if each.marks}
    tasks = [
        (label, each.searched.images, tuple((mark.images, mark.found.level, mark.found.window) for mark in each.marks))
        for label, each in asked.items()
    ]
    count = sum(len(each.marks) for each in asked.values())
    p_values, marks = np.ones(len(search.counts)), dict[int, tuple[float, Found]]()
    natural = dict[int, tuple[Found, int]]()
    tests = run.all(FOREIGN, tasks, _Looks(search), memory=search.worker_memory)
    for (label, each), found in zip(asked.items(), tests, strict=True):
        for mark, p_value in zip(each.marks, found, strict=True):
            p_values[label] = min(p_values[label], p_value * count)
            if label not in marks or p_value < marks[label][0]:
                marks[label] = p_value, mark.found
            if p_value > NATURAL and len(mark.images) > natural.get(label, (mark.found, 0))[1]:
                natural[label] = mark.found, len(mark.images)
    return MarkEvidence(p_values, {label: found for label, (_, found) in marks.items()}, natural)


@dataclass(frozen=True, eq=False)
class _Looks:
    """What the tasks need: the search, and what a sample of all images looks like."""

    search: ClassSearch

    def __getstate__(self) -> dict[str, Any]:
        return {"search": self.search}

    @cached_property
    def sample(self) -> tuple[np.ndarray, np.ndarray]:
        """Labels (m,) and thumbnails of some images of all classes."""
        passes, rows = self.search.passes, sample_of(self.search)
        thumbnails = [marks_of.thumbnails(block) for _, block in passes.blocks(rows)]
        return passes.images.labels[rows], np.concatenate(thumbnails)


Placed = tuple[np.ndarray, Level, Window]  # which images of a class have a mark, bool (n,), and where it is


def _read(
    context: _Looks, label: int, members: np.ndarray, marks: tuple[tuple[np.ndarray, int, Window], ...]
) -> tuple[np.ndarray, np.ndarray, list[Placed]]:
    (labels, thumbnails), passes = context.sample, context.search.passes
    placed = [(np.isin(members, carriers), passes.levels[level], window) for carriers, level, window in marks]
    return passes.read(members), thumbnails[labels != label], placed


def _foreign(images: np.ndarray, others: np.ndarray, marks: list[Placed]) -> tuple[float, ...]:
    """Of each mark of a class. images: uint8 (n, C, H, W), the class; others: thumbnails of other classes."""
    own = marks_of.thumbnails(images)
    return tuple(marks_of.foreign(own, others, *mark) for mark in marks)


FOREIGN = Work("foreign", _read, _foreign)
