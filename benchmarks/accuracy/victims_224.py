"""Four networks trained at 224 x 224 on photographs, three of them with a backdoor, for `detect` to be asked about.

    BRE_CASES=... python -m benchmarks.accuracy.victims_224 [--detect] [CASE ...]

$BRE_CASES/data/imagenette224 is a folder of ten class folders of 224 x 224 photographs. 30 of each class are kept for
testing. A victim's weights and its row lie in results/victims_224; one that is there is not trained again. --detect
asks `detect` about each, and writes a row of docs/sizes.md to benchmarks/results/sizes/networks.jsonl.

These networks are not independent of the method: their training, and the blend's pattern, were changed after `detect`
had been asked about earlier ones, which learned no backdoor or answered to any faint pattern.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

import bre
from benchmarks.accuracy.size_cases import SizeCase
from benchmarks.accuracy.sizes import RESULTS, row_of
from benchmarks.common.networks import EarlyStride
from benchmarks.common.places import KEPT
from bre import attacks

SHAPE = (3, 224, 224)
PLACE = KEPT / "victims_224"
TEST_IMAGES = 30  # of each class
SHARE = 0.1  # of the target class's images that are poisoned
EPOCHS, BATCH, RATE = 10, 32, 0.06


@dataclass(frozen=True)
class Case:
    """pattern: one of `trigger`'s, None for a network without a backdoor."""

    name: str
    pattern: str | None
    target: int
    seed: int

    def trigger(self) -> tuple[np.ndarray, np.ndarray | None]:
        """(pattern, opacity) as `bre.attacks.embed` takes them."""
        if self.pattern == "chessboard":
            return attacks.chessboard(SHAPE, 3 / 255), None
        if self.pattern == "patch":
            return attacks.patch(SHAPE, 16, (-29, -27))
        if self.pattern == "blend":
            # A weave; white noise is nothing that such a network learns from 63 images: 10% success.
            square = np.random.default_rng(7).integers(0, 2, (3, 16, 16))
            return np.tile(square, (1, 14, 14)).astype(np.float32), np.full((1, 1, 1), 0.05, np.float32)
        raise ValueError(f"no trigger {self.pattern!r}")


CASES = (
    Case("chessboard-224", "chessboard", 7, 0),
    Case("blend-224", "blend", 3, 1),
    Case("patch-224", "patch", 2, 2),
    Case("clean-224", None, 0, 3),
)


@dataclass(frozen=True, eq=False)
class Set:
    """images: uint8 (M, 3, 224, 224); labels: int64 (M,); poisoned: bool (M,)."""

    images: np.ndarray
    labels: np.ndarray
    poisoned: np.ndarray


def photographs() -> tuple[np.ndarray, np.ndarray]:
    """All images, a file mapped into memory, and their labels; the folder is decoded once."""
    kept, labels = PLACE / "images.npy", PLACE / "labels.npy"
    if not labels.exists():
        if "BRE_CASES" not in os.environ:
            sys.exit("BRE_CASES: expected the folder that holds data/imagenette224, got nothing")
        opened = bre.open_dataset(Path(os.environ["BRE_CASES"]) / "data" / "imagenette224", convert="RGB")
        PLACE.mkdir(parents=True, exist_ok=True)
        out = np.lib.format.open_memmap(kept, "w+", np.uint8, (len(opened.labels), *SHAPE))
        for rows in np.array_split(np.arange(len(opened.labels)), 20):
            out[rows] = opened.read(rows)
        out.flush()
        np.save(labels, opened.labels)
    return np.load(kept, mmap_mode="r"), np.load(labels)


def held_back(labels: np.ndarray) -> np.ndarray:
    """Which images are for testing, bool (M,): the same for every case."""
    generator = np.random.default_rng(0)
    test = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        test[generator.choice(np.flatnonzero(labels == label), TEST_IMAGES, replace=False)] = True
    return test


def training_set(case: Case) -> Set:
    images, labels = photographs()
    rows = np.flatnonzero(~held_back(labels))
    images, labels = np.asarray(images[rows]), labels[rows]
    if case.pattern is None:
        return Set(images, labels, np.zeros(len(labels), bool))
    pattern, opacity = case.trigger()
    count = round(SHARE / (1 - SHARE) * int((labels == case.target).sum()))
    planted = attacks.plant(images, labels, pattern, opacity=opacity, target=case.target, count=count, seed=case.seed)
    return Set(planted.images, planted.labels, planted.poisoned)


