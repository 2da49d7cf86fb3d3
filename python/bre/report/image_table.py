"""A report's flagged images as a pandas table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..inputs import open_dataset
from ..inputs._extras import need

if TYPE_CHECKING:
    from .report import Report


def table(report: Report, dataset: Any = None) -> Any:
    """See `Report.to_pandas`."""
    pandas = need("pandas", "pandas", "a table")
    images = None if dataset is None else open_dataset(dataset)
    if images is not None:
        report.check_dataset(images)
    columns: dict[str, list[Any]] = {
        name: [] for name in ("image", "finding", "kind", "label", "class_name", "log_odds", "p_value")
    }
    for number, finding in enumerate(report.findings, 1):
        count = len(finding.indices)
        name = report.dataset.class_names[finding.target]
        same = {"finding": number, "kind": finding.kind, "label": finding.target, "class_name": name}
        for column, value in (same | {"p_value": finding.p_value}).items():
            columns[column] += [value] * count
        columns["log_odds"] += finding.log_odds.tolist()
        if images is not None:
            columns["image"] += [images.describe(index) for index in finding.indices.tolist()]
    if images is None:
        del columns["image"]
    index = np.concatenate([np.empty(0, np.int64), *(finding.indices for finding in report.findings)])
    return pandas.DataFrame(columns, index=pandas.Index(index, name="index"))
