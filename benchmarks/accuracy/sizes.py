"""bre at any size: images of 30 to 224 pixels a side, small sets, imbalance, two classes. Writes docs/sizes.md.

    BRE_CASES=FOLDER python -m benchmarks.accuracy.sizes [--groups cells,likeness,...] [--only TEXT] [--shard I/N]
    python -m benchmarks.accuracy.sizes --limits | --page

FOLDER: see size_cases.py. Resumable: a row that stands in benchmarks/results/sizes/GROUP.jsonl is not judged again;
remove the file to start anew. --limits adds to rows whose pattern was missed what a search could have found at best
(size_limits.py). --page only makes the page.
"""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch

import bre
from benchmarks.accuracy.cosines import cosine, without_means
from benchmarks.accuracy.size_cases import SizeCase, plan
from benchmarks.accuracy.size_limits import Limits
from benchmarks.accuracy.sizes_page import needed, page
from benchmarks.accuracy.table import shard
from benchmarks.common.places import DOCS, ROWS

RESULTS, PAGE = ROWS / "sizes", DOCS / "sizes.md"
Row = dict[str, Any]
Planned: TypeAlias = tuple[str, str, Callable[[], SizeCase]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--groups", default="", help="of rows, by commas; all by default")
    parser.add_argument("--only", default="", help="rows with this in their name")
    parser.add_argument("--shard", type=shard, default="0/1", help="I/N: every N-th row from the I-th on")
    parser.add_argument("--limits", action="store_true", help="only look at rows whose pattern was missed")
    parser.add_argument("--page", action="store_true", help="only write docs/sizes.md")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    RESULTS.mkdir(parents=True, exist_ok=True)
    done = {(row["group"], row["name"]) for row in results()}
    asked = [
        (group, name, make)
        for group, name, make in plan()
        if (not arguments.groups or group in arguments.groups.split(",")) and arguments.only in name
    ]
    if arguments.limits:
        add_limits(asked[arguments.shard])
    for group, name, make in [] if arguments.page or arguments.limits else asked[arguments.shard]:
        if (group, name) not in done:
            row = {"group": group, "name": name, **judged(make())}
            with file_of(group).open("a") as file:
                file.write(json.dumps(row) + "\n")
            print(json.dumps(row), flush=True)
    PAGE.write_text(page(results()))


def results() -> list[Row]:
    return [json.loads(line) for path in sorted(RESULTS.glob("*.jsonl")) for line in path.read_text().splitlines()]


def judged(case: SizeCase) -> Row:
    """What `screen` says of a set, beside the truth."""
    before = time.process_time()
    report = bre.screen((case.images, case.labels), seed=0)
    return row_of(case, report, time.process_time() - before)


def add_limits(asked: list[Planned]) -> None:
    """To rows whose pattern was missed: `best`, the target's statistic at best, and `best_mark`, its mark's p-value."""
    for group, name, make in asked:
        path = file_of(group)
        rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        row = next((row for row in rows if row["name"] == name), None)
        if row is None or row.get("target") is None or row["target"] in row["named"] or "best_mark" in row:
            continue
        case = make()
        if "statistics" not in row:
            row |= judged(case)
        limits = Limits(case)
        row |= {"best": limits.statistic, "best_mark": limits.mark_p_value}
        temporary = path.with_suffix(".tmp")
        temporary.write_text("".join(json.dumps(each) + "\n" for each in rows))
        temporary.replace(path)
        print(name, row["best"], needed(row), row["best_mark"], flush=True)


def file_of(group: str) -> Path:
    return RESULTS / f"{group.replace(' ', '_')}.jsonl"


def row_of(case: SizeCase, report: bre.Report, spent: float) -> Row:
    """spent: processor seconds."""
    poison = [finding for finding in report.findings if finding.kind == "poison"]
    flagged = np.isin(np.arange(len(case.labels)), report.indices)
    row: Row = {
        **case.facts,
        "images": len(case.labels),
        "shape": list(case.images.shape[1:]),
        "classes": int(case.labels.max()) + 1,
        "p_value": report.p_value,
        "statistics": [row.image_statistic for row in report.classes],
        "named": [finding.target for finding in poison],
        "properties": [finding.target for finding in report.findings if finding.kind == "property"],
        "flagged": int(flagged.sum()),
        "recall": float(flagged[case.poisoned].mean()) if case.poisoned.any() else None,
        "false_positives": float(flagged[~case.poisoned].mean()),
        "largest_share_flagged": max((share_of_class(f, case) for f in poison), default=0.0),
        "cpu_seconds": round(spent, 2),
        "peak_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
        "date": str(datetime.date.today()),
        "machine": f"{platform.machine()}, 1 thread",
        "versions": {"bre": bre.__version__},
    }
    right = [finding for finding in poison if finding.target == case.target]
    if right and right[0].pattern is not None and case.pattern is not None:
        pair = [without_means(p[None]).ravel().astype(np.float64) for p in (right[0].pattern, case.pattern)]
        row["cosine"] = cosine(*pair)
        row["window"] = right[0].window
    return row


def share_of_class(finding: bre.Finding, case: SizeCase) -> float:
    return len(finding.indices) / max(1, int((case.labels == finding.target).sum()))


if __name__ == "__main__":
    main()
