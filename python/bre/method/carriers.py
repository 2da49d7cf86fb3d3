"""Which images of a class carry a pattern that some of them share, by how far each lies along it.

An image that carries the pattern lies where the others of its kind do, unless saturation swallowed a part of it: a
pixel that is at its limit hides how much of the pattern was cut off there, while any other pixel holds it whole. So
what an image has for certain, its unsaturated share, is known image by image, and a low score speaks against an image
with a full share, but hardly against one without. And a pattern brings pixels to their limits: of the images with a
small unsaturated share, more may carry it than of the others.

The model. With u the unsaturated share of an image and s its noise, its score x is, with b the others' mean and c the
centre of the carriers,

    others     x ~ N(b, s)                                      with heavy tails (Student's t) in a small share
    carriers   x ~ N(b + q (c - b), s),    q = 1                shares[0]
                                           q = u                shares[1]
                                           q uniform in [u, 1]  shares[2]
                                           q uniform in [0, 1]  OUTLIER_SHARE of them

and the share of carriers depends on u. All of it is fitted by expectation maximisation; the answer is the log odds of
being a carrier. Arrays only; scores are in standard deviations of unrelated images.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import special

# log odds; from which on an image is flagged; source: chosen, log(1/3): a poisoned image that is missed does the harm
# of three clean ones removed
FLAG_LOG_ODDS = -1.1
# share; of the carriers, that lie anywhere up to the centre, for no reason that is known here; source: chosen, on one
# class of photographs at 64 x 64 more than 0.01 claims clean images that lie far out
OUTLIER_SHARE = 0.005
MIN_TAIL_SHARE = 0.01  # share of the others; whose scores have heavy tails, at least; source: chosen
TAIL_FREEDOM = 3  # degrees of freedom; of Student's t for the heavy tails; source: chosen
TAIL_SCALE = 2.0  # times the scale of the others; scale of the heavy tails; source: chosen
# standard deviations; below the mean, where a score is of the heavy tails; source: chosen, a normal has 3 in 100 000
# there
TAIL_START = 4.0
SATURATED_BELOW = 0.9  # unsaturated share; below which an image tells how much carriers lose; source: chosen
# unsaturated share; between which images are alike in how many of them carry the pattern; source: chosen
SHARE_GROUPS = (0.05, 0.5, SATURATED_BELOW)
# share of the carriers; at first: those that hold all, their unsaturated share, anything between; source: chosen,
# where nothing is left, scores cannot tell how many hold just their share, so that the second does not move far
INITIAL_SHARES = (0.5, 0.02, 0.48)
EM_ROUNDS = 30  # rounds; of expectation maximisation, at most; source: chosen, EM_TOLERANCE ends most before
TINY = 1e-300  # density; below which a logarithm is not taken; source: derived, the smallest doubles
EM_TOLERANCE = 1e-3  # probability; largest change at which the rounds end; source: chosen, far below what moves a flag


def unsaturated_share(images: np.ndarray, pattern: np.ndarray, weights: np.ndarray) -> np.ndarray:
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


def log_odds(scores: np.ndarray, scale: np.ndarray, unsaturated: np.ndarray, centre: float) -> np.ndarray:
    """(n,) float64, that each image carries the pattern, by expectation maximisation of the model above.

    scores: (n,), n >= 1, along the pattern, each without the image's own part in it; scale: (n,) > 0, of each image's
    noise, since a textured image is large everywhere; unsaturated: (n,), see `unsaturated_share`; centre: score of the
    images that carry all of it.
    """
    scores, scale, unsaturated = (np.asarray(values, float) for values in (scores, scale, unsaturated))
    group = np.digitize(unsaturated, SHARE_GROUPS)
    group_sizes = np.bincount(group, minlength=len(SHARE_GROUPS) + 1)
    saturated = unsaturated < SATURATED_BELOW
    odds, shares = np.full(len(scores), -np.inf), np.array(INITIAL_SHARES)
    carrier = (scores > centre / 2).astype(float)  # the responsibilities
    whole = carrier  # of those, that hold all of the pattern
    for _ in range(EM_ROUNDS):
        noise = _Noise.of(scores, scale, centre, carrier, whole)
        parts = (1 - OUTLIER_SHARE) * shares[:, None] * _carrier_densities(scores, unsaturated, centre, noise)
        odd = OUTLIER_SHARE * _between(scores, np.full(len(scores), noise.base), centre, noise.width)
        carrying = parts.sum(0) + odd
        group_share = ((np.bincount(group, carrier, len(group_sizes)) + carrier.mean()) / (group_sizes + 1))[group]
        others = _with_tails(scores - noise.base, noise.width, noise.tail_share)
        odds = np.log(carrying + TINY) - np.log(others + TINY) + special.logit(np.clip(group_share, 1e-6, 1 - 1e-6))
        before, carrier = carrier, special.expit(odds)
        kinds = carrier * parts / (carrying + TINY)
        whole, shares = kinds[0], (kinds[:, saturated].sum(1) + 1) / (kinds[:, saturated].sum() + 3)
        if np.abs(carrier - before).max() < EM_TOLERANCE:
            break
    return odds


@dataclass(frozen=True, eq=False)
class _Noise:
    """base: the others' mean; width, carrier_width: (n,), each image's noise as one of the others, as a carrier;
    tail_share: of the others, that have heavy tails."""

    base: float
    width: np.ndarray
    carrier_width: np.ndarray
    tail_share: float

    @classmethod
    def of(cls, scores: np.ndarray, scale: np.ndarray, centre: float, carrier: np.ndarray, whole: np.ndarray) -> _Noise:
        """The M step for mean and widths: carrier, whole: (n,), responsibilities."""
        base = float(np.average(scores, weights=1 - carrier + 1e-9))
        low = _weighted_sd((scores - base) / scale, 1 - carrier)
        high = max(_weighted_sd((scores - centre) / scale, whole), low / 2)
        width = low * scale
        below = (scores < base - TAIL_START * width).mean() / special.stdtr(TAIL_FREEDOM, -TAIL_START / TAIL_SCALE)
        return cls(base, width, high * scale, np.clip(below, MIN_TAIL_SHARE, 0.5))


def _carrier_densities(scores: np.ndarray, unsaturated: np.ndarray, centre: float, noise: _Noise) -> np.ndarray:
    """(3, n): of carriers that hold all of the pattern, their unsaturated share, anything between the two."""
    least = noise.base + unsaturated * (centre - noise.base)
    return np.stack(
        [
            _with_tails(scores - centre, noise.carrier_width, noise.tail_share),
            _with_tails(scores - least, noise.width, noise.tail_share),
            _between(scores, least, centre, noise.width),
        ]
    )


def _weighted_sd(values: np.ndarray, weights: np.ndarray) -> float:
    return float(np.sqrt(np.average(np.square(values), weights=weights + 1e-9))) + 1e-6


def _with_tails(distance: np.ndarray, width: np.ndarray, tail_share: float) -> np.ndarray:
    """Density (n,) of a normal and, of a share, of heavy tails, at these distances (n,) from its mean."""
    normal = np.exp(-0.5 * np.square(distance / width)) / (width * np.sqrt(2 * np.pi))
    wide = TAIL_SCALE * width  # of Student's t
    tails = (1 + np.square(distance / wide) / TAIL_FREEDOM) ** (-(TAIL_FREEDOM + 1) / 2)
    tails /= wide * np.sqrt(TAIL_FREEDOM) * special.beta(0.5, TAIL_FREEDOM / 2)
    density: np.ndarray = (1 - tail_share) * normal + tail_share * tails
    return density


def _between(values: np.ndarray, start: np.ndarray, end: float, width: np.ndarray) -> np.ndarray:
    """Density of a uniform draw from start (n,) to end plus normal noise; of at least half the noise's width."""
    start = np.minimum(start, end - width / 2)
    inside = special.ndtr((values - start) / width) - special.ndtr((values - end) / width)
    density: np.ndarray = np.maximum(inside, 0.0) / (end - start)
    return density
