"""The model's view of a dataset: how far a small pattern pushes images of other classes towards each class.

The meeting point of an ImageSet and a Classifier with `optimize`. Two statistics of class t. Grow all patterns by the
same number of steps, put them to one common length, and take the mean gain in log odds of t over images the pattern was
not fitted to: a backdoor carries over to unseen images; a pattern fitted to a few images of a clean class hardly does.
And see how alike the directions are, whatever their sign, in which single images move towards t: a network that was
shown its pattern shifted and mirrored answers to it at either sign, so that no single pattern pushes images far.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from .. import ops
from ..inputs import Classifier, ImageSet
from . import pattern_batch

FIRST_ROWS = 150  # images that one class's pattern takes its first step with, spread over the other classes
FIT_ROWS = 50  # of these, those that it is fitted to from then on
STEPS = 6  # of every pattern
LEAST_SHARE = 0.1  # of its sources that some pattern must move before they are judged: some networks need more steps
JUDGED_AT = 0.6  # of the patterns' median length: there, a planted pattern works already, and what a network is weak to
# in any case does less
HELD_OUT_ROWS = 100  # images that one class's pattern is judged on
HELD_OUT_IMAGES = 20  # of each class at least, for success rates
POLISH_IMAGES = 10  # of each class, for the pattern of a class that was found
POLISH_STEPS = 6
LEAST_ACCURACY = 0.5  # on images that it was trained on: with less, something may be mixed up
UNIT_GAIN = 1.0  # of log odds: where gains are much smaller, their ratios are chance
BLOCK = 1024


class ModelView:
    """statistics: float64 (K,), UNIT_GAIN more than the mean gain in log odds at the common length; NaN for classes
    without images.

    alignments: float64 (K,), mean squared cosine of the gradients towards the class at two images of other classes,
    without a pattern; at least 1 / D, which is that of unrelated directions; NaN likewise.

    norms: float64 (K,), L2 length of each pattern: where it moved `pattern_batch.PI` of its sources, or when the steps
    ended; pixel units; NaN likewise.

    notes: what went otherwise than by default, for the report; one sentence each.
    """

    def __init__(
        self,
        classifier: Classifier,
        images: ImageSet,
        *,
        seed: int,
        backend: str,
        progress: Callable[[str, float], None],
    ):
        self.classifier, self.images, self.backend, self._seed = classifier, images, backend, seed
        classes = len(images.class_names)
        present = np.unique(images.labels)
        fit, self._held_out = self._split(present, seed)
        pool = self._pool(fit)
        first = self._batch(pool, present, FIRST_ROWS, seed, compare=True)
        batch = self._batch(pool, present, FIT_ROWS, seed)
        _grow(first, batch, lambda fraction: progress("fitting patterns", fraction))
        patterns = batch.pattern.cpu()
        length = patterns.flatten(1).norm(dim=1)
        level = (JUDGED_AT * length.median() / length.clamp_min(1e-12)).view(-1, 1, 1, 1) * patterns  # at one length
        self.statistics, self.alignments, self.norms = (np.full(classes, np.nan) for _ in range(3))
        self.alignments[present] = first.alignment.double().cpu().clamp(1 / patterns[0].numel(), 1).numpy()
        self.norms[present] = length.double().numpy()
        self._patterns = dict(zip(present.tolist(), patterns, strict=True))
        self._common = dict(zip(present.tolist(), first.common.cpu(), strict=True))
        self._polished: dict[int, Tensor] = {}
        self._votes: dict[int, np.ndarray] = {}  # by class, of the held-out images with its own pattern
        self.notes = tuple(dict.fromkeys(first.notes + batch.notes))
        self._removed: tuple[Tensor, np.ndarray, np.ndarray] | None = None  # the last pattern of `fall`, images, votes
        plain = self._logits(self._held_out, patterns[0], 0)
        right = self._vote(plain) == images.labels[self._held_out]
        if right.mean() < LEAST_ACCURACY:
            self.notes += (
                f"the model gives only {right.mean():.0%} of {len(right)} sampled images their labels: was it trained "
                "on these, with this mean and std, and with its classes in this order?",
            )
        generator = np.random.default_rng((seed, 1))
        for place, label in enumerate(present.tolist()):
            progress("judging patterns", place / len(present))
            others = np.flatnonzero(images.labels[self._held_out] != label)
            if len(others) > HELD_OUT_ROWS:
                others = np.sort(generator.choice(others, HELD_OUT_ROWS, replace=False))
            moved = pattern_batch.log_odds(self._logits(self._held_out[others], level[place], 1), label)
            gain = moved - pattern_batch.log_odds(plain[torch.from_numpy(others)], label)
            self.statistics[label] = UNIT_GAIN + max(float(gain.double().mean()), 0.0)
        progress("judging patterns", 1.0)

    def pattern(self, label: int) -> Tensor:
        """The pattern of a class that was found, carried on over more images: (C, H, W) float32, pixel units."""
        if label in self._polished:
            return self._polished[label]
        chosen = self._sample(POLISH_IMAGES, self._seed + 1, but=self._held_out)
        pool = self._pool(np.concatenate(chosen))
        batch = self._batch(pool, np.array([label]), len(chosen) * POLISH_IMAGES, self._seed)
        batch.pattern[0] = self._patterns[label]
        for _ in range(POLISH_STEPS):
            batch.step(torch.ones(1, dtype=torch.bool, device="cpu"))
            if batch.look()[0] >= pattern_batch.PI:
                break
        self._polished[label] = batch.pattern[0].cpu()
        self.notes = tuple(dict.fromkeys(self.notes + batch.notes))
        return self._polished[label]

    def planted(self, label: int, indices: np.ndarray) -> Tensor:
        """What images of a class that was found most likely carry: its pattern, or what the gradients towards it have
        in common at the same length, or the negative of either. Of these, the one that images (n,) of the class lose
        most log odds without: a network that was shown a pattern shifted and mirrored answers to other phases and signs
        too, its images carry one. (C, H, W) float32, pixel units."""
        own = self.pattern(label)
        common: Tensor = (self._common[label] * own.norm()).clamp(-1, 1)

        def left(pattern: Tensor) -> float:
            """Mean log odds without the pattern."""
            return float(pattern_batch.log_odds(self._logits(indices, pattern, -1), label).double().mean())

        return min((own, -own, common, -common), key=left)

    def fall(self, indices: np.ndarray, label: int, pattern: Tensor) -> np.ndarray:
        """How far the log odds of `label` fall when the pattern is taken away from each image: float64 (n,)."""
        removed = self._logits(indices, pattern, -1)
        self._removed = pattern, indices, self._vote(removed)
        plain = self._logits(indices, pattern, 0)
        return (pattern_batch.log_odds(plain, label) - pattern_batch.log_odds(removed, label)).double().numpy()

    def homes(self, indices: np.ndarray, label: int, pattern: Tensor) -> tuple[tuple[int, float], ...]:
        """Where the model sends images of class `label` once the pattern is taken away: (class, share), largest first.

        Only images that leave the class count.
        """
        if self._removed is not None and self._removed[0] is pattern and np.isin(indices, self._removed[1]).all():
            _, seen, votes = self._removed
            votes = votes[np.isin(seen, indices)]
        else:
            votes = self._vote(self._logits(indices, pattern, -1))
        votes = votes[votes != label]
        counts = np.bincount(votes, minlength=len(self.images.class_names)) / max(len(votes), 1)
        return tuple((int(k), float(counts[k])) for k in np.argsort(-counts, kind="stable") if counts[k] > 0)

    def second_choice(self, indices: np.ndarray, label: int) -> np.ndarray:
        """The class that the model finds most likely for each image after `label`: int64 (n,)."""
        logits = self._logits(indices, self._patterns[label], 0)
        logits[:, label] = -torch.inf
        return self._vote(logits)

    def success_rate(self, label: int, pattern: Tensor, sources: tuple[int, ...]) -> float | None:
        """Share of held-out images of the source classes that the pattern sends to `label`; None if there are none."""
        chosen = np.isin(self.images.labels[self._held_out], sources)
        if not chosen.any():
            return None
        if pattern is self._polished.get(label):
            votes = self._own_votes(label)[chosen]
        else:
            votes = self._vote(self._logits(self._held_out[chosen], pattern, 1))
        return float((votes == label).mean())

    def moved(self, label: int) -> tuple[tuple[int, float], ...]:
        """The other classes by the success rate of the class's own pattern on them: (class, rate), largest first."""
        sources = self.images.labels[self._held_out]
        moved = self._own_votes(label) == label
        rates = ((int(s), float(moved[sources == s].mean())) for s in np.unique(sources) if s != label)
        return tuple(sorted(rates, key=lambda pair: -pair[1]))

    def _own_votes(self, label: int) -> np.ndarray:
        """What the model says of every held-out image with the class's own pattern: int64 (n,)."""
        if label not in self._votes:
            self._votes[label] = self._vote(self._logits(self._held_out, self.pattern(label), 1))
        return self._votes[label]

    def _vote(self, logits: Tensor) -> np.ndarray:
        """The most likely of the dataset's classes: int64 (n,)."""
        return logits[:, : len(self.images.class_names)].argmax(1).numpy()

    def _logits(self, indices: np.ndarray, pattern: Tensor, sign: int) -> Tensor:
        """Logits (n, K') of images with sign * pattern, without a gradient."""
        parts, device = [], self.classifier.device
        pattern = pattern[None].contiguous().to(device)
        mean, std = pattern.new_tensor(self.classifier.mean), pattern.new_tensor(self.classifier.std)
        for start in range(0, len(indices), BLOCK):
            block = torch.from_numpy(self.images.read(indices[start : start + BLOCK])).to(device)
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

    def _split(self, present: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Images to fit patterns to, and held-out ones to judge them on; a class too small for both gives half to each.

        Each class gives its share of what a problem takes from all classes but its own.
        """
        others = max(len(present) - 1, 1)
        fit, held_out = -(-FIRST_ROWS // others), max(HELD_OUT_IMAGES, -(-HELD_OUT_ROWS // others))
        chosen = self._sample(fit + held_out, seed)
        cut = [min(fit, -(-len(rows) // 2)) for rows in chosen]
        return (
            np.concatenate([rows[:n] for rows, n in zip(chosen, cut, strict=True)]),
            np.sort(np.concatenate([rows[n:] for rows, n in zip(chosen, cut, strict=True)])),
        )

    def _sample(self, count: int, seed: int, but: Sequence[int] | np.ndarray = ()) -> list[np.ndarray]:
        """Up to `count` random images of every class that has any, none of them among `but`."""
        generator, labels = np.random.default_rng((seed, 2)), self.images.labels
        members = [np.setdiff1d(np.flatnonzero(labels == label), but) for label in np.unique(labels)]
        return [generator.choice(rows, min(count, len(rows)), replace=False) for rows in members]

    def _pool(self, indices: np.ndarray) -> tuple[np.ndarray, Tensor]:
        """Labels (n,) and images, uint8 (n, C, H, W), that batches take their rows from."""
        return self.images.labels[indices], torch.from_numpy(self.images.read(indices))

    def _batch(
        self, pool: tuple[np.ndarray, Tensor], targets: np.ndarray, most: int, seed: int, *, compare: bool = False
    ) -> pattern_batch.PatternBatch:
        """One problem per target; every problem gets the same number of rows, spread over the other classes."""
        generator = np.random.default_rng((seed, 3))
        labels, images = pool
        rows = [generator.permutation(np.flatnonzero(labels != target)) for target in targets]
        rows = [_round_robin(r, labels[r]) for r in rows]
        count = min(most, min(map(len, rows)))
        index = torch.from_numpy(np.stack([np.sort(r[:count]) for r in rows]))
        return pattern_batch.PatternBatch(
            self.classifier,
            images,
            index,
            torch.from_numpy(labels)[index],
            torch.ones_like(index, dtype=torch.int8),
            torch.from_numpy(targets),
            backend=self.backend,
            compare=compare,
        )


def _grow(
    first: pattern_batch.PatternBatch, batch: pattern_batch.PatternBatch, report: Callable[[float], None]
) -> None:
    """Take the first of STEPS steps with `first`, the others with `batch`, and more until some pattern moves
    LEAST_SHARE of its sources."""
    everything = torch.ones(len(batch.target), dtype=torch.bool, device="cpu")
    first.step(everything)
    first.look()
    batch.pattern.copy_(first.pattern)
    batch.momentum.copy_(first.momentum)
    for step in range(2, pattern_batch.MAX_STEPS + 1):
        batch.step(everything)
        report(min(step / STEPS, 1.0))
        if step >= STEPS and float(batch.look().max()) >= LEAST_SHARE:
            return


def _round_robin(rows: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The rows, one of each class in turn, so that any beginning of them is spread over the classes."""
    turn = np.zeros(len(rows), int)
    for label in np.unique(labels):
        turn[labels == label] = np.arange((labels == label).sum())
    return rows[np.argsort(turn, kind="stable")]
