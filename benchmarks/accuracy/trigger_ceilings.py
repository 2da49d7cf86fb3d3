"""How well a network's own activations tell the poisoned images of a class from the others, at best."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.accuracy.trigger_victims import Victim
from bre.inputs import open_dataset, open_model
from bre.method import carriers, modes
from bre.views.inside import search_inside
from bre.views.inside_class import joined

Row = dict[str, Any]


def at_best(victim: Victim, target: int, seed: int) -> Row:
    """found, lost, as for `detect`: of Fisher's discriminant in the layers that the inside view joins, which is told
    which images are poisoned, from each half of the class for the other half."""
    classifier, images = open_model(victim.model), open_dataset((victim.images, victim.labels))
    with classifier:
        classifier.check(images.image_shape, len(images.class_names))
        seen = search_inside(classifier, images, seed=seed, backend="cpu", progress=lambda stage, fraction: None)
        members = np.flatnonzero(victim.labels == target)
        activations, _ = seen.passes.run(members)
    used = joined(seen.separations[target], [layer.channels for layer in seen.passes.layers])
    values = np.concatenate([seen.spreads[k].without(target).whiten(activations[k]) for k in used], axis=1)
    poisoned = victim.poisoned[members]
    flagged = np.zeros(len(victim.labels), bool)
    flagged[members] = _log_odds(values, poisoned.astype(float)) > carriers.FLAG_LOG_ODDS
    return {"found": float(flagged[victim.poisoned].mean()), "lost": float(flagged[victim.clean].mean())}


def _log_odds(values: np.ndarray, poisoned: np.ndarray) -> np.ndarray:
    """(n,) of values (n, d); poisoned: (n,), 0 or 1."""
    odds = np.empty(len(values))
    for start in (0, 1):
        fit, other = slice(start, None, 2), slice(1 - start, None, 2)
        mean, whitening = values[fit].mean(0), modes.within(values[fit], poisoned[fit])
        known = whitening.whiten(values[fit] - mean)
        direction = known[poisoned[fit] == 1].mean(0) - known[poisoned[fit] == 0].mean(0)
        found, _ = modes.two_modes(known @ direction, poisoned[fit])
        odds[other] = found.log_odds(whitening.whiten(values[other] - mean) @ direction)
    return odds
