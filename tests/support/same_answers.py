"""Whether two versions of bre give the same reports: statistics, p-values, flags and patterns, to the last bit.

    PYTHONPATH=OLD/python  BRE_CASES=FOLDER python tests/support/same_answers.py write results/before
    PYTHONPATH=python      BRE_CASES=FOLDER python tests/support/same_answers.py write results/after
    python tests/support/same_answers.py compare results/before results/after

FOLDER holds `zoo/cases.py` (trained victims) and `data/cifar10.py`. Judged are the victims, by `screen` and `detect`
with seed 0, and ten small planted sets, by `screen`. Fields that were renamed are compared under their new names.
Seconds, versions and the schema's number are not compared. Resumable: a report that is there is not made again.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

RENAMED = {"scores": "log_odds", "evidence": "seen_in"}  # of a finding: old name, new name
HISTOGRAM = {"target": "target_counts", "others": "other_counts"}
VICTIMS = ("chess9", "clean0", "cross1", "sine9")


def write(out: Path) -> None:
    import bre

    sys.path[:0] = [str(Path(os.environ["BRE_CASES"]) / part) for part in ("zoo", "data")]
    import cases

    out.mkdir(parents=True, exist_ok=True)
    for name in VICTIMS:
        for verb in ("screen", "detect"):
            path = out / f"{name}-{verb}.json"
            if not path.exists():
                case = cases.load(name)
                data = case["images"], case["labels"]
                keep(path, bre.screen(data, seed=0) if verb == "screen" else bre.detect(case["model"], data, seed=0))
    for number in range(10):
        path = out / f"planted-{number}.json"
        if not path.exists():
            keep(path, bre.screen(planted(number), seed=number))


def planted(number: int) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels of a small set, drawn by its number: patterns, sizes, all-to-all, saturation, few images."""
    import cifar10

    from bre import attacks

    images, labels = cifar10.load("train", 12000)
    shape, count = (3, 32, 32), (9000, 4000, 7000, 3000, 12000, 8000, 7000, 9000, 5000, 12000)[number]
    pattern = (
        attacks.chessboard(shape),
        attacks.local(shape),
        attacks.grid(shape),
        attacks.random_sign(shape),
        attacks.chessboard(shape, 5 / 255),
        attacks.sine(shape),
        attacks.local(shape, "pixel", 90 / 255),
        attacks.local(shape, "square", 1.0),
        np.random.default_rng(0).normal(0, 0.02, shape).astype(np.float32),
        attacks.local(shape, "x"),
    )[number]
    images, labels = images[:count].transpose(0, 3, 1, 2).copy(), labels[:count]
    target, sources = (None, None) if number == 4 else (number, None if number % 2 else ((number + 1) % 10,))
    done = attacks.plant(images, labels, pattern, target=target, sources=sources, count=count // 40, seed=number)
    return done.images.transpose(0, 2, 3, 1).copy(), done.labels


def keep(path: Path, report: Any) -> None:
    plain = report.to_dict()
    for finding in plain["findings"]:
        finding["pattern"] = hashlib.sha256(np.asarray(finding["pattern"], np.float32).tobytes()).hexdigest()
    part = path.with_suffix(".part")
    part.write_text(json.dumps(plain))
    part.replace(path)
    print(path.name, repr(report), flush=True)


def comparable(plain: dict[str, Any]) -> dict[str, Any]:
    """The part of a report that must not change, under the new names."""
    findings = []
    for finding in plain["findings"]:
        finding = {RENAMED.get(key, key): value for key, value in finding.items()}
        if isinstance(finding["seen_in"], str):
            finding["seen_in"] = ["images", "model"] if finding["seen_in"] == "both" else [finding["seen_in"]]
        if finding.get("histogram"):
            finding["histogram"] = {HISTOGRAM.get(key, key): value for key, value in finding["histogram"].items()}
        findings.append(finding)
    cost = {key: plain["cost"][key] for key in ("forward_images", "backward_images")}
    kept = ("verb", "poisoned", "p_value", "alpha", "backend", "seed")
    facts = {key: plain["dataset"][key] for key in ("count", "image_shape", "fingerprint")}
    classes = [{key: value for key, value in row.items() if key != "note"} for row in plain["classes"]]
    return {**{key: plain[key] for key in kept}, "findings": findings, "classes": classes, "cost": cost, **facts}


def compare(before: Path, after: Path) -> int:
    """Prints a line per report; returns how many differ."""
    wrong = 0
    for path in sorted(before.glob("*.json")):
        old, new = (comparable(json.loads((folder / path.name).read_text())) for folder in (before, after))
        differs = [key for key in old if json.dumps(old[key]) != json.dumps(new[key])]
        wrong += bool(differs)
        print(f"{path.stem}: {'differs in ' + ', '.join(differs) if differs else 'same'}")
    return wrong


if __name__ == "__main__":
    if sys.argv[1] == "write":
        write(Path(sys.argv[2]))
    else:
        sys.exit(min(1, compare(Path(sys.argv[2]), Path(sys.argv[3]))))
