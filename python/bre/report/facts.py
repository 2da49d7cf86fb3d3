"""What a report tells beside its findings: the data set, the classes, the tests, the cost, the versions."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import _check as check
from ..errors import InputError

if TYPE_CHECKING:
    from ..inputs import ImageSet
    from .finding import Finding

TESTS = (
    "image_statistic",
    "model_statistic",
    "alignment",
    "separation",
    "mark",
    "cross_class",
    "joint",
)  # columns of ClassRow but for the last three
# number; largest statistic or score that is taken; source: chosen, beyond what anything computes, and squares of it are
# still finite numbers
LARGEST_SCORE = 1e100


@dataclass(frozen=True)
class DatasetFacts:
    """Which data set a report is about, and how to recognise it.

    source: where it came from, for people. count: M, its images. image_shape: (C, H, W). class_names: K of them.
    fingerprint: sha256 in hexadecimal, of the shape, the labels and the flagged images, as `ImageSet.fingerprint`
    gives it.
    """

    source: str
    count: int
    image_shape: tuple[int, int, int]
    class_names: tuple[str, ...]
    fingerprint: str

    def __post_init__(self) -> None:
        check.text(self.source, "dataset.source")
        sides = check.items(self.image_shape, "dataset.image_shape")
        shape = tuple(check.integer(side, "dataset.image_shape", 1) for side in sides)
        if len(shape) != 3 or math.prod(shape) > 1 << 32:
            raise InputError(f"dataset.image_shape must be (C, H, W), got {check.short(shape)}")
        names = check.items(self.class_names, "dataset.class_names")
        if not names:
            raise InputError("dataset.class_names must name at least one class")
        fingerprint = check.text(self.fingerprint, "dataset.fingerprint")
        if len(fingerprint) != 64 or set(fingerprint) - set("0123456789abcdef"):
            raise InputError(f"dataset.fingerprint must be 64 hexadecimal digits, got {check.short(fingerprint)}")
        check.assign(
            self,
            count=check.integer(self.count, "dataset.count", 1),
            image_shape=shape,
            class_names=tuple(check.text(name, "dataset.class_names") for name in names),
        )

    def __getitem__(self, name: str) -> Any:
        """The fact called `name`: `report.dataset["count"]` reads a report as it reads the report's JSON. Raises
        KeyError for another name."""
        if name not in (field.name for field in fields(self)):
            raise KeyError(name)
        return getattr(self, name)


def dataset_facts(dataset: ImageSet, findings: Iterable[Finding]) -> DatasetFacts:
    """The facts of `dataset`, whose fingerprint covers the images that the findings flag: those to be removed must be
    those that were seen."""
    return DatasetFacts(
        source=dataset.source,
        count=len(dataset),
        image_shape=dataset.image_shape,
        class_names=dataset.class_names,
        fingerprint=dataset.fingerprint(flagged_images(findings)),
    )


def flagged_images(findings: Iterable[Finding]) -> np.ndarray:
    """(n,) int64: every image that one of the findings flags, once, ascending."""
    return np.unique(np.concatenate([np.empty(0, np.int64), *(finding.indices for finding in findings)]))


@dataclass(frozen=True)
class ClassRow:
    """One class as a putative target. What was not measured is None.

    count: its images. p_value: corrected for having been chosen among K classes. image_statistic,
    model_statistic, alignment, separation: see bre.views. pattern_norm: L2, pixel units. note: why it was not (fully)
    tested; may be empty.
    """

    label: int
    name: str
    count: int
    tested: bool
    image_statistic: float | None = None
    model_statistic: float | None = None
    p_value: float | None = None
    pattern_norm: float | None = None
    alignment: float | None = None
    separation: float | None = None
    note: str = ""

    def __post_init__(self) -> None:
        label = check.integer(self.label, "label")
        what = f"class {label}"
        check.text(self.name, f"{what}: name")
        check.text(self.note, f"{what}: note")
        check.assign(
            self,
            label=label,
            count=check.integer(self.count, f"{what}: count"),
            tested=check.truth(self.tested, f"{what}: tested"),
            image_statistic=check.optional(self.image_statistic, f"{what}: image_statistic"),
            model_statistic=check.optional(self.model_statistic, f"{what}: model_statistic"),
            p_value=check.optional(self.p_value, f"{what}: p_value", 0, 1),
            pattern_norm=check.optional(self.pattern_norm, f"{what}: pattern_norm", 0),
            alignment=check.optional(self.alignment, f"{what}: alignment", 0, 1),
            separation=check.optional(self.separation, f"{what}: separation"),
        )


@dataclass(frozen=True)
class StatisticTest:
    """One test of the verdict.

    name: of `TESTS`: the column of ClassRow that it compares the classes by; or "mark", of what a few images of a class
    share in one place, though they look like other classes; or "cross_class", of what images of
    several classes share; or "joint", of all statistics of the model's view at once. level: the part of alpha that it
    was held against; those of a report add up to alpha. threshold: the statistic from which on the weakest outlier, or
    without one the largest class, is called an outlier, all other classes as they are; None where no value would be, or
    where the test has no statistic of its own per class.
    """

    name: str
    level: float
    threshold: float | None = None

    def __post_init__(self) -> None:
        check.choice(self.name, "test: name", TESTS)
        what = f"test {self.name}"
        check.assign(
            self,
            level=check.real(self.level, f"{what}: level", 0, 1),
            threshold=check.optional(self.threshold, f"{what}: threshold", 1 / LARGEST_SCORE, LARGEST_SCORE),
        )


@dataclass(frozen=True)
class Cost:
    """forward_images, backward_images: images through the model either way. seconds: by stage, disjoint."""

    forward_images: int
    backward_images: int
    seconds: dict[str, float]

    def __post_init__(self) -> None:
        seconds = check.mapping(self.seconds, "cost.seconds")
        check.assign(
            self,
            forward_images=check.integer(self.forward_images, "cost.forward_images"),
            backward_images=check.integer(self.backward_images, "cost.backward_images"),
            seconds={stage: check.real(n, f"cost.seconds[{stage!r}]", 0) for stage, n in seconds.items()},
        )
