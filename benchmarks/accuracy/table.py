"""The accuracy table: train victims, judge them, cleanse, retrain, compare. Writes docs/results.md.

    BRE_CASES=FOLDER python -m benchmarks.accuracy.table [--only NAME,...]
        [--stages train,judge,whole,retrain,baselines,pairwise,page]

FOLDER holds `data/cifar10.py`. Resumable: every stage of every case is written to benchmarks/results/table/CASE.json as
it ends, and what stands there is not run again (`--again STAGE` runs it again, and what was made from it goes). Several
processes may work on one table. Trained networks are kept in results/, by a fingerprint of the training set and the
recipe, so that equal sets are trained once. `--preset NAME` trains other networks (paper, vgg, mobilenet), keeps rows
of its own, and makes docs/results_NAME.md.
"""

from __future__ import annotations

import argparse
import datetime
import fcntl
import json
import os
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

import bre
from benchmarks.accuracy import baselines as published
from benchmarks.accuracy import cosines, table_page, victims
from benchmarks.accuracy.victims import Case, Recipe, Set
from benchmarks.common.places import DOCS, KEPT, ROWS

FILES = {  # of each preset: rows, page
    preset: (ROWS / f"table{ending}", DOCS / f"results{ending}.md")
    for preset, ending in ((name, "" if name == "small" else f"_{name}") for name in victims.PRESETS)
}
MODELS = KEPT / "victims"
HELD = 0.25  # of a pattern, that an image must hold to be whole enough
Row = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stages", type=stages, default=[*STAGES, "page"])
    parser.add_argument("--again", type=stages, default=[], help="stages to run again for cases that have them")
    parser.add_argument("--only", default="", help="names of cases; all of them when not given")
    parser.add_argument("--shard", type=shard, default="0/1", help="I/N: every N-th case from the I-th on")
    parser.add_argument("--preset", choices=victims.PRESETS, default="small")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    cases, only = victims.all_cases(arguments.preset), set(filter(None, arguments.only.split(",")))
    if unknown := only - {case.name for case in cases}:
        parser.error(f"--only: no case is called {', '.join(sorted(unknown))}")
    rows, page = FILES[arguments.preset]
    table = Table(rows)
    for case in [case for case in cases if not only or case.name in only][arguments.shard]:
        for stage in arguments.stages:
            if stage != "page":
                run(table, stage, case, victims.PRESETS[arguments.preset], again=stage in arguments.again)
    if "page" in arguments.stages:
        table_page.write([table.read(case.name) for case in cases], cases, page, arguments.preset)


def stages(names: str) -> list[str]:
    for name in names.split(","):
        if name not in (*STAGES, "page"):
            raise argparse.ArgumentTypeError(f"expected {', '.join(STAGES)} or page, got {name!r}")
    return names.split(",")


def shard(text: str) -> slice:
    """Of "I/N"."""
    first, count = map(int, text.split("/"))
    if not 0 <= first < count:
        raise argparse.ArgumentTypeError(f"expected I/N with 0 <= I < N, got {text!r}")
    return slice(first, None, count)


