"""The report: frozen data that checks itself (`report`), to disk and back (`files`), as text, page, plot and SARIF."""

from .report import (
    ARRAYS,
    BINS,
    SCHEMA,
    ClassRow,
    Cost,
    Finding,
    Histogram,
    Report,
    StatisticTest,
    dataset_facts,
    flagged_images,
    versions,
)

__all__ = [
    "ARRAYS",
    "BINS",
    "SCHEMA",
    "ClassRow",
    "Cost",
    "Finding",
    "Histogram",
    "Report",
    "StatisticTest",
    "dataset_facts",
    "flagged_images",
    "versions",
]
