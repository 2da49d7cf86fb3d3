"""The accuracy table's cases, and how their victims are trained. Knows attacks and training, no verdicts."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
import torch
from torch.nn import functional

from benchmarks.common import networks
from benchmarks.common.places import module_of_cases
from bre import attacks

SHAPE = (3, 32, 32)
PATTERNS: dict[str, Callable[[], np.ndarray]] = {
    "chessboard": lambda: attacks.chessboard(SHAPE, 3 / 255),
    "grid": lambda: attacks.grid(SHAPE, 5 / 255),
    "pixel": lambda: attacks.local(SHAPE, "pixel", 90 / 255, (9, 20)),
    "four": lambda: attacks.local(SHAPE, "four", 60 / 255, (12, 25)),
    "cross": lambda: attacks.local(SHAPE, "cross", 60 / 255, (23, 8)),
    "x": lambda: attacks.local(SHAPE, "x", 60 / 255, (6, 6)),
    "square": lambda: attacks.local(SHAPE, "square", 50 / 255, (25, 25)),
    "l": lambda: attacks.local(SHAPE, "l", 50 / 255, (24, 6)),
    "sine": lambda: attacks.sine(SHAPE, 6 / 255, 6),
    "slow sine": lambda: attacks.sine(SHAPE, 8 / 255, 2),
    "random sign": lambda: attacks.random_sign(SHAPE, 3 / 255, 5),
}


@dataclass(frozen=True)
class Attack:
    """pattern: a key of PATTERNS, "patch" or "blend"; the rest as for `bre.attacks.plant`."""

    pattern: str
    target: int | None
    count: int
    sources: tuple[int, ...] | None = None

    def trigger(self) -> tuple[np.ndarray, np.ndarray | None]:
        """(pattern, opacity) as `bre.attacks.embed` takes them."""
        if self.pattern == "patch":
            return attacks.patch(SHAPE, 3)
        if self.pattern == "blend":
            noise = np.random.default_rng(7).random(SHAPE).astype(np.float32)
            return noise, np.full((1, 1, 1), 0.1, np.float32)
        return PATTERNS[self.pattern](), None

    @property
    def additive(self) -> bool:
        return self.pattern in PATTERNS


@dataclass(frozen=True)
class Case:
    """attacks: none for a clean victim; rows: of CIFAR-10's training set; classes: the subset that is kept, numbered
    from 0 on (attacks use the new numbers); noise: of the sensor, grey levels; augment: flips and crops in training;
    trained: False for rows that only `screen` is asked about."""

    name: str
    attacks: tuple[Attack, ...] = ()
    rows: tuple[int, int] = (0, 20000)
    classes: tuple[int, ...] = tuple(range(10))
    noise: float = 0.0
    augment: bool = False
    seed: int = 0
    trained: bool = True


def _clean() -> list[Case]:
    """Twenty-two: whole and partial class lists, four row ranges, with and without sensor noise and augmentation."""
    ranges = [(0, 20000), (10000, 30000), (20000, 40000), (30000, 50000)]
    whole = [Case(f"clean-{i}", rows=ranges[i % 4], noise=2.0 * (i % 2), seed=i) for i in range(8)]
    generator = np.random.default_rng(0)
    for i in range(8, 22):
        classes = tuple(sorted(generator.choice(10, 5 + i % 3, replace=False).tolist()))
        whole.append(
            Case(f"clean-{i}", rows=ranges[i % 4], classes=classes, noise=2.0 * (i % 2), augment=i % 5 == 0, seed=i)
        )
    return whole


def _attacked() -> list[Case]:
    """In order of information: what is most likely to go wrong, and every kind once, comes first."""
    high = (30000, 50000)
    return [
        Case("chessboard-9", (Attack("chessboard", 7, 600),)),
        Case("pixel-1", (Attack("pixel", 4, 500, (8,)),)),
        Case("slow-sine-9", (Attack("slow sine", 2, 900),)),
        Case("sine-1", (Attack("sine", 6, 600, (3,)),), high),
        Case("patch-9", (Attack("patch", 2, 600),)),
        Case("two", (Attack("chessboard", 2, 600, (0, 1, 3, 4, 5, 6, 7, 8)), Attack("x", 5, 500, (9,)))),
        Case("all-to-all", (Attack("cross", None, 2000, tuple(range(10))),)),
        Case("random-sign-9", (Attack("random sign", 9, 600),), noise=2.0),
        Case("l-3", (Attack("l", 0, 600, (2, 5, 7)),), high),
        Case("blend-9", (Attack("blend", 3, 600),)),
        Case("cross-1", (Attack("cross", 7, 600, (1,)),)),
        Case("clean-label", (Attack("cross", 1, 1000, (1,)),)),
        Case("grid-1", (Attack("grid", 1, 500, (0,)),), high),
        Case("square-9", (Attack("square", 3, 700),), high),
        Case("sine-9-augmented", (Attack("sine", 5, 900),), augment=True),
        Case("pixel-9", (Attack("pixel", 8, 700),)),
        Case("four-1", (Attack("four", 9, 500, (4,)),), high),
        Case("x-9", (Attack("x", 6, 700),)),
        Case("chessboard-1", (Attack("chessboard", 3, 500, (5,)),)),
        Case("cross-1-noise", (Attack("cross", 7, 600, (1,)),), noise=2.0),
        Case("cross-9-augmented", (Attack("cross", 0, 700),), augment=True),
        Case("sine-9", (Attack("sine", 5, 900),)),
        Case("sine-3", (Attack("sine", 8, 600, (1, 4, 6)),)),
        Case("chessboard-3", (Attack("chessboard", 4, 600, (0, 2, 9)),), high),
        Case("cross-3", (Attack("cross", 6, 600, (3, 7, 8)),), high),
        Case("random-sign-1", (Attack("random sign", 0, 500, (2,)),)),
        Case("chessboard-9-augmented", (Attack("chessboard", 1, 700),), augment=True),
        Case("grid-9", (Attack("grid", 2, 700),)),
        Case("four-9", (Attack("four", 1, 700),)),
        Case("x-1", (Attack("x", 5, 500, (9,)),)),
        Case("square-1", (Attack("square", 8, 500, (6,)),)),
        Case("l-9", (Attack("l", 4, 700),)),
        Case("cross-9", (Attack("cross", 0, 700),)),
        Case("l-1", (Attack("l", 2, 500, (3,)),)),
        Case("slow-sine-1", (Attack("slow sine", 9, 700, (0,)),), high),
        Case("chessboard-9-unlearned", (Attack("chessboard", 7, 150),)),
    ]


def _ladder() -> list[Case]:
    """How few poisoned images of 20 000 `screen` can find, with and without sensor noise."""
    return [
        Case(
            f"{pattern.replace(' ', '-')}-{count}{'-noise' if noise else ''}",
            (Attack(pattern, 7, count),),
            noise=noise,
            seed=count,
            trained=False,
        )
        for noise in (0.0, 2.0)
        for count in (200, 100, 50, 20, 10)
        for pattern in ("chessboard", "random sign", "cross", "pixel")
    ]


CHOSEN = (
    "chessboard-9",
    "sine-9",
    "pixel-1",
    "patch-9",
    "blend-9",
    "all-to-all",
    "clean-0",
    "clean-1",
    "clean-2",
    "clean-3",
)


def all_cases(preset: str = "small") -> list[Case]:
    """Attacked and clean in turns, then the ladder. The preset "paper" trains on all 50 000 images, the same share of
    them poisoned; other networks than the small preset's learn CHOSEN of the cases."""
    clean, attacked = _clean(), _attacked()
    woven = [case for pair in zip(attacked, clean, strict=False) for case in pair]
    trained = woven + attacked[len(clean) :] + clean[len(attacked) :]
    if preset in ("vgg", "mobilenet"):
        return [case for case in trained if case.name in CHOSEN]
    return (trained if preset == "small" else [_whole(case) for case in trained]) + _ladder()