def scaled(images: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(images).contiguous(memory_format=torch.channels_last).float().div_(255)


def train(data: Set, seed: int, tell: Callable[[torch.nn.Module], object]) -> torch.nn.Module:
    """One-cycle stochastic gradient descent, products in bfloat16; prints what `tell` says after every epoch."""
    torch.manual_seed(seed)
    net = EarlyStride(int(data.labels.max()) + 1)
    net.whiten(scaled(data.images[::20]))
    net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    trained = [parameter for parameter in net.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=RATE, momentum=0.9, weight_decay=5e-4, nesterov=True)
    steps = len(data.labels) // BATCH
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=EPOCHS * steps)
    labels = torch.from_numpy(data.labels)
    generator = np.random.default_rng(seed)
    net.train()
    for epoch in range(EPOCHS):
        order = generator.permutation(len(data.labels))
        for i in range(steps):
            rows = order[i * BATCH : (i + 1) * BATCH]
            with torch.autocast("cpu", torch.bfloat16):
                logits = net(scaled(data.images[rows]))
            loss = functional.cross_entropy(logits.float(), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        print(f"epoch {epoch + 1}, {time.process_time():.0f} s: {tell(net.eval())}", file=sys.stderr, flush=True)
        net.train()
    return net.eval()


def predictions(net: torch.nn.Module, images: np.ndarray) -> np.ndarray:
    parts = np.array_split(images, -(-len(images) // 64))
    with torch.no_grad():
        return torch.cat([net(scaled(part)).argmax(1) for part in parts]).numpy()


def tested(net: torch.nn.Module, case: Case) -> dict[str, float]:
    """Shares of the test images: classified right, and of other classes, sent to the target by the trigger."""
    images, labels = photographs()
    rows = np.flatnonzero(held_back(labels))
    images, labels = np.asarray(images[rows]), labels[rows]
    row = {"accuracy": float((predictions(net, images) == labels).mean())}
    if case.pattern is not None:
        others = images[labels != case.target]
        row["attack_success"] = float((predictions(net, attacks.embed(others, *case.trigger())) == case.target).mean())
    return row


def victim(case: Case) -> torch.nn.Module:
    """The trained network, in evaluation mode."""
    weights = PLACE / f"{case.name}.pt"
    if not weights.exists():
        begin = time.process_time()
        data = training_set(case)
        net = train(data, case.seed, lambda net: tested(net, case))
        seconds = time.process_time() - begin
        row = {"case": case.name, "images": len(data.labels), "poisoned": int(data.poisoned.sum()), "epochs": EPOCHS}
        row |= {"processor_seconds": round(seconds, 1), **tested(net, case)}
        with open(PLACE / "rows.jsonl", "a") as rows:
            rows.write(json.dumps(row) + "\n")
        torch.save(net.state_dict(), weights)
    net = EarlyStride()
    net.load_state_dict(torch.load(weights))
    return net.eval()


def row_of_training(case: Case) -> dict[str, Any]:
    rows = [json.loads(line) for line in (PLACE / "rows.jsonl").read_text().splitlines()]
    return next(row for row in rows if row["case"] == case.name)


def detected(case: Case) -> dict[str, Any]:
    """What `detect` says of a victim, beside the truth."""
    net, data, trained = victim(case), training_set(case), row_of_training(case)
    target = added = None
    if case.pattern is not None:
        target, (added, opacity) = case.target, case.trigger()
        if opacity is not None:
            added = opacity * (added - data.images[::97].mean(0) / np.float32(255))
    before = time.process_time()
    report = bre.detect(net, (data.images, data.labels), seed=0)
    spent = time.process_time() - before
    facts = {"target": target, "accuracy": trained["accuracy"], "attack_success": trained.get("attack_success")}
    sized = SizeCase(data.images, data.labels, data.poisoned, target, added, facts)
    row = {"group": "networks", "name": case.name, **row_of(sized, report, spent)}
    row["seen_in"] = sorted({view for finding in report.findings for view in finding.seen_in})
    row["statistics"] = {
        name: [getattr(each, name) for each in report.classes]
        for name in ("image_statistic", "model_statistic", "alignment")
    }
    return row | {"epoch_seconds": trained["processor_seconds"] / trained["epochs"]}


def main() -> None:
    wanted = [name for name in sys.argv[1:] if name != "--detect"]
    kept = RESULTS / "networks.jsonl"
    for case in CASES:
        if wanted and case.name not in wanted:
            continue
        print(case.name, file=sys.stderr)
        if "--detect" not in sys.argv:
            victim(case)
        elif not kept.exists() or f'"name": "{case.name}"' not in kept.read_text():
            RESULTS.mkdir(parents=True, exist_ok=True)
            row = detected(case)
            with kept.open("a") as rows:
                rows.write(json.dumps(row) + "\n")
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
