"""What the charts of a report show, in numbers: shares of the width and height, for the page and for matplotlib."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .. import text
from ..facts import LARGEST_SCORE

if TYPE_CHECKING:
    from ..facts import ClassRow
    from ..finding import Histogram
    from ..report import Report

MAX_CHART_ROWS = 24  # classes; with a row each; source: chosen, a screen's height
TOP_ROWS = 12  # classes; with a row, of more than MAX_CHART_ROWS the largest; source: chosen, room for the histogram
REST_BINS = 60  # bins; of the histogram of the classes without a row; source: chosen, wide enough to be seen
MAX_TICKS = 6  # numbers; below an axis; source: chosen, they do not touch on a phone
MIN_CHART_CLASSES = 3  # classes; with a statistic, for a chart of it; source: derived, from the verdict's MIN_CLASSES
STATISTICS = {  # column of ClassRow: (title, caption)
    "image_statistic": ("In the images", "Evidence that some images of the class share a pattern; 4.5 is the least."),
    "model_statistic": (
        "In the model",
        "Gain in log odds of the class when its pattern is added to unseen images of other classes, plus 1.",
    ),
    "alignment": (
        "In the model's gradients",
        "Mean squared cosine between single images' gradients towards the class. Only the largest counts.",
    ),
    "separation": (
        "Inside the model",
        "How far the class falls apart in two within the network: of the lesser part's images, one in so many is "
        "expected on the wrong side.",
    ),
}


@dataclass(frozen=True)
class Bar:
    """One class in a chart. position: share of the width, in [0, 1]; kind: of its finding, "" without one."""

    name: str
    value: float
    position: float
    kind: str


@dataclass(frozen=True)
class Chart:
    """The classes by one statistic, largest first, on a logarithmic axis.

    rest: heights in [0, 1] of the histogram, over the width, of the `hidden` classes that have no bar, logarithmic in
    their count; empty if there are none. ticks: (value, share of the width). threshold: as the report's test of this
    statistic has it, and its share of the width; None where it has none.
    """

    statistic: str
    title: str
    caption: str
    bars: tuple[Bar, ...]
    hidden: int
    rest: tuple[float, ...]
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
    highest: int
    counts: tuple[int, int]


def charts(report: Report) -> list[Chart]:
    """One per statistic that MIN_CHART_CLASSES classes have."""
    measured = {name: [row for row in report.classes if _drawable(getattr(row, name))] for name in STATISTICS}
    return [_chart(report, name, rows) for name, rows in measured.items() if len(rows) >= MIN_CHART_CLASSES]


def _drawable(value: float | None) -> bool:
    return value is not None and 1 / LARGEST_SCORE < value < LARGEST_SCORE


def _chart(report: Report, name: str, rows: list[ClassRow]) -> Chart:
    kinds = {finding.target: finding.kind for finding in reversed(report.findings)}  # of two, the first counts
    rows = sorted(rows, key=lambda row: (-getattr(row, name), row.label))
    top = len(rows) if len(rows) <= MAX_CHART_ROWS else TOP_ROWS
    shown = [row for rank, row in enumerate(rows) if rank < top or row.label in kinds]
    hidden = [getattr(row, name) for rank, row in enumerate(rows) if rank >= top and row.label not in kinds]
    limit = next((test.threshold for test in report.tests if test.name == name), None)
    ends = [getattr(rows[0], name), getattr(rows[-1], name), *([limit] if limit else [])]
    axis = _LogAxis(min(ends), max(ends))
    title, caption = STATISTICS[name]
    return Chart(
        name,
        title,
        caption,
        bars=tuple(_bar(report, row, getattr(row, name), axis, kinds.get(row.label, "")) for row in shown),
        hidden=len(hidden),
        rest=axis.histogram(hidden) if hidden else (),
        ticks=tuple((tick, axis.position(tick)) for tick in log_ticks(math.exp(axis.low), math.exp(axis.high))),
        threshold=(limit, axis.position(limit)) if limit else None,
    )


def _bar(report: Report, row: ClassRow, value: float, axis: _LogAxis, kind: str) -> Bar:
    return Bar(text.class_name(report, row.label), value, axis.position(value), kind)


class _LogAxis:
    """From a little below `low` to a little above `high`, both > 0. low, high: the logarithms of its ends."""

    def __init__(self, low: float, high: float):
        margin = 0.04 * (math.log(high) - math.log(low)) or 1.0
        self.low, self.high = math.log(low) - margin, math.log(high) + margin

    def position(self, value: float) -> float:
        return (math.log(value) - self.low) / (self.high - self.low)

    def histogram(self, values: list[float]) -> tuple[float, ...]:
        counts, _ = np.histogram([self.position(value) for value in values], REST_BINS, (0.0, 1.0))
        return _heights(counts, int(counts.max()))


def _heights(counts: np.ndarray, highest: int) -> tuple[float, ...]:
    heights: list[float] = (np.log1p(counts) / np.log1p(highest)).tolist()
    return tuple(heights)


def histogram(scores: Histogram) -> ScoreChart:
    first, last = float(scores.edges[0]), float(scores.edges[-1])
    highest = int(max(scores.target_counts.max(), scores.other_counts.max(), 1))
    return ScoreChart(
        target_heights=_heights(scores.target_counts, highest),
        other_heights=_heights(scores.other_counts, highest),
        flagged=tuple((scores.edges[:-1] >= scores.cut).tolist()),
        cut=min(1.0, max(0.0, (scores.cut - first) / (last - first))),
        ticks=tuple((tick, (tick - first) / (last - first)) for tick in ticks(first, last)),
        highest=highest,
        counts=(int(scores.target_counts.sum()), int(scores.other_counts.sum())),
    )


def ticks(low: float, high: float) -> list[float]:
    """At most MAX_TICKS round numbers in [low, high]."""
    power = 10.0 ** math.floor(math.log10((high - low) / MAX_TICKS))
    steps = (power * n for n in (1, 2, 2.5, 5, 10, 20))
    step = next(step for step in steps if math.floor(high / step) - math.ceil(low / step) < MAX_TICKS)
    return [n * step for n in range(math.ceil(low / step), math.floor(high / step) + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """About MAX_TICKS round numbers in [low, high], evenly spaced in their logarithms as far as that goes."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for digits in ((1, 1.5, 2, 3, 4, 5, 6, 8), (1, 2, 3, 5), (1, 2, 5), (1, 3), (1,)):
        inside = [d * 10.0**p for p in powers for d in digits if low <= d * 10.0**p <= high]
        if len(inside) <= MAX_TICKS:
            return inside
    return inside[:: -(-len(inside) // MAX_TICKS)]
