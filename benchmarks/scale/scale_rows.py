"""Rows of docs/scale.md: one file for each thing measured, in the repository."""

from __future__ import annotations

import datetime
import json
import os
import platform
from typing import Any

from benchmarks.common.places import ROWS
from bre.verbs.versions import versions


def write_row(name: str, row: dict[str, Any]) -> None:
    """Append to results/scale/NAME.jsonl, with date, machine, load and versions."""
    about = {
        "date": datetime.date.today().isoformat(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}",
        "versions": versions(),
    }
    folder = ROWS / "scale"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{name}.jsonl").open("a") as file:
        file.write(json.dumps({**row, **about}) + "\n")
    print(json.dumps({**row, **about}, indent=1), flush=True)
