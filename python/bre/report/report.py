"""What screen and detect answer: frozen data that checks itself.

How it reads is in `wording` and `page`, how it goes to disk and back in `report_files`.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import math
import os
import platform
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import _check as check
from ..errors import InputError
from . import text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ..inputs import ImageSet

SCHEMA = 3  # number; of the form of a report; source: chosen, raised when a reader of one form would misread another
VIEWS = ("images", "model")  # what shows a pattern, in the order in which they are named
TESTS = ("image_statistic", "model_statistic", "alignment", "cross_class")  # columns of ClassRow but for the last
ARRAYS = ("pattern", "indices", "log_odds")  # of a finding, which go to arrays.npz
BINS = 48  # bins; of a histogram of log odds; source: chosen, by what can be read
_LARGEST_SCORE = 1e100  # beyond what anything computes, and small enough to be drawn
_DATASET = ("source", "count", "image_shape", "class_names", "fingerprint")


@dataclass(frozen=True)
class Cost:
    """forward_images, backward_images: images through the model either way. seconds: by stage, disjoint."""

    forward_images: int
    backward_images: int
    seconds: dict[str, float]

    def __post_init__(self) -> None:
        _set(self, "forward_images", check.integer(self.forward_images, "cost.forward_images"))
        _set(self, "backward_images", check.integer(self.backward_images, "cost.backward_images"))
        seconds = check.mapping(self.seconds, "cost.seconds")
        _set(self, "seconds", {k: check.real(v, f"cost.seconds[{k!r}]", 0) for k, v in seconds.items()})


@dataclass(frozen=True)
class ClassRow:
    """One class as a putative target. What was not measured is None.

    count: its images. p_value: corrected for having been chosen among K classes. image_statistic,
    model_statistic, alignment: see `bre.views`. pattern_norm: L2, pixel units. note: why it was
    not (fully) tested; may be empty.
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
    note: str = ""

    def __post_init__(self) -> None:
        _set(self, "label", check.integer(self.label, "label"))
        what = f"class {self.label}"
        check.text(self.name, f"{what}: name")
        _set(self, "count", check.integer(self.count, f"{what}: count"))
        _set(self, "tested", check.truth(self.tested, f"{what}: tested"))
        for name in ("image_statistic", "model_statistic"):
            _set(self, name, check.optional(getattr(self, name), f"{what}: {name}"))
        _set(self, "p_value", check.optional(self.p_value, f"{what}: p_value", 0, 1))
        _set(self, "pattern_norm", check.optional(self.pattern_norm, f"{what}: pattern_norm", 0))
        _set(self, "alignment", check.optional(self.alignment, f"{what}: alignment", 0, 1))
        check.text(self.note, f"{what}: note")


@dataclass(frozen=True)
class StatisticTest:
    """One test of the verdict.

    name: of `TESTS`: the column of ClassRow that it compares the classes by, or "cross_class", of what images of
    several classes share. level: the part of alpha that it was held against; those of a report add up to alpha.
    threshold: the statistic from which on the weakest outlier, or without one the largest class, is called an outlier,
    all other classes as they are; None where no value would be, or where the test has no statistic per class.
    """

    name: str
    level: float
    threshold: float | None = None

    def __post_init__(self) -> None:
        check.choice(self.name, "test: name", TESTS)
        _set(self, "level", check.real(self.level, f"test {self.name}: level", 0, 1))
        largest = _LARGEST_SCORE
        threshold = check.optional(self.threshold, f"test {self.name}: threshold", 1 / largest, largest)
        _set(self, "threshold", threshold)


