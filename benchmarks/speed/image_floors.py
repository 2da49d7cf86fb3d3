"""What the images' view must move and multiply on a device: floors from bytes and operations, nothing measured."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bre.method.codes import rows_held
from bre.method.levels import levels
from bre.views.backgrounds import BACKGROUND_IMAGES, BACKGROUND_TILES
from bre.views.class_search import most_together

MOVED = 4.3e12  # bytes per second of an H200's memory, as others measured it
LINK = 55e9  # bytes per second from pinned memory, of PCIe 5 x16; its nominal 64e9 less overheads: assumed
BYTE_PRODUCTS = 57e12  # multiply-adds per second of dp4a on an H100's or H200's ordinary units: 64 a cycle and SM
PAIR_PRODUCTS = BYTE_PRODUCTS / 2  # of 16 bits with 8 (dp2a)
BYTE_TENSOR = 790e12  # multiply-adds of bytes per second of its tensor cores: bfloat16's 790 TFLOP/s, twice as quick


@dataclass(frozen=True)
class Screened:
    """A set whose images are screened."""

    name: str
    images: int
    shape: tuple[int, int, int]
    classes: int

    @property
    def searched(self) -> int:
        """Images of a class that are compared."""
        return min(self.images // self.classes, most_together(levels(self.shape)))


SETS = [
    Screened("50 000 x 3 x 32 x 32, 10 classes", 50_000, (3, 32, 32), 10),
    Screened("50 000 x 3 x 32 x 32, 100 classes", 50_000, (3, 32, 32), 100),
    Screened("1.28 M x 3 x 224 x 224, 1000 classes", 1_281_167, (3, 224, 224), 1000),
]


@dataclass(frozen=True)
class Floor:
    """Of one kind of work: bytes that must move in the device's memory, multiply-adds, and how many of these a second.

    on_tensor_cores: what they would be in Triton's kernels, where those use them.
    """

    work: str
    moved: float
    products: float
    rate: float
    on_tensor_cores: float | None

    @property
    def seconds(self) -> float:
        return max(self.moved / MOVED, self.products / self.rate)


def floors(given: Screened) -> list[Floor]:
    """Of all the work, over the levels of the images."""
    searched, sample = given.classes * given.searched, min(BACKGROUND_IMAGES, given.images)
    tiles = max(1, -(-BACKGROUND_TILES // sample))
    cut = moments = in_pairs = products = sums = 0.0
    for level in levels(given.shape):
        d = int(np.prod(level.tile_sides)) * given.shape[0]
        values, rows = searched * level.size, rows_held(level, given.searched)
        each = sample * min(tiles, level.grids[0].down * level.grids[0].across)
        cut += 2 * each * d
        moments += 2 * each * d * d / 2  # two halves, and once more in the groups that are left out
        in_pairs += values * d / 2  # up to the diagonal
        products += given.classes * rows * given.searched * level.size / (2 if rows == given.searched else 1)
        windows = len(level.windows) + len(level.units)
        sums += given.classes * windows * rows * given.searched * 4
    coded = searched * sum(level.size for level in levels(given.shape))
    return [
        Floor("tiles' second moments, int8", cut, moments, BYTE_PRODUCTS, BYTE_TENSOR),
        Floor("whitening, int16 with int8", 2 * coded, in_pairs, PAIR_PRODUCTS, BYTE_TENSOR / 2),
        Floor("inner products of codes, int8", coded + sums, products, BYTE_PRODUCTS, BYTE_TENSOR),
        Floor("sums of windows, and a pass over each", 4 * sums, 0.0, BYTE_PRODUCTS, None),
    ]


def image_tables() -> list[str]:
    from benchmarks.speed.roofline import Text, table

    heads = ["set", "work of the images' view", "GB moved", "at 4.3 TB/s", "10⁹ multiply-adds", "at the units' rate"]
    heads += ["floor", "on int8 tensor cores"]
    rows: list[list[object]] = []
    sums: list[list[object]] = []
    for given in SETS:
        found = floors(given)
        for floor in (floor for floor in found if floor.moved):
            tensor = "" if floor.on_tensor_cores is None else milliseconds(floor.products / floor.on_tensor_cores)
            own = [short(floor.moved / 1e9), milliseconds(floor.moved / MOVED), short(floor.products / 1e9)]
            own += [milliseconds(floor.products / floor.rate), milliseconds(floor.seconds), tensor or "-"]
            rows.append([Text(given.name), Text(floor.work), *own])
        size, levels_of = int(np.prod(given.shape)), levels(given.shape)
        up = given.classes * given.searched * size * sum(1 / level.factor**2 for level in levels_of) / LINK
        sums.append(
            [Text(given.name), given.searched, milliseconds(sum(floor.seconds for floor in found)), milliseconds(up)]
        )
    return [table(heads, rows), table(["set", "images of a class", "floors of all", "bytes' way up at 55 GB/s"], sums)]


def milliseconds(seconds: float) -> str:
    return f"{short(seconds * 1e3)} ms"


def short(number: float) -> str:
    return f"{number:,.0f}" if number >= 1000 else f"{number:.3g}"
