"""What a classifier says of images of a set, with a pattern added, taken away, or as they are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .. import ops
from ..inputs import Classifier, ImageSet

PREDICTION_BLOCK = 1024  # images that go through the network at once


@dataclass(frozen=True, eq=False)
class Removal:
    """What taking a pattern away does to images (n,).

    log_odds_drop: float64 (n,), of the target class; predicted: int64 (n,), the class of each image without it.
    """

    log_odds_drop: np.ndarray
    predicted: np.ndarray


@dataclass(frozen=True, eq=False)
class Predictions:
    """The images of a set through a classifier; backend: of `ops.apply_pattern` on the classifier's device."""

    classifier: Classifier
    images: ImageSet
    backend: str

    def logits(self, indices: np.ndarray, pattern: Tensor, sign: int) -> Tensor:
        """Of images (n,) with sign * pattern (C, H, W), pixel units: float32 (n, K') on the host, no gradient."""
        parts, device = [], self.classifier.device
        pattern = pattern[None].contiguous().to(device)
        mean, std = pattern.new_tensor(self.classifier.mean), pattern.new_tensor(self.classifier.std)
        for start in range(0, len(indices), PREDICTION_BLOCK):
            block = torch.from_numpy(self.images.read(indices[start : start + PREDICTION_BLOCK])).to(device)
            index = torch.arange(len(block), device=device)[None]
            inputs = ops.apply_pattern(
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
            with torch.no_grad():
                parts.append(self.classifier.logits(inputs).float().cpu())
        return torch.cat(parts)

    def classes(self, logits: Tensor) -> np.ndarray:
        """The most likely of the dataset's classes: int64 (n,)."""
        return logits[:, : len(self.images.class_names)].argmax(1).numpy()

    def removal(self, indices: np.ndarray, label: int, pattern: Tensor) -> Removal:
        """What becomes of images (n,) and their log odds of `label` when the pattern is taken away."""
        removed = self.logits(indices, pattern, -1)
        plain = self.logits(indices, pattern, 0)
        drop = log_odds(plain, label) - log_odds(removed, label)
        return Removal(drop.double().numpy(), self.classes(removed))

    def without(self, indices: np.ndarray, pattern: Tensor) -> np.ndarray:
        """The class of each image (n,) without the pattern: int64 (n,)."""
        return self.classes(self.logits(indices, pattern, -1))

    def runner_up(self, indices: np.ndarray, label: int) -> np.ndarray:
        """The most likely class of each image (n,) after `label`: int64 (n,)."""
        channels, height, width = self.images.image_shape
        logits = self.logits(indices, torch.zeros(channels, height, width, dtype=torch.float32, device="cpu"), 0)
        logits[:, label] = -torch.inf
        return self.classes(logits)

    def shares(self, predicted: np.ndarray, *, but: int) -> tuple[tuple[int, float], ...]:
        """(class, share) of predictions (n,) other than `but`, largest first."""
        predicted = predicted[predicted != but]
        counts = np.bincount(predicted, minlength=len(self.images.class_names)) / max(len(predicted), 1)
        return tuple((int(k), float(counts[k])) for k in np.argsort(-counts, kind="stable") if counts[k] > 0)


def log_odds(logits: Tensor, target: int) -> Tensor:
    """log p_t / (1 - p_t) for each row of logits (n, K) -> (n,)."""
    others = logits.clone()
    others[:, target] = -torch.inf
    return logits[:, target] - others.logsumexp(1)
