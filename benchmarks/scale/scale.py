"""bre on many images and classes, killed and resumed, on processes and on Ray. Writes docs/scale.md.

    BRE_CASES=FOLDER python -m benchmarks.scale.scale [--only NAME,...] [--scratch FOLDER]
    python -m benchmarks.scale.scale --page

Resumable: a row that stands in benchmarks/results/scale/rows.jsonl is not measured again. FOLDER: see
common/places.py.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import torch

from benchmarks.common.places import DOCS, ROWS
from benchmarks.scale.rows import PLAN, Row
from benchmarks.scale.scale_page import page

RESULTS, PAGE = ROWS / "scale" / "rows.jsonl", DOCS / "scale.md"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="names of rows, by commas")
    parser.add_argument("--scratch", type=Path, default=Path(tempfile.gettempdir()), help="for data and run folders")
    parser.add_argument("--page", action="store_true", help="only write docs/scale.md")
    given = parser.parse_args()
    torch.set_num_threads(1)
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    done = {row["name"] for row in results()}
    for name, measure in PLAN.items():
        wanted = not given.only or name in given.only.split(",")
        if wanted and name not in done and not given.page:
            row = {"name": name, **measure(given.scratch)}
            with RESULTS.open("a") as file:
                file.write(json.dumps(row) + "\n")
            print(json.dumps(row), flush=True)
    PAGE.write_text(page([*results(), *of_others()]))


def results() -> list[Row]:
    return rows_of(RESULTS)


def rows_of(file: Path) -> list[Row]:
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def of_others() -> list[Row]:
    """The last row of scale_data.py and of scale_sweep.py."""
    return [
        {"name": name, **row} for name in ("s3", "sweep") for row in rows_of(RESULTS.with_name(f"{name}.jsonl"))[-1:]
    ]


if __name__ == "__main__":
    main()
