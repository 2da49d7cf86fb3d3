"""From images that share something to the pattern behind it, the images that carry it, and where they come from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ..method import carriers, recovery, shares
from ..method.frequencies import without_means
from ..method.whitening import Whitening
from .passes import Passes

# images; of each class, that its mean is taken over; source: chosen, their noise is far below a pattern's
MEAN_IMAGES = 200
# values; of the means of all classes that are held at a time; source: chosen, 256 MiB
MEAN_VALUES = 2**25
# values; of whitened images that a pattern is recovered from; source: chosen, the strongest of so many say enough
RECOVERY_VALUES = 2**26

Shares = tuple[tuple[int, float], ...]


@dataclass(frozen=True, eq=False)
class Pattern:
    """What images share at one level. whitening: of that level; level: its number; recovered: in grey levels of that
    level; tiles: the displacement by it, of whitened tiles by kind; sources: classes and shares, largest first."""

    whitening: Whitening
    level: int
    recovered: recovery.Recovered
    tiles: list[torch.Tensor]
    sources: Shares

    @property
    def is_simple(self) -> bool:
        """Whether few positions or frequencies explain what the images share."""
        return self.recovered.basis not in ("dense", "image")


def recover(passes: Passes, whitening: Whitening, level: int, members: np.ndarray, classes: Sequence[int]) -> Pattern:
    """The pattern that images (n,) of the dataset share; classes: that they may come from."""
    most = max(8, RECOVERY_VALUES // whitening.level.size)
    chosen = members[np.linspace(0, len(members) - 1, min(most, len(members))).astype(np.int64)]
    blocks = [whitening.whiten(block) for _, block in passes.blocks(chosen, level)]
    tiles = [torch.cat(parts) for parts in zip(*blocks, strict=True)]
    displacement = recovery.mean_displacement(tiles, [kind.sizes for kind in whitening.kinds])
    named = list(classes)[: max(1, MEAN_VALUES // whitening.level.size)]
    means = class_means(passes, level, named) - whitening.mean.double().numpy()
    counts = np.minimum(np.bincount(passes.images.labels, minlength=max(named) + 1)[named], MEAN_IMAGES)
    recovered = recovery.recover(displacement, whitening, means, counts)
    planted = without_means(torch.from_numpy(recovered.pattern)[None], whitening)
    moved = [part[0] for part in whitening.displacements(planted)]
    return Pattern(whitening, level, recovered, moved, by_share(named, recovered.mixture))


def class_means(passes: Passes, level: int, classes: Sequence[int]) -> np.ndarray:
    """Of some images of each class at a level, channel means removed: float64 (S, D). The passes keep them, up to
    MEAN_VALUES: of a thousand classes 200 000 images would be read for every finding."""
    means = []
    for label in classes:
        if (level, label) not in passes.means:
            members = np.flatnonzero(passes.images.labels == label)
            chosen = members[np.linspace(0, len(members) - 1, min(MEAN_IMAGES, len(members))).astype(np.int64)]
            if sum(map(len, passes.means.values())) > MEAN_VALUES:
                passes.means.clear()
            passes.means[level, label] = passes.mean(chosen, level).numpy()
        means.append(passes.means[level, label])
    return np.stack(means)


def carried_shares(passes: Passes, pattern: Pattern, indices: np.ndarray) -> shares.Shares:
    """How much of a pattern each of the images (n,) carries."""
    parts = [
        shares.shares(pattern.whitening, pattern.whitening.whiten(block), pattern.tiles)
        for _, block in passes.blocks(indices, pattern.level)
    ]
    return shares.Shares(np.concatenate([p.share for p in parts]), np.concatenate([p.noise for p in parts]))


def unsaturated(passes: Passes, pattern: Pattern, indices: np.ndarray) -> np.ndarray:
    """What share of a pattern's score no image (n,) can have lost to clipping: float64 (n,)."""
    weights = pattern.whitening.templates([part[None].float() for part in pattern.tiles])[0].numpy()
    parts = [
        carriers.unsaturated_share(block, pattern.recovered.pattern, weights)
        for _, block in passes.blocks(indices, pattern.level)
    ]
    return np.concatenate(parts)


def in_pixels(passes: Passes, pattern: Pattern) -> np.ndarray:
    """float32 (C, H, W) of the images' own size, pixel units; an estimate may lie beyond what an image can hold."""
    values = np.clip(pattern.recovered.pattern / 255, -1, 1).astype(np.float32)
    planes = values.reshape(pattern.whitening.level.shape)
    factor, (_, height, width) = pattern.whitening.level.factor, passes.images.image_shape
    return np.ascontiguousarray(planes.repeat(factor, 1).repeat(factor, 2)[:, :height, :width])


def by_share(classes: Sequence[int], mixture: np.ndarray) -> Shares:
    """(class, share), largest first."""
    return tuple(sorted(zip(classes, mixture.tolist(), strict=True), key=lambda pair: -pair[1]))