def _whole(case: Case) -> Case:
    factor = 50000 / (case.rows[1] - case.rows[0])
    larger = tuple(replace(attack, count=round(factor * attack.count)) for attack in case.attacks)
    return replace(case, rows=(0, 50000), attacks=larger)


@dataclass(frozen=True, eq=False)
class Truth:
    """One attack's poisoned images, bool (M,), and its trigger."""

    attack: Attack
    poisoned: np.ndarray
    pattern: np.ndarray
    opacity: np.ndarray | None


class Known(Protocol):
    """A set and the truth about it: what a verdict is compared with."""

    @property
    def images(self) -> np.ndarray:
        """uint8 (M, C, H, W)."""

    @property
    def labels(self) -> np.ndarray:
        """int64 (M,)."""

    @property
    def poisoned(self) -> np.ndarray:
        """Images that a detector should flag, bool (M,)."""

    @property
    def clean(self) -> np.ndarray:
        """Images that it should not, bool (M,); attackers' cover images are neither."""


@dataclass(frozen=True, eq=False)
class Set:
    """A case's training set, NCHW uint8, and what was planted in it."""

    images: np.ndarray
    labels: np.ndarray
    truths: tuple[Truth, ...] = field(default=())

    @property
    def poisoned(self) -> np.ndarray:
        """Of any attack, bool (M,)."""
        return np.any([np.zeros(len(self.labels), bool), *(truth.poisoned for truth in self.truths)], axis=0)

    @property
    def clean(self) -> np.ndarray:
        """Of none, bool (M,)."""
        return ~self.poisoned


