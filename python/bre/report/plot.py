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

    from .finding import Finding
    from .report import Report

COLOURS = {"poison": "#c62828", "property": "#9a6700", "": "#8c98a6"}  # by kind of finding, "" without one
LINE = "#1f6feb"
MAX_NAME = 20  # letters; of a class beside an axis; source: chosen, a quarter of the figure


def figure(report: Report) -> Figure:
    """See `Report.plot`."""
    try:
        from matplotlib.figure import Figure
    except ImportError as e:
        raise InputError("plot needs matplotlib: pip install 'bre-engine[plot]'") from e
    compared = charts(report)
    rows = max(1, bool(compared) + len(report.findings))
    drawn = Figure(figsize=(9, 0.6 + 3.4 * rows), layout="constrained")
    drawn.suptitle(f"{_plain(text.verdict(report))}\n{text.level(report)}", fontsize="medium")
    parts = list(drawn.subfigures(rows, 1, squeeze=False)[:, 0])
    if compared:
        for axes, chart in zip(parts.pop(0).subplots(1, len(compared), squeeze=False)[0], compared, strict=True):
            _classes(axes, chart)
    for part, finding in zip(parts, report.findings, strict=False):
        part.suptitle(_plain(text.title(report, finding)), fontsize="medium")
        left, right = part.subplots(1, 2)
        _pattern(left, finding)
        _scores(right, finding, text.class_name(report, finding.target))
    return drawn


def _classes(axes: Axes, chart: Chart) -> None:
    values = [bar.value for bar in chart.bars]
    axes.scatter(values, range(len(values)), c=[COLOURS[bar.kind] for bar in chart.bars])
    axes.set_yticks(range(len(values)), [_plain(printable(bar.name, MAX_NAME)) for bar in chart.bars])
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xticks([value for value, _ in chart.ticks], [f"{value:g}" for value, _ in chart.ticks])
    axes.set_xticks([], minor=True)
    if chart.threshold:
        axes.axvline(chart.threshold[0], color=LINE)
    hidden = f", {text.number(chart.hidden)} classes below not drawn" if chart.hidden else ""
    axes.set_title(chart.title + hidden)


def _pattern(axes: Axes, finding: Finding) -> None:
    from matplotlib.patches import Rectangle

    axes.set_xticks([])
    axes.set_yticks([])
    if finding.pattern is None:
        axes.set_axis_off()
        axes.set_title("no pattern in pixels")
        return
    levels = 255 * finding.pattern.astype(np.float64)
    peak = float(np.abs(levels).max(initial=0)) or 1.0
    if len(levels) >= 3:  # as the page: around mid grey
        axes.imshow(np.clip(0.5 + levels[:3].transpose(1, 2, 0) / (2 * peak), 0, 1))
    else:
        axes.imshow(levels[0], cmap="gray", vmin=-peak, vmax=peak)
    if finding.window is not None:
        top, left, height, width = finding.window
        axes.add_patch(Rectangle((left - 0.5, top - 0.5), width, height, fill=False, color=LINE))
    axes.set_title(f"pattern, black to white: ±{peak:.1f} of 255 grey levels")


def _scores(axes: Axes, finding: Finding, target: str) -> None:
    """The histogram, or only the flagged images' log odds where no histogram was kept."""
    if finding.histogram is None:
        axes.hist(finding.log_odds, bins=30, color=COLOURS[finding.kind])
        axes.set_title("log odds of the flagged images")
        return
    kept = finding.histogram
    axes.stairs(kept.other_counts, kept.edges, fill=True, color=COLOURS[""], label="other classes")
    axes.stairs(kept.target_counts, kept.edges, color=COLOURS[finding.kind], label=f"class {_plain(target)}")
    axes.axvline(kept.cut, color=LINE)
    axes.set_yscale("symlog")
    axes.legend()
    axes.set_title("scores")


def _plain(text: str) -> str:
    """matplotlib reads what stands between dollar signs as formulas."""
    return text.replace("$", r"\$")
