"""The model's view of a dataset: how far a small pattern pushes images of other classes towards each class.

The meeting point of an ImageSet and a Classifier with `optimize`. Statistic of class t: put all patterns to one common
length, that of the first to win the race, and take the mean gain in log odds of t over images the pattern was not
fitted to. A backdoor carries over to unseen images; a pattern fitted to a few images of a clean class hardly does.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from . import ops, optimize
from .inputs import Classifier, ImageSet

FIT_IMAGES = 8  # of each class, to fit patterns to
HELD_OUT_IMAGES = 20  # of each class, to judge them on
MAX_FIT = 96  # images that one class's pattern is fitted to
MAX_HELD_OUT = 180  # images that one class's pattern is judged on
POLISH_IMAGES = 16  # of each class, for the pattern of a class that was found
POLISH_STEPS = 8
LEAST_GAIN = 0.05  # of log odds: below it, a class is simply unmoved
BLOCK = 1024


class ModelView:
    """statistics: float64 (K,), mean gain in log odds at the common length; NaN for classes without images.

    norms: float64 (K,), L2 length of each pattern when the race ended, pixel units; NaN likewise.
    """

    def __init__(
        self, classifier: Classifier, images: ImageSet, *, seed: int, backend: str,
        progress: Callable[[str, float], None],
    ):  # fmt: skip
        self.classifier, self.images, self.backend = classifier, images, backend
        classes = len(images.class_names)
        present = np.unique(images.labels)
        chosen = self._sample(FIT_IMAGES + HELD_OUT_IMAGES, seed)
        fit = np.concatenate([rows[: min(FIT_IMAGES, -(-len(rows) // 2))] for rows in chosen])
        held_out = np.setdiff1d(np.concatenate(chosen), fit)
        batch = self._batch(fit, present, MAX_FIT, seed)
        optimize.race(
            batch, torch.ones(len(present), dtype=torch.bool), lambda fraction: progress("fitting patterns", fraction)
        )
        length = batch.pattern.flatten(1).norm(dim=1)
        common = float(length[batch.share.argmax()])
        unit = batch.pattern / length.clamp_min(1e-12).view(-1, 1, 1, 1)
        self.statistics, self.norms = np.full(classes, np.nan), np.full(classes, np.nan)
        self.norms[present] = length.double().numpy()
        self._polished: dict[int, Tensor] = {}
        self._patterns = dict(zip(present.tolist(), batch.pattern, strict=True))
        generator = np.random.default_rng((seed, 1))
        for place, label in enumerate(present.tolist()):
            progress("judging patterns", place / len(present))
            others = held_out[images.labels[held_out] != label]
            if len(others) > MAX_HELD_OUT:
                others = np.sort(generator.choice(others, MAX_HELD_OUT, replace=False))
            gain = self.log_odds(others, label, unit[place] * common, 1) - self.log_odds(others, label, unit[place], 0)
            self.statistics[label] = max(float(gain.mean()), LEAST_GAIN)
        self._held_out = held_out
        self._seed = seed
        progress("judging patterns", 1.0)

    def pattern(self, label: int) -> Tensor:
        """The pattern of a class that was found, carried on over more images: (C, H, W) float32, pixel units."""
        if label in self._polished:
            return self._polished[label]
        chosen = self._sample(POLISH_IMAGES, self._seed + 1)
        batch = self._batch(np.concatenate(chosen), np.array([label]), len(chosen) * POLISH_IMAGES, self._seed)
        batch.pattern[0] = self._patterns[label]
        for _ in range(POLISH_STEPS):
            batch.step(torch.ones(1, dtype=torch.bool))
        self._polished[label] = batch.pattern[0]
        return self._polished[label]

    def fall(self, indices: np.ndarray, label: int, pattern: Tensor) -> np.ndarray:
        """How far the log odds of `label` fall when the pattern is taken away from each image: float64 (n,)."""
        return self.log_odds(indices, label, pattern, 0) - self.log_odds(indices, label, pattern, -1)

    def homes(self, indices: np.ndarray, label: int, pattern: Tensor) -> tuple[tuple[int, float], ...]:
        """Where the model sends images of class `label` once the pattern is taken away: (class, share), largest first.

        Only images that leave the class count.
        """
        votes = self._logits(indices, pattern, -1)[:, : len(self.images.class_names)].argmax(1).numpy()
        votes = votes[votes != label]
        counts = np.bincount(votes, minlength=len(self.images.class_names)) / max(len(votes), 1)
        return tuple((int(k), float(counts[k])) for k in np.argsort(-counts, kind="stable") if counts[k] > 0)

    def success_rate(self, label: int, pattern: Tensor, sources: tuple[int, ...]) -> float | None:
        """Share of held-out images of the source classes that the pattern sends to `label`; None if there are none."""
        rows = self._held_out[np.isin(self.images.labels[self._held_out], sources)]
        if not len(rows):
            return None
        return float((self._logits(rows, pattern, 1).argmax(1) == label).double().mean())

    def best_success_rate(self, label: int) -> float:
        """The success rate of the class's own pattern on the source it moves best."""
        pattern = self.pattern(label)
        sources = [s for s in np.unique(self.images.labels[self._held_out]).tolist() if s != label]
        return max((self.success_rate(label, pattern, (s,)) or 0.0 for s in sources), default=0.0)

    def log_odds(self, indices: np.ndarray, label: int, pattern: Tensor, sign: int) -> np.ndarray:
        """log p / (1 - p) of `label` for images with the pattern added (1), left out (0), taken away (-1)."""
        return optimize.log_odds(self._logits(indices, pattern, sign), label).double().numpy()

    def _logits(self, indices: np.ndarray, pattern: Tensor, sign: int) -> Tensor:
        """Logits (n, K') of images with sign * pattern, without a gradient."""
        parts = []
        for start in range(0, len(indices), BLOCK):
            block = torch.from_numpy(self.images.read(indices[start : start + BLOCK]))
            inputs = ops.apply_pattern(
                block, index=torch.arange(len(block))[None], sign=torch.full((1, len(block)), sign, dtype=torch.int8),
                pattern=pattern[None].contiguous(), mean=torch.tensor(self.classifier.mean),
                std=torch.tensor(self.classifier.std), layout="nhwc", dtype=torch.float32, backend=self.backend,
            )  # fmt: skip
            with torch.no_grad():
                parts.append(self.classifier.logits(inputs).float())
        return torch.cat(parts)

    def _sample(self, count: int, seed: int) -> list[np.ndarray]:
        """Up to `count` random images of every class that has any."""
        generator = np.random.default_rng((seed, 2))
        members = [np.flatnonzero(self.images.labels == label) for label in np.unique(self.images.labels)]
        return [generator.choice(rows, min(count, len(rows)), replace=False) for rows in members]

    def _batch(self, pool: np.ndarray, targets: np.ndarray, most: int, seed: int) -> optimize.PatternBatch:
        """One problem per target; every problem gets the same number of rows, spread over the other classes."""
        generator = np.random.default_rng((seed, 3))
        labels = self.images.labels[pool]
        rows = [generator.permutation(np.flatnonzero(labels != target)) for target in targets]
        rows = [_round_robin(r, labels[r]) for r in rows]
        count = min(most, min(map(len, rows)))
        index = torch.from_numpy(np.stack([np.sort(r[:count]) for r in rows]))
        return optimize.PatternBatch(
            self.classifier, torch.from_numpy(self.images.read(pool)), index, torch.from_numpy(labels)[index],
            torch.ones_like(index, dtype=torch.int8), torch.from_numpy(targets), backend=self.backend,
        )  # fmt: skip


def _round_robin(rows: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The rows, one of each class in turn, so that any beginning of them is spread over the classes."""
    turn = np.zeros(len(rows), int)
    for label in np.unique(labels):
        turn[labels == label] = np.arange((labels == label).sum())
    return rows[np.argsort(turn, kind="stable")]
