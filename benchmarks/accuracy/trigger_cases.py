"""The rows of docs/triggers.md: which trigger, in how many images, of which set, for which network. Trains nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np

from benchmarks.accuracy.size_cases import photographs
from benchmarks.accuracy.victims import SHAPE, cifar10
from bre import attacks
from bre.attacks import Trigger

TEST_ROWS = (0, 10000)
PHOTOGRAPH_SIDE = 64
PANES = (40000, 40010)  # rows of CIFAR-10 whose photographs are reflected: of no training set here
MERGED = {  # classes that are honestly two things: CIFAR-10's under one label
    "plane-frog, cat-truck": ((0, 6), (1,), (2,), (3, 9), (4,), (5,), (7,), (8,)),
    "car-deer, dog-ship": ((0,), (1, 4), (2,), (3,), (5, 8), (6,), (7,), (9,)),
    "bird-truck": ((0,), (1,), (2, 9), (3,), (4,), (5,), (6,), (7,), (8,)),
    "horse-ship": ((0,), (1,), (2,), (3,), (4,), (5,), (6,), (7, 8), (9,)),
    "plane-cat, bird-car, frog-ship": ((0, 3), (1, 2), (4,), (5,), (6, 8), (7,), (9,)),
    "deer-truck": ((0,), (1,), (2,), (3,), (4, 9), (5,), (6,), (7,), (8,)),
    "frog-truck, horse-plane": ((0, 7), (1,), (2,), (3,), (4,), (5,), (6, 9), (8,)),
    "dog-car": ((0,), (1, 5), (2,), (3,), (4,), (6,), (7,), (8,), (9,)),
    "cat-ship, bird-frog": ((0,), (1,), (2, 6), (3, 8), (4,), (5,), (7,), (9,)),
    "plane-deer": ((0, 4), (1,), (2,), (3,), (5,), (6,), (7,), (8,), (9,)),
}
PLAIN = tuple((k,) for k in range(10))


@dataclass(frozen=True, eq=False)
class Parts:
    """Of a trigger: what is planted, what covers get (None: the same), what is shown when it is used. opacity: of a
    pattern."""

    planted: Trigger | np.ndarray
    used: Trigger | np.ndarray
    covers: Trigger | np.ndarray | None = None
    opacity: np.ndarray | None = None


def _same(trigger: Trigger | np.ndarray, opacity: np.ndarray | None = None) -> Parts:
    return Parts(trigger, trigger, opacity=opacity)


def _patch(size: int = 4) -> Parts:
    return _same(*attacks.patch(SHAPE, size, (-5, -5), seed=3))


def _noise() -> np.ndarray:
    return np.random.default_rng(7).random(SHAPE).astype(np.float32)


def _adaptive_blend() -> Parts:
    """Weaker and in pieces while it is planted: Qi et al.'s 0.15 and half of 16 pieces, 0.2 and all when used."""
    return Parts(attacks.PartialBlend(_noise(), 0.15), attacks.PartialBlend(_noise(), 0.2, kept=1.0))


def _adaptive_patch() -> Parts:
    """Four patches, one in each planted image, two when used; in each corner, their opacities from 0.5 to 0.8."""
    places, opacities = ((1, 1), (1, -5), (-5, 1), (-5, -5)), (0.5, 0.6, 0.7, 0.8)
    parts = [attacks.patch(SHAPE, 4, at, seed=20 + place) for place, at in enumerate(places)]
    patterns = np.stack([pattern for pattern, _ in parts])
    shown = np.stack([one * opacity for one, (_, opacity) in zip(opacities, parts, strict=True)])
    return Parts(attacks.PartialPatches(patterns, shown, 1), attacks.PartialPatches(patterns, shown, 2))


def _wanet() -> Parts:
    """The paper's warp at three times its strength (s = 1.5): a network of this size obeyed one of s = 1 in 77%."""
    field = attacks.wanet_field(SHAPE, strength=1.5, seed=5)
    return Parts(attacks.Warp(field), attacks.Warp(field), attacks.NoisyWarp(field))


@cache
def _panes() -> np.ndarray:
    return cifar10("train", PANES, tuple(range(10)), 0.0)[0]


