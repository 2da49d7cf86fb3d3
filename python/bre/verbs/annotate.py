"""What a report says of each image, put beside the images where people work on them."""

from __future__ import annotations

import csv
import io
import os
from pathlib import Path
from typing import Any

import numpy as np

from .._files import atomic_path, check_new
from ..errors import InputError
from ..inputs import ImageSet, open_dataset
from ..inputs.datasets.arrays import ArraySet
from ..inputs.datasets.huggingface_object import HuggingFaceObjectSet, is_dataset, is_dataset_dict, only_split
from ..inputs.datasets.torch_dataset import TorchSet
from ..report import Report
from ..report.tables import spreadsheet_safe

NAMES = ("bre_flagged", "bre_kind", "bre_finding", "bre_log_odds")  # of columns and keys


class Annotations:
    """One row per image of the set, in its order.

    flagged: (M,) bool. kind: M of "poison", "property" or "". finding: (M,) int64, the number of the finding as the
    report counts them, from 1 on, 0 for none. log_odds: (M,) float64, natural logarithm, that the image carries the
    finding's pattern; NaN for none. An image of several findings has the first.
    """

    def __init__(self, report: Report):
        count = report.dataset.count
        self.finding = np.zeros(count, np.int64)
        self.log_odds = np.full(count, np.nan)
        for number, finding in reversed(list(enumerate(report.findings, 1))):
            self.finding[finding.indices] = number
            self.log_odds[finding.indices] = finding.log_odds
        self.flagged = self.finding > 0
        kinds = ("", *(finding.kind for finding in report.findings))
        self.kind = [kinds[number] for number in self.finding.tolist()]

    def columns(self) -> dict[str, Any]:
        """{name: M values}, Python's own types."""
        values = (self.flagged.tolist(), self.kind, self.finding.tolist(), self.log_odds.tolist())
        return dict(zip(NAMES, values, strict=True))

    def row(self, index: int) -> dict[str, Any]:
        """Of one image, as numbers and text that a DataLoader puts into batches."""
        values = (bool(self.flagged[index]), self.kind[index], int(self.finding[index]), float(self.log_odds[index]))
        return dict(zip(NAMES, values, strict=True))


class AnnotatedDataset:
    """A map-style dataset whose items say what the report says of them: dicts hold it under `NAMES`, tuples end with a
    dict of these."""

    def __init__(self, dataset: Any, annotations: Annotations):
        self.dataset, self.annotations = dataset, annotations

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        item = self.dataset[index]
        row = self.annotations.row(index if index >= 0 else len(self) + index)
        return {**item, **row} if isinstance(item, dict) else (*item, row)

    def __getattr__(self, name: str) -> Any:
        if name == "dataset":  # while it is being unpickled
            raise AttributeError(name)
        return getattr(self.dataset, name)


def annotate(
    dataset: Any, report: Report | str | os.PathLike[str], *, out: str | os.PathLike[str] | None = None
) -> Any:
    """The dataset with what the report says of each image: nothing is removed.

    dataset, report: as for `cleanse`. out: a new path of a CSV, for a dataset on disk or in memory.
    Returns, without `out`, a Hugging Face Dataset with four more columns for one of these, and an `AnnotatedDataset`
    for another torch Dataset; with `out`, its path: a CSV of one row per image, in dataset order, with its file.
    Raises InputError for a report on another dataset, arrays or a dataset on disk without `out`, an `out` that exists,
    columns that are there already, and whatever `open_dataset` and `Report.load` refuse.
    """
    report = report if isinstance(report, Report) else Report.load(report)
    images = open_dataset(dataset)
    report.check_dataset(images)
    found = Annotations(report)
    if out is not None:
        return _write(images, report, found, check_new(out, outside=images.disk_path))
    if isinstance(images, HuggingFaceObjectSet):
        return _with_columns(dataset, images, found)
    if isinstance(images, TorchSet) and not isinstance(dataset, ImageSet):
        return AnnotatedDataset(getattr(dataset, "dataset", dataset) if _is_loader(dataset) else dataset, found)
    what = "are arrays" if isinstance(images, ArraySet) and images.path is None else "is no dataset in memory"
    raise InputError(f"{images.source} {what}: give a path for a table of the images", argument="out")


def _with_columns(dataset: Any, images: ImageSet, found: Annotations) -> Any:
    table = only_split(dataset) if is_dataset_dict(dataset) else dataset
    if not is_dataset(table):
        raise InputError(f"give the Dataset itself, not the opened {images.source}: columns are added to it")
    if there := [name for name in NAMES if name in table.column_names]:
        raise InputError(f"the dataset has columns of these names already: {there}; remove them first")
    for name, values in found.columns().items():
        table = table.add_column(name, values)
    return table


def _is_loader(dataset: Any) -> bool:
    return hasattr(dataset, "batch_sampler")


def _write(images: ImageSet, report: Report, found: Annotations, out: Path) -> Path:
    text = io.StringIO(newline="")
    table = csv.writer(text)
    table.writerow(["index", "image", "label", "class_name", *NAMES])
    names = [spreadsheet_safe(name) for name in images.class_names]
    for index, label in enumerate(images.labels.tolist()):
        row = found.row(index)
        if not row["bre_flagged"]:
            row["bre_log_odds"] = ""
        table.writerow([index, spreadsheet_safe(images.describe(index)), label, names[label], *row.values()])
    with atomic_path(out) as part:
        part.write_text(text.getvalue(), "utf-8", newline="")
    return out
