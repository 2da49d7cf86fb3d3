"""Which images of a class carry a pattern that some of them share, by how far each lies along it.

An image that carries the pattern lies where the others of its kind do, unless saturation swallowed a part of it: a
pixel that is at its limit hides how much of the pattern was cut off there, while any other pixel holds it whole. So
what an image has for certain, its reach, is known image by image, and a low score speaks against an image with a full
reach, but hardly against one without. And a pattern brings pixels to their limits: of the images with little reach,
more may carry it than of the others.

Knows nothing of models and of where images come from.
"""

from __future__ import annotations

import numpy as np
from scipy import special, stats

FLAGGED = -1.1  # log odds from which on an image is flagged: one that is missed does the harm of three that are lost
ODD = 0.02  # share of the carriers that lie anywhere up to the centre, for no reason that is known here
LOOK_ALIKES = 0.01  # share, at least, of the others whose scores have heavy tails: those of Student's t,
FREEDOM = 3  # of so many degrees of freedom,
WIDER = 2.0  # at this many times the scale
FAR = 4.0  # standard deviations below the mean: what lies there is of heavy tails
TELLING = 0.9  # reach below which an image tells how much carriers lose
SIMILAR = (0.05, 0.5, TELLING)  # reaches between which images are alike in how many of them carry the pattern
HELD = (0.5, 0.02, 0.48)  # at first: of the carriers, those that hold all, their reach, anything between. Where nothing
# is left scores cannot tell how many hold their reach, so the second does not move far
ROUNDS = 30
TINY = 1e-300
SETTLED = 1e-3  # change of every probability at which the rounds end


def reach(images: np.ndarray, pattern: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(n,) float64 in [0, 1]: what share of a pattern's score no image can have lost to saturation.

    images: uint8 (n, C, H, W); pattern: (D,) float, any unit; weights: (D,) float, of pixels in the score.
    """
    flat, gain = images.reshape(len(images), len(pattern)), pattern * weights
    total = gain.sum()
    if not total > 0:
        return np.ones(len(images))
    saturated = np.where(pattern > 0, flat == 255, (flat == 0) & (pattern < 0))
    lost = np.einsum("ij,j->i", saturated, gain)  # one order of summation, at any number of threads
    known: np.ndarray = np.clip(1 - lost / total, 0.0, 1.0)
    return known


def log_odds(scores: np.ndarray, scale: np.ndarray, reach: np.ndarray, centre: float) -> np.ndarray:
    """(n,) float64, that each image carries the pattern, by expectation maximisation.

    scores: (n,), n >= 1, along the pattern, each without the image's own part in it; scale: (n,) > 0, of each image's
    noise, since a textured image is large everywhere; reach: (n,), see `reach`; centre: score of the images that carry
    all of it.

    Carriers hold a share q of the pattern: all; or their reach, where pixels were at their limits before; or anything
    between the two; and ODD of them anything at all. The score is normal around q of the way from the others' mean to
    the centre. How many hold what, how many carriers there are at a reach, and widths are estimated from these images:
    a pattern that is added loses a part to saturation, one that replaces pixels does not.
    """
    scores, scale, reach = (np.asarray(values, float) for values in (scores, scale, reach))
    odds, held = np.full(len(scores), -np.inf), np.array(HELD)
    telling, group = reach < TELLING, np.digitize(reach, SIMILAR)
    sizes = np.bincount(group, minlength=len(SIMILAR) + 1)
    inside = (scores > centre / 2).astype(float)
    whole = inside
    for _ in range(ROUNDS):
        base = float(np.average(scores, weights=1 - inside + 1e-9))
        low = _spread((scores - base) / scale, 1 - inside)
        high = max(_spread((scores - centre) / scale, whole), low / 2)
        least, width = base + reach * (centre - base), low * scale
        heavy = np.clip((scores < base - FAR * width).mean() / stats.t.cdf(-FAR / WIDER, FREEDOM), LOOK_ALIKES, 0.5)
        others = _noise(scores - base, width, heavy)
        kinds = (
            _noise(scores - centre, high * scale, heavy),
            _noise(scores - least, width, heavy),
            _between(scores, least, centre, width),
        )
        parts = (1 - ODD) * held[:, None] * np.stack(kinds)
        carrying = parts.sum(0) + ODD * _between(scores, np.full(len(scores), base), centre, width)
        share = ((np.bincount(group, inside, len(sizes)) + inside.mean()) / (sizes + 1))[group]
        odds = np.log(carrying + TINY) - np.log(others + TINY) + special.logit(np.clip(share, 1e-6, 1 - 1e-6))
        before, inside = inside, special.expit(odds)
        carriers = inside * parts / (carrying + TINY)
        whole, held = carriers[0], (carriers[:, telling].sum(1) + 1) / (carriers[:, telling].sum() + 3)
        if np.abs(inside - before).max() < SETTLED:
            break
    return odds


def _spread(values: np.ndarray, weights: np.ndarray) -> float:
    return float(np.sqrt(np.average(np.square(values), weights=weights + 1e-9))) + 1e-6


def _noise(distance: np.ndarray, width: np.ndarray, heavy: float) -> np.ndarray:
    """Density of a normal and, of a share, of heavy tails."""
    normal = np.exp(-0.5 * np.square(distance / width)) / (width * np.sqrt(2 * np.pi))
    density: np.ndarray = (1 - heavy) * normal + heavy * stats.t.pdf(distance, FREEDOM, 0, WIDER * width)
    return density


def _between(values: np.ndarray, start: np.ndarray, end: float, width: np.ndarray) -> np.ndarray:
    """Density of a uniform draw from start (n,) to end plus normal noise; of at least half the noise's width."""
    start = np.minimum(start, end - width / 2)
    inside = special.ndtr((values - start) / width) - special.ndtr((values - end) / width)
    density: np.ndarray = np.maximum(inside, 0.0) / (end - start)
    return density