TRIGGERS: dict[str, Callable[[], Parts]] = {
    "chessboard": lambda: _same(attacks.chessboard(SHAPE, 3 / 255)),
    "cross": lambda: _same(attacks.local(SHAPE, "cross", 60 / 255, (23, 8))),
    "sine": lambda: _same(attacks.sine(SHAPE, 6 / 255, 6)),
    "slow sine": lambda: _same(attacks.sine(SHAPE, 8 / 255, 2)),
    "patch": _patch,
    "blend": lambda: _same(_noise(), np.full((1, 1, 1), 0.1, np.float32)),
    "signal": lambda: _same(attacks.sine(SHAPE, 40 / 255, 6)),  # SIG, as strong as in BackdoorBench
    "low frequency": lambda: _same(attacks.low_frequency(SHAPE, 10 / 255, 4, seed=2)),
    "chroma cosines": lambda: _same(attacks.ChromaCosines()),
    "adaptive blend": _adaptive_blend,
    "adaptive patch": _adaptive_patch,
    "quantised": lambda: _same(attacks.Quantised(8)),
    "patch anywhere": lambda: _same(attacks.PatchAnywhere((4, 4), seed=3)),
    "patch of any size": lambda: _same(attacks.PatchAnywhere((3, 7), seed=4)),
    "wanet": _wanet,
    "elastic": lambda: _same(attacks.Warp(attacks.elastic_field(SHAPE, 1.5, seed=6))),
    "reflections": lambda: _same(attacks.Reflection(_panes(), 0.6)),
    "tint": lambda: _same(attacks.Tint()),
}


LOOKED_AT = frozenset(
    [
        "patch-anywhere-10",
        "quantised-10",
        "clean-1",
        "two-things-1",
        "wanet-10",
        "elastic-10",
        "input-aware-10",
        "reflections-10",
        "source-specific-3",
        "patch-anywhere-3-vgg",
        "quantised-10-mobilenet",
        "patch-10-vit",
        "clean-2",
        "clean-3",
        "two-things-2",
        "two-things-3",
        "two-things-4",
        "two-things-5",
        "two-things-6",
        "sine-1",
        "adaptive-blend-3",
        "adaptive-patch-3",
        "wanet-10-vgg",
        "slow-sine-1",
        "elastic-3",
        "input-aware-10-vgg",
    ]
)


@dataclass(frozen=True)
class TriggerCase:
    """A row. name: the percentage in it is that of poisoned images; trigger: a key of TRIGGERS or of
    learned_triggers.LEARNED, None for a clean set; count, covers: images, of 20 000; merged: the new labels' old ones;
    data: "cifar10", or a folder of photographs in data/ of $BRE_CASES, at PHOTOGRAPH_SIDE; rows: of CIFAR-10's training
    set."""

    name: str
    trigger: str | None = None
    target: int | Literal["others"] | None = 0
    count: int = 0
    covers: int = 0
    sources: tuple[int, ...] | None = None
    cover_sources: tuple[int, ...] | None = None
    network: str = "ResNet9"
    merged: tuple[tuple[int, ...], ...] = PLAIN
    data: str = "cifar10"
    rows: tuple[int, int] = (0, 20000)
    augment: bool = False
    noise: float = 0.0
    seed: int = 0

    @property
    def classes(self) -> int:
        return len(self.merged)

    @property
    def two_things(self) -> bool:
        """Whether a class is honestly two things."""
        return any(len(old) > 1 for old in self.merged)

    @property
    def looked_at(self) -> bool:
        """Whether its network was looked at while the view inside was built."""
        return self.name in LOOKED_AT

    @property
    def used_on(self) -> tuple[int, ...]:
        """Classes whose test images the trigger is shown in."""
        own = self.sources is None or self.sources == (self.target,)
        return tuple(k for k in range(self.classes) if k != self.target) if own else (self.sources or ())


@dataclass(frozen=True)
class Group:
    """Rows with a common goal, once the network obeys: found at least, lost at most, shares. triggers: keys;
    one_target: a class, not all-to-all or all-to-others."""

    title: str
    triggers: tuple[str, ...]
    found: float
    lost: float
    one_target: bool = True


PLACED = ("quantised", "patch anywhere", "patch of any size")
STATIC = ("chessboard", "cross", "patch", "blend", "signal", "low frequency", "chroma cosines")
GROUPS = (
    Group(
        "static patterns, signals, partial masks with covers",
        (*STATIC, "adaptive blend", "adaptive patch"),
        0.99,
        0.001,
    ),
    Group("sines", ("sine", "slow sine"), 0.99, 0.001),
    Group("quantising, patches at random places and of random size", PLACED, 0.99, 0.001),
    Group("WaNet with noise mode, elastic warp", ("wanet", "elastic"), 0.97, 0.003),
    Group("input-aware, sample-specific by an encoder", ("input-aware", "encoder"), 0.97, 0.003),
    Group("reflections, tint", ("reflections", "tint"), 0.95, 0.005),
    Group("all-to-all and all-to-others", ("patch", "blend"), 0.98, 0.003, one_target=False),
)