@dataclass(frozen=True, eq=False)
class Histogram:
    """How the scores of a finding lie, in its target class and elsewhere.

    The score here is what the flags were drawn from: for a pattern seen in the images, the standard deviations by which
    an image lies along it; for one seen in the model alone, how far the log odds of the target class fall without it,
    and a weighted part of how far the image lies along what such images share.

    edges: (B + 1,) float64, ascending; target_counts, other_counts: (B,) int64, images of the target class and of
    other classes (all or a sample) whose score is in each bin; cut: from there on most of the target class's images are
    flagged.
    """

    edges: np.ndarray
    target_counts: np.ndarray
    other_counts: np.ndarray
    cut: float

    def __post_init__(self) -> None:
        edges = check.array(self.edges, "histogram: edges", "f", np.float64, 1)
        usable = 2 <= len(edges) <= 1001 and bool((np.abs(edges) <= _LARGEST_SCORE).all())  # NaN fails too
        if not usable or not (np.diff(edges) > 0).all() or edges[-1] - edges[0] < 1 / _LARGEST_SCORE:
            raise InputError(f"histogram: edges must be 2 to 1001 ascending finite numbers, got {check.short(edges)}")
        _set(self, "edges", edges)
        for name in ("target_counts", "other_counts"):
            counts = check.array(getattr(self, name), f"histogram: {name}", "iu", np.int64, 1)
            if len(counts) != len(edges) - 1 or (counts < 0).any():
                raise InputError(f"histogram: {name} must be {len(edges) - 1} counts >= 0, got {check.short(counts)}")
            _set(self, name, counts)
        _set(self, "cut", check.real(self.cut, "histogram: cut"))

    @classmethod
    def of(cls, target: np.ndarray, others: np.ndarray, cut: float = 0.0) -> Histogram:
        """Of scores, (n,) and (m,), finite: BINS equal bins over all of them, an edge on the cut."""
        both = np.concatenate([target, others, [cut]]).astype(np.float64)
        low, high = float(both.min()), float(both.max())
        width = (high - low) / (BINS - 1) or 1.0
        first = -math.ceil((cut - low) / width)
        edges = cut + width * np.arange(first, first + BINS + 1)
        counts = [np.histogram(np.clip(scores, edges[0], edges[-1]), edges)[0] for scores in (target, others)]
        return cls(edges, counts[0], counts[1], cut)


@dataclass(frozen=True, eq=False)
class Finding:
    """One planted pattern.

    target: the class its images are labelled as. sources: the classes they come from, strongest first; may
    be empty where the images alone cannot tell. pattern: (C, H, W) float32, what was added, pixel units of
    [0, 1]. pattern_norm: its L2 norm as tested. indices: (n,) int64, the flagged images, ascending in dataset
    order. log_odds: (n,) float32, natural logarithm, that each carries the pattern. success_rate: share in [0, 1] of
    held-out source images that the pattern sends to the target, None without a model. seen_in: the views
    that showed it, of `VIEWS`. histogram: how the class lies beside the others, None where no image is
    flagged.
    """

    target: int
    sources: tuple[int, ...]
    p_value: float
    pattern: np.ndarray
    pattern_norm: float
    indices: np.ndarray
    log_odds: np.ndarray
    success_rate: float | None
    seen_in: tuple[str, ...]
    histogram: Histogram | None = None

    def __post_init__(self) -> None:
        _set(self, "target", check.integer(self.target, "finding: target"))
        what = f"finding with target {self.target}"
        sources = tuple(check.integer(s, f"{what}: sources") for s in check.items(self.sources, f"{what}: sources"))
        if self.target in sources or len(set(sources)) != len(sources):
            raise InputError(f"{what}: sources must be distinct classes other than it, got {check.short(sources)}")
        _set(self, "sources", sources)
        _set(self, "p_value", check.real(self.p_value, f"{what}: p_value", 0, 1))
        _set(self, "pattern_norm", check.real(self.pattern_norm, f"{what}: pattern_norm", 0))
        _set(self, "success_rate", check.optional(self.success_rate, f"{what}: success_rate", 0, 1))
        seen_in = tuple(check.items(self.seen_in, f"{what}: seen_in"))
        for view in seen_in:
            check.choice(view, f"{what}: seen_in", VIEWS)
        if not seen_in or len(set(seen_in)) != len(seen_in):
            raise InputError(f"{what}: seen_in must name one view or more, each once, got {check.short(seen_in)}")
        _set(self, "seen_in", seen_in)
        pattern = check.array(self.pattern, f"{what}: pattern", "f", np.float32, 3)
        if not (np.abs(pattern) <= 1).all():  # NaN fails too
            raise InputError(f"{what}: pattern must be finite and within [-1, 1]")
        indices = check.array(self.indices, f"{what}: indices", "iu", np.int64, 1)
        if indices.size and (indices[0] < 0 or not (indices[1:] > indices[:-1]).all()):
            raise InputError(f"{what}: indices must be >= 0 and strictly ascending")
        log_odds = check.array(self.log_odds, f"{what}: log_odds", "f", np.float32, 1)
        if log_odds.shape != indices.shape or not np.isfinite(log_odds).all():
            raise InputError(f"{what}: log_odds must be finite, one per index: {len(log_odds)} for {len(indices)}")
        if self.histogram is not None:
            check.instances((self.histogram,), Histogram, f"{what}: histogram")
        _set(self, "pattern", pattern)
        _set(self, "indices", indices)
        _set(self, "log_odds", log_odds)

    def __repr__(self) -> str:
        return (
            f"Finding(target {self.target}, sources {list(self.sources)}, p={self.p_value:.2g}, "
            f"{len(self.indices)} images, seen in {' and '.join(self.seen_in)})"
        )


