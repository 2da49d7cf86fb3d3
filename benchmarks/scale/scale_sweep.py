"""`bre sweep` over the victims at hand, killed in its middle, beside each verdict alone. One row for docs/scale.md.

    BRE_CASES=FOLDER python -m benchmarks.scale.scale_sweep --scratch DIR [--jobs N] [--kills 2] [--images N]
        [--detect NAME,...]

--images: of each victim's set, the first N; --detect: the victims whose model is looked at too, without it all.
FOLDER holds `zoo/cases.py` (common/places.py says what it is). The sweep's processes are ended by SIGKILL at moments
drawn at random after the first, the second, ... verdict, and started again. What is asserted: all verdicts are those of
a run alone, to the last bit of p-values and flagged images, and no verdict that was there was made again.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

import bre
from benchmarks.common.places import module_of_cases
from benchmarks.scale.scale_rows import write_row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scratch", type=Path, required=True)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--kills", type=int, default=2)
    parser.add_argument("--images", type=int)
    parser.add_argument("--detect", type=lambda text: text.split(","))
    arguments = parser.parse_args()
    arguments.scratch.mkdir(parents=True, exist_ok=True)
    listing = write_list(arguments.scratch, arguments.images, arguments.detect)
    out = arguments.scratch / "sweep"
    command = [sys.executable, "-m", "bre", "sweep", str(listing), "--out", str(out), "--jobs", str(arguments.jobs)]
    random.seed(0)
    start, kills = time.perf_counter(), []
    made: dict[str, int] = {}
    for number in range(1, arguments.kills + 1):
        kills.append(killed(command, out, number))
        made |= records(out)
    ended = subprocess.run(command)
    seconds = time.perf_counter() - start
    assert {name: now for name, now in records(out).items() if name in made} == made, "a verdict was made again"
    rows = [json.loads(line) for line in (out / "verdicts.jsonl").read_text().splitlines()]
    assert ended.returncode == 1, ended.returncode
    same = compare(listing, rows, out, arguments.scratch / "alone")
    write_row(
        "sweep",
        {
            "rows": len(rows),
            "images_of_each": arguments.images,
            "jobs": arguments.jobs,
            "kills": kills,
            "kept_over_kills": len(made),
            "made_again": 0,
            "verdicts": {row["name"]: row["verdict"] for row in rows},
            "as_alone": same,
            "seconds": round(seconds, 1),
        },
    )


def write_list(scratch: Path, images: int | None, detect: list[str] | None) -> Path:
    """Every victim's images with screen, and those to detect with their model."""
    cases, lines = module_of_cases("zoo", "cases"), []
    for name in cases.names():
        case = cases.load(name)
        data = scratch / f"{name}.npz"
        if not data.exists():
            np.savez(data, images=case["images"][:images], labels=case["labels"][:images])
        if detect is None or name in detect:
            lines.append({"name": name, "data": data.name, "model": str(case["model"])})
        lines.append({"name": f"{name}, images", "data": data.name})
    listing = scratch / "list.jsonl"
    listing.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return listing


def records(out: Path) -> dict[str, int]:
    """{verdict: when it was written, ns}"""
    return {path.name: path.stat().st_mtime_ns for path in out.glob("rows/*.json")}


def killed(command: list[str], out: Path, number: int) -> dict[str, Any]:
    """Kill the sweep and all its processes up to 20 seconds after it has `number` verdicts more than before."""
    before = len(records(out))
    process = subprocess.Popen(command, start_new_session=True)
    while len(records(out)) - before < number and process.poll() is None:
        time.sleep(0.1)
    time.sleep(random.uniform(0, 20))
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return {"verdicts_before": before, "verdicts_after": len(records(out))}


def compare(listing: Path, rows: list[dict[str, Any]], out: Path, alone: Path) -> int:
    """How many verdicts are those of the same row alone; all must be. alone: a folder that keeps these."""
    alone.mkdir(exist_ok=True)
    for line, row in zip(listing.read_text().splitlines(), rows, strict=True):
        given = json.loads(line)
        place = alone / given["name"].replace(", ", "-")
        data = bre.open_dataset(listing.parent / given["data"])
        if not place.exists():
            report = bre.detect(given["model"], data) if "model" in given else bre.screen(data)
            report.save(place)
        saved = bre.Report.load(place)
        for ours in (bre.Report.load(out / row["report"]),):
            assert (ours.poisoned, ours.p_value) == (saved.poisoned, saved.p_value), given["name"]
            assert (ours.indices == saved.indices).all(), given["name"]
        for file in ("report.json", "arrays.npz"):
            assert (out / row["report"] / file).read_bytes() == (place / file).read_bytes(), (given["name"], file)
    return len(rows)


if __name__ == "__main__":
    main()
