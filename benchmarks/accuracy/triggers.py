"""Every kind of trigger: train victims, judge them, compare, retrain. Writes docs/triggers.md.

    BRE_CASES=FOLDER python -m benchmarks.accuracy.triggers --victims FOLDER
        [--train] [--judge] [--baselines] [--retrain] [--ceiling] [--page] [--only NAME,...] [--again]

FOLDER of BRE_CASES holds `data/cifar10.py`; the other keeps the victims, trained where they are missing, one after the
other, and is not part of the repository. What a step finds of a row is written to benchmarks/results/triggers/NAME.json
as it ends, and is not found again (`--again` finds it again). --ceiling: what the activations tell at best.
"""

from __future__ import annotations

import argparse
import datetime
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

import bre
from benchmarks.accuracy import inside_baselines, trigger_ceilings, trigger_victims, triggers_page
from benchmarks.accuracy.table import Table, machine, versions
from benchmarks.accuracy.trigger_cases import TriggerCase, all_cases, natural_set
from benchmarks.accuracy.trigger_victims import Victim
from benchmarks.common.places import DOCS, ROWS

Row = dict[str, Any]
TABLE = Table(ROWS / "triggers")
HELD_OUT = 1000  # of the test images, for PSBD


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--victims", type=Path, required=True, help="the folder that keeps them")
    for step in (*STEPS, "page"):
        parser.add_argument(f"--{step}", action="store_true")
    parser.add_argument("--only", default="", help="names of rows; all of them when not given")
    parser.add_argument("--again", action="store_true", help="what is there already too")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    cases, only = all_cases(), set(filter(None, arguments.only.split(",")))
    if unknown := only - {case.name for case in cases}:
        parser.error(f"--only: no row is called {', '.join(sorted(unknown))}")
    for case in cases:
        for step in (step for step in STEPS if getattr(arguments, step) and (not only or case.name in only)):
            run(step, case, arguments.victims, again=arguments.again)
    if arguments.page:
        triggers_page.write([TABLE.read(case.name) for case in cases], cases, DOCS / "triggers.md")


def run(step: str, case: TriggerCase, folder: Path, *, again: bool) -> None:
    """A step of a row, unless it stands there or lacks what it is made from."""
    row = TABLE.read(case.name)
    if (step in row and not again) or (step != "train" and not (folder / case.name / "truth.json").exists()):
        return
    start = time.perf_counter()
    result = STEPS[step](case, folder, row)
    if not result:  # the step does not apply
        return
    minutes = round((time.perf_counter() - start) / 60, 1)
    made = {"minutes": minutes, "date": str(datetime.date.today()), "machine": machine(), "versions": versions()}
    TABLE.add(case.name, step, {**result, **made})
    print(case.name, step, minutes, json.dumps(result)[:300], flush=True)


def train(case: TriggerCase, folder: Path, row: Row) -> Row:
    return dict(trigger_victims.make(case, folder))


def judge(case: TriggerCase, folder: Path, row: Row) -> Row:
    """The verdict of `detect` as it is now, against the truth."""
    victim = trigger_victims.load(folder, case.name)
    start = time.perf_counter()
    report = bre.detect(victim.model, (victim.images, victim.labels), seed=case.seed)
    seconds = time.perf_counter() - start
    flagged = np.isin(np.arange(len(victim.labels)), report.indices)
    return {
        **compared(flagged, victim),
        "seconds": round(seconds, 1),
        "p_value": report.p_value,
        "indices": report.indices.tolist(),
        "findings": [
            {
                "kind": finding.kind,
                "target": finding.target,
                "sources": list(finding.sources),
                "p_value": finding.p_value,
                "seen_in": list(finding.seen_in),
            }
            for finding in report.findings
        ],
        "p_values": [each.p_value for each in report.classes],
        "forward": report.cost.forward_images,
        "backward": report.cost.backward_images,
    }


def compared(flagged: np.ndarray, victim: Victim) -> Row:
    """found: share of the poisoned images that are flagged, lost: of those that nobody touched, covers: of the covers;
    None where there are none."""
    parts = {"found": victim.poisoned, "lost": victim.clean, "covers": victim.covers}
    shares = {name: float(flagged[rows].mean()) if rows.any() else None for name, rows in parts.items()}
    return {**shares, "flagged": int(flagged.sum())}


def baselines(case: TriggerCase, folder: Path, row: Row) -> Row:
    """Of each published filter what `compared` says and seconds, or why it cannot judge this row."""
    from benchmarks.accuracy import art_baselines  # the `bench` extra, which the other steps do without

    victim = trigger_victims.load(folder, case.name)
    results: Row = art_baselines.run(victim.model, victim, case.classes)
    clean = natural_set(case, "test")[0][:HELD_OUT]
    methods: dict[str, Callable[[], tuple[np.ndarray, Row]]] = {
        "FLARE": lambda: inside_baselines.flare(victim.model, victim.images),
        "PSBD": lambda: inside_baselines.psbd(victim.model, victim.images, clean, case.seed),
    }
    for name, method in methods.items():
        start = time.perf_counter()
        try:
            flagged, facts = method()
        except inside_baselines.Unsuited as reason:
            results[name] = {"unsuited": str(reason)}
            continue
        results[name] = {**compared(flagged, victim), **facts, "seconds": round(time.perf_counter() - start, 1)}
    return results


def retrain(case: TriggerCase, folder: Path, row: Row) -> Row:
    """Accuracy and success of a network trained on what `detect` left, and of one trained on untouched images only."""
    if "judge" not in row or case.trigger is None:
        return {}
    victim = trigger_victims.load(folder, case.name)
    parts = trigger_victims.parts_of(case, folder / case.name)
    kept = {
        "cleansed": ~np.isin(np.arange(len(victim.labels)), row["judge"]["indices"]),
        "reference": victim.clean,
    }
    return {
        name: trigger_victims.measured(
            trigger_victims.trained(case, victim.images[rows], victim.labels[rows]), case, parts
        )
        for name, rows in kept.items()
    }


def ceiling(case: TriggerCase, folder: Path, row: Row) -> Row:
    if case.trigger is None or not isinstance(case.target, int):
        return {}
    return trigger_ceilings.at_best(trigger_victims.load(folder, case.name), case.target, case.seed)


STEPS: dict[str, Callable[[TriggerCase, Path, Row], Row]] = {
    "train": train,
    "judge": judge,
    "baselines": baselines,
    "retrain": retrain,
    "ceiling": ceiling,
}

if __name__ == "__main__":
    main()
