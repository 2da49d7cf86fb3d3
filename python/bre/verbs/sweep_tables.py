"""What a sweep found, as tables: CSV, JSON Lines, and a page with links to the reports."""

from __future__ import annotations

import dataclasses
import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..report.page.sweep_page import render_sweep
from ..report.tables import csv_bytes

CSV, LINES, INDEX = "verdicts.csv", "verdicts.jsonl", "index.html"
VERDICTS = ("nothing found", "poisoned", "no answer")  # by status


def write_tables(results: Sequence[Any], folder: Path) -> None:
    """Three files of the sweep's folder, in place of those that are there. results: SweepResult."""
    rows = [dataclasses.asdict(result) for result in results]
    names = list(rows[0]) if rows else []
    shown = [{**row, "verdict": VERDICTS[row["status"]]} for row in rows]
    table = [[" ".join(cell) if isinstance(cell := row[name], tuple) else cell for name in names] for row in rows]
    _replace(folder / CSV, csv_bytes(names, table))
    lines = (json.dumps(row, allow_nan=False) + "\n" for row in shown)
    _replace(folder / LINES, "".join(lines).encode("ascii"))
    _replace(folder / INDEX, render_sweep(shown).encode())


def _replace(path: Path, content: bytes) -> None:
    handle, part = tempfile.mkstemp(prefix=".bre.", suffix=".partial", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(part, 0o644)
        os.replace(part, path)
    except BaseException:
        os.unlink(part)
        raise
