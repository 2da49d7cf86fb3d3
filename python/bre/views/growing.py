"""The patterns of all targets grown side by side, in tasks of a group of targets: memory on the classifier's device is
that of a group, and what a run's folder holds is not done again.

Groups take the same steps: how long a step is, and when to end, follows from the patterns of all of them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..inputs import Classifier, ImageSet
from ..runs.run import Run
from ..runs.work import Work
from . import fitting, pattern_batch
from .budget import Budget
from .fitting import Pool

# targets; of a group: a multiple of how many go through a cheap network together, so that a group takes its passes as
# all together would; source: chosen, a hundred classes are one group
GROUP_TARGETS = 120
KNOWN_LOGITS = 4  # images; whose logits tell a model from another with its weights; source: chosen


@dataclass(frozen=True, eq=False)
class Stage:
    """Where the patterns of a group are. pattern, momentum: float32 (T, C, H, W); weight: (T, N), of each row; share:
    float32 (T,), see `PatternBatch`; notes: of it; passes: images through the network, forward and backward."""

    pattern: Tensor
    momentum: Tensor
    weight: Tensor
    share: Tensor
    notes: tuple[str, ...]
    passes: tuple[int, int]


@dataclass(frozen=True, eq=False)
class FirstStage:
    """After the first step. alignment: float32 (T,); common: float32 (T, C, H, W); length: of a step."""

    stage: Stage
    alignment: Tensor
    common: Tensor
    length: float


@dataclass(frozen=True, eq=False)
class Grown:
    """Patterns of all targets, in host memory, as `Stage` and `FirstStage` name them. first_length, length: of the
    first step, and of the others; moved: whether some pattern moved MIN_MOVED of its sources."""

    pattern: Tensor
    alignment: Tensor
    common: Tensor
    first_length: float
    length: float
    moved: bool
    notes: tuple[str, ...]


@dataclass(eq=False)
class Growth:
    """What the tasks need. targets: int64 (K,), the classes that have images; backend: of the ops."""

    classifier: Classifier
    pool: Pool
    targets: np.ndarray
    budget: Budget
    seed: int
    backend: str
    stages: dict[int, Stage] = field(default_factory=dict)  # by group, the last one
    _rows: dict[int, Tensor] = field(default_factory=dict)
    _last: tuple[int, Stage, pattern_batch.PatternBatch] | None = None

    @property
    def groups(self) -> list[slice]:
        return [slice(n, n + GROUP_TARGETS) for n in range(0, len(self.targets), GROUP_TARGETS)]

    def new_batch(self, group: int, most: int, compare: bool) -> pattern_batch.PatternBatch:
        """most: rows of a target, where a cheap network gets as many."""
        if most not in self._rows:
            self._rows[most] = self.pool.rows(self.targets, self.budget.images(most), self.seed)
        part = self.groups[group]
        rows, targets = self._rows[most][part], self.targets[part]
        return self.pool.batch_of(self.classifier, rows, targets, self.backend, rows=self.budget.rows, compare=compare)

    def batch_at(self, group: int, stage: Stage, length: float) -> pattern_batch.PatternBatch:
        """A batch that goes on from a stage, as it is if it has just come to it; length: of its steps."""
        if self._last is not None and self._last[0] == group and self._last[1] is stage:
            return self._last[2]
        batch = self.new_batch(group, fitting.FIT_ROWS, False)
        batch.pattern.copy_(stage.pattern)
        batch.momentum.copy_(stage.momentum)
        if stage.weight.shape == batch.weight.shape:
            batch.weight.copy_(stage.weight)
        batch.length = length
        return batch

    def stage_of(self, group: int, batch: pattern_batch.PatternBatch, before: tuple[int, int]) -> Stage:
        """Where a batch has come to; before: passes when its task began. The count is the caller's to add."""
        share = batch.look()
        counts = self.classifier.forward_images, self.classifier.backward_images
        self.classifier.forward_images, self.classifier.backward_images = before
        passes = counts[0] - before[0], counts[1] - before[1]
        parts = [x.cpu().clone() for x in (batch.pattern, batch.momentum, batch.weight)]
        stage = Stage(parts[0], parts[1], parts[2], share.clone(), batch.notes, passes)
        self._last = group, stage, batch
        return stage