def cifar10(split: str, rows: tuple[int, int], classes: tuple[int, ...], noise: float) -> tuple[np.ndarray, np.ndarray]:
    """(images uint8 (M, 3, 32, 32), labels numbered by their place in `classes`), of rows [first, last).

    `module_of_cases` says where they come from; noise: grey levels.
    """
    images, labels = module_of_cases("data", "cifar10").load(split, rows[1], noise=noise)
    images, labels = images[rows[0] :].transpose(0, 3, 1, 2), labels[rows[0] :]
    kept = np.isin(labels, classes)
    return np.ascontiguousarray(images[kept]), np.searchsorted(classes, labels[kept])


def training_set(case: Case) -> Set:
    images, labels = cifar10("train", case.rows, case.classes, case.noise)
    truths: list[Truth] = []
    for place, attack in enumerate(case.attacks):
        pattern, opacity = attack.trigger()
        planted = attacks.plant(
            images,
            labels,
            pattern,
            opacity=opacity,
            target=attack.target,
            sources=attack.sources,
            count=attack.count,
            seed=case.seed + place,
        )
        if any((truth.poisoned & planted.poisoned).any() for truth in truths):
            raise ValueError(f"{case.name}: two attacks took the same image; give them different sources")
        images, labels = planted.images, planted.labels
        truths.append(Truth(attack, planted.poisoned, pattern, opacity))
    return Set(images, labels, tuple(truths))


@dataclass(frozen=True)
class Recipe:
    """How a victim is trained. PRESETS has those that the table knows; its repr is part of every fingerprint."""

    network: str = "ResNet9"
    epochs: int = 10
    rate: float = 0.15
    batch: int = 128
    autocast: bool = True  # bfloat16 products, float32 weights and statistics


PRESETS = {
    "small": Recipe(),
    "paper": Recipe("ResNet18", epochs=100, rate=0.1),  # on `all_cases("paper")`; for people with a GPU
    "vgg": Recipe("VGG", rate=0.05),
    "mobilenet": Recipe("MobileNet", autocast=False),  # depthwise convolutions are slower in bfloat16
}


def train(data: Set, classes: int, recipe: Recipe, *, augment: bool, seed: int) -> torch.nn.Module:
    """One-cycle stochastic gradient descent; the same arguments on the same machine give the same network."""
    torch.manual_seed(seed)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    net = getattr(networks, recipe.network)(classes).to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(net.parameters(), lr=recipe.rate, momentum=0.9, weight_decay=5e-4, nesterov=True)
    steps = len(data.labels) // recipe.batch
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.rate, total_steps=recipe.epochs * steps)
    images, labels = torch.from_numpy(data.images).to(device), torch.from_numpy(data.labels).to(device)
    generator = torch.Generator().manual_seed(seed)
    net.train()
    for _ in range(recipe.epochs):
        order = torch.randperm(len(labels), generator=generator)
        for i in range(steps):
            rows = order[i * recipe.batch : (i + 1) * recipe.batch].to(device)
            x = images[rows]
            x = (_augmented(x, generator) if augment else x).float().div_(255)
            with torch.autocast(device, torch.bfloat16, enabled=recipe.autocast):
                logits = net(x.contiguous(memory_format=torch.channels_last))
            loss = functional.cross_entropy(logits.float(), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return net.eval().cpu()


def _augmented(x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """A random flip of each image and one random crop of up to 4 pixels for the batch."""
    flip = torch.rand(len(x), generator=generator).to(x.device) < 0.5
    x = torch.where(flip.view(-1, 1, 1, 1), x.flip(3), x)
    top, left = torch.randint(0, 9, (2,), generator=generator).tolist()
    height, width = x.shape[2:]
    padded = functional.pad(x.float(), (4, 4, 4, 4), mode="reflect").to(torch.uint8)
    return padded[:, :, top : top + height, left : left + width]


def fingerprint(data: Set, *facts: Any) -> str:
    """Of a training run: the set and everything that decides what comes out."""
    digest = hashlib.sha256(repr(facts).encode())
    digest.update(np.ascontiguousarray(data.images).tobytes())
    digest.update(data.labels.tobytes())
    return digest.hexdigest()[:16]


def predictions(net: torch.nn.Module, images: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        parts = [
            net(torch.from_numpy(part).float() / 255).argmax(1) for part in np.array_split(images, min(20, len(images)))
        ]
    return torch.cat(parts).numpy()


def accuracy_and_success(
    net: torch.nn.Module, case: Case, test: tuple[np.ndarray, np.ndarray]
) -> tuple[float, list[float]]:
    """(share of test images classified right, each attack's success rate on the test images of its sources)."""
    images, labels = test
    rates = []
    for attack in case.attacks:
        others = tuple(k for k in range(len(case.classes)) if k != attack.target)
        sources = others if attack.sources in (None, (attack.target,)) else attack.sources
        rows = np.isin(labels, sources)
        wanted = (labels[rows] + 1) % len(case.classes) if attack.target is None else attack.target
        rates.append(float((predictions(net, attacks.embed(images[rows], *attack.trigger())) == wanted).mean()))
    return float((predictions(net, images) == labels).mean()), rates
