"""Whether a class is two things: a direction in which its activations fall apart into two modes, and what is in each.

A network that sends triggered images to a class recognises the trigger somewhere inside, whatever it looks like in
pixels: there, along some direction, the class has two modes with little between them. Activations are whitened by what
those of the other classes vary within their classes. Directions start where the images' view's do, from close company
and from leading axes (`clusters.look`); then the two modes give the direction, as in Fisher's linear discriminant, and
the direction gives the modes, to a fixed point. Directions come from one half of the images, judged on the other.

Arrays only: floats (n, d), images by values, of any unit until they are whitened.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from scipy import special
from torch import Tensor

from . import clusters, stats

# share; of the covariance that is taken from a round one, at least; source: chosen, channels that are hardly ever
# active have next to no variance
MIN_SHRINKAGE = 1e-3
# directions; of most variance, that start too; source: chosen, where half a class is planted no mode is far out
AXES = 3
STARTS = 4  # directions; that modes are looked for along, those with most evidence; source: chosen, time grows with it
SETTLE_ROUNDS = 8  # rounds; from modes to direction and back, at most; source: chosen, it mostly ends after three
EM_STEPS = 40  # rounds; of expectation maximisation in one dimension, at most; source: chosen, most end before
UNCHANGED = 0.01  # probability; largest change at which rounds end; source: chosen, far below what moves a flag
LEAST_VARIANCE_RATIO = 0.1  # ratio; of the modes' variances, at least; source: chosen, a few alike values are no mode
MIN_MODE = 3.0  # images; that make a mode, at least; source: chosen, two have a direction by chance
# nats; log odds of one image that its place inside can tell; source: chosen, the tails of two normals that were fitted
# to a few hundred images say no more
MAX_ODDS = 8.0


@dataclass(frozen=True, eq=False)
class TwoModes:
    """Two normals on a line. upper: in [0, 1], share of the upper; means, variances: of (lower, upper)."""

    upper: float
    means: tuple[float, float]
    variances: tuple[float, float]

    def log_odds(self, scores: np.ndarray) -> np.ndarray:
        """(n,) float64, that each score (n,) is of the upper mode, within MAX_ODDS; beyond a mean, never for the other
        mode."""
        shares, means, variances = (np.array([each]) for each in (self.upper, self.means, self.variances))
        odds: np.ndarray = _log_odds(scores[None], shares, means, variances)[0]
        return odds


def _log_odds(scores: np.ndarray, upper: np.ndarray, means: np.ndarray, variances: np.ndarray) -> np.ndarray:
    """`TwoModes.log_odds` of each row of scores (S, n); upper: (S,); means, variances: (S, 2)."""
    (low, high), (below, above) = means.T[..., None], variances.T[..., None]
    prior = special.logit(np.clip(upper, 1e-6, 1 - 1e-6))[:, None] + 0.5 * np.log(below / above)
    odds = prior + 0.5 * (np.square(scores - low) / below - np.square(scores - high) / above)
    odds = np.where(scores > high, np.maximum(odds, 0), np.where(scores < low, np.minimum(odds, 0), odds))
    clipped: np.ndarray = np.clip(odds, -MAX_ODDS, MAX_ODDS)
    return clipped


def two_modes(scores: np.ndarray, upper: np.ndarray) -> tuple[TwoModes, np.ndarray]:
    """Expectation maximisation from responsibilities (n,) of the upper mode for scores (n,): modes, responsibilities.

    Where a mode dies out it keeps a share near zero.
    """
    modes, after = _two_modes_each(scores[None], upper[None])
    return modes[0], after[0]


def _two_modes_each(scores: np.ndarray, upper: np.ndarray) -> tuple[list[TwoModes], np.ndarray]:
    """`two_modes` of each row of scores and responsibilities (S, n), side by side, since a row takes little work."""
    count, upper = len(scores), upper.copy()
    shares, means, variances = np.full(count, 0.5), np.zeros((count, 2)), np.ones((count, 2))
    least, moving = 1e-12 + 1e-6 * scores.var(1, keepdims=True), np.arange(count)
    for _ in range(EM_STEPS):
        values, before = scores[moving], upper[moving]
        weights = np.stack([1 - before, before], axis=1) + 1e-9
        total = weights.sum(2)
        centres = (weights @ values[..., None])[..., 0] / total
        spread = (weights * np.square(values[:, None] - centres[..., None])).sum(2) / total + least[moving]
        spread = np.maximum(spread, LEAST_VARIANCE_RATIO * spread[:, ::-1])
        shares[moving], means[moving], variances[moving] = before.mean(1), centres, spread
        upper[moving] = special.expit(_log_odds(values, shares[moving], centres, spread))
        moving = moving[np.abs(upper[moving] - before).max(1) >= UNCHANGED]
        if not len(moving):
            break
    rows = zip(shares.tolist(), means.tolist(), variances.tolist(), strict=True)
    return [TwoModes(share, (low, high), (below, above)) for share, (low, high), (below, above) in rows], upper


def separation(upper: np.ndarray) -> float:
    """How far apart two modes are, from responsibilities (n,): of the lesser mode's images, one in so many is expected
    on the wrong side; at least 1. Natural classes have 1 to 5 along their best direction, of any layer of any network
    that was looked at; an attack that works has 10 to 500."""
    lesser = min(float(upper.sum()), len(upper) - float(upper.sum()))
    return (lesser + 1) / (float(np.minimum(upper, 1 - upper).sum()) + 1)


@dataclass(frozen=True, eq=False)
class Whitening:
    """What other classes vary within their classes, as the lower triangle of a Cholesky factor: float64 (d, d)."""

    factor: Tensor

    @classmethod
    def of(cls, scatter: Tensor, freedom: int) -> Whitening:
        """scatter: float64 (d, d), sum of squares within classes; freedom: images less classes. Shrunk towards a round
        covariance by the oracle approximation (Chen, Wiesel, Eldar, Hero, IEEE Transactions on Signal Processing
        2010)."""
        d = len(scatter)
        covariance = scatter / max(freedom, 1)
        trace, square = covariance.trace(), covariance.square().sum()
        least = (square - trace.square() / d) * (max(freedom, 1) + 1 - 2 / d)
        share = float(((1 - 2 / d) * square + trace.square()) / least.clamp_min(1e-300))
        share = min(1.0, max(share, MIN_SHRINKAGE))
        round_one = torch.eye(d, dtype=torch.float64, device="cpu") * (trace / d).clamp_min(1e-12)
        return cls(torch.linalg.cholesky((1 - share) * covariance + share * round_one))

    def whiten(self, values: np.ndarray) -> np.ndarray:
        """values (n, d) -> float64 (n, d)."""
        centred = torch.from_numpy(np.ascontiguousarray(values.T, dtype=np.float64))
        whitened: np.ndarray = torch.linalg.solve_triangular(self.factor, centred, upper=False).T.numpy()
        return whitened


def scatter(values: np.ndarray) -> Tensor:
    """Sum of squares (d, d) float64 of values (n, d) about their mean."""
    centred = torch.from_numpy(values.astype(np.float64) - values.mean(0, dtype=np.float64))
    return centred.T @ centred


@dataclass(frozen=True, eq=False)
class Found:
    """A direction, float64 (d,), in whitened values; modes: along it; separation: of the images it was found in."""

    direction: np.ndarray
    modes: TwoModes
    separation: float


def search(values: np.ndarray) -> Found | None:
    """The direction along which whitened values (n, d) fall apart best; None where no start keeps two modes."""
    starts = list(_starts(values))
    found = settle_each(values, np.stack(starts)) if starts else []
    return max((each for each in found if each is not None), key=lambda each: each.separation, default=None)


def _starts(values: np.ndarray) -> Iterator[np.ndarray]:
    """Responsibilities (n,) of an upper mode: along the leading axes of values (n, d), and of what `clusters.look`
    finds."""
    some = torch.from_numpy(values - values.mean(0)).float()
    products = some @ some.T
    middle, spread = clusters.middle_and_spread(products)
    if not spread > 0:
        return
    _, vectors = clusters.axes(products, min(AXES, len(some) - 1))
    for along in vectors.T.numpy().astype(np.float64):
        yield (along > stats.otsu_threshold(along)).astype(float)
    own, rows = (products.diagonal() - middle) / spread, torch.arange(len(some), device="cpu")
    between = (products - middle) / spread
    between.fill_diagonal_(0.0)
    starts = clusters.look(
        clusters.Products(between, own, torch.ones(len(some), dtype=torch.float32, device="cpu"), rows)
    ).numpy()
    table = stats.second_modes(starts, floor=clusters.MODE_FLOOR, width=clusters.MODE_WIDTH)
    for number in np.argsort(-table[:, 0], kind="stable")[:STARTS]:
        if table[number, 0] > 0:
            yield (starts[number] >= table[number, 1]).astype(float)


def settle(values: np.ndarray, upper: np.ndarray) -> Found | None:
    """From responsibilities (n,) of the upper mode to Fisher's direction in whitened values (n, d), and from that to
    responsibilities, to a fixed point. None where a mode dies out."""
    return settle_each(values, upper[None])[0]


def settle_each(values: np.ndarray, upper: np.ndarray) -> list[Found | None]:
    """`settle` from each row of responsibilities (S, n)."""
    found: list[Found | None] = [None] * len(upper)
    upper, moving = upper.copy(), np.arange(len(upper))
    for _ in range(SETTLE_ROUNDS):
        total = upper[moving].sum(1)
        dies = np.minimum(total, upper.shape[1] - total) < MIN_MODE
        for row in moving[dies].tolist():
            found[row] = None
        moving = moving[~dies]
        if not len(moving):
            break
        above, below = upper[moving], 1 - upper[moving]
        directions = above @ values / above.sum(1, keepdims=True) - below @ values / below.sum(1, keepdims=True)
        modes, after = _two_modes_each(directions @ values.T, above)
        for row, direction, two, responsibilities in zip(moving.tolist(), directions, modes, after, strict=True):
            found[row] = Found(direction, two, separation(responsibilities))
        upper[moving] = after
        moving = moving[np.abs(after - above).max(1) >= UNCHANGED]
    return found


def held_out_separation(values: np.ndarray) -> float:
    """Of whitened values (n, d): directions from one half judged on the other, and the other way round; the geometric
    mean of the two separations."""
    halves = values[::2], values[1::2]
    product = 1.0
    for fit, other in (halves, halves[::-1]):
        found = search(fit)
        if found is None:
            return 1.0
        scores = other @ found.direction
        _, upper = two_modes(scores, special.expit(found.modes.log_odds(scores)))
        product *= separation(upper)
    return float(np.sqrt(product))


def within(values: np.ndarray, upper: np.ndarray) -> Whitening:
    """Of values (n, d), what they vary about the means of the two modes; upper: responsibilities (n,)."""
    total = torch.zeros(values.shape[1], values.shape[1], dtype=torch.float64, device="cpu")
    for weight in (upper, 1 - upper):
        centred = values - weight @ values / max(float(weight.sum()), 1e-9)
        total += torch.from_numpy((centred * weight[:, None]).T @ centred)
    return Whitening.of(total, len(values) - 2)


def held_out_scores(values: np.ndarray, others: np.ndarray, upper: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """How far images lie along Fisher's discriminant between two modes, each along that of the half it is not in.

    values: (n, d), of a class; others: (m, d), of other images; upper: (n,), responsibilities to start from. Returns
    (n,) and (m,), the modes' means near 0 and 1; None where a half keeps no two modes.
    """
    scores, beside = np.empty(len(values)), np.zeros(len(others))
    for start in (0, 1):
        fit, other = slice(start, None, 2), slice(1 - start, None, 2)
        mean, whitening = values[fit].mean(0), within(values[fit], upper[fit])
        found = settle(whitening.whiten(values[fit] - mean), upper[fit])
        if found is None:
            return None
        along = whitening.whiten(values[other] - mean) @ found.direction
        modes, _ = two_modes(along, special.expit(found.modes.log_odds(along)))
        low, high = modes.means
        scores[other] = (along - low) / (high - low)
        beside += (whitening.whiten(others - mean) @ found.direction - low) / (high - low) / 2
    return scores, beside


def separation_from(values: np.ndarray, upper: np.ndarray) -> float:
    """`separation` of values (n, d) along `held_out_scores`, from responsibilities (n,) that are known otherwise."""
    scored = held_out_scores(values, values[:0], upper)
    return 1.0 if scored is None else separation(two_modes(scored[0], upper)[1])
