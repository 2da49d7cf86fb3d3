"""Which images of which classes carry what images of several classes share, and whether it is an attack."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from ..method import carriers as carriers_of
from ..method import cross_class, recovery
from ..method.whitening import Whitening
from .passes import Passes, Template
from .recovering import Pattern, Shares, by_share, recover

# standard deviations; that some class's carriers are from its mean towards another's, at least; source: simulated,
# tests/method/test_cross_class.py
STRANGE = 5.0
# share; of the carriers in the class that has most, a class with fewer is not attacked; source: chosen, it would count
# chance carriers as a class that was attacked
MIN_CARRIER_SHARE = 0.1


@dataclass(frozen=True, eq=False)
class CrossClassCarriers:
    """scores, log_odds: float64 (M,), of every image of the set, along the pattern and that it carries it; pattern: what
    they carry; sources: by class that was attacked, the other classes with their shares, largest first."""

    scores: np.ndarray
    log_odds: np.ndarray
    pattern: Pattern
    sources: dict[int, Shares]


def attribute(
    passes: Passes, whitening: Whitening, level: int, direction: torch.Tensor, classes: list[int]
) -> CrossClassCarriers | None:
    """Carriers of what lies behind a direction (D,) of the coarsest level, by class; None where it is no attack.

    Score all images, refine the pattern, flag, and see in each class where the carriers come from. A watermark does not
    make images look like another class: where most classes' carriers look like their own, there is no attack.
    """
    indices = np.arange(len(passes.images.labels))
    scores = cross_class.standardised(passes.scores(indices, level, template_of(whitening, [direction[None]])))
    inside = np.flatnonzero(cross_class.carrying(scores, cross_class.second_mode(scores)))
    pattern = recover(passes, whitening, level, inside, classes)
    template = template_of(whitening, pattern.tiles)
    scores, unsaturated = passes.scores_and_unsaturated(indices, level, template, pattern.recovered.pattern)
    scores = cross_class.standardised(scores)
    mode = cross_class.second_mode(scores)
    if not mode.log_likelihood_ratio:
        return None
    log_odds = carriers_of.log_odds(scores, np.ones(len(scores)), unsaturated, mode.centre)
    sources = _strange_classes(passes, pattern, log_odds > carriers_of.FLAG_LOG_ODDS, classes)
    return None if sources is None else CrossClassCarriers(scores, log_odds, pattern, sources)


def template_of(whitening: Whitening, tiles: list[torch.Tensor]) -> Template:
    """For scores along whitened tiles (T, d) by kind, in standard deviations of unrelated images."""
    length = torch.cat([part.flatten() for part in tiles]).double().norm().clamp_min(1e-9)
    weights = whitening.templates([part[None].double() / length for part in tiles])[0]
    return Template(weights, -float(weights @ whitening.mean.double()))


def _strange_classes(
    passes: Passes, pattern: Pattern, flagged: np.ndarray, classes: list[int]
) -> dict[int, Shares] | None:
    """The classes whose carriers, with the pattern taken away, look like other classes, and like which; None where most
    do not, or none by more than STRANGE. flagged: bool (M,)."""
    labels, whitening, level = passes.images.labels, pattern.whitening, pattern.level
    carriers = {k: np.flatnonzero((labels == k) & flagged) for k in classes}
    least = max(cross_class.MIN_CARRIERS, MIN_CARRIER_SHARE * max(map(len, carriers.values())))
    seen = [k for k in classes if len(carriers[k]) >= least]
    clean = {k: np.flatnonzero((labels == k) & ~flagged) for k in classes}
    means = np.stack([_whitened_mean(passes, whitening, level, clean[k]) for k in classes])
    planted = torch.cat([part.flatten() for part in pattern.tiles]).double().numpy()
    looks = {k: _whitened_mean(passes, whitening, level, carriers[k]) - planted for k in seen}
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


def _whitened_mean(passes: Passes, whitening: Whitening, level: int, indices: np.ndarray) -> np.ndarray:
    """Of images (n,): float64 (D,)."""
    mean = passes.mean(indices, level) - whitening.mean.double()
    return torch.cat([part.flatten() for part in whitening.displacements(mean[None])]).numpy()


def _mixture(means: np.ndarray, look: np.ndarray) -> np.ndarray:
    return recovery.simplex_fit(torch.from_numpy(means), torch.from_numpy(look))
