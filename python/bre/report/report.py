"""What screen and detect answer: frozen data that checks itself.

Its parts are in `facts` and `finding`, how it reads in `text` and `page`, how it goes to disk and back in `files`.
"""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import _check as check
from ..errors import InputError
from . import text
from .facts import ClassRow, Cost, DatasetFacts, StatisticTest, flagged_images
from .finding import ARRAYS, Finding, check_fits

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ..inputs import ImageSet

SCHEMA = 4  # number; of the saved form; source: chosen, raised when a reader of one form would misread another


@dataclass(frozen=True, eq=False)
class Report:
    """The answer of one screen or detect.

    poisoned: the verdict, true exactly when a finding is of kind "poison"; properties of classes are findings too, and
    do not make a set poisoned. p_value: chance of evidence of poison at least this strong in a clean set, in [0, 1].
    alpha: the level it was held against. findings: poison first. classes: one row per class. backend: what "auto" stood
    for. dataset: which one. tests: how alpha was divided, and where each test draws its line. notes: what went
    otherwise than by default, one sentence each.
    Everything but cost.seconds is the same in every run with one seed on one machine; another processor or BLAS, which
    `versions` names, may change last digits. Raises InputError for values that cannot be a report.
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
    dataset: DatasetFacts
    tests: tuple[StatisticTest, ...] = ()
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check.choice(self.verb, "verb", ("screen", "detect"))
        check.text(self.backend, "backend")
        check.instance(self.cost, Cost, "cost")
        check.instance(self.dataset, DatasetFacts, "dataset")
        versions = check.mapping(self.versions, "versions")
        check.assign(
            self,
            poisoned=check.truth(self.poisoned, "poisoned"),
            p_value=check.real(self.p_value, "p_value", 0, 1),
            alpha=check.real(self.alpha, "alpha", 0, 1),
            findings=check.instances(self.findings, Finding, "findings"),
            classes=check.instances(self.classes, ClassRow, "classes"),
            seed=check.integer(self.seed, "seed"),
            versions={name: check.text(version, f"versions[{name!r}]") for name, version in versions.items()},
            tests=check.instances(self.tests, StatisticTest, "tests"),
            notes=tuple(check.text(note, "notes") for note in check.items(self.notes, "notes")),
        )
        self._check_tests()
        poison = sum(finding.is_poison for finding in self.findings)
        if self.poisoned != bool(poison):
            raise InputError(f"poisoned is {self.poisoned} but there are {poison} findings of poison")
        facts = self.dataset
        labels = [row.label for row in self.classes]
        if len(set(labels)) != len(labels) or any(label >= len(facts.class_names) for label in labels):
            raise InputError(
                f"classes must have distinct labels below {len(facts.class_names)}, got {check.short(labels)}"
            )
        sizes = {row.label: row.count for row in self.classes}
        for finding in self.findings:
            check_fits(finding, facts.image_shape, facts.count, len(facts.class_names))
            if len(finding.indices) > (size := sizes.get(finding.target, facts.count)):
                raise InputError(f"a finding flags {len(finding.indices)} images of class {finding.target}, of {size}")

    def _check_tests(self) -> None:
        names = [test.name for test in self.tests]
        if len(set(names)) != len(names):
            raise InputError(f"tests must have distinct names, got {check.short(names)}")
        if (total := sum(test.level for test in self.tests)) > self.alpha * (1 + 1e-9):
            raise InputError(f"tests: their levels add up to {total:g}, more than alpha {self.alpha:g}")

    @property
    def indices(self) -> np.ndarray:
        """(n,) int64: every image flagged as poisoned, once, ascending; not those of properties."""
        union = flagged_images(finding for finding in self.findings if finding.is_poison)
        union.flags.writeable = False
        return union

    def __repr__(self) -> str:
        verdict = "poisoned" if self.poisoned else "no poison" if self.findings else "nothing found"
        parts = [verdict, f"p={self.p_value:.2g}"]
        for kind, one, many in (("poison", "target", "targets"), ("property", "property of", "properties of")):
            labels = dict.fromkeys(finding.target for finding in self.findings if finding.kind == kind)
            names = ", ".join(text.class_name(self, label) for label in labels)
            parts += [f"{one if len(labels) == 1 else many} {names}"] if labels else []
        count = self.dataset.count
        parts += [f"{len(self.indices)} of {count} images flagged" if self.poisoned else f"{count} images"]
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

    def to_pandas(self, dataset: Any = None) -> Any:
        """The flagged images as a pandas DataFrame, a row for each image of each finding, those of the first finding
        first.

        Indexed by the image's place in the dataset; columns finding (its number, from 1 on), kind, label, class_name,
        log_odds, p_value. dataset: what the report is about, as `bre.screen` takes it: then a column image has each
        one's file. Raises InputError without pandas, and where `check_dataset` does.
        """
        from .image_table import table

        return table(self, dataset)

    def to_dict(self, arrays: bool = True) -> dict[str, Any]:
        """Plain dicts, lists, numbers and strings, ready for JSON.

        arrays: with every finding's pattern, indices and log odds as lists; without them `flagged`, the number of
        indices, still tells.
        """
        out: dict[str, Any] = {"schema": SCHEMA}
        for field in dataclasses.fields(self):
            out[field.name] = getattr(self, field.name)
        out["findings"] = [_finding_dict(finding, arrays) for finding in self.findings]
        out["classes"] = [dataclasses.asdict(row) for row in self.classes]
        out["tests"] = [dataclasses.asdict(test) for test in self.tests]
        out["cost"] = dataclasses.asdict(self.cost)
        out["versions"] = dict(self.versions)
        out["notes"] = list(self.notes)
        facts = dataclasses.asdict(self.dataset)
        out["dataset"] = {**facts, "image_shape": list(facts["image_shape"]), "class_names": list(facts["class_names"])}
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
        if len(images) != facts.count or images.fingerprint(flagged_images(self.findings)) != facts.fingerprint:
            about = f"{facts.count} images of {text.shape(facts.image_shape)} ({facts.source})"
            this = f"{len(images)} of {text.shape(images.image_shape)} ({images.source})"
            raise InputError(
                f"the report is about another dataset: {about}, this one has {this}; images, their order and their "
                "labels must be the same"
            )
        for finding in self.findings:
            labels = images.labels[finding.indices]
            if (labels != finding.target).any():
                first = finding.indices[np.argmax(labels != finding.target)]
                raise InputError(
                    f"the report flags image {first} in class {finding.target}, but its label is "
                    f"{images.labels[first]}; the report is damaged"
                )


def _finding_dict(finding: Finding, arrays: bool) -> dict[str, Any]:
    out = {f.name: getattr(finding, f.name) for f in dataclasses.fields(finding) if f.name not in ARRAYS}
    out["sources"], out["seen_in"] = list(finding.sources), list(finding.seen_in)
    out["window"] = None if finding.window is None else list(finding.window)
    out["flagged"] = len(finding.indices)
    if (histogram := finding.histogram) is not None:
        counts = {name: getattr(histogram, name).tolist() for name in ("edges", "target_counts", "other_counts")}
        out["histogram"] = {**counts, "cut": histogram.cut}
    if arrays:
        out["pattern"] = None if finding.pattern is None else finding.pattern.tolist()
        out["indices"], out["log_odds"] = finding.indices.tolist(), finding.log_odds.tolist()
    return out
