"""Passes over the images of a set, a block at a time, at any level of their pyramid."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .. import ops
from ..inputs import ImageSet
from ..method import levels
from ..method.linalg import single_thread
from ..method.uploads import Upload
from ..method.whitening import HOST, mean_of_sums, pixel_sums
from .placement import Placement

# images; that are read at once, at most; source: chosen, fewer cost time where images are small
READ_BLOCK = 4096
# bytes; of images that are read at once; source: chosen, small beside what a search holds
READ_BYTES = 2**25


@dataclass(frozen=True, eq=False)
class Template:
    """weights: float64 (D,), of one level's pixels in grey levels; offset: what is added to their sum. A score is in
    standard deviations of unrelated images, or in shares of a pattern, as its maker says."""

    weights: Tensor
    offset: float


@dataclass(frozen=True, eq=False)
class Passes:
    """images: read by the caller's thread alone, since datasets need not be safe to share; backend: of the ops;
    placement: where they compute."""

    images: ImageSet
    backend: str
    placement: Placement = field(default_factory=Placement)
    means: dict[tuple[int, int], np.ndarray] = field(default_factory=dict)  # see `recovering.class_means`

    def __getstate__(self) -> dict[str, Any]:
        return {"images": self.images, "backend": self.backend, "placement": self.placement, "means": {}}

    @property
    def device(self) -> torch.device:
        return self.placement.device

    @cached_property
    def levels(self) -> list[levels.Level]:
        """Of the images' pyramid, from their own size on."""
        channels, height, width = self.images.image_shape
        return levels.levels((channels, height, width))

    @property
    def size(self) -> int:
        """D, values of an image."""
        return int(np.prod(self.images.image_shape))

    @property
    def block(self) -> int:
        """Images that are read at once."""
        return max(1, min(READ_BLOCK, READ_BYTES // self.size))

    def blocks(self, indices: np.ndarray, level: int = 0) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Indices (m,) and images uint8 (m, C, h, w) of a level, a block at a time."""
        for start, block in self.images.blocks(self.block, indices):
            for _ in range(level):
                block = levels.halve(block)
            yield indices[start : start + self.block], block

    def read(self, indices: np.ndarray, level: int = 0) -> np.ndarray:
        """Images uint8 (n, C, h, w) of a level, all at once."""
        images, start = np.empty((len(indices), *self.levels[level].shape), np.uint8), 0
        for _, block in self.blocks(indices, level):
            images[start : start + len(block)] = block
            start += len(block)
        return images

    def scores(self, indices: np.ndarray, level: int, template: Template) -> np.ndarray:
        """Of images (n,) along a template of a level: float32 (n,)."""
        scored = Scored(template, self.backend, self.device)
        for _, block in self.blocks(indices, level):
            scored.add(block)
        return scored.down()

    def mean(self, indices: np.ndarray, level: int) -> Tensor:
        """Of images (n,), each channel's mean over its image taken away: float64 (D,) of the level."""
        sums = torch.zeros(self.levels[level].size, dtype=torch.int64, device="cpu")
        for _, block in self.blocks(indices, level):
            sums += pixel_sums(torch.from_numpy(block))
        return mean_of_sums(sums, len(indices), self.levels[level].shape[0])


class Scored:
    """Scores of images along a template, block by block, on a device until all are asked for."""

    def __init__(self, template: Template, backend: str, device: torch.device = HOST):
        weights = (255 * template.weights)[None].float().contiguous()
        self._upload, self._backend, self._offset = Upload(device), backend, template.offset
        self._weights, self._parts = weights.to(device), list[Tensor]()

    def add(self, block: np.ndarray) -> None:
        """block: uint8 (m, C, H, W)."""
        with single_thread():
            along = ops.project(self._upload(block), templates=self._weights, backend=self._backend)[:, 0]
        self._parts.append(along.add_(self._offset))

    def down(self) -> np.ndarray:
        """float32 (n,): of all, in their order."""
        scores: np.ndarray = torch.cat(self._parts).cpu().numpy()
        return scores
