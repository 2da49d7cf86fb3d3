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
from ..report import Report


@dataclass(frozen=True)
class Removed:
    """One removed image and the reason: finding number `finding` of the report, the first being 1.

    index: in dataset order. image: its file where it has one. score: log odds that it carries the finding's
    pattern; p_value: the finding's. An image that several findings flag is named once, with the first.
    """

    index: int
    image: str
    label: int
    class_name: str
    finding: int
    score: float
    p_value: float


def cleanse(
    dataset: Any,
    report: Report | str | os.PathLike[str],
    *,
    out: str | os.PathLike[str] | None = None,
    unsafe: bool = False,
) -> Any:
    """The dataset without the images that the report flags, as the same kind of dataset.

    dataset: what `screen` or `detect` was given, or the same again; opened with `resize` or `convert`, if theirs was.
    report: theirs, or the path of a saved one. out: a new path for a dataset on disk; beside it goes
    `<out>.removed.csv`, the rows of `removed`. None for a dataset in memory. unsafe: open pickles.
    Images are kept byte for byte (files of a folder hard-linked where possible), neither resized nor encoded again;
    the dataset itself is never written to.
    Returns a pair of arrays for a pair of arrays, a Subset for a torch Dataset, `Path(out)` otherwise.
    Raises InputError for a report on another dataset, an `out` that exists, and whatever `open_dataset` and
    `Report.load` refuse; then nothing is written.
    """
    images, report = _opened(dataset, report, unsafe)
    mask = np.ones(len(images), bool)
    mask[report.indices] = False
    if out is None:
        return images.keep(mask)
    check_new(out, outside=images.path)
    return images.keep(mask, Path(out), beside={removed_path(out): _table(_rows(images, report))})


def removed(dataset: Any, report: Report | str | os.PathLike[str], *, unsafe: bool = False) -> list[Removed]:
    """What `cleanse` with the same arguments leaves out, in dataset order, and why."""
    return _rows(*_opened(dataset, report, unsafe))


def removed_path(out: str | os.PathLike[str]) -> Path:
    """Where `cleanse` writes the list of what it removed, for a dataset that goes to `out`."""
    return Path(out).with_name(Path(out).name + ".removed.csv")


def _table(rows: list[Removed]) -> bytes:
    """A CSV that a spreadsheet may open: no cell of text is a formula to it, and none steers a terminal."""
    text = io.StringIO(newline="")
    table = csv.writer(text)
    table.writerow([field.name for field in fields(Removed)])
    table.writerows([_harmless(cell) if isinstance(cell, str) else cell for cell in astuple(row)] for row in rows)
    return text.getvalue().encode("utf-8", "surrogateescape")


def _harmless(text: str) -> str:
    text = "".join("\N{REPLACEMENT CHARACTER}" if unicodedata.category(c) == "Cc" else c for c in text)
    return "'" + text if text.startswith(("=", "+", "-", "@")) else text


def _opened(dataset: Any, report: Any, unsafe: bool) -> tuple[ImageSet, Report]:
    """Both, the report being about this dataset and every flagged image of its finding's class."""
    if not isinstance(report, Report):
        if not isinstance(report, (str, os.PathLike)):
            raise InputError(f"report must be a bre.Report or the path of a saved one, got {type(report).__name__}")
        report = Report.load(report)
    images = open_dataset(dataset, unsafe=unsafe)
    report.check_dataset(images)
    return images, report


def _rows(images: ImageSet, report: Report) -> list[Removed]:
    rows: dict[int, Removed] = {}
    for number, finding in enumerate(report.findings, 1):
        for index, score in zip(finding.indices.tolist(), finding.log_odds.tolist(), strict=True):
            label = finding.target
            name, p_value = images.class_names[label], finding.p_value
            row = Removed(index, images.describe(index), label, name, number, score, p_value)
            rows.setdefault(index, row)
    return [rows[index] for index in sorted(rows)]