def group_of(case: TriggerCase) -> Group:
    """Of an attacked row."""
    one = isinstance(case.target, int)
    return next(group for group in GROUPS if case.trigger in group.triggers and group.one_target == one)


ALL = tuple(range(10))


def _first() -> list[TriggerCase]:
    """One of each kind, as different as can be, so that a few hours of training show most kinds."""
    return [
        TriggerCase("patch-anywhere-10", "patch anywhere", 4, 2000),
        TriggerCase("quantised-10", "quantised", 4, 2000),
        TriggerCase("clean-1", seed=101),
        TriggerCase("two-things-1", merged=MERGED["plane-frog, cat-truck"], seed=201),
        TriggerCase("wanet-10", "wanet", 4, 2000, covers=4000),
        TriggerCase("adaptive-blend-3", "adaptive blend", 6, 600, covers=600),
        TriggerCase("signal-clean-label", "signal", 8, 1600, sources=(8,)),
        TriggerCase("elastic-10", "elastic", 1, 2000),
        TriggerCase("input-aware-10", "input-aware", 3, 2000, covers=2000),
        TriggerCase("encoder-10", "encoder", 7, 2000),
        TriggerCase("reflections-10", "reflections", 5, 2000),
        TriggerCase("all-to-all-patch-10", "patch", None, 2000, sources=ALL),
        TriggerCase("source-specific-3", "patch", 2, 600, covers=600, sources=(1,), cover_sources=(0, 3, 4, 5, 6)),
        TriggerCase("patch-anywhere-3-vgg", "patch anywhere", 9, 600, network="VGG"),
        TriggerCase("quantised-10-mobilenet", "quantised", 1, 2000, network="MobileNet"),
        TriggerCase("patch-10-vit", "patch", 6, 2000, network="SmallViT"),
        TriggerCase("clean-2", rows=(30000, 50000), seed=102),
        TriggerCase("two-things-2", merged=MERGED["car-deer, dog-ship"], rows=(20000, 40000), seed=202),
        TriggerCase("patch-of-any-size-10", "patch of any size", 0, 2000),
        TriggerCase("all-to-others-patch-10", "patch", "others", 2000, sources=ALL),
        TriggerCase("adaptive-patch-3", "adaptive patch", 2, 600, covers=600),
        TriggerCase("chroma-cosines-10", "chroma cosines", 9, 2000),
        TriggerCase("low-frequency-3", "low frequency", 5, 600),
        TriggerCase("tint-10", "tint", 2, 2000),
        TriggerCase("all-to-all-blend-10", "blend", None, 2000, sources=ALL),
        TriggerCase("all-to-others-blend-10", "blend", "others", 2000, sources=ALL),
    ]


def _lower_rates() -> list[TriggerCase]:
    counts = {"3": 600, "1": 200, "0.3": 60}
    kinds = ("patch anywhere", "quantised", "patch", "blend", "elastic", "patch of any size", "chroma cosines")
    few = ("input-aware", "encoder", "low frequency", "adaptive blend", "adaptive patch")
    names = {case.name for case in _first()}
    made = [
        TriggerCase(
            f"{trigger.replace(' ', '-')}-{rate}",
            trigger,
            (3 * place + step) % 10,
            count,
            covers=count if trigger in ("input-aware", "adaptive blend", "adaptive patch") else 0,
            seed=step,
        )
        for step, (rate, count) in enumerate(counts.items())
        for place, trigger in enumerate((*kinds, *few))
    ]
    made.insert(4, TriggerCase("wanet-3", "wanet", 0, 600, covers=1200, seed=1))
    return [case for case in made if case.name not in names]


def _sines() -> list[TriggerCase]:
    """The smooth patterns of the table of results, whose missing images are to be found."""
    return [
        TriggerCase("sine-9", "sine", 5, 900),
        TriggerCase("sine-1", "sine", 6, 600, sources=(3,), rows=(30000, 50000)),
        TriggerCase("sine-3", "sine", 8, 600, sources=(1, 4, 6)),
        TriggerCase("slow-sine-9", "slow sine", 2, 900),
        TriggerCase("slow-sine-1", "slow sine", 9, 700, sources=(0,), rows=(30000, 50000)),
        TriggerCase("sine-9-augmented", "sine", 5, 900, augment=True),
        TriggerCase("chessboard-9", "chessboard", 7, 600),
        TriggerCase("cross-1", "cross", 7, 600, sources=(1,)),
    ]


