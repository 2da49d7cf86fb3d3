"""A sweep's verdicts as one HTML document with links to the reports; no script, no network, every name escaped."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from . import template

MAX_SHOWN = 5000  # rows; of the page, those with findings and errors first; source: chosen, browsers stay quick


def render_sweep(rows: Sequence[dict[str, Any]]) -> str:
    """rows: SweepResult's fields and `verdict`, of each."""
    counts = {status: sum(row["status"] == status for row in rows) for status in (0, 1, 2)}
    urgent = sorted(rows, key=lambda row: ({1: 0, 2: 1, 0: 2}[row["status"]], row["number"]))
    return template("sweep.html.j2").render(
        rows=urgent[:MAX_SHOWN],
        left_out=max(0, len(rows) - MAX_SHOWN),
        counts=counts,
        tone="bad" if counts[1] else "known" if counts[2] else "good",
    )
