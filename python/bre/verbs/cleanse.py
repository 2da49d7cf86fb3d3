"""Give back the dataset without the images that a report flags, and say what went and why."""

from __future__ import annotations

import csv
import io
import os
import unicodedata
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from .._files import check_new
from ..errors import InputError
from ..inputs import ImageSet, open_dataset
from ..report import Report, flagged_images

UNSEEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}  # Unicode categories: control, format, surrogate, separators of lines


@dataclass(frozen=True)
class Removed:
    """One removed image and the reason: finding number `finding` of the report, the first being 1.

    index: in dataset order. image: its file where it has one. log_odds: natural logarithm, that it carries the
    finding's pattern; p_value: the finding's. An image that several findings flag is named once, with the first.
    """

    index: int
    image: str
    label: int
    class_name: str
    finding: int
    log_odds: float
    p_value: float


def cleanse(
    dataset: Any,
    report: Report | str | os.PathLike[str],
    *,
    out: str | os.PathLike[str] | None = None,
    unsafe: bool = False,
    properties: bool = False,
    allow_empty_class: bool = False,
) -> Any:
    """The dataset without the images that the report flags as poisoned, as the same kind of dataset.

    dataset: what `screen` or `detect` was given, or the same again; opened with `resize` or `convert`, if theirs was.
    report: theirs, or the path of a saved one. out: a new path for a dataset on disk; beside it goes
    `<out>.removed.csv`, the rows of `removed`. None for a dataset in memory. unsafe: open pickles. properties: remove
    the images of class properties too. allow_empty_class: go on where no image of a class would be left.
    Images are kept byte for byte (files of a folder hard-linked where possible), neither resized nor encoded again;
    the dataset itself is never written to.
    Returns a pair of arrays for a pair of arrays, a Subset for a torch Dataset, `Path(out)` otherwise.
    Raises InputError for a report on another dataset, an `out` that exists, a class that would be emptied, and whatever
    `open_dataset` and `Report.load` refuse; then nothing is written.
    """
    images, report = _opened(dataset, report, unsafe)
    mask = np.ones(len(images), bool)
    mask[removed_images(report, properties)] = False
    if not allow_empty_class:
        _refuse_empty_classes(images, mask)
    if out is None:
        return images.keep(mask)
    check_new(out, outside=images.path)
    return images.keep(mask, Path(out), beside={removed_path(out): _csv(_rows(images, report, properties))})


def removed(
    dataset: Any, report: Report | str | os.PathLike[str], *, unsafe: bool = False, properties: bool = False
) -> list[Removed]:
    """What `cleanse` with the same arguments leaves out, in dataset order, and why."""
    return _rows(*_opened(dataset, report, unsafe), properties)


def removed_images(report: Report, properties: bool = False) -> np.ndarray:
    """(n,) int64, ascending: the images that `cleanse` leaves out."""
    return flagged_images(finding for finding in report.findings if finding.is_poison or properties)


def removed_path(out: str | os.PathLike[str]) -> Path:
    """Where `cleanse` writes the list of what it removed, for a dataset that goes to `out`."""
    return Path(out).with_name(Path(out).name + ".removed.csv")


def _opened(dataset: Any, report: Any, unsafe: bool) -> tuple[ImageSet, Report]:
    """Both, the report being about this dataset and every flagged image of its finding's class."""
    if not isinstance(report, Report):
        if not isinstance(report, (str, os.PathLike)):
            raise InputError(f"report must be a bre.Report or the path of a saved one, got {type(report).__name__}")
        report = Report.load(report)
    images = open_dataset(dataset, unsafe=unsafe)
    report.check_dataset(images)
    return images, report


def _refuse_empty_classes(images: ImageSet, mask: np.ndarray) -> None:
    """Raises InputError where the mask, bool (M,), keeps no image of a class that has some."""
    before, after = (np.bincount(labels, minlength=1) for labels in (images.labels, images.labels[mask]))
    emptied = np.flatnonzero((before > 0) & (np.pad(after, (0, len(before) - len(after))) == 0))
    if len(emptied):
        first = int(emptied[0])
        more = f" (and {len(emptied) - 1} more classes)" if len(emptied) > 1 else ""
        raise InputError(
            f"all {before[first]} images of class {first} {images.class_names[first]!r}{more} are flagged, none would "
            "be left: this may be a property of the class, so look at the report before you allow it",
            argument="allow_empty_class",
        )


def _rows(images: ImageSet, report: Report, properties: bool) -> list[Removed]:
    rows: dict[int, Removed] = {}
    for number, finding in enumerate(report.findings, 1):
        if finding.is_poison or properties:
            name = images.class_names[finding.target]
            for index, log_odds in zip(finding.indices.tolist(), finding.log_odds.tolist(), strict=True):
                row = Removed(index, images.describe(index), finding.target, name, number, log_odds, finding.p_value)
                rows.setdefault(index, row)
    return [rows[index] for index in sorted(rows)]


def _csv(rows: list[Removed]) -> bytes:
    text = io.StringIO(newline="")
    table = csv.writer(text)
    table.writerow([field.name for field in fields(Removed)])
    for row in rows:
        table.writerow([harmless(cell) if isinstance(cell, str) else cell for cell in astuple(row)])
    return text.getvalue().encode()


def harmless(cell: str) -> str:
    """Text from outside for a spreadsheet or a terminal: what would start a formula gets an apostrophe before it;
    control characters, invisible ones and bytes of names that are no UTF-8 are written as escapes."""
    cell = "".join(ascii(c)[1:-1] if unicodedata.category(c) in UNSEEN else c for c in cell)
    return "'" + cell if cell.startswith(("=", "+", "-", "@")) else cell
