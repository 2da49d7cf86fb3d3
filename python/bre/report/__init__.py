"""The report: frozen data that checks itself (`report`, `finding`, `facts`), to disk and back (`files`), as text, page,
plot and SARIF."""

from .facts import ClassRow, Cost, DatasetFacts, StatisticTest, dataset_facts, flagged_images
from .finding import ARRAYS, BINS, KINDS, VIEWS, Finding, Histogram, Window
from .report import SCHEMA, Report

__all__ = [
    "ARRAYS",
    "BINS",
    "KINDS",
    "SCHEMA",
    "VIEWS",
    "ClassRow",
    "Cost",
    "DatasetFacts",
    "Finding",
    "Histogram",
    "Report",
    "StatisticTest",
    "Window",
    "dataset_facts",
    "flagged_images",
]
