"""What the charts of a report show, in numbers: shares of the width and height, for the page and for matplotlib."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .. import text

if TYPE_CHECKING:
    from ..report import ClassRow, Histogram, Report

MOST_ROWS = 24  # classes; in a chart; source: chosen, by what fits a screen
MOST_TABLE_ROWS = 1000  # classes; in a table; source: chosen
MOST_TICKS = 6  # ticks; on an axis; source: chosen, by what can be read
_LARGEST = 1e100  # statistic that is drawn; what is larger, or smaller than one by it, nothing computed
VIEWS = {
    "image_statistic": (
        "In the images",
        "How strongly a class's images share one common component: 1 if not at all.",
    ),
    "model_statistic": (
        "In the model",
        "How far one small pattern pushes unseen images of other classes towards a class: 1 and the gain in log odds.",
    ),
    "alignment": (
        "In the model's gradients",
        "How alike the directions are in which single images move towards a class: mean squared cosine. Only the "
        "largest counts.",
    ),
}


@dataclass(frozen=True)
class Bar:
    """One class in a chart. place: share of the width, in [0, 1]."""

    name: str
    value: float
    place: float
    found: bool


@dataclass(frozen=True)
class Chart:
    """The classes by one view's statistic, largest first, on a logarithmic axis.

    ticks: (value, share of the width). threshold: the statistic from which the weakest finding, or without one the
    strongest class, would be a finding, and its share of the width; None where none would be.
    """

    view: str
    title: str
    caption: str
    bars: tuple[Bar, ...]
    hidden: int
    ticks: tuple[tuple[float, float], ...]
    threshold: tuple[float, float] | None


@dataclass(frozen=True)
class ScoreChart:
    """A Histogram. target_heights, other_heights: in [0, 1], logarithmic in the count; flagged: right of the cut."""

    target_heights: tuple[float, ...]
    other_heights: tuple[float, ...]
    flagged: tuple[bool, ...]
    cut: float
    ticks: tuple[tuple[float, float], ...]
    most: int
    counts: tuple[int, int]


def charts(report: Report) -> list[Chart]:
    """One per view that has statistics of at least three classes."""
    measured = {
        view: [row for row in report.classes if 1 / _LARGEST < (getattr(row, view) or 0) < _LARGEST] for view in VIEWS
    }
    return [_chart(report, view, rows) for view, rows in measured.items() if len(rows) >= 3]


def _chart(report: Report, view: str, rows: list[ClassRow]) -> Chart:
    found = {finding.target for finding in report.findings}
    rows = sorted(rows, key=lambda row: (-getattr(row, view), row.label))
    limit = next((test.threshold for test in report.tests if test.name == view), None)
    shown = [row for place, row in enumerate(rows) if place < MOST_ROWS or row.label in found]
    values = [getattr(row, view) for row in shown]
    ends = [*values, limit] if limit else values
    low, high = math.log(min(ends)), math.log(max(ends))
    margin = 0.04 * (high - low) or 1.0
    low, high = low - margin, high + margin

    def place(value: float) -> float:
        return (math.log(value) - low) / (high - low)

    return Chart(
        view,
        *VIEWS[view],
        bars=tuple(
            Bar(text.class_name(report, row.label), value, place(value), row.label in found)
            for row, value in zip(shown, values, strict=True)
        ),
        hidden=len(rows) - len(shown),
        ticks=tuple((tick, place(tick)) for tick in log_ticks(math.exp(low), math.exp(high))),
        threshold=(limit, place(limit)) if limit else None,
    )


def histogram(scores: Histogram) -> ScoreChart:
    first, last = float(scores.edges[0]), float(scores.edges[-1])
    most = int(max(scores.target_counts.max(), scores.other_counts.max(), 1))
    heights = [tuple((np.log1p(n) / np.log1p(most)).tolist()) for n in (scores.target_counts, scores.other_counts)]
    return ScoreChart(
        target_heights=heights[0],
        other_heights=heights[1],
        flagged=tuple((scores.edges[:-1] >= scores.cut).tolist()),
        cut=min(1.0, max(0.0, (scores.cut - first) / (last - first))),
        ticks=tuple((tick, (tick - first) / (last - first)) for tick in ticks(first, last)),
        most=most,
        counts=(int(scores.target_counts.sum()), int(scores.other_counts.sum())),
    )


def ticks(low: float, high: float) -> list[float]:
    """At most MOST_TICKS round numbers in [low, high]."""
    rough = (high - low) / (MOST_TICKS - 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * n for n in (1, 2, 2.5, 5, 10) if power * n >= rough * (1 - 1e-9))
    return [n * step for n in range(math.ceil(low / step), math.floor(high / step) + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """About MOST_TICKS round numbers in [low, high], evenly spaced in their logarithms as far as that goes."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for digits in ((1, 1.5, 2, 3, 4, 5, 6, 8), (1, 2, 3, 5), (1, 2, 5), (1, 3), (1,)):
        found = [d * 10.0**p for p in powers for d in digits if low <= d * 10.0**p <= high]
        if len(found) <= MOST_TICKS:
            return found
    return found[:: -(-len(found) // MOST_TICKS)]
