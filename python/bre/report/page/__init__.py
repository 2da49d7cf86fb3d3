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

from ..._check import printable
from .. import text
from . import charts, pictures

if TYPE_CHECKING:
    from ..report import Report


def render(report: Report, dataset: Any = None) -> str:
    """See `Report.page`."""
    images = None
    if dataset is not None:
        from ...inputs import open_dataset

        images = open_dataset(dataset)
        report.check_dataset(images)
    findings = [
        {
            "finding": finding,
            "facts": text.facts_of(report, finding),
            "pattern": pictures.pattern(finding.pattern),
            "histogram": charts.histogram(finding.histogram) if finding.histogram else None,
            "gallery": pictures.gallery(finding, images) if images else None,
        }
        for finding in report.findings
    ]
    return _template().render(
        report=report,
        facts=report.dataset,
        verdict=text.verdict(report),
        level=text.level(report),
        meaning=text.meaning(report),
        findings=findings,
        charts=charts.charts(report),
        untested=[(text.class_name(report, r.label), text.why_untested(r)) for r in text.untested(report)],
        cost=text.cost(report),
        name=lambda label: text.class_name(report, label),
        shape=text.shape,
        rows=sorted(report.classes, key=lambda row: row.label)[: charts.MOST_TABLE_ROWS],
    )


def frame(page: str) -> str:
    """A page inside another one, neither styling the other: an HTML element."""
    style = "width:100%;height:40rem;border:1px solid #8888;border-radius:6px"
    return f'<iframe title="bre report" sandbox srcdoc="{escape(page)}" style="{style}"></iframe>'


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_harmless,
    )
    return environment.get_template("report.html.j2")


def _harmless(value: Any) -> Any:
    """Text as `printable` leaves it; markup (type Markup, made here) and numbers as they are."""
    return printable(value) if type(value) is str else value
