"""Where rows, pages and the images to measure on lie."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
ROWS = ROOT / "benchmarks" / "results"  # in the repository: what the pages are made from
KEPT = ROOT / "results"  # not in the repository: trained networks, rows of one machine


def module_of_cases(part: str, name: str) -> Any:
    """The module `name` of $BRE_CASES/`part`, which is not part of this repository; exits where there is none.

    `zoo/cases.py`: victim models with the exact poisoned set that each was trained on. `data/cifar10.py`:
    `load(split, limit, noise=0.0)`, the first `limit` images of "train" or "test" in a fixed shuffled order, uint8
    (limit, 32, 32, 3), with Gaussian noise of so many grey levels, and labels, int64.
    """
    if "BRE_CASES" not in os.environ:
        sys.exit(f"BRE_CASES: expected the folder that holds {part}/{name}.py, got nothing")
    folder = str(Path(os.environ["BRE_CASES"]) / part)
    if folder not in sys.path:
        sys.path.append(folder)
    return importlib.import_module(name)