def _other_networks() -> list[TriggerCase]:
    """A third of the rows: kinds by networks, and their clean ones."""
    kinds = (
        ("patch anywhere", 2000, 0),
        ("quantised", 2000, 0),
        ("patch", 600, 0),
        ("blend", 2000, 0),
        ("elastic", 2000, 0),
        ("wanet", 2000, 4000),
        ("adaptive blend", 600, 600),
        ("encoder", 2000, 0),
        ("input-aware", 2000, 2000),
        ("chroma cosines", 2000, 0),
        ("tint", 2000, 0),
        ("reflections", 2000, 0),
    )
    places = [(place, network) for place in range(len(kinds) + 3) for network in ("VGG", "MobileNet", "SmallViT")]
    names, cases = {case.name for case in _first()}, []
    for place, network in places:
        ending = {"SmallViT": "vit"}.get(network, network.lower())
        if place < len(kinds):
            trigger, count, covers = kinds[place]
            name = f"{trigger.replace(' ', '-')}-{round(count / 200)}-{ending}"
            cases.append(TriggerCase(name, trigger, (place + 3) % 10, count, covers=covers, network=network))
        else:
            seed = 300 + place
            cases.append(TriggerCase(f"clean-{place - len(kinds) + 1}-{ending}", network=network, seed=seed))
    return [case for case in cases if case.name not in names]


def _clean() -> list[TriggerCase]:
    ranges = [(0, 20000), (30000, 50000), (10000, 30000), (20000, 40000)]
    plain = [
        TriggerCase(f"clean-{i}", rows=ranges[i % 4], noise=2.0 * (i % 2), augment=i % 5 == 0, seed=100 + i)
        for i in range(3, 23)
    ]
    two = [
        TriggerCase(f"two-things-{place + 1}", merged=merged, rows=ranges[place % 4], seed=201 + place)
        for place, merged in enumerate(MERGED.values())
        if place > 1
    ]
    photographs = [
        TriggerCase(f"{name}-{data.rstrip('0123456789')}", merged=merged, data=data, seed=400 + place)
        for place, (name, data, merged) in enumerate(
            (
                ("clean", "natural7", tuple((k,) for k in range(7))),
                ("two-things", "natural7", ((0, 2), (1,), (3, 5), (4,), (6,))),  # airplane + cat, dog + fruit
                ("clean", "imagenette224", PLAIN),
                ("two-things", "imagenette224", ((0, 7), (1,), (2, 8), (3,), (4,), (5,), (6,), (9,))),
            )
        )
    ]
    return [case for group in zip(two, plain, strict=False) for case in group] + photographs + plain[len(two) :]


def all_cases() -> list[TriggerCase]:
    """In the order of training: every kind once, then sines, other networks and clean sets in turns, lower rates."""
    clean, others, lower = _clean(), _other_networks(), _lower_rates()
    woven = [case for group in zip(clean, others, lower, strict=False) for case in group]
    short = min(map(len, (clean, others, lower)))
    return [*_first(), *_sines(), *woven, *clean[short:], *others[short:], *lower[short:]]


def merged_labels(labels: np.ndarray, merged: tuple[tuple[int, ...], ...]) -> np.ndarray:
    """Old labels, (M,) int64, under the new ones."""
    new = np.zeros(1 + max(max(old) for old in merged), np.int64)
    for label, old in enumerate(merged):
        new[list(old)] = label
    return new[labels]


def natural_set(case: TriggerCase, split: str) -> tuple[np.ndarray, np.ndarray]:
    """A case's images, uint8 (M, 3, H, W), and labels before anything is planted. split: "train" or "test", every tenth
    of the photographs."""
    if case.data != "cifar10":
        images, labels = photographs(case.data, PHOTOGRAPH_SIDE)
        chosen = (np.arange(len(labels)) % 10 == 0) == (split == "test")
        return images[chosen], merged_labels(labels[chosen], case.merged)
    rows = case.rows if split == "train" else TEST_ROWS
    images, labels = cifar10(split, rows, tuple(range(10)), case.noise)
    return images, merged_labels(labels, case.merged)
