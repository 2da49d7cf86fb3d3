"""The accuracy table: train victims, judge them, cleanse, retrain, compare. Writes docs/results.md.

    BRE_CASES=FOLDER python benchmarks/table.py [--stages train,judge,retrain,baselines,page] [--only NAME,...]

FOLDER holds `data/cifar10.py`. Resumable: every stage of every case is written to benchmarks/results/table/CASE.json as
it ends, and what stands there is not run again (`--again STAGE` runs it again). Trained networks are kept in results/,
by a fingerprint of the training set and the recipe, so that equal sets are trained once.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import victims
from victims import Case, Set

import bre

ROWS = Path(__file__).parent / "results" / "table"
MODELS = Path(__file__).parent.parent / "results" / "victims"
STAGES = ("train", "judge", "retrain", "baselines", "page")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--stages", default=",".join(STAGES))
    parser.add_argument("--again", default="", help="stages to run again for cases that have them")
    parser.add_argument("--only", default="", help="names of cases; all of them when not given")
    parser.add_argument("--shard", default="0/1", help="I/N: every N-th case from the I-th on")
    parser.add_argument("--preset", choices=victims.PRESETS, default="small")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    stages, again = arguments.stages.split(","), arguments.again.split(",")
    shard, shards = map(int, arguments.shard.split("/"))
    only = set(filter(None, arguments.only.split(",")))
    cases = [case for case in victims.all_cases() if not only or case.name in only][shard::shards]
    for case in cases:
        for stage in stages:
            if stage != "page":
                run(stage, case, victims.PRESETS[arguments.preset], again=stage in again)
    if "page" in stages:
        import table_page

        table_page.write(rows())


def rows() -> list[dict[str, Any]]:
    """The rows that are there, in the order of the cases."""
    return [read(case) for case in victims.all_cases() if path(case).exists()]


def path(case: Case) -> Path:
    return ROWS / f"{case.name}.json"


def read(case: Case) -> dict[str, Any]:
    return json.loads(path(case).read_text()) if path(case).exists() else {"case": case.name}


def run(stage: str, case: Case, recipe: victims.Recipe, *, again: bool) -> None:
    row = read(case)
    if (stage in row and not again) or (stage != "judge" and not case.trained):
        return
    if stage != "train" and case.trained and "train" not in row:
        return
    if stage == "retrain" and "judge" not in row:
        return
    start = time.time()
    result = {"train": train, "judge": judge, "retrain": retrain, "baselines": baselines}[stage](case, recipe, row)
    stamp = {
        "minutes": round((time.time() - start) / 60, 1), "date": str(datetime.date.today()), "machine": machine(),
        "versions": versions(),
    }  # fmt: skip
    row = {**read(case), stage: {**result, **stamp}}
    ROWS.mkdir(parents=True, exist_ok=True)
    partial = path(case).with_suffix(f".{os.getpid()}.tmp")
    partial.write_text(json.dumps(row, indent=1) + "\n")
    partial.replace(path(case))
    print(case.name, stage, json.dumps(result)[:400], flush=True)


def machine() -> str:
    return f"{platform.machine()}, {torch.get_num_threads()} of {os.cpu_count()} threads"


def versions() -> dict[str, str]:
    return {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__,
            "bre": bre.__version__}  # fmt: skip


def network(data: Set, case: Case, recipe: victims.Recipe) -> tuple[torch.nn.Module, str]:
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


def measured(data: Set, case: Case, recipe: victims.Recipe) -> dict[str, Any]:
    net, key = network(data, case, recipe)
    test = victims.cifar10("test", (0, 10000), case.classes, case.noise)
    accuracy, success = victims.accuracy_and_success(net, case, test)
    return {"fingerprint": key, "accuracy": accuracy, "success": success}


def train(case: Case, recipe: victims.Recipe, row: dict[str, Any]) -> dict[str, Any]:
    return measured(victims.training_set(case), case, recipe)


def judge(case: Case, recipe: victims.Recipe, row: dict[str, Any]) -> dict[str, Any]:
    """The verdicts of `screen`, and of `detect` where there is a victim, against the truth."""
    data = victims.training_set(case)
    pair = data.images, data.labels
    verdicts = {"screen": compared(bre.screen(pair, seed=case.seed), data)}
    if case.trained:
        net, _ = network(data, case, recipe)
        verdicts["detect"] = compared(bre.detect(net, pair, seed=case.seed), data)
    return verdicts


def compared(report: bre.Report, data: Set) -> dict[str, Any]:
    flagged, poisoned = np.isin(np.arange(len(data.labels)), report.indices), data.poisoned
    return {
        "p_value": report.p_value, "flagged": report.indices.tolist(),
        "found": float(flagged[poisoned].mean()) if poisoned.any() else None,
        "lost": float(flagged[~poisoned].mean()),
        "findings": [
            {
                "target": finding.target, "sources": list(finding.sources), "p_value": finding.p_value,
                "evidence": finding.evidence, "success_rate": finding.success_rate,
                "cosines": [cosines(finding, truth, data) for truth in data.truths if truth.attack.additive],
            }
            for finding in report.findings
        ],
        "p_values": [row.p_value for row in report.classes],
        "image_statistics": [row.image_statistic for row in report.classes],
        "model_statistics": [row.model_statistic for row in report.classes],
        "forward": report.cost.forward_images, "backward": report.cost.backward_images,
        "seconds": round(sum(report.cost.seconds.values()), 1),
    }  # fmt: skip


def cosines(finding: bre.Finding, truth: victims.Truth, data: Set) -> tuple[float, float]:
    """(plain, in the whitened metric) between the estimated pattern and the true one, channel means removed."""
    pair = [without_means(pattern[None])[0].ravel() for pattern in (finding.pattern, truth.pattern)]
    clean = without_means(data.images[~data.poisoned].astype(np.float32)).reshape(-1, pair[0].size)
    moment = (clean.T @ clean).astype(np.float64) / len(clean) + np.eye(clean.shape[1]) / 12
    factor = np.linalg.cholesky(moment)
    return cosine(*pair), cosine(*(np.linalg.solve(factor, p.astype(np.float64)) for p in pair))


def without_means(images: np.ndarray) -> np.ndarray:
    return images - images.mean((2, 3), keepdims=True)


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return round(float((a * b).sum() / max(np.linalg.norm(a) * np.linalg.norm(b), 1e-12)), 4)


def retrain(case: Case, recipe: victims.Recipe, row: dict[str, Any]) -> dict[str, Any]:
    """Trained on what `detect` left over, and on the set without the true poison; nothing for clean cases."""
    data = victims.training_set(case)
    if not case.attacks:
        return {}
    kept = ~np.isin(np.arange(len(data.labels)), row["judge"]["detect"]["flagged"])
    return {
        "cleansed": measured(Set(data.images[kept], data.labels[kept]), case, recipe),
        "reference": measured(Set(data.images[~data.poisoned], data.labels[~data.poisoned]), case, recipe),
    }


def baselines(case: Case, recipe: victims.Recipe, row: dict[str, Any]) -> dict[str, Any]:
    import art_baselines

    data = victims.training_set(case)
    net, _ = network(data, case, recipe)
    return art_baselines.run(net, data, len(case.classes))


if __name__ == "__main__":
    main()