@dataclass(frozen=True, eq=False)
class Report:
    """The answer of one screen or detect.

    poisoned: the verdict, true exactly when there are findings. p_value: chance of evidence at least this
    strong in a clean set, in [0, 1]. alpha: the level it was held against. tests: how alpha was divided, and where each
    test draws its line. classes: one row per class.
    backend: what "auto" stood for. dataset: source, count (M), image_shape (C, H, W), class_names (K) and
    fingerprint, as `dataset_facts` gives them. notes: what went otherwise than by default, one sentence each.
    Everything but cost.seconds is the same in every run with one seed. Raises InputError for values that cannot be a
    report.
    """

    verb: str
    poisoned: bool
    p_value: float
    alpha: float
    findings: tuple[Finding, ...]
    classes: tuple[ClassRow, ...]
    cost: Cost
    backend: str
    seed: int
    versions: dict[str, str]
    dataset: dict[str, Any]
    tests: tuple[StatisticTest, ...] = ()
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check.choice(self.verb, "verb", ("screen", "detect"))
        _set(self, "poisoned", check.truth(self.poisoned, "poisoned"))
        _set(self, "p_value", check.real(self.p_value, "p_value", 0, 1))
        _set(self, "alpha", check.real(self.alpha, "alpha", 0, 1))
        _set(self, "findings", check.instances(self.findings, Finding, "findings"))
        _set(self, "classes", check.instances(self.classes, ClassRow, "classes"))
        _set(self, "tests", check.instances(self.tests, StatisticTest, "tests"))
        names = [test.name for test in self.tests]
        if len(set(names)) != len(names):
            raise InputError(f"tests must have distinct names, got {check.short(names)}")
        if (total := sum(test.level for test in self.tests)) > self.alpha * (1 + 1e-9):
            raise InputError(f"tests: their levels add up to {total:g}, more than alpha {self.alpha:g}")
        check.instances((self.cost,), Cost, "cost")
        check.text(self.backend, "backend")
        _set(self, "seed", check.integer(self.seed, "seed"))
        versions = check.mapping(self.versions, "versions")
        _set(self, "versions", {k: check.text(v, f"versions[{k!r}]") for k, v in versions.items()})
        _set(self, "dataset", checked_facts(self.dataset))
        _set(self, "notes", tuple(check.text(note, "notes") for note in check.items(self.notes, "notes")))
        if self.poisoned != bool(self.findings):
            raise InputError(f"poisoned is {self.poisoned} but there are {len(self.findings)} findings")
        k, shape, count = len(self.dataset["class_names"]), self.dataset["image_shape"], self.dataset["count"]
        labels = [row.label for row in self.classes]
        if len(set(labels)) != len(labels) or any(label >= k for label in labels):
            raise InputError(f"classes must have distinct labels below {k}, got {check.short(labels)}")
        for f in self.findings:
            if max(f.target, *f.sources, 0) >= k:
                raise InputError(
                    f"a finding names target {f.target} and sources {check.short(f.sources)} of {k} classes"
                )
            if f.pattern.shape != shape:
                raise InputError(f"a finding's pattern has shape {f.pattern.shape}, the images have {tuple(shape)}")
            if f.indices.size and f.indices[-1] >= count:
                raise InputError(f"a finding flags image {f.indices[-1]}, the dataset has {count} images")

    @property
    def indices(self) -> np.ndarray:
        """(n,) int64: every flagged image once, ascending."""
        union = flagged_images(self.findings)
        union.flags.writeable = False
        return union

    def __repr__(self) -> str:
        parts = ["poisoned" if self.poisoned else "nothing found", f"p={self.p_value:.2g}"]
        count = self.dataset["count"]
        if self.poisoned:
            targets = list(dict.fromkeys(text.class_name(self, f.target) for f in self.findings))
            parts += [f"target{'s' * (len(targets) > 1)} {', '.join(targets)}"]
            parts += [f"{len(self.indices)} of {count} images flagged"]
        else:
            parts += [f"{count} images"]
        parts += [f"{sum(self.cost.seconds.values()):.1f} s"]
        return f"Report({self.verb}: {', '.join(parts)})"

    def _repr_html_(self) -> str:
        """For notebooks: the page, in a frame of its own so that neither styles the other."""
        from .page import frame

        return frame(self.page())

    def summary(self) -> str:
        """The verdict for a person: several lines of plain text, no terminal codes in it."""
        return text.summary(self)

    def page(self, dataset: Any = None) -> str:
        """The report as one HTML document that needs nothing else: no network, no script, no other file.

        dataset: what the report is about, as `bre.screen` takes it (no pickles): then flagged images are shown. Raises
        InputError where `check_dataset` does.
        """
        from .page import render

        return render(self, dataset)

    def plot(self) -> Figure:
        """The statistics of the classes and each finding's pattern and scores, as a figure.

        Raises InputError without matplotlib (`pip install 'bre-engine[plot]'`).
        """
        from .plot import figure

        return figure(self)

    def to_dict(self, arrays: bool = True) -> dict[str, Any]:
        """Plain dicts, lists, numbers and strings, ready for JSON.

        arrays: with every finding's pattern, indices and scores as lists; without them `flagged`, the number
        of indices, still tells.
        """
        out: dict[str, Any] = {"schema": SCHEMA}
        for field in dataclasses.fields(self):
            out[field.name] = getattr(self, field.name)
        out["findings"] = [_finding_dict(f, arrays) for f in self.findings]
        out["classes"] = [dataclasses.asdict(row) for row in self.classes]
        out["tests"] = [dataclasses.asdict(test) for test in self.tests]
        out["cost"] = dataclasses.asdict(self.cost)
        out["versions"], out["notes"] = dict(self.versions), list(self.notes)
        out["dataset"] = {k: list(v) if isinstance(v, tuple) else v for k, v in self.dataset.items()}
        return out

    def save(self, directory: str | os.PathLike[str], dataset: Any = None) -> Path:
        """Write the report as a new folder, whole or not at all; returns its path.

        dataset: as for `page`, which goes there too, as report.html. Raises InputError when `directory` exists, its
        parent does not, or where `check_dataset` does.
        """
        from .files import save

        return save(self, directory, dataset)

    @staticmethod
    def load(directory: str | os.PathLike[str]) -> Report:
        """Read a folder that `save` wrote, or that someone claims it wrote.

        Raises InputError, naming the file and what is wrong with it, for anything else.
        """
        from .files import load

        return load(directory)

    def check_dataset(self, images: ImageSet) -> None:
        """Raises InputError unless these have the number, shape and labels of the images that the report is about, and
        the same flagged images at the same places; of other images only the labels are compared."""
        facts = self.dataset
        if len(images) != facts["count"] or images.fingerprint(self.indices) != facts["fingerprint"]:
            about = f"{facts['count']} images of {text.shape(facts['image_shape'])} ({facts['source']})"
            this = f"{len(images)} of {text.shape(images.image_shape)} ({images.source})"
            raise InputError(
                f"the report is about another dataset: {about}, this one has {this}; images, their order and their "
                "labels must be the same"
            )
        for finding in self.findings:
            labels = images.labels[finding.indices]
            if (labels != finding.target).any():
                bad = finding.indices[np.argmax(labels != finding.target)]
                raise InputError(
                    f"the report flags image {bad} as planted in class {finding.target}, but its label is "
                    f"{images.labels[bad]}; the report is damaged"
                )


