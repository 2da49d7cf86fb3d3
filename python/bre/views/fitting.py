"""Small patterns fitted to images, one for each class, and judged on images that they were not fitted to.

The numbers of images are those of a cheap network; `Budget.images` makes fewer of them for others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..inputs import Classifier, ImageSet
from ..runs.run import Run
from ..runs.work import Work
from . import pattern_batch
from .budget import Budget
from .predictions import Predictions, log_odds
from .streams import stream

FIRST_ROWS = 150  # images; that one class's pattern takes its first step with; source: chosen
FIT_ROWS = 50  # images; of the first step's, those that a pattern is fitted to from then on; source: chosen, by time
STEPS = 6  # steps; of every pattern; source: chosen, by time
# share; of its sources that some pattern must move before all are judged; source: chosen, some networks need longer
MIN_MOVED = 0.1
# steps; at most, until the first is short; source: chosen, the shortest step is then a thousandth of a grey level
MAX_HALVINGS = 9
# of the median length; to which all patterns are put before they are judged; source: chosen, a planted pattern works
# there already, and what a network is weak to in any case does less
JUDGED_LENGTH = 0.6
HELD_OUT_ROWS = 100  # images; that one class's pattern is judged on; source: chosen
HELD_OUT_IMAGES = 20  # images; of each class at least, for success rates; source: chosen
POLISH_IMAGES = 10  # images; of each class, for the pattern of a class that was found; source: chosen
POLISH_STEPS = 6  # steps; of the pattern of a class that was found; source: chosen
# log odds; gains below it are compared as if they were it; source: chosen, where they are much smaller, their ratios
# are chance
UNIT_GAIN = 1.0
JUDGED_TOGETHER = 100  # patterns; that are judged in one task; source: chosen, seconds to minutes of work


def by_label(values: np.ndarray, present: np.ndarray, classes: int) -> np.ndarray:
    """float64 (classes,): values (n,) of the classes that are present, NaN for the others."""
    out = np.full(classes, np.nan)
    out[present] = values
    return out


def lengths(patterns: dict[int, Tensor]) -> np.ndarray:
    """L2 length of each: float64 (n,)."""
    length: np.ndarray = _norms(patterns).double().numpy()
    return length


def _norms(patterns: dict[int, Tensor]) -> Tensor:
    """One by one, since a stack of large ones is many times their size: float32 (n,)."""
    return torch.cat([pattern.reshape(1, -1).norm(dim=1) for pattern in patterns.values()])


@dataclass(frozen=True, eq=False)
class Answers:
    """What the network says in one task: values (n, ...), passes: images through it, forward."""

    values: Tensor
    passes: int


def held_out_gains(
    predictions: Predictions,
    held_out: np.ndarray,
    patterns: dict[int, Tensor],
    seed: int,
    budget: Budget,
    run: Run,
    key: str,
    progress: Callable[[str, float], None],
) -> tuple[np.ndarray, float]:
    """`model_statistic` (K,), and the share of the held-out images that are given their labels without a pattern.

    run: where the tasks are done, one for each JUDGED_TOGETHER patterns; key: of the model, for their names."""
    labels, most = predictions.images.labels[held_out], budget.images(HELD_OUT_ROWS)
    length = _norms(patterns)
    scale = JUDGED_LENGTH * length.median() / length.clamp_min(1e-12)
    generator = stream(seed, "held-out rows")
    tasks, together = [], list(patterns)
    chosen = []
    for label in together:
        others = np.flatnonzero(labels != label)
        if len(others) > most:
            others = np.sort(generator.choice(others, most, replace=False))
        chosen.append(others)
    for start in range(0, len(together), JUDGED_TOGETHER):
        part = slice(start, start + JUDGED_TOGETHER)
        scaled = torch.stack([s * patterns[label] for s, label in zip(scale[part], together[part], strict=True)])
        tasks.append((key, tuple(together[part]), scaled, tuple(held_out[others] for others in chosen[part])))
    plain: Answers = run.one(PLAIN, (key, held_out), predictions)
    answers = run.all(JUDGED, tasks, predictions, report=lambda done: progress("judging patterns", done))
    predictions.classifier.forward_images += plain.passes + sum(each.passes for each in answers)
    with_pattern = torch.cat([each.values for each in answers]) if answers else plain.values[:0]
    gains, start = np.full(len(predictions.images.class_names), np.nan), 0
    for label, others in zip(together, chosen, strict=True):
        gain = with_pattern[start : start + len(others)] - log_odds(plain.values[torch.from_numpy(others)], label)
        gains[label] = UNIT_GAIN + max(float(gain.double().mean()), 0.0)
        start += len(others)
    return gains, float((predictions.classes(plain.values) == labels).mean())


def _answered(predictions: Predictions, key: str, indices: np.ndarray) -> Answers:
    before = predictions.classifier.forward_images
    logits = predictions.plain(indices)
    passes, predictions.classifier.forward_images = predictions.classifier.forward_images - before, before
    return Answers(logits, passes)


def _judged(
    predictions: Predictions, key: str, targets: Sequence[int], patterns: Tensor, indices: Sequence[np.ndarray]
) -> Answers:
    """Log odds of each target with its pattern, of its images (n,), one after another."""
    before = predictions.classifier.forward_images
    parts = [
        log_odds(predictions.logits(chosen, pattern, 1), target)
        for target, pattern, chosen in zip(targets, patterns, indices, strict=True)
    ]
    passes, predictions.classifier.forward_images = predictions.classifier.forward_images - before, before
    return Answers(torch.cat(parts), passes)


PLAIN = Work("plain", _answered, None, (Answers,))
JUDGED = Work("judged", _judged, None, (Answers,))


def split(labels: np.ndarray, present: np.ndarray, seed: int, budget: Budget) -> tuple[np.ndarray, np.ndarray]:
    """Images to fit patterns to, and held-out ones to judge them on; a class too small for both gives half to each.

    Each class gives its share of what a problem takes from all classes but its own.
    """
    others = max(len(present) - 1, 1)
    fit = -(-budget.images(FIRST_ROWS) // others)
    held_out = max(HELD_OUT_IMAGES, -(-budget.images(HELD_OUT_ROWS) // others))
    chosen = sample(labels, fit + held_out, stream(seed, "fit and held-out images"))
    cut = [min(fit, -(-len(rows) // 2)) for rows in chosen]
    return (
        np.concatenate([rows[:n] for rows, n in zip(chosen, cut, strict=True)]),
        np.sort(np.concatenate([rows[n:] for rows, n in zip(chosen, cut, strict=True)])),
    )


def sample(
    labels: np.ndarray, count: int, generator: np.random.Generator, but: Sequence[int] | np.ndarray = ()
) -> list[np.ndarray]:
    """Up to `count` random images of every class that has any, none of them among `but`."""
    members = [np.setdiff1d(np.flatnonzero(labels == label), but) for label in np.unique(labels)]
    return [generator.choice(rows, min(count, len(rows)), replace=False) for rows in members]


@dataclass(frozen=True, eq=False)
class Pool:
    """What batches take their rows from: labels (n,) and images, uint8 (n, C, H, W)."""

    labels: np.ndarray
    images: Tensor

    @classmethod
    def of(cls, images: ImageSet, indices: np.ndarray) -> Pool:
        return cls(images.labels[indices], torch.from_numpy(images.read(indices)))

    def rows(self, targets: np.ndarray, most: int, seed: int) -> Tensor:
        """int64 (T, N): for every target the same number of images, at most `most`, spread over the other classes."""
        generator = stream(seed, "rows of a pattern")
        chosen = [generator.permutation(np.flatnonzero(self.labels != target)) for target in targets]
        chosen = [_round_robin(each, self.labels[each]) for each in chosen]
        count = min(most, min(map(len, chosen)))
        return torch.from_numpy(np.stack([np.sort(each[:count]) for each in chosen]))

    def batch_of(
        self,
        classifier: Classifier,
        index: Tensor,
        targets: np.ndarray,
        backend: str,
        *,
        rows: int,
        compare: bool = False,
    ) -> pattern_batch.PatternBatch:
        """One problem per target, of the images that index (T, N) names. rows: that go through the network at once."""
        return pattern_batch.PatternBatch(
            classifier,
            self.images,
            index,
            torch.from_numpy(self.labels)[index],
            torch.ones_like(index, dtype=torch.int8),
            torch.from_numpy(targets),
            backend=backend,
            rows=rows,
            compare=compare,
        )

    def batch(
        self, classifier: Classifier, targets: np.ndarray, most: int, seed: int, backend: str, *, rows: int
    ) -> pattern_batch.PatternBatch:
        """`batch_of` the `rows` of some targets."""
        return self.batch_of(classifier, self.rows(targets, most, seed), targets, backend, rows=rows)


def _round_robin(rows: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The rows, one of each class in turn, so that any beginning of them is spread over the classes."""
    order = np.argsort(labels, kind="stable")
    _, starts, counts = np.unique(labels[order], return_index=True, return_counts=True)
    turn = np.empty(len(rows), int)
    turn[order] = np.arange(len(rows)) - np.repeat(starts, counts)
    return rows[np.argsort(turn, kind="stable")]
