"""How long a verdict takes, next to training and to published detectors. Writes docs/speed.md.

    BRE_CASES=FOLDER python -m benchmarks.speed.verdicts [--rows NAME,...] [--again] [--threads N]
    python -m benchmarks.speed.verdicts --page

FOLDER holds `data/cifar10.py`. Every row of speed_rows.py, and the ops' benchmark, runs in a process of its own and is
written to benchmarks/results/speed/ as it ends; what stands there is not run again without --again. --page only makes
the page (and its plot, with the `plot` extra) from what stands there.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

import bre
from benchmarks.common.places import ROOT, ROWS

RESULTS = ROWS / "speed"
OPS = "ops"
THIS = (sys.executable, "-m", "benchmarks.speed.verdicts")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", default="", help="names of rows, all of them when not given")
    parser.add_argument("--again", action="store_true", help="run rows that stand there already, too")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--page", action="store_true", help="only write docs/speed.md")
    parser.add_argument("--here", action="store_true", help="run the one row given in this process")
    arguments = parser.parse_args()
    if arguments.here:
        return measure(arguments.rows, arguments.threads)
    if not arguments.page:
        if "BRE_CASES" not in os.environ:
            sys.exit("BRE_CASES: expected the folder that holds data/, got nothing")
        from benchmarks.speed.speed_rows import ROWS as RUNS

        failed = []
        chosen = arguments.rows.split(",") if arguments.rows else [*RUNS, OPS]
        if unknown := [name for name in chosen if name not in (*RUNS, OPS)]:
            parser.error(f"--rows: no row is called {', '.join(unknown)}; there are {', '.join((*RUNS, OPS))}")
        for name in chosen:
            if arguments.again or not path(name).exists():
                print(name, flush=True)
                threads = name.split()[-1] if name.startswith("scaling threads") else str(arguments.threads)
                options = ["--here", "--rows", name, "--threads", threads]
                environment = {**os.environ, "OMP_NUM_THREADS": threads}
                if subprocess.run([*THIS, *options], cwd=ROOT, env=environment).returncode:
                    failed.append(name)
        if failed:
            sys.exit(f"rows that failed: {', '.join(failed)}")
    from benchmarks.speed import speed_page

    speed_page.write({file.stem: json.loads(file.read_text()) for file in sorted(RESULTS.glob("*.json"))})


def path(name: str) -> Path:
    return RESULTS / f"{name.replace(' ', '_')}.json"


def measure(name: str, threads: int) -> None:
    torch.set_num_threads(threads)
    if name == OPS:
        row = ops()
    else:
        from benchmarks.speed.speed_rows import ROWS as RUNS

        row = RUNS[name]()
    peak = resource.RUSAGE_CHILDREN if name == OPS else resource.RUSAGE_SELF
    stamp = {
        "name": name,
        "peak_gib": resource.getrusage(peak).ru_maxrss / 2**20,
        "threads": threads,
        "machine": machine(),
        "date": str(datetime.date.today()),
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "bre": bre.__version__},
    }
    RESULTS.mkdir(parents=True, exist_ok=True)
    partial = path(name).with_suffix(f".{os.getpid()}.tmp")
    partial.write_text(json.dumps({**stamp, **row}, indent=1) + "\n")
    partial.replace(path(name))


def machine() -> str:
    """The processor's name, and how many cores there are."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    name = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    return f"{name}, {os.cpu_count()} cores"


def ops() -> dict[str, Any]:
    """The ops' benchmark, boiled down: name, seconds, and what it says of bytes and operations."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "ops.json"
        command = [sys.executable, "-m", "pytest", "-q", "benchmarks/speed/op_times.py", f"--benchmark-json={file}"]
        subprocess.run(command, cwd=ROOT, check=True)
        found = json.loads(file.read_text())["benchmarks"]
    return {"ops": [{"op": b["name"], "seconds": b["stats"]["min"], **b["extra_info"]} for b in found]}


if __name__ == "__main__":
    main()