def flagged_images(findings: Iterable[Finding]) -> np.ndarray:
    """(n,) int64: every image that is flagged once, ascending."""
    return np.unique(np.concatenate([np.empty(0, np.int64), *(finding.indices for finding in findings)]))


def dataset_facts(dataset: ImageSet, findings: Iterable[Finding]) -> dict[str, Any]:
    """What `Report.dataset` holds: enough to say which dataset a report is about, and to check that the images to be
    removed are those that were flagged."""
    return {
        "source": dataset.source,
        "count": len(dataset),
        "image_shape": tuple(dataset.image_shape),
        "class_names": tuple(dataset.class_names),
        "fingerprint": dataset.fingerprint(flagged_images(findings)),
    }


def versions() -> dict[str, str]:
    """What `Report.versions` holds: bre, Python and the packages that compute, without importing them."""
    found = {"bre": "bre-engine", "torch": "torch", "numpy": "numpy", "scipy": "scipy"}
    out = {"python": platform.python_version()}
    for name, distribution in found.items():
        try:
            out[name] = importlib.metadata.version(distribution)
        except importlib.metadata.PackageNotFoundError:
            out[name] = "not installed"
    return out


def checked_facts(facts: Any) -> dict[str, Any]:
    facts = dict(check.mapping(facts, "dataset"))
    check.same_keys(facts, _DATASET, "dataset")
    check.text(facts["source"], "dataset.source")
    facts["count"] = check.integer(facts["count"], "dataset.count", 1)
    sides = check.items(facts["image_shape"], "dataset.image_shape")
    shape = tuple(check.integer(n, "dataset.image_shape", 1) for n in sides)
    if len(shape) != 3 or math.prod(shape) > 1 << 32:
        raise InputError(f"dataset.image_shape must be (C, H, W), got {check.short(shape)}")
    facts["image_shape"] = shape
    names = check.items(facts["class_names"], "dataset.class_names")
    facts["class_names"] = tuple(check.text(name, "dataset.class_names") for name in names)
    if not names:
        raise InputError("dataset.class_names must name at least one class")
    fingerprint = check.text(facts["fingerprint"], "dataset.fingerprint")
    if len(fingerprint) != 64 or set(fingerprint) - set("0123456789abcdef"):
        raise InputError(f"dataset.fingerprint must be 64 hexadecimal digits, got {check.short(fingerprint)}")
    return {key: facts[key] for key in _DATASET}


def _finding_dict(finding: Finding, arrays: bool) -> dict[str, Any]:
    out = {f.name: getattr(finding, f.name) for f in dataclasses.fields(finding) if f.name not in ARRAYS}
    out["sources"], out["seen_in"] = list(finding.sources), list(finding.seen_in)
    out["flagged"] = len(finding.indices)
    if (histogram := finding.histogram) is not None:
        counts = {name: getattr(histogram, name).tolist() for name in ("edges", "target_counts", "other_counts")}
        out["histogram"] = {**counts, "cut": histogram.cut}
    return {**out, **{name: getattr(finding, name).tolist() for name in ARRAYS}} if arrays else out


def _set(instance: Any, name: str, value: Any) -> None:
    object.__setattr__(instance, name, value)
