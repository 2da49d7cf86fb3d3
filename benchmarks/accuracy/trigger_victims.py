"""Victims of every kind of trigger: planted, trained, kept in a folder, loaded again. Knows no verdicts.

FOLDER/NAME/ holds `model.safetensors`; `planted.npz`: `indices` (n,) of the images that the attacker made, `images` (n,
3, 32, 32) uint8, `labels` (n,), `poisoned` (n,) bool (covers: False); `trigger.safetensors` where a network makes the
trigger; and `truth.json`: the case, its recipe, accuracy on test images, success of the trigger on those of its
sources.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from benchmarks.accuracy import victims
from benchmarks.accuracy.learned_triggers import LEARNED
from benchmarks.accuracy.trigger_cases import TRIGGERS, Parts, TriggerCase, natural_set
from benchmarks.accuracy.victims import Recipe, Set
from benchmarks.common import networks
from bre import attacks

# Short, and in float32: processors without instructions for bfloat16 emulate it at a tenth of the speed.
RECIPES = {
    "ResNet9": Recipe(epochs=6, autocast=False),
    "VGG": Recipe("VGG", epochs=6, rate=0.05, autocast=False),
    "MobileNet": Recipe("MobileNet", epochs=6, autocast=False),
    "SmallViT": Recipe("SmallViT", epochs=8, rate=0.03, autocast=False),
}


EPOCHS, BATCH = 12, 64  # of photographs: a quarter of the images, four times the pixels


def recipe_of(case: TriggerCase) -> Recipe:
    recipe = RECIPES[case.network]
    return recipe if case.data == "cifar10" else dataclasses.replace(recipe, epochs=EPOCHS, batch=BATCH)


@dataclass(frozen=True, eq=False)
class Victim:
    """A network and the set that it was trained on. images: uint8 (M, 3, 32, 32); labels: int64 (M,); poisoned, covers:
    bool (M,); truth: as in truth.json."""

    model: torch.nn.Module
    images: np.ndarray
    labels: np.ndarray
    poisoned: np.ndarray
    covers: np.ndarray
    truth: dict[str, Any]

    @property
    def clean(self) -> np.ndarray:
        """Images that nobody touched, bool (M,)."""
        return ~(self.poisoned | self.covers)


def parts_of(case: TriggerCase, place: Path) -> Parts | None:
    """A case's trigger. One that is learned comes from `place`; where it is not there yet, it is trained on the natural
    set and kept there."""
    if case.trigger is None or case.trigger in TRIGGERS:
        return TRIGGERS[case.trigger]() if case.trigger else None
    learned, file = LEARNED[case.trigger], place / "trigger.safetensors"
    if file.exists():
        net = learned.build()
        net.load_state_dict(load_file(file))
    else:
        net = learned.train(natural_set(case, "train"), case)
        save_file({key: value.contiguous() for key, value in net.state_dict().items()}, file)
    return learned.parts(net.eval(), case)


def planted(case: TriggerCase, parts: Parts | None) -> attacks.Poisoned:
    images, labels = natural_set(case, "train")
    if parts is None:
        nothing = np.zeros(len(labels), bool)
        return attacks.Poisoned(images, labels, nothing, nothing)
    covers = attacks.Covers(case.covers, parts.covers, case.cover_sources) if case.covers else None
    return attacks.plant(
        images,
        labels,
        parts.planted,
        opacity=parts.opacity,
        target=case.target,
        sources=case.sources,
        count=case.count,
        covers=covers,
        seed=case.seed,
    )


def measured(net: torch.nn.Module, case: TriggerCase, parts: Parts | None) -> dict[str, float]:
    """accuracy: share of test images classified right; success: of the triggered ones of `used_on` that get the label
    that the attacker wants. For all-to-all and all-to-others, where it depends on the image's own class, any wrong one
    for the latter: of those that are classified right without the trigger."""
    images, labels = natural_set(case, "test")
    right = victims.predictions(net, images) == labels
    found = {"accuracy": float(right.mean())}
    if parts is not None:
        rows = np.isin(labels, case.used_on) & (right if case.target in (None, "others") else True)
        if not rows.any():
            return {**found, "success": 0.0}
        shown = attacks.triggered(images[rows], parts.used, parts.opacity, np.random.default_rng(case.seed + 1))
        got, own = victims.predictions(net, shown), labels[rows]
        if case.target == "others":
            obeyed = got != own
        else:
            obeyed = got == ((own + 1) % case.classes if case.target is None else case.target)
        found["success"] = float(obeyed.mean())
    return found


def trained(case: TriggerCase, images: np.ndarray, labels: np.ndarray) -> torch.nn.Module:
    """A network of the case's kind, on images uint8 (M, 3, 32, 32) and labels (M,)."""
    return victims.train(Set(images, labels), case.classes, recipe_of(case), augment=case.augment, seed=case.seed)


def make(case: TriggerCase, folder: Path) -> dict[str, float]:
    """Plant, train, measure, and keep under folder/NAME, whole or not at all. Returns what `measured` says."""
    partial = folder / f"{case.name}.{os.getpid()}.tmp"
    partial.mkdir(parents=True, exist_ok=True)
    parts = parts_of(case, partial)
    data = planted(case, parts)
    net = trained(case, data.images, data.labels)
    found = measured(net, case, parts)
    save_file({key: value.contiguous() for key, value in net.state_dict().items()}, partial / "model.safetensors")
    made = np.flatnonzero(data.poisoned | data.covers)
    np.savez_compressed(
        partial / "planted.npz",
        indices=made,
        images=data.images[made],
        labels=data.labels[made],
        poisoned=data.poisoned[made],
    )
    truth = {"case": dataclasses.asdict(case), "recipe": dataclasses.asdict(recipe_of(case)), **found}
    (partial / "truth.json").write_text(json.dumps(truth, indent=1) + "\n")
    place = folder / case.name
    if place.exists():
        shutil.rmtree(place)
    partial.replace(place)
    return found


def network(case: TriggerCase, file: Path) -> torch.nn.Module:
    """The trained network, on the processor, in evaluation mode."""
    net: torch.nn.Module = getattr(networks, case.network)(case.classes)
    net.load_state_dict(load_file(file))
    return net.eval()


def load(folder: Path, name: str) -> Victim:
    """As `make` kept it; the rest of the set comes from `module_of_cases`."""
    place = Path(folder) / name
    truth = json.loads((place / "truth.json").read_text())
    known = {field.name for field in dataclasses.fields(TriggerCase)}  # of victims of an earlier version, no more
    facts = {key: _tuples(value) for key, value in truth["case"].items() if key in known}
    case = TriggerCase(**facts)
    images, labels = natural_set(case, "train")
    poisoned, covers = np.zeros(len(labels), bool), np.zeros(len(labels), bool)
    with np.load(place / "planted.npz", allow_pickle=False) as made:
        rows = made["indices"]
        images[rows], labels[rows], poisoned[rows] = made["images"], made["labels"], made["poisoned"]
        covers[rows] = ~made["poisoned"]
    return Victim(network(case, place / "model.safetensors"), images, labels, poisoned, covers, truth)


def _tuples(value: Any) -> Any:
    return tuple(_tuples(each) for each in value) if isinstance(value, list) else value
