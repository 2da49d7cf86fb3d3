"""Rows of docs/speed.md for images of any size: seconds and memory of `screen`. Each runs in a process of its own."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import bre
from benchmarks.accuracy.size_cases import photographs
from benchmarks.common.clocks import clocked

Row = dict[str, Any]


def tiny(count: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Photographs of 64 x 64: tinyimagenet200's 12 000, its classes put together in order, then the same in the
    mirror."""
    images, labels = photographs("tinyimagenet200", 64)
    labels = labels * classes // 200
    rows = np.random.default_rng(0).permutation(len(labels))
    images, labels = images[rows], labels[rows]
    return np.concatenate([images, images[..., ::-1]])[:count], np.tile(labels, 2)[:count]


def small(count: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Equally many images of each of the first classes."""
    images, labels = photographs("imagenette224", 64)
    rows = np.concatenate([np.flatnonzero(labels == label)[: count // classes] for label in range(classes)])
    return images[rows], labels[rows]


def screened(make: Callable[[], tuple[np.ndarray, np.ndarray]]) -> Row:
    images, labels = make()
    bre.screen((images[:150], np.arange(150) % 2))  # what is imported and allocated once is not the set's
    report, spent = clocked(lambda: bre.screen((images, labels)))
    values = images.size
    return {
        "images": len(images),
        "size": images.shape[2],
        "classes": int(labels.max()) + 1,
        **spent,
        "per_value": spent["cpu_seconds"] / values,
        "named": [finding.target for finding in report.findings if finding.kind == "poison"],
    }


def folder() -> Row:
    """The folder of JPEG files, against decoding it once by Pillow, one file after the other."""
    place = Path(os.environ["BRE_CASES"]) / "data" / "imagenette224"

    def decode() -> int:
        return sum(np.asarray(Image.open(path).convert("RGB")).size for path in sorted(place.glob("*/*")))

    values, decoding = clocked(decode)
    report, spent = clocked(lambda: bre.screen(bre.open_dataset(place, convert="RGB")))
    return {
        "images": report.dataset.count,
        "size": 224,
        "classes": len(report.classes),
        **spent,
        "per_value": spent["cpu_seconds"] / values,
        "decoding": decoding["cpu_seconds"],
        "ratio": spent["cpu_seconds"] / decoding["cpu_seconds"],
        "named": [finding.target for finding in report.findings if finding.kind == "poison"],
    }


ROWS: dict[str, Callable[[], Row]] = {
    "size 64 20000 images": partial(screened, partial(tiny, 20000, 10)),
    "size 64 1800 images": partial(screened, partial(small, 1800, 3)),
    "size 64 150 images": partial(screened, partial(small, 150, 3)),
    "size 224 folder": folder,
    **{
        f"size {side} imagenette": partial(screened, partial(photographs, "imagenette224", side))
        for side in (32, 64, 128, 224)
    },
    **{
        f"size 64 {count} images of 200 classes": partial(screened, partial(tiny, count, 200))
        for count in (12000, 24000)
    },
}