def grow_all(growth: Growth, run: Run, key: str, report: Callable[[float], None]) -> Grown:
    """Take STEPS steps, and more until some pattern moves MIN_MOVED of its sources.

    Steps are short where the first moves less than MIN_MOVED of most patterns' sources; until then they are halved.
    Otherwise all patterns of a network that answers to fainter ones would win at once, planted or not. key: what the
    tasks' results depend on beside the run's own; report: called with the fraction done.
    """
    groups = list(range(len(growth.groups)))
    firsts: list[FirstStage] = _counted(growth, run, FIRST_STEP, [(key, g) for g in groups])
    usual, before = firsts[0].length, torch.cat([first.stage.share for first in firsts])
    for halvings in range(fitting.MAX_HALVINGS + 1):
        growth.stages = {g: firsts[g].stage for g in groups}
        stages = _counted(growth, run, SECOND_STEP, [(key, g, halvings) for g in groups])
        if (torch.cat([stage.share for stage in stages]) - before).median() < fitting.MIN_MOVED:
            break
    notes = [note for stage in (*(first.stage for first in firsts), *stages) for note in stage.notes]
    done, moved, length = 2, False, usual * 0.5**halvings
    while done < pattern_batch.MAX_STEPS and not moved:
        report(min(done / fitting.STEPS, 1.0))
        growth.stages = dict(zip(groups, stages, strict=True))
        upto = fitting.STEPS if done < fitting.STEPS else done + 1
        stages = _counted(growth, run, STEP, [(key, g, halvings, done, upto, length) for g in groups])
        notes += [note for stage in stages for note in stage.notes]
        done, moved = upto, max(float(stage.share.max()) for stage in stages) >= fitting.MIN_MOVED
    return Grown(
        torch.cat([stage.pattern for stage in stages]),
        torch.cat([first.alignment for first in firsts]),
        torch.cat([first.common for first in firsts]),
        usual,
        length,
        moved,
        tuple(dict.fromkeys(notes)),
    )


def _counted(growth: Growth, run: Run, work: Work, tasks: list[tuple[object, ...]]) -> list[Any]:
    results = run.all(work, tasks, growth)
    for result in results:
        stage = result.stage if isinstance(result, FirstStage) else result
        growth.classifier.forward_images += stage.passes[0]
        growth.classifier.backward_images += stage.passes[1]
    return results


def _first_step(growth: Growth, key: str, group: int) -> FirstStage:
    before = growth.classifier.forward_images, growth.classifier.backward_images
    batch = growth.new_batch(group, fitting.FIRST_ROWS, True)
    batch.step(_all(batch))
    stage = growth.stage_of(group, batch, before)
    return FirstStage(stage, batch.alignment.cpu().clone(), batch.common.cpu().clone(), batch.length)


def _second_step(growth: Growth, key: str, group: int, halvings: int) -> Stage:
    before, first = (growth.classifier.forward_images, growth.classifier.backward_images), growth.stages[group]
    batch = growth.new_batch(group, fitting.FIT_ROWS, False)
    batch.pattern.copy_(first.pattern * 0.5**halvings)
    batch.momentum.copy_(first.momentum)
    batch.length *= 0.5**halvings
    batch.step(_all(batch))
    return growth.stage_of(group, batch, before)


def _steps(growth: Growth, key: str, group: int, halvings: int, done: int, upto: int, length: float) -> Stage:
    before = growth.classifier.forward_images, growth.classifier.backward_images
    batch = growth.batch_at(group, growth.stages[group], length)
    for _ in range(done, upto):
        batch.step(_all(batch))
    return growth.stage_of(group, batch, before)


def _all(batch: pattern_batch.PatternBatch) -> Tensor:
    return torch.ones(len(batch.target), dtype=torch.bool, device="cpu")


FIRST_STEP = Work("first-step", _first_step, None, (FirstStage, Stage))
SECOND_STEP = Work("second-step", _second_step, None, (Stage,))
STEP = Work("steps", _steps, None, (Stage,))


def known_by(classifier: Classifier, images: ImageSet, backend: str) -> str:
    """Hex: what tells a model from others, its weights and its answers to a few images. Nothing is counted."""
    digest = hashlib.sha256(repr((classifier.mean, classifier.std, str(classifier.precision), backend)).encode())
    for name, value in sorted(classifier.module.state_dict().items()):
        if isinstance(value, Tensor):
            raw = value.detach().cpu().contiguous().flatten().view(torch.uint8) if value.numel() else value
            digest.update(repr((name, str(value.dtype), tuple(value.shape))).encode())
            digest.update(raw.numpy().tobytes() if value.numel() else b"")
    some = np.unique(np.linspace(0, len(images) - 1, KNOWN_LOGITS).astype(np.int64))
    counted = classifier.forward_images
    pixels = torch.from_numpy(images.read(some)).to(classifier.device).to(classifier.precision) / 255
    with torch.no_grad():
        digest.update(classifier.logits(pixels).float().cpu().numpy().tobytes())
    classifier.forward_images = counted
    return digest.hexdigest()
