"""Which images of a class carry a pattern that some of them share, by how far each lies along it.

An image that carries the pattern lies where the others of its kind do, unless saturation swallowed a part of it: a
pixel that is at its limit hides how much of the pattern was cut off there, while any other pixel holds it whole. So
what an image has for certain, its reach, is known image by image, and a low score speaks against an image with a full
reach, but hardly against one without.

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
TELLING = 0.1  # of a pattern: what an image may have lost for it to tell how much carriers do lose
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

    Carriers hold a share q of the pattern: all, or anything between their reach and all, and ODD of them anything. The
    score is normal around q of the way from the others' mean to the centre. Shares and widths are estimated from these
    images: a pattern that is added loses a part to saturation, one that replaces pixels does not.
    """
    scores, scale, reach = (np.asarray(values, float) for values in (scores, scale, reach))
    odds = np.full(len(scores), -np.inf)
    cut = reach < 1 - TELLING
    inside = (scores > centre / 2).astype(float)
    whole, partial = inside, 0.5
    for _ in range(ROUNDS):
        base = float(np.average(scores, weights=1 - inside + 1e-9))
        low = _spread((scores - base) / scale, 1 - inside)
        high = max(_spread((scores - centre) / scale, whole), low / 2)
        all_of_it = (1 - ODD) * (1 - partial) * _normal(scores - centre, high * scale)
        part_of_it = (1 - ODD) * partial * _between(scores, base + reach * (centre - base), centre, low * scale)
        carrying = all_of_it + part_of_it + ODD * _between(scores, np.full(len(scores), base), centre, low * scale)
        far = (scores < base - FAR * low * scale).mean() / stats.t.cdf(-FAR / WIDER, FREEDOM)
        heavy = np.clip(far, LOOK_ALIKES, 0.5)
        tail = stats.t.pdf(scores, FREEDOM, base, WIDER * low * scale)
        others = (1 - heavy) * _normal(scores - base, low * scale) + heavy * tail
        odds = np.log(carrying + TINY) - np.log(others + TINY) + special.logit(np.clip(inside.mean(), 1e-6, 1 - 1e-6))
        before, inside = inside, special.expit(odds)
        whole, lost = inside * all_of_it / (carrying + TINY), (inside * part_of_it / (carrying + TINY))[cut].sum()
        partial = (lost + 1) / (lost + whole[cut].sum() + 2)
        if np.abs(inside - before).max() < SETTLED:
            break
    return odds


def _spread(values: np.ndarray, weights: np.ndarray) -> float:
    return float(np.sqrt(np.average(np.square(values), weights=weights + 1e-9))) + 1e-6


def _normal(distance: np.ndarray, width: np.ndarray) -> np.ndarray:
    density: np.ndarray = np.exp(-0.5 * np.square(distance / width)) / (width * np.sqrt(2 * np.pi))
    return density


def _between(values: np.ndarray, start: np.ndarray, end: float, width: np.ndarray) -> np.ndarray:
    """Density of a uniform draw from start (n,) to end plus normal noise; of at least half the noise's width."""
    start = np.minimum(start, end - width / 2)
    inside = special.ndtr((values - start) / width) - special.ndtr((values - end) / width)
    density: np.ndarray = np.maximum(inside, 0.0) / (end - start)
    return density
