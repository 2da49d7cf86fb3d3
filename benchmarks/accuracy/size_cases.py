"""The sets of docs/sizes.md: images of several sizes, patterns planted in them, and clean sets. Knows no verdicts.

FOLDER (`BRE_CASES`) holds `data/` with class folders of JPEG files (imagenette224, tinyimagenet200, natural7,
brainmri4) and `data/cifar10.py`. Patterns are planted after decoding. Every set is drawn by its name alone.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache, partial
from itertools import product
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.common.places import module_of_cases
from bre import attacks

Shape = tuple[int, int, int]


@dataclass(frozen=True, eq=False)
class Planted:
    """What is planted: pattern float32 (C, H, W), pixel units; opacity as for `attacks.embed`."""

    pattern: np.ndarray
    opacity: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class SizeCase:
    """images: uint8 (M, C, H, W); poisoned: bool (M,); target: None where nothing is planted; pattern: what was added,
    to first order, None likewise. facts: for the row."""

    images: np.ndarray
    labels: np.ndarray
    poisoned: np.ndarray
    target: int | None = None
    pattern: np.ndarray | None = None
    facts: dict[str, object] = field(default_factory=dict)


def generator_of(name: str) -> np.random.Generator:
    return np.random.default_rng(zlib.crc32(name.encode()))


@lru_cache(maxsize=2)
def photographs(source: str, side: int, each: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Class folders of a source at side x side, as RGB: uint8 (M, 3, side, side), and labels. each: of a class."""
    if source == "cifar10":
        images, labels = module_of_cases("data", "cifar10").load("train", None if each is None else 10 * each)
        return _resized(images, side), labels
    folder = Path(os.environ["BRE_CASES"]) / "data" / source
    files, labels = [], []
    for label, name in enumerate(sorted(path.name for path in folder.iterdir() if path.is_dir())):
        found = sorted((folder / name).iterdir())[:each]
        files += found
        labels += [label] * len(found)

    def read(path: Path) -> np.ndarray:
        image = Image.open(path).convert("RGB")
        if image.size != (side, side):
            image = image.resize((side, side), Image.Resampling.BICUBIC)
        return np.asarray(image).transpose(2, 0, 1)

    images = np.empty((len(files), 3, side, side), np.uint8)
    with ThreadPoolExecutor(2) as pool:
        for place, image in enumerate(pool.map(read, files)):
            images[place] = image
    return images, np.array(labels)


def _resized(images: np.ndarray, side: int) -> np.ndarray:
    """uint8 (M, H, W, 3) to (M, 3, side, side)."""
    if images.shape[1] != side:
        images = np.stack(
            [np.asarray(Image.fromarray(i).resize((side, side), Image.Resampling.BICUBIC)) for i in images]
        )
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2))


def _checkered(shape: Shape, generator: np.random.Generator) -> Planted:
    """8 x 8 pixels of plus and minus 40/255 at a random place."""
    pattern = np.zeros(shape, np.float32)
    top, left = (int(generator.integers(1, n - 9)) for n in shape[1:])
    signs = 1 - 2 * (np.indices((8, 8)).sum(0) % 2)
    pattern[:, top : top + 8, left : left + 8] = 40 / 255 * signs
    return Planted(pattern)


