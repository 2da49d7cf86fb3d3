"""Which images of which classes carry what images of several classes share, and whether it is an attack."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..method import carriers as carriers_of
from ..method import cross_class, recovery
from ..method.whitening import Whitening
from ..runs.run import Run
from ..runs.work import Work
from .class_search import ClassSearch
from .passes import Template
from .recovering import Pattern, Shares, by_share, recover

# standard deviations; that some class's carriers are from its mean towards another's, at least; source: simulated,
# tests/method/test_cross_class.py
STRANGE = 5.0
# share; of the carriers in the class that has most, a class with fewer is not attacked; source: chosen, it would count
# chance carriers as a class that was attacked
MIN_CARRIER_SHARE = 0.1
SHARD_IMAGES = 16384  # images; that are scored in one task; source: chosen, seconds of work


@dataclass(frozen=True, eq=False)
class CrossClassCarriers:
    """scores, log_odds: float64 (M,), of every image of the set, along the pattern and that it carries it; pattern:
    what they carry; sources: by class that was attacked, the other classes with their shares, largest first."""

    scores: np.ndarray
    log_odds: np.ndarray
    pattern: Pattern
    sources: dict[int, Shares]


def attribute(search: ClassSearch, run: Run, direction: torch.Tensor) -> CrossClassCarriers | None:
    """Carriers of what lies behind a direction (D,) of the coarsest level, by class; None where it is no attack.

    Score all images, refine the pattern, flag, and see in each class where the carriers come from. A watermark does not
    make images look like another class: where most classes' carriers look like their own, there is no attack.
    """
    passes, level, classes = search.passes, len(search.passes.levels) - 1, search.large
    whitening = search.backgrounds.moments[level].whitening([])
    scores = cross_class.standardised(_scores(search, run, level, template_of(whitening, [direction[None]])))
    inside = np.flatnonzero(cross_class.carrying(scores, cross_class.second_mode(scores)))
    pattern = recover(passes, whitening, level, inside, classes)
    template = template_of(whitening, pattern.tiles)
    scores = cross_class.standardised(_scores(search, run, level, template))
    unsaturated = _in_shards(search, run, UNSATURATED, level, template.weights, pattern.recovered.pattern)
    mode = cross_class.second_mode(scores)
    if not mode.log_likelihood_ratio:
        return None
    log_odds = carriers_of.log_odds(scores, np.ones(len(scores)), unsaturated, mode.centre)
    sources = _strange_classes(search, run, pattern, log_odds > carriers_of.FLAG_LOG_ODDS)
    return None if sources is None else CrossClassCarriers(scores, log_odds, pattern, sources)


def _scores(search: ClassSearch, run: Run, level: int, template: Template) -> np.ndarray:
    """float32 (M,), of every image along a template."""
    return _in_shards(search, run, SCORES, level, template.weights, template.offset)


def _in_shards(search: ClassSearch, run: Run, work: Work, *arguments: Any) -> np.ndarray:
    """(M,), of every image, SHARD_IMAGES to a task."""
    count = len(search.passes.images)
    shards = [(start, min(start + SHARD_IMAGES, count), *arguments) for start in range(0, count, SHARD_IMAGES)]
    return np.concatenate(run.all(work, shards, search))


def _score_shard(
    search: ClassSearch, start: int, stop: int, level: int, weights: torch.Tensor, offset: float
) -> np.ndarray:
    return search.passes.scores(np.arange(start, stop), level, Template(weights, offset))


def _unsaturated_in_shard(
    search: ClassSearch, start: int, stop: int, level: int, weights: torch.Tensor, pattern: np.ndarray
) -> np.ndarray:
    blocks = search.passes.blocks(np.arange(start, stop), level)
    parts = [carriers_of.unsaturated_share(block, pattern, weights.numpy()) for _, block in blocks]
    return np.concatenate(parts)


def _sum_of(search: ClassSearch, level: int, indices: np.ndarray) -> torch.Tensor:
    return search.passes.mean(indices, level)


SCORES = Work("scores", _score_shard, None)
UNSATURATED = Work("unsaturated", _unsaturated_in_shard, None)
MEANS = Work("means", _sum_of, None)


def template_of(whitening: Whitening, tiles: list[torch.Tensor]) -> Template:
    """For scores along whitened tiles (T, d) by kind, in standard deviations of unrelated images."""
    length = torch.cat([part.flatten() for part in tiles]).double().norm().clamp_min(1e-9)
    weights = whitening.templates([part[None].double() / length for part in tiles])[0]
    return Template(weights, -float(weights @ whitening.mean.double()))


def _strange_classes(search: ClassSearch, run: Run, pattern: Pattern, flagged: np.ndarray) -> dict[int, Shares] | None:
    """The classes whose carriers, with the pattern taken away, look like other classes, and like which; None where most
    do not, or none by more than STRANGE. flagged: bool (M,)."""
    labels, classes = search.passes.images.labels, search.large
    carriers = {k: np.flatnonzero((labels == k) & flagged) for k in classes}
    least = max(cross_class.MIN_CARRIERS, MIN_CARRIER_SHARE * max(map(len, carriers.values())))
    seen = [k for k in classes if len(carriers[k]) >= least]
    clean = {k: np.flatnonzero((labels == k) & ~flagged) for k in classes}
    means = _whitened_means(search, run, pattern, [clean[k] for k in classes])
    planted = torch.cat([part.flatten() for part in pattern.tiles]).double().numpy()
    of_carriers = _whitened_means(search, run, pattern, [carriers[k] for k in seen])
    looks = {k: mean - planted for k, mean in zip(seen, of_carriers, strict=True)}
    shares = {k: by_share(classes, _mixture(means, looks[k])) for k in seen}
    strange = [k for k in seen if shares[k][0][0] != k]
    if len(strange) <= len(seen) / 2:
        return None
    distances = []
    for label in strange:
        distance = cross_class.distance_towards_others(means, classes.index(label), looks[label], len(clean[label]))
        distances.append(distance * len(carriers[label]) ** 0.5)
    if max(distances) < STRANGE:
        return None
    return {label: tuple(share for share in shares[label] if share[0] != label) for label in strange}


def _whitened_means(search: ClassSearch, run: Run, pattern: Pattern, groups: list[np.ndarray]) -> np.ndarray:
    """Of groups of images (n,) each: float64 (groups, D)."""
    whitening, tasks = pattern.whitening, [(pattern.level, group) for group in groups]
    out = []
    for mean in run.all(MEANS, tasks, search):
        moved = whitening.displacements((mean - whitening.mean.double())[None])
        out.append(torch.cat([part.flatten() for part in moved]).numpy())
    return np.stack(out)


def _mixture(means: np.ndarray, look: np.ndarray) -> np.ndarray:
    return recovery.simplex_fit(torch.from_numpy(means), torch.from_numpy(look))
