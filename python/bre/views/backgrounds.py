"""What images of other classes look like, at every level: gathered once, from a bounded sample of every class."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..method import levels
from ..method.whitening import HOST, CutTiles, TileMoments, Whitening, cut
from ..runs.run import Run
from ..runs.work import Work
from .passes import Passes
from .streams import stream

# images; of all classes, that covariances are gathered from; source: chosen, more change little and take time
BACKGROUND_IMAGES = 8192
# groups; of classes: a class is whitened without its own group's images; source: chosen, each takes a matrix of moments
# and a factor; ten classes are five pairs
MAX_GROUPS_OF_CLASSES = 5
# tiles; of all images of the sample, at a level; source: chosen, 85 for each of a tile's 768 values
BACKGROUND_TILES = 65536


@dataclass(eq=False)
class Backgrounds:
    """moments: of each level of the pyramid; group: int64 (K,), which group a class is in; sample: int64, the images
    that they were gathered from, in random order."""

    moments: list[TileMoments]
    group: np.ndarray
    sample: np.ndarray
    _made: dict[int, list[Whitening]] = field(default_factory=dict)
    _in_host_memory: dict[int, list[Whitening]] = field(default_factory=dict)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_made": {}, "_in_host_memory": {}}

    def without(self, label: int) -> list[Whitening]:
        """By level, from images that are not of the class; those of one group are kept, so ask group by group."""
        group = int(self.group[label])
        if group not in self._made:
            self._made.clear()
            self._made[group] = [moments.whitening([group]) for moments in self.moments]
        return self._made[group]

    def in_host_memory(self, label: int) -> list[Whitening]:
        """As `without`, with codes made in host memory, wherever those of others are."""
        group = int(self.group[label])
        if group not in self._in_host_memory:
            self._in_host_memory.clear()
            self._in_host_memory[group] = [each.on(HOST) for each in self.without(label)]
        return self._in_host_memory[group]


def gather(passes: Passes, seed: int, run: Run, report: Callable[[float], None]) -> Backgrounds:
    """One pass over the sample, in tasks. report: called with the fraction done."""
    labels = passes.images.labels
    counts = np.bincount(labels)
    group = groups_of_classes(counts)
    generator = stream(seed, "background images")
    sample = generator.permutation(balanced(labels, counts, BACKGROUND_IMAGES, generator))
    tiles = max(1, -(-BACKGROUND_TILES // len(sample)))
    moments = [TileMoments(level, tiles, passes.device) for level in passes.levels]
    blocks = []
    for start in range(0, len(sample), passes.block):
        rows = np.sort(sample[start : start + passes.block])
        halves = generator.permutation(len(rows)) % 2
        blocks.append((rows, halves, tuple(each.choose(len(rows), generator) for each in moments)))
    tasks = [(rows, chosen, group[labels[rows]], int(group.max()) + 1) for rows, _, chosen in blocks]
    found = run.all(MOMENTS, tasks, passes, report=report)
    for (rows, halves, _), parts in zip(blocks, found, strict=True):
        for each, part in zip(moments, parts, strict=True):
            each.put(part, group[labels[rows]], halves)
    return Backgrounds(moments, group, sample)


def _read_sample(
    passes: Passes, rows: np.ndarray, *arguments: object
) -> tuple[np.ndarray, list[levels.Level], *tuple[object, ...]]:
    return passes.images.read(rows), passes.levels, *arguments


def _cut_sample(
    images: np.ndarray, sizes: list[levels.Level], chosen: Sequence[np.ndarray], groups: np.ndarray, count: int
) -> tuple[CutTiles, ...]:
    """Tiles of a block of the sample, at every level; the rest as for `whitening.cut`."""
    pyramid = levels.pyramid(images, sizes)
    return tuple(
        cut(level, block, each, groups, count) for level, block, each in zip(sizes, pyramid, chosen, strict=True)
    )


MOMENTS = Work("moments", _read_sample, _cut_sample, (CutTiles,))


def groups_of_classes(counts: np.ndarray) -> np.ndarray:
    """int64 (K,): a group for each class, about equally many images in each; counts: (K,) images."""
    groups = min(int((counts > 0).sum()), MAX_GROUPS_OF_CLASSES)
    out, load = np.zeros(len(counts), np.int64), np.zeros(groups)
    for label in np.argsort(-counts, kind="stable"):
        out[label] = load.argmin()
        load[out[label]] += max(int(counts[label]), 1)
    return out


def balanced(labels: np.ndarray, counts: np.ndarray, most: int, generator: np.random.Generator) -> np.ndarray:
    """int64, ascending: `most` images or fewer, equally many of each class as far as it has them: no class may be most
    of what another one is compared with."""
    low, high = 1, int(counts.max())
    while low < high:
        middle = (low + high + 1) // 2
        if np.minimum(counts, middle).sum() <= most:
            low = middle
        else:
            high = middle - 1
    chosen = [generator.permutation(np.flatnonzero(labels == label))[:low] for label in np.flatnonzero(counts)]
    return np.sort(np.concatenate(chosen))