def _square(shape: Shape, generator: np.random.Generator) -> Planted:
    side = min(16, shape[1] // 2)
    pattern = np.zeros(shape, np.float32)
    top, left = (int(generator.integers(0, n - side + 1)) for n in shape[1:])
    pattern[:, top : top + side, left : left + side] = 30 / 255
    return Planted(pattern)


def _patch(shape: Shape, generator: np.random.Generator) -> Planted:
    side = min(16, shape[1] // 2)
    at = int(generator.integers(0, shape[1] - side)), int(generator.integers(0, shape[2] - side))
    return Planted(*attacks.patch(shape, side, at, seed=int(generator.integers(2**31))))


def _random_sign(shape: Shape, generator: np.random.Generator) -> Planted:
    return Planted(attacks.random_sign(shape, 3 / 255, int(generator.integers(2**31))))


def _local(kind: str, amplitude: float) -> Callable[[Shape, np.random.Generator], Planted]:
    def make(shape: Shape, generator: np.random.Generator) -> Planted:
        at = int(generator.integers(2, shape[1] - 2)), int(generator.integers(2, shape[2] - 2))
        return Planted(attacks.local(shape, kind, amplitude, at))

    return make


def _blend(shape: Shape, generator: np.random.Generator) -> Planted:
    """A photograph of another source, at 5%."""
    images, _ = photographs("natural7", shape[1], 40)
    return Planted(images[generator.integers(len(images))] / np.float32(255), np.full((1, 1, 1), 0.05, np.float32))


PATTERNS: dict[str, Callable[[Shape, np.random.Generator], Planted]] = {
    "chessboard 3": lambda shape, generator: Planted(attacks.chessboard(shape, 3 / 255)),
    "random sign 3": lambda shape, generator: Planted(
        attacks.random_sign(shape, 3 / 255, int(generator.integers(2**31)))
    ),
    "cross 60": _local("cross", 60 / 255),
    "pixel 90": _local("pixel", 90 / 255),
    "checkered 8 x 8, 40": _checkered,
    "patch 16 x 16": _patch,
    "blend 5%": _blend,
    "sine of 30 periods, 6": lambda shape, generator: Planted(attacks.sine(shape, 6 / 255, 30.0)),
    "square 16 x 16, 30": _square,
}


def plant(
    images: np.ndarray, labels: np.ndarray, name: str, pattern: str, *, share: float | None = None,
    count: int | None = None, target: int | None = None,
) -> SizeCase:  # fmt: skip
    """A pattern in a share of the target class (or in `count` images), from all other classes; target: drawn if
    None."""
    generator = generator_of(name)
    classes = np.unique(labels)
    target = int(generator.choice(classes)) if target is None else target
    planted = PATTERNS[pattern](images.shape[1:], generator)
    count = count if count is not None else max(1, round((share or 0.0) * int((labels == target).sum())))
    done = attacks.plant(
        images, labels, planted.pattern, opacity=planted.opacity, target=target, count=count,
        seed=int(generator.integers(2**31)),
    )  # fmt: skip
    added = planted.pattern
    if planted.opacity is not None:
        added = planted.opacity * (planted.pattern - images[::97].mean(0) / np.float32(255))
    facts: dict[str, object] = {"pattern": pattern, "share": share, "count": count, "target": target}
    return SizeCase(done.images, done.labels, done.poisoned, target, added, facts)


def clean(images: np.ndarray, labels: np.ndarray, **facts: object) -> SizeCase:
    return SizeCase(images, labels, np.zeros(len(labels), bool), facts=dict(facts))


def imbalanced(name: str, side: int, times: float, small: int, pattern: str | None, large_target: bool) -> SizeCase:
    """One class `times` as large as all others together, which have `small` images each: CIFAR-10's, at side x side.
    With a pattern, 5% of the large or of a small class (at least 5 images) carry it, or as many as are 15% of the other
    classes' images, which they are taken from."""
    generator = generator_of(name)
    images, labels = photographs("cifar10", side, 5000) if side != 32 else photographs("cifar10", 32)
    count = int(generator.integers(3, 6))
    classes = generator.permutation(10)[:count]
    sizes = [min(int(times * small * (count - 1)), 4900), *[small] * (count - 1)]
    rows = [generator.permutation(np.flatnonzero(labels == k))[:n] for k, n in zip(classes, sizes, strict=True)]
    chosen, new = images[np.concatenate(rows)], np.repeat(np.arange(count), [len(r) for r in rows])
    if pattern is None:
        return clean(chosen, new, sizes=sizes)
    target = 0 if large_target else 1
    count = max(5, min(round(0.05 * sizes[target]), int(0.15 * (sum(sizes) - sizes[target]))))
    made = plant(chosen, new, name, pattern, count=count, target=target)
    return SizeCase(made.images, made.labels, made.poisoned, target, made.pattern, {**made.facts, "sizes": sizes})


def random_clean(number: int) -> SizeCase:
    """A clean set of a random source: 2 to 200 classes, 300 to 12 000 images, 30 to 224 pixels a side."""
    generator = generator_of(f"clean {number}")
    source = str(generator.choice(["cifar10", "imagenette224", "tinyimagenet200", "natural7", "brainmri4"]))
    side = int(generator.choice({"cifar10": [32], "imagenette224": [48, 64, 96, 128, 160, 224], "tinyimagenet200": [64],
                                 "natural7": [30], "brainmri4": [56, 96, 128, 224]}[source]))  # fmt: skip
    images, labels = photographs(source, side)
    available = np.unique(labels)
    count = int(np.clip(round(2 * (len(available) / 2) ** generator.random()), 2, len(available)))
    classes = generator.permutation(available)[:count]
    rows = np.flatnonzero(np.isin(labels, classes))
    most = round(300 * 40 ** generator.random())
    if most < len(rows):
        rows = np.sort(generator.permutation(rows)[:most])
    names = {k: place for place, k in enumerate(classes.tolist())}
    new = np.array([names[k] for k in labels[rows].tolist()])
    enough = np.bincount(new, minlength=count) >= 50
    kept = enough[new]
    if enough.sum() < 2:
        return random_clean(number + 1000)
    new = (np.cumsum(enough) - 1)[new[kept]]
    return clean(images[rows[kept]], new, source=source, side=side, of_classes=int(enough.sum()))


def two_classes(name: str, share: float | None) -> SizeCase:
    """600 images each of two of imagenette's classes at 64 x 64; a chessboard of 3/255 or a random sign in `share`."""
    generator = generator_of(name)
    images, labels = photographs("imagenette224", 64)
    pair = generator.permutation(10)[:2]
    rows = np.concatenate([np.flatnonzero(labels == k) for k in pair])
    chosen, new = images[rows], np.repeat(np.arange(2), [int((labels == k).sum()) for k in pair])
    if share is None:
        return clean(chosen, new)
    return plant(chosen, new, name, str(generator.choice(["chessboard 3", "random sign 3", "cross 60"])), share=share)


def likeness(name: str) -> SizeCase:
    """The sets that earlier versions failed on, in their likeness."""
    kind, pattern, amount = LIKENESS[name]
    generator = generator_of(name)
    if kind == "imagenette 64":
        images, labels = photographs("imagenette224", 64)
        return plant(images, labels, name, pattern, count=int(amount))
    images, labels = photographs("cifar10", 32)
    rows = generator.permutation(len(labels))[: 1000 if kind == "1000 CIFAR" else 3000]
    if kind == "1000 CIFAR":
        return plant(images[rows], labels[rows], name, pattern, count=int(amount))
    return plant(images[rows], labels[rows], name, pattern, share=amount)


LIKENESS: dict[str, tuple[str, str, float]] = {
    "imagenette at 64, 40 of a class": ("imagenette 64", "chessboard 3", 40),
    "imagenette at 64, 20 of a class": ("imagenette 64", "chessboard 3", 20),
    "3000 at 32, 10%, chessboard": ("3000 CIFAR", "chessboard 3", 0.10),
    "3000 at 32, 3%, chessboard": ("3000 CIFAR", "chessboard 3", 0.03),
    "3000 at 32, 10%, cross": ("3000 CIFAR", "cross 60", 0.10),
    "3000 at 32, 3%, cross": ("3000 CIFAR", "cross 60", 0.03),
    "1000 CIFAR, 10 planted, random sign": ("1000 CIFAR", "random sign 3", 10),
    "1000 CIFAR, 10 planted, blend": ("1000 CIFAR", "blend 5%", 10),
    "1000 CIFAR, 10 planted, patch": ("1000 CIFAR", "patch 16 x 16", 10),
}


def odd(name: str) -> SizeCase:
    """Clean sets that a screen may stumble over; labels have nothing to do with what is odd."""
    generator = generator_of(name)
    labels = np.arange(2000) % 10
    if name == "uniform noise":
        return clean(generator.integers(0, 256, (2000, 3, 32, 32), dtype=np.uint8), labels)
    if name == "flat images":
        colours = generator.integers(0, 256, (2000, 3, 1, 1), dtype=np.uint8)
        return clean(np.broadcast_to(colours, (2000, 3, 32, 32)).copy(), labels)
    if name == "chessboards of two sizes":
        row, column = np.indices((32, 32))
        shift = generator.integers(0, 32, (2000, 2))
        planes = [
            ((row + a) // (1 + k) + (column + b) // (1 + k)) % 2 * 255 for k, (a, b) in zip(labels, shift, strict=True)
        ]
        return clean(np.stack(planes).astype(np.uint8)[:, None].repeat(3, 1), labels)
    images, truth = photographs("cifar10", 32)
    rows = generator.permutation(len(truth))[:1000]
    if name == "stored four times":
        return clean(np.tile(images[rows], (4, 1, 1, 1)), np.tile(truth[rows], 4))
    if name == "stored four times under random labels":
        return clean(np.tile(images[rows], (4, 1, 1, 1)), generator.integers(0, 10, 4000))
    border = images[rows := generator.permutation(len(truth))[:3000]].copy()
    marked = truth[rows] == 3
    border[marked, :, :2] = border[marked, :, -2:] = 255
    border[marked, :, :, :2] = border[marked, :, :, -2:] = 255
    return clean(border, truth[rows], property_of=3)


ODD = ("uniform noise", "flat images", "chessboards of two sizes", "stored four times",
       "stored four times under random labels", "a white border on one class")  # fmt: skip
# further random clean sets, that the prior spread of the verdict was checked on; its numbers follow those of all others
HELD_OUT, HELD_OUT_FROM = 152, 5000
SHARES = (0.10, 0.05, 0.03, 0.01)
SIDES = (224, 128, 64)
# of which a third and a half of a class are planted
OF_HALVES = ("chessboard 3", "cross 60", "patch 16 x 16", "sine of 30 periods, 6")


def cell(side: int, pattern: str, share: float, name: str) -> SizeCase:
    return plant(*photographs("imagenette224", side), name, pattern, share=share)


def plan() -> Iterator[tuple[str, str, Callable[[], SizeCase]]]:
    """(group, name, the set) of every row."""
    for side, pattern, share in product(SIDES, PATTERNS, SHARES):
        name = f"{side}, {pattern}, {share:.0%}"
        yield "cells", name, partial(cell, side, pattern, share, name)
    for pattern, share in product(OF_HALVES, (1 / 3, 1 / 2)):
        name = f"64, {pattern}, {share:.0%}"
        yield "large shares", name, partial(cell, 64, pattern, share / (1 - share), name)
    for name in LIKENESS:
        yield "likeness", name, partial(likeness, name)
    for number in range(40):
        side, times, small = (32, 64)[number % 2], (5, 10, 30, 100)[number // 2 % 4], (50, 60, 100)[number % 3]
        name = f"clean, {side}, {times} times, {small} each, {number}"
        yield "imbalance", name, partial(imbalanced, name, side, times, small, None, False)
    for pattern, side, times, large in product(("chessboard 3", "cross 60"), (32, 64), (5, 30), (True, False)):
        name = f"{pattern} in the {'large' if large else 'small'} class, {side}, {times} times"
        yield "imbalance", name, partial(imbalanced, name, side, times, 200 if large else 60, pattern, large)
    for name in ODD:
        yield "odd", name, partial(odd, name)
    for number in range(5):
        yield "two classes", f"clean {number}", partial(two_classes, f"two clean {number}", None)
        yield "two classes", f"5%, {number}", partial(two_classes, f"two planted {number}", 0.05)
    for number in range(80):
        yield "clean", f"clean {number}", partial(random_clean, number)
    for number in range(HELD_OUT):
        yield "held out", f"held out {number}", partial(random_clean, HELD_OUT_FROM + number)
