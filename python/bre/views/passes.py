"""Passes over the images of a set, a block at a time: moments, sums and scores of as many images as there are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch

from .. import ops
from ..inputs import ImageSet
from ..method import carriers, whitening

READ_BLOCK = 4096  # images that are in memory at once
NONE = np.zeros(0, np.int64)


@dataclass(frozen=True, eq=False)
class Passes:
    """images: read by the caller's thread alone, since datasets need not be safe to share; backend: of the ops."""

    images: ImageSet
    backend: str

    @property
    def size(self) -> int:
        """D, values of an image."""
        return int(np.prod(self.images.image_shape))

    def blocks(self, indices: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Indices (m,) and images uint8 (m, C, H, W), READ_BLOCK at a time."""
        for start, block in self.images.blocks(READ_BLOCK, indices):
            yield indices[start : start + READ_BLOCK], block

    def moments(
        self,
        indices: np.ndarray,
        labels: np.ndarray,
        kept: np.ndarray = NONE,
        report: Callable[[float], None] = lambda fraction: None,
    ) -> tuple[ops.Moments, np.ndarray]:
        """Moments of images (n,) under the given labels (n,), and those of the images that are kept, in the order of
        `indices`: one pass. report: called with the fraction done."""
        total, parts, done = ops.Moments.zeros(int(labels.max()) + 1, self.size), [], 0
        for rows, block in self.blocks(indices):
            self.add(block, labels[done : done + len(rows)], total)
            parts.append(block[np.isin(rows, kept)])
            done += len(rows)
            report(done / len(indices))
        return total, np.concatenate(parts)

    def add(self, block: np.ndarray, labels: np.ndarray, total: ops.Moments) -> None:
        """A block's moments, added to `total`."""
        classes = len(total.count)
        labels_of_block = torch.tensor(labels, device="cpu")
        ops.moments(torch.from_numpy(block), labels_of_block, classes=classes, out=total, backend=self.backend)

    def background(self, members: np.ndarray, everything: ops.Moments) -> whitening.Background:
        """Of the images that are not `members`; everything: moments of all images."""
        own, _ = self.moments(members, np.zeros(len(members), np.int64))
        return whitening.background(everything, own, self.images.image_shape)

    def total(self, indices: np.ndarray, background: whitening.Background) -> tuple[torch.Tensor, float]:
        """Sum of whitened images (n,), (D,) float32, and of their mean squared coordinates."""
        total, squared = torch.zeros(self.size, dtype=torch.float32, device="cpu"), 0.0
        for _, block in self.blocks(indices):
            whitened = background.whiten(block)
            total, squared = total + whitened.sum(0), squared + float(whitened.square().mean(1).double().sum())
        return total, squared

    def scores(self, indices: np.ndarray, background: whitening.Background, displacement: torch.Tensor) -> np.ndarray:
        """Of images (n,) along a displacement (D,) that none of them has a part in: float32 (n,)."""
        template = template_of(background, displacement)
        parts = [whitening.matched_filter(block, template, self.backend)[:, 0] for _, block in self.blocks(indices)]
        return torch.cat(parts).numpy()

    def scores_and_unsaturated(
        self,
        indices: np.ndarray,
        background: whitening.Background,
        displacement: torch.Tensor,
        pattern: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray]:
        """As `scores`, and each image's unsaturated share of the pattern (D,) behind the displacement; one pass."""
        template, scores, shares = template_of(background, displacement), [], []
        weights = template[:-1, 0].numpy()
        for _, block in self.blocks(indices):
            scores.append(whitening.matched_filter(block, template, self.backend)[:, 0].numpy())
            shares.append(carriers.unsaturated_share(block, pattern, weights))
        return np.concatenate(scores), np.concatenate(shares)


def template_of(background: whitening.Background, direction: torch.Tensor) -> torch.Tensor:
    """(D + 1, 1), for scores along a direction (D,) of any length."""
    return background.templates(direction[:, None] / direction.norm())
