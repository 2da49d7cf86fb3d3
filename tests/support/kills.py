"""Runs that are killed at any moment: what has its final name is whole, or is not there, and the next run goes through.

    python tests/support/kills.py --count 200 --seed 0

Each run writes a report (`bre screen --out`) or a clean set with its list (`bre cleanse`), and gets SIGKILL or SIGTERM
after a time drawn evenly from a little more than a whole run takes. Then the same command runs undisturbed, which has
to work where nothing was left, to refuse where the result is there already, and to leave no litter.
"""

from __future__ import annotations

import argparse
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
from reports import flagging

from bre import Report
from bre.inputs import open_dataset

M, SIDE, K = 600, 12, 3
SIGNALS = (signal.SIGKILL, signal.SIGTERM)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    random.seed(options.seed)
    counts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory(prefix="bre-kills-") as box:
        folder = Path(box)
        _make_inputs(folder)
        for number in range(options.count):
            verb = ("screen", "cleanse")[number % 2]
            counts[f"{verb}: {_one(folder, verb, SIGNALS[number // 2 % 2])}"] += 1
            print(number + 1, dict(counts), flush=True)


def _make_inputs(folder: Path) -> None:
    rng = np.random.default_rng(0)
    smooth = rng.integers(60, 190, (M, 3, 3, 3)).repeat(4, 1).repeat(4, 2)
    images = np.clip(smooth + rng.normal(0, 12, (M, SIDE, SIDE, 3)), 0, 255).astype(np.uint8)
    np.savez(folder / "set.npz", images=images, labels=np.arange(M) % K)
    flagging(folder / "set.npz", {1: [1, 4, 7]}).save(folder / "flags")


def _one(folder: Path, verb: str, number: int) -> str:
    """What the killed run left: "nothing" or "the whole". Raises AssertionError for anything else."""
    out = folder / ("report" if verb == "screen" else "clean.npz")
    listed = folder / "clean.npz.removed.csv"
    arguments = {"screen": ["--out", out], "cleanse": [folder / "flags", "--out", out]}[verb]
    command = [sys.executable, "-m", "bre", verb, *map(str, [folder / "set.npz", *arguments]), "--quiet"]
    began = time.monotonic()
    if not hasattr(_one, verb):  # how long one takes
        subprocess.run(command, check=True)
        setattr(_one, verb, time.monotonic() - began)
        _remove(out, listed)
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    time.sleep(random.uniform(0, 1.2 * getattr(_one, verb)))
    process.send_signal(number)
    process.wait()
    there = out.exists()
    if there:
        _check(verb, out)
        assert verb == "screen" or listed.exists(), "the clean set without its list"
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == (2 if there else 0), done.stderr
    assert not there or "exists already" in done.stderr, done.stderr
    _check(verb, out)
    if not there:
        litter = [path.name for path in folder.iterdir() if path.name.startswith(".bre.")]
        assert not litter, f"left behind after the next run: {litter}"
    _remove(out, listed)
    return "the whole" if there else "nothing"


def _check(verb: str, out: Path) -> None:
    if verb == "screen":
        Report.load(out)
        assert (out / "report.html").stat().st_size > 1000
    else:
        images = open_dataset(out)
        assert len(images) == M - 3
        images.read(np.arange(len(images)))


def _remove(*paths: Path) -> None:
    for path in paths:
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