@dataclass(frozen=True)
class Table:
    """One JSON file for each case: {"case": name, stage: result, ...}."""

    folder: Path

    def read(self, name: str) -> Row:
        file = self.folder / f"{name}.json"
        return json.loads(file.read_text()) if file.exists() else {"case": name}

    def add(self, name: str, stage: str, result: Row) -> None:
        """Set a stage of a case, whole or not at all; what was made from an earlier result of that stage goes."""
        with self._locked():
            row = {key: value for key, value in self.read(name).items() if stage not in NEEDS.get(key, ())}
            lines = [f" {json.dumps(key)}: {json.dumps(value)}" for key, value in {**row, stage: result}.items()]
            partial = self.folder / f"{name}.{os.getpid()}.tmp"
            partial.write_text("{\n" + ",\n".join(lines) + "\n}\n")
            partial.replace(self.folder / f"{name}.json")

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Between reading a row and writing it, no other process does."""
        self.folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.folder, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def run(table: Table, stage: str, case: Case, recipe: Recipe, *, again: bool) -> None:
    """Run a stage of a case, unless it stands there already, does not apply, or lacks what it is made from."""
    row = table.read(case.name)
    applies = case.trained or stage in ("judge", "whole")
    ready = all(need in row for need in NEEDS[stage] if case.trained or need != "train")
    if not applies or not ready or (stage in row and not again):
        return
    start = time.time()
    result = STAGES[stage](case, recipe, row)
    table.add(
        case.name,
        stage,
        {
            **result,
            "minutes": round((time.time() - start) / 60, 1),
            "date": str(datetime.date.today()),
            "machine": machine(),
            "versions": versions(),
        },
    )
    print(case.name, stage, json.dumps(result)[:400], flush=True)


def machine() -> str:
    return f"{platform.machine()}, {torch.get_num_threads()} of {os.cpu_count()} threads"


def versions() -> dict[str, str]:
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "bre": bre.__version__,
    }


def network(data: Set, case: Case, recipe: Recipe) -> tuple[torch.nn.Module, str]:
    """The network trained on a set, from results/ where it is there already, and its fingerprint."""
    classes = len(case.classes)
    key = victims.fingerprint(data, classes, recipe, case.augment, case.seed)
    file = MODELS / f"{key}.pt"
    if file.exists():
        net = getattr(victims.networks, recipe.network)(classes)
        net.load_state_dict(torch.load(file, weights_only=True))
        return net.eval().to(memory_format=torch.channels_last), key
    net = victims.train(data, classes, recipe, augment=case.augment, seed=case.seed)
    MODELS.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(f".{os.getpid()}.tmp")
    torch.save(net.state_dict(), partial)
    partial.replace(file)
    return net, key


def measured(data: Set, case: Case, recipe: Recipe) -> Row:
    net, key = network(data, case, recipe)
    test = victims.cifar10("test", (0, 10000), case.classes, case.noise)
    accuracy, success = victims.accuracy_and_success(net, case, test)
    return {"fingerprint": key, "accuracy": accuracy, "success": success}


def train(case: Case, recipe: Recipe, row: Row) -> Row:
    return measured(victims.training_set(case), case, recipe)


def judge(case: Case, recipe: Recipe, row: Row) -> Row:
    """The verdicts of `screen`, and of `detect` where there is a victim, against the truth."""
    data = victims.training_set(case)
    pair, factor = (data.images, data.labels), cosines.whitening(data.images[~data.poisoned]) if case.attacks else None
    verdicts = {"screen": compared(bre.screen(pair, seed=case.seed), data, factor)}
    if case.trained:
        net, _ = network(data, case, recipe)
        verdicts["detect"] = compared(bre.detect(net, pair, seed=case.seed), data, factor)
    return verdicts


def compared(report: bre.Report, data: Set, factor: Any) -> Row:
    """factor: of `cosines.whitening`; None where nothing is planted."""
    flagged, poisoned = np.isin(np.arange(len(data.labels)), report.indices), data.poisoned
    additive = [truth.pattern for truth in data.truths if truth.attack.additive]
    return {
        "p_value": report.p_value,
        "flagged": report.indices.tolist(),
        "found": float(flagged[poisoned].mean()) if poisoned.any() else None,
        "lost": float(flagged[~poisoned].mean()),
        "findings": [
            {
                "target": finding.target,
                "sources": list(finding.sources),
                "p_value": finding.p_value,
                "seen_in": list(finding.seen_in),
                "success_rate": finding.success_rate,
                "cosines": [
                    cosines.cosines(finding.pattern, pattern, factor)
                    for pattern in additive
                    if finding.pattern is not None
                ],
            }
            for finding in report.findings
        ],
        "p_values": [row.p_value for row in report.classes],
        "image_statistics": [row.image_statistic for row in report.classes],
        "model_statistics": [row.model_statistic for row in report.classes],
        "alignments": [row.alignment for row in report.classes],
        "forward": report.cost.forward_images,
        "backward": report.cost.backward_images,
        "seconds": round(sum(report.cost.seconds.values()), 1),
    }


def whole(case: Case, recipe: Recipe, row: Row) -> Row:
    """What saturation left of the patterns: the share of the poisoned images in which at least HELD of the pattern is,
    by length, and by verb the share found of these; nothing where pixels are not added to."""
    if not case.attacks or not all(attack.additive for attack in case.attacks):
        return {}
    data, plain = victims.training_set(case), victims.training_set(replace(case, attacks=()))
    change = np.square(data.images.astype(np.int32) - plain.images).sum((1, 2, 3))
    largest = np.max([truth.poisoned * change[truth.poisoned].max() for truth in data.truths], axis=0)
    held = data.poisoned & (change >= HELD**2 * largest)
    return {
        "share": float(held.sum() / data.poisoned.sum()),
        "found": {
            verb: float(np.isin(np.flatnonzero(held), row["judge"][verb]["flagged"]).mean())
            for verb in ("screen", "detect")
            if verb in row["judge"]
        },
    }


def retrain(case: Case, recipe: Recipe, row: Row) -> Row:
    """Trained on what `detect` left over, and on the set without the true poison; nothing for clean cases."""
    data = victims.training_set(case)
    if not case.attacks:
        return {}
    kept = ~np.isin(np.arange(len(data.labels)), row["judge"]["detect"]["flagged"])
    return {
        "cleansed": measured(Set(data.images[kept], data.labels[kept]), case, recipe),
        "reference": measured(Set(data.images[~data.poisoned], data.labels[~data.poisoned]), case, recipe),
    }


def baselines(case: Case, recipe: Recipe, row: Row) -> Row:
    from benchmarks.accuracy import art_baselines  # the `bench` extra, which the other stages do without

    data = victims.training_set(case)
    net, _ = network(data, case, recipe)
    return art_baselines.run(net, data, len(case.classes))


def pairwise(case: Case, recipe: Recipe, row: Row) -> Row:
    data = victims.training_set(case)
    net, _ = network(data, case, recipe)
    start = time.time()
    verdict = published.pairwise(
        net.requires_grad_(False),
        torch.from_numpy(data.images),
        torch.from_numpy(data.labels),
        classes=len(case.classes),
        seed=case.seed,
    )
    return {
        "target": verdict.targets[0] if verdict.poisoned else None,
        "p_value": verdict.statistic,
        "seconds": round(time.time() - start, 1),
        "steps": verdict.steps,
    }


STAGES: dict[str, Callable[[Case, Recipe, Row], Row]] = {
    "train": train,
    "judge": judge,
    "whole": whole,
    "retrain": retrain,
    "baselines": baselines,
    "pairwise": pairwise,
}
NEEDS = {  # of a case with a victim
    "train": (),
    "judge": ("train",),
    "whole": ("train", "judge"),
    "retrain": ("train", "judge"),
    "baselines": ("train",),
    "pairwise": ("train",),
}

if __name__ == "__main__":
    main()
