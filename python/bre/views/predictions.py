"""What a classifier says of images of a set, with a pattern added, taken away, or as they are."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from .. import ops
from ..inputs import Classifier, ImageSet

# bytes; of images that are kept, since they are asked about again and again; source: chosen, a small part of what
# `detect` takes, and enough for ten classes of 20 images at 380 x 380
HELD_BYTES = 2**28


@dataclass(frozen=True, eq=False)
class Removal:
    """What taking a pattern away does to images (n,).

    log_odds_drop: float64 (n,), of the target class; predicted: int64 (n,), the class of each image without it.
    """

    log_odds_drop: np.ndarray
    predicted: np.ndarray


@dataclass(frozen=True, eq=False)
class Predictions:
    """The images of a set through a classifier; backend: of `ops.apply_pattern` on the classifier's device; rows:
    images that go through the network at once."""

    classifier: Classifier
    images: ImageSet
    backend: str
    rows: int
    _held: dict[int, np.ndarray] = field(default_factory=dict, init=False)

    def hold(self, indices: np.ndarray) -> None:
        """Keep images (n,) in memory from now on, if they are no more than HELD_BYTES; reading a file takes longer than
        a small network does."""
        if len(indices) * math.prod(self.images.image_shape) <= HELD_BYTES:
            self._held.update(zip(indices.tolist(), self.images.read(indices), strict=True))

    def logits(self, indices: np.ndarray, pattern: Tensor, sign: int) -> Tensor:
        """Of images (n,) with sign * pattern (C, H, W), pixel units: float32 (n, K') on the host, no gradient."""
        parts = []
        for inputs in self.inputs(indices, pattern, sign):
            with torch.no_grad():
                parts.append(self.classifier.logits(inputs).float().cpu())
        return torch.cat(parts)

    def inputs(self, indices: np.ndarray, pattern: Tensor, sign: int) -> Iterator[Tensor]:
        """Images (n,) with sign * pattern (C, H, W), pixel units, as the network takes them, `rows` at a time."""
        device = self.classifier.device
        pattern = pattern[None].contiguous().to(device)
        mean, std = pattern.new_tensor(self.classifier.mean), pattern.new_tensor(self.classifier.std)
        for start in range(0, len(indices), self.rows):
            block = torch.from_numpy(self._read(indices[start : start + self.rows])).to(device)
            index = torch.arange(len(block), device=device)[None]
            yield ops.apply_pattern(
                block,
                index=index,
                sign=torch.full_like(index, sign, dtype=torch.int8),
                pattern=pattern,
                mean=mean,
                std=std,
                layout="nhwc",
                dtype=self.classifier.precision,
                backend=self.backend,
            )

    def plain_inputs(self, indices: np.ndarray) -> Iterator[Tensor]:
        """`inputs` of images (n,) as they are."""
        return self.inputs(indices, self._no_pattern(), 0)

    def plain(self, indices: np.ndarray) -> Tensor:
        """`logits` of images (n,) as they are."""
        return self.logits(indices, self._no_pattern(), 0)

    def _no_pattern(self) -> Tensor:
        return torch.zeros(self.images.image_shape, dtype=torch.float32, device="cpu")

    def classes(self, logits: Tensor) -> np.ndarray:
        """The most likely of the dataset's classes: int64 (n,)."""
        return logits[:, : len(self.images.class_names)].argmax(1).numpy()

    def removal(self, indices: np.ndarray, label: int, pattern: Tensor, plain: Tensor) -> Removal:
        """What becomes of images (n,) and their log odds of `label` when the pattern is taken away; plain: their logits
        as they are."""
        removed = self.logits(indices, pattern, -1)
        drop = log_odds(plain, label) - log_odds(removed, label)
        return Removal(drop.double().numpy(), self.classes(removed))

    def without(self, indices: np.ndarray, pattern: Tensor) -> np.ndarray:
        """The class of each image (n,) without the pattern: int64 (n,)."""
        return self.classes(self.logits(indices, pattern, -1))

    def runner_up(self, indices: np.ndarray, label: int) -> np.ndarray:
        """The most likely class of each image (n,) after `label`: int64 (n,)."""
        logits = self.plain(indices)
        logits[:, label] = -torch.inf
        return self.classes(logits)

    def shares(self, predicted: np.ndarray, *, but: int) -> tuple[tuple[int, float], ...]:
        """(class, share) of predictions (n,) other than `but`, largest first."""
        predicted = predicted[predicted != but]
        counts = np.bincount(predicted, minlength=len(self.images.class_names)) / max(len(predicted), 1)
        return tuple((int(k), float(counts[k])) for k in np.argsort(-counts, kind="stable") if counts[k] > 0)

    def _read(self, indices: np.ndarray) -> np.ndarray:
        """uint8 (n, C, H, W)."""
        if all(index in self._held for index in indices.tolist()):
            return np.stack([self._held[index] for index in indices.tolist()])
        return self.images.read(indices)


def log_odds(logits: Tensor, target: int) -> Tensor:
    """log p_t / (1 - p_t) for each row of logits (n, K) -> (n,)."""
    others = logits.clone()
    others[:, target] = -torch.inf
    return logits[:, target] - others.logsumexp(1)
