"""A report as a matplotlib figure, for notebooks and papers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .._check import printable
from ..errors import InputError
from . import text
from .page.charts import Chart, charts

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from .report import Finding, Report

FOUND, OTHER, CUT = "#c62828", "#8c98a6", "#1f6feb"
MOST_NAME = 20  # letters; of a class's name; source: chosen, by what fits the axis


def figure(report: Report) -> Figure:
    """See `Report.plot`."""
    try:
        from matplotlib.figure import Figure
    except ImportError as e:
        raise InputError("plot needs matplotlib: pip install 'bre-engine[plot]'") from e
    views = charts(report)
    rows = max(1, bool(views) + len(report.findings))
    drawn = Figure(figsize=(9, 0.6 + 3.4 * rows), layout="constrained")
    drawn.suptitle(f"{_plain(text.verdict(report))}\n{text.level(report)}", fontsize="medium")
    parts = list(drawn.subfigures(rows, 1, squeeze=False)[:, 0])
    if views:
        for axes, chart in zip(parts.pop(0).subplots(1, len(views), squeeze=False)[0], views, strict=True):
            _classes(axes, chart)
    for part, finding in zip(parts, report.findings, strict=False):
        left, right = part.subplots(1, 2)
        _pattern(left, finding)
        _scores(right, finding, text.class_name(report, finding.target))
    return drawn


def _classes(axes: Axes, chart: Chart) -> None:
    values = [bar.value for bar in chart.bars]
    axes.scatter(values, range(len(values)), c=[FOUND if bar.found else OTHER for bar in chart.bars])
    axes.set_yticks(range(len(values)), [_plain(printable(bar.name, MOST_NAME)) for bar in chart.bars])
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xticks([value for value, _ in chart.ticks], [f"{value:g}" for value, _ in chart.ticks])
    axes.set_xticks([], minor=True)
    if chart.threshold:
        axes.axvline(chart.threshold[0], color=CUT)
    axes.set_title(chart.title)


def _pattern(axes: Axes, finding: Finding) -> None:
    levels = 255 * finding.pattern.astype(np.float64)
    peak = float(np.abs(levels).max(initial=0)) or 1.0
    if len(levels) >= 3:  # as the page: around mid grey
        axes.imshow(np.clip(0.5 + levels[:3].transpose(1, 2, 0) / (2 * peak), 0, 1))
    else:
        axes.imshow(levels[0], cmap="gray", vmin=-peak, vmax=peak)
    axes.set_axis_off()
    axes.set_title(f"pattern, black to white: ±{peak:.1f} of 255 grey levels")


def _scores(axes: Axes, finding: Finding, target: str) -> None:
    """The histogram, or only the flagged images' scores where no histogram was kept."""
    if finding.histogram is None:
        axes.hist(finding.log_odds, bins=30, color=FOUND)
        axes.set_title("scores of the flagged images")
        return
    kept = finding.histogram
    axes.stairs(kept.other_counts, kept.edges, fill=True, color=OTHER, label="other classes")
    axes.stairs(kept.target_counts, kept.edges, color=FOUND, label=f"class {_plain(target)}")
    axes.axvline(kept.cut, color=CUT)
    axes.set_yscale("symlog")
    axes.legend()
    axes.set_title("scores")


def _plain(text: str) -> str:
    """matplotlib reads what stands between dollar signs as formulas."""
    return text.replace("$", r"\$")
