"""Which images carry a cross-class pattern, and whether it is an attack."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from .. import ops
from ..method import carriers as carriers_of
from ..method import cross_class, recovery
from ..method.whitening import Background
from .passes import Passes

STRANGE = 5.0  # standard deviations that some class's carriers are from its mean towards another's, at least
MIN_CARRIER_SHARE = 0.1  # of the carriers in the class that has most: a class with fewer is not one that was attacked

Shares = tuple[tuple[int, float], ...]


@dataclass(frozen=True, eq=False)
class CrossClassCarriers:
    """scores, log_odds: float64 (M,), of every image of the set, along the pattern and that it carries it; recovered:
    the pattern; sources: by class that was attacked, the other classes with their shares, largest first."""

    scores: np.ndarray
    log_odds: np.ndarray
    recovered: recovery.Recovered
    sources: dict[int, Shares]


def attribute(
    passes: Passes, everything: ops.Moments, common: Background, direction: torch.Tensor, classes: list[int]
) -> CrossClassCarriers | None:
    """Carriers, by class, of the pattern behind a direction (D,) of the common background; None if it is no attack.

    Score all images, refine the pattern in a background without its carriers, flag, and see in each class where the
    carriers come from. A watermark does not make images look like another class: if in most classes the carriers look
    like their own class, there is no attack.
    """
    indices = np.arange(len(passes.images.labels))
    scores = cross_class.standardised(passes.scores(indices, common, direction))
    inside = np.flatnonzero(cross_class.carrying(scores, cross_class.second_mode(scores)))
    background = passes.background(inside, everything)  # in which the pattern is not damped any more
    refined = _refined(passes, everything, background, inside, classes)
    if refined is None:
        return None
    flagged = refined.log_odds > carriers_of.FLAG_LOG_ODDS
    sources = _strange_classes(passes, everything, background, flagged, refined.recovered, classes)
    return None if sources is None else CrossClassCarriers(refined.scores, refined.log_odds, refined.recovered, sources)


def _refined(
    passes: Passes, everything: ops.Moments, background: Background, inside: np.ndarray, classes: list[int]
) -> CrossClassCarriers | None:
    """The pattern that images (n,) share, and every image along it; None where its scores have no second mode."""
    total, squared = passes.total(inside, background)
    means = class_means(everything, background, classes)
    noise = squared / len(inside) ** 2
    recovered = recovery.recover((total / len(inside)).double().numpy(), noise, background, means)
    displacement = torch.from_numpy(recovered.displacement)
    indices = np.arange(len(passes.images.labels))
    scores, unsaturated = passes.scores_and_unsaturated(indices, background, displacement, recovered.pattern)
    scores = cross_class.standardised(scores)
    mode = cross_class.second_mode(scores)
    if not mode.log_likelihood_ratio:
        return None
    log_odds = carriers_of.log_odds(scores, np.ones(len(scores)), unsaturated, mode.centre)
    return CrossClassCarriers(scores, log_odds, recovered, {})


def _strange_classes(
    passes: Passes,
    everything: ops.Moments,
    background: Background,
    flagged: np.ndarray,
    recovered: recovery.Recovered,
    classes: list[int],
) -> dict[int, Shares] | None:
    """The classes whose carriers, with the pattern taken away, look like other classes, and like which; None where most
    do not, or none by more than STRANGE. flagged: bool (M,)."""
    labels = passes.images.labels
    carriers = {k: np.flatnonzero((labels == k) & flagged) for k in classes}
    least = max(cross_class.MIN_CARRIERS, MIN_CARRIER_SHARE * max(map(len, carriers.values())))
    totals = {k: passes.total(rows, background)[0].double().numpy() for k, rows in carriers.items()}
    means = class_means(everything, background, classes)
    for mean, label in zip(means, classes, strict=True):  # of the others: an image looks like a mean it is in
        count, carrying = int(everything.count[label]), len(carriers[label])
        mean += (carrying * mean - totals[label]) / max(count - carrying, 1)
    seen = [k for k in classes if len(carriers[k]) >= least]
    looks = {k: totals[k] / len(carriers[k]) - recovered.displacement for k in seen}
    shares = {k: by_share(classes, recovery.simplex_fit(means, looks[k])) for k in seen}
    strange = [k for k in seen if shares[k][0][0] != k]
    if len(strange) <= len(seen) / 2:
        return None
    distances = []
    for label in strange:
        distance = cross_class.distance_towards_others(
            means, classes.index(label), looks[label], int(everything.count[label])
        )
        distances.append(distance * len(carriers[label]) ** 0.5)
    if max(distances) < STRANGE:
        return None
    return {label: tuple(share for share in shares[label] if share[0] != label) for label in strange}


def class_means(everything: ops.Moments, background: Background, classes: list[int]) -> np.ndarray:
    """Whitened means of the classes: (S, D) float64."""
    means = everything.sum[classes].double() / everything.count[classes, None]
    whitened: np.ndarray = background.displacements(means - background.mean).numpy()
    return whitened


def by_share(classes: list[int], mixture: np.ndarray) -> Shares:
    """(class, share), largest first."""
    return tuple(sorted(zip(classes, mixture.tolist(), strict=True), key=lambda pair: -pair[1]))
