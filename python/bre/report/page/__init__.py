"""A report as one HTML document: no script, no network, every name from outside escaped.

A content security policy in the document itself forbids all of them, so that even a name that got through could do
nothing.
"""

from __future__ import annotations

from functools import cache
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
import numpy as np

from ..._check import printable
from .. import text
from . import charts, pictures

if TYPE_CHECKING:
    from ...inputs import ImageSet
    from ..facts import ClassRow
    from ..finding import Finding
    from ..report import Report

# classes; in numbers, of more those with the smallest p-values; source: chosen, what a person scrolls through
MAX_TABLE_ROWS = 200


def render(report: Report, dataset: Any = None) -> str:
    """See `Report.page`."""
    images = None
    if dataset is not None:
        from ...inputs import open_dataset

        images = open_dataset(dataset)
        report.check_dataset(images)
    return template("report.html.j2").render(
        report=report,
        facts=report.dataset,
        head=text.head(report),
        tone="bad" if report.poisoned else "known" if report.findings else "good",
        verdict=text.verdict(report),
        level=text.level(report),
        meaning=text.meaning(report),
        findings=[_finding(report, finding, images) for finding in report.findings],
        charts=charts.charts(report),
        untested=[(text.class_name(report, row.label), text.why_untested(row)) for row in text.untested(report)],
        most_listed=text.MAX_LISTED,
        cost=text.cost(report),
        name=lambda label: text.class_name(report, label),
        shape=text.shape,
        number=text.number,
        rows=_table_rows(report.classes),
    )


def _finding(report: Report, finding: Finding, images: ImageSet | None) -> dict[str, Any]:
    """What the template shows of a finding."""
    below = None
    if finding.window is not None and images is not None and len(finding.indices):
        clearest = finding.indices[[int(np.argmax(finding.log_odds))]]
        below = images.read(clearest)[0] / np.float32(255)
    shape = report.dataset.image_shape
    return {
        "finding": finding,
        "title": text.title(report, finding),
        "facts": text.facts_of(report, finding),
        "place": pictures.place(finding.window, shape, below) if finding.window is not None else None,
        "pattern": pictures.pattern(finding.pattern, finding.window),
        "histogram": charts.histogram(finding.histogram) if finding.histogram else None,
        "gallery": pictures.gallery(finding, images) if images else None,
    }


def _table_rows(classes: tuple[ClassRow, ...]) -> list[ClassRow]:
    """All classes by label, or MAX_TABLE_ROWS of them by p-value."""
    if len(classes) <= MAX_TABLE_ROWS:
        return sorted(classes, key=lambda row: row.label)
    by_p_value = sorted(classes, key=lambda row: (2.0 if row.p_value is None else row.p_value, row.label))
    return by_p_value[:MAX_TABLE_ROWS]


def frame(page: str) -> str:
    """A page inside another one, neither styling the other: an HTML element."""
    style = "width:100%;height:40rem;border:1px solid #8888;border-radius:6px"
    return f'<iframe title="bre report" sandbox srcdoc="{escape(page)}" style="{style}"></iframe>'


@cache
def template(name: str) -> jinja2.Template:
    """One of this folder's, all values in it made harmless."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_harmless,
    )
    return environment.get_template(name)


def _harmless(value: Any) -> Any:
    """Text as `printable` leaves it; markup (type Markup, made here) and numbers as they are."""
    return printable(value) if type(value) is str else value
