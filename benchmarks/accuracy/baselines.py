"""Two published detectors in plain torch with their published settings, to compare bre with.

Both take a frozen network, float32 (n, C, H, W) in [0, 1] -> (n, K) logits, and clean images with their labels:
  `neural_cleanse`  Wang et al., IEEE S&P 2019, with the settings of BackdoorBench
  `pairwise`        Xiang, Miller, Kesidis, IEEE TNNLS 2020: one additive pattern per pair of classes, with the
                    settings of the authors' own re-implementation (ICLR 2022)
`most` bounds the steps of each problem, so that the time of a step can be measured where a whole run takes hours.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import torch
from scipy import stats
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True)
class Verdict:
    """What a baseline says, and what it took.

    norms: size of the pattern of each class, (K,) L1 of the mask, or of each pair, (K, K) L2, source by target, NaN
    where there is none. targets: classes called backdoor targets. statistic: anomaly index, or p-value. steps: taken
    in all; most_steps: that the settings allow. images: forward, and backward, without the caller's own.
    cpu_seconds: of the processor, all threads together.
    """

    norms: np.ndarray
    poisoned: bool
    targets: tuple[int, ...]
    statistic: float
    steps: int
    most_steps: int
    forward_images: int
    backward_images: int
    cpu_seconds: float


EPOCHS, BATCH, CLEAN_SHARE = 80, 256, 0.05  # of BackdoorBench's configuration for CIFAR-10, as are those below
RATE, FIRST_COST, COST_UP, COST_DOWN = 0.1, 1e-3, 2.0, 2.0**1.5
SUCCESS, PATIENCE, STOP_PATIENCE, STOP_GAIN = 0.98, 5, 25, 0.99
ANOMALY = 2.0


def neural_cleanse(
    net: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    classes: int,
    seed: int = 0,
    most: int | None = None,
    only: tuple[int, ...] | None = None,
) -> Verdict:
    """images: uint8 (M, C, H, W), the training set, of which a random CLEAN_SHARE is used; labels: int64 (M,), unused
    but for their number. only: the classes whose masks are fitted, all of them for a verdict."""
    start = time.process_time()
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(len(labels), generator=generator)[: max(1, round(CLEAN_SHARE * len(labels)))]
    pool = images[chosen].float() / 255
    batches = -(-len(pool) // BATCH)
    norms, steps, seen = np.full(classes, np.nan), 0, 0
    for label in only if only is not None else range(classes):
        norms[label], taken, through = _mask(net, pool, label, generator, EPOCHS * batches if most is None else most)
        steps, seen = steps + taken, seen + through
    fitted = norms[np.isfinite(norms)]
    spread = 1.4826 * np.median(np.abs(fitted - np.median(fitted)))
    index = (np.median(norms) - norms) / spread if len(fitted) == classes and spread > 0 else np.zeros(classes)
    targets = tuple(np.flatnonzero(index > ANOMALY).tolist())
    return Verdict(
        norms,
        bool(targets),
        targets,
        float(index.max()),
        steps,
        classes * EPOCHS * batches,
        seen,
        seen,
        time.process_time() - start,
    )


def _mask(net: nn.Module, pool: Tensor, label: int, generator: torch.Generator, most: int) -> tuple[float, int, int]:
    """L1 of the smallest mask that sends SUCCESS of the images to the label, steps taken, images seen."""
    mask, pattern = torch.zeros(1, 1, *pool.shape[2:]), torch.zeros(1, *pool.shape[1:])
    for parameter in (mask, pattern):
        parameter.requires_grad_(True)
    optimizer = torch.optim.Adam([mask, pattern], lr=RATE, betas=(0.5, 0.9))
    cost, best, last_best = FIRST_COST, np.inf, np.inf
    ups = downs = stalled = steps = seen = 0
    went_up = went_down = False
    for _ in range(EPOCHS):
        success, sizes = [], []
        for rows in torch.randperm(len(pool), generator=generator).split(BATCH):
            m, p = (mask.tanh() + 1) / 2, (pattern.tanh() + 1) / 2
            logits = net(((1 - m) * pool[rows] + m * p).contiguous(memory_format=torch.channels_last))
            target = torch.full((len(rows),), label)
            size = m.sum()
            optimizer.zero_grad()
            (functional.cross_entropy(logits, target) + cost * size).backward()
            optimizer.step()
            success.append((logits.argmax(1) == label).float().mean().item())
            sizes.append(size.item())
            steps, seen = steps + 1, seen + len(rows)
            if steps == most:
                return min(best, float(np.mean(sizes))), steps, seen
        works, size_now = np.mean(success) >= SUCCESS, float(np.mean(sizes))
        if works and size_now < best:
            best = size_now
        if np.isfinite(best):
            stalled = stalled + 1 if best >= STOP_GAIN * last_best else 0
        last_best = min(last_best, best)
        if went_up and went_down and stalled >= STOP_PATIENCE:
            break
        ups, downs = (ups + 1, 0) if works else (0, downs + 1)
        if ups >= PATIENCE:
            ups, cost, went_up = 0, cost * COST_UP, True
        elif downs >= PATIENCE:
            downs, cost, went_down = 0, cost / COST_DOWN, True
    return best if np.isfinite(best) else size_now, steps, seen


PI, PAIR_RATE, PAIR_STEPS, PAIR_IMAGES, FIRST_SPREAD, ALPHA = 0.9, 1e-2, 1000, 10, 1e-3, 0.05


def pairwise(
    net: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    classes: int,
    seed: int = 0,
    most: int = PAIR_STEPS,
    pairs: int | None = None,
) -> Verdict:
    """images: uint8 (M, C, H, W); labels: int64 (M,). Each pair uses PAIR_IMAGES of its source, rightly classified.

    pairs: how many of the K(K - 1), drawn at random, are fitted; None for all, which a verdict needs.

    The statistic of a pair is the reciprocal of its pattern's norm. Under the null, those of pairs with the largest
    one's target left out, are gamma; the p-value is that of the largest of all K(K - 1) under the fitted gamma.
    """
    start = time.process_time()
    generator = torch.Generator().manual_seed(seed)
    norms, steps, forward, backward = np.full((classes, classes), np.nan), 0, 0, 0
    sources = {}
    for s in range(classes):
        rows = (labels == s).nonzero().flatten()
        rows = rows[torch.randperm(len(rows), generator=generator)][: 5 * PAIR_IMAGES]
        x = images[rows].float() / 255
        with torch.no_grad():
            right = net(x).argmax(1) == s
        forward += len(x)
        sources[s] = torch.cat([x[right], x[~right]])[:PAIR_IMAGES].contiguous(memory_format=torch.channels_last)
    todo = [(s, t) for s in range(classes) for t in range(classes) if s != t]
    if pairs is not None:
        todo = [todo[i] for i in torch.randperm(len(todo), generator=generator)[:pairs].tolist()]
    for s, t in todo:
        norms[s, t], taken = _pair_pattern(net, sources[s], t, generator, most)
        steps += taken
        forward, backward = forward + 2 * taken * len(sources[s]), backward + taken * len(sources[s])
    p_value, target = _pair_test(norms) if pairs is None else (1.0, 0)
    poisoned = p_value <= ALPHA
    return Verdict(
        norms,
        poisoned,
        (target,) if poisoned else (),
        p_value,
        steps,
        classes * (classes - 1) * PAIR_STEPS,
        forward,
        backward,
        time.process_time() - start,
    )


def _pair_pattern(net: nn.Module, x: Tensor, target: int, generator: torch.Generator, most: int) -> tuple[float, int]:
    """L2 of a pattern that sends PI of the images to the target, or of what PAIR_STEPS steps gave; steps taken."""
    pattern = torch.randn(x.shape[1:], generator=generator) * FIRST_SPREAD
    wanted = torch.full((len(x),), target)
    steps = 0
    moved = torch.zeros(())
    while steps < most and moved < PI:
        steps += 1
        pattern.requires_grad_(True)
        (gradient,) = torch.autograd.grad(functional.cross_entropy(net((x + pattern).clamp(0, 1)), wanted), pattern)
        rate = PAIR_RATE * (1 + 0.1 * torch.randn((), generator=generator))
        pattern = (pattern - rate * gradient).detach()
        with torch.no_grad():
            moved = (net((x + pattern).clamp(0, 1)).argmax(1) == target).float().mean()
    return float(pattern.norm()), steps


def _pair_test(norms: np.ndarray) -> tuple[float, int]:
    """p-value of the smallest norm, and its target."""
    reciprocal = np.where(np.isnan(norms), -np.inf, 1 / norms)
    target = int(np.unravel_index(reciprocal.argmax(), norms.shape)[1])
    rest = np.delete(reciprocal, target, 1)
    rest = rest[np.isfinite(rest)]
    shape, _, scale = stats.gamma.fit(rest, floc=0)
    count = np.isfinite(reciprocal).sum()
    below = stats.gamma.logcdf(reciprocal.max(), shape, scale=scale)
    return float(-np.expm1(count * below)), target
