"""Clusters: images of one class that share a common additive component.

Poisoned images form a dense cluster among whitened images (see `whitening`), even a handful of them. Natural
look-alikes form clusters too. The difference: an attacker adds the same pattern to every image, so the scores of the
poisoned images along it (each with the image itself left out of the direction) form a second mode, as narrow as an
image's own noise. Natural scores decrease: many images carry a little of a look, few carry much. The statistic of a
class is the scan statistic of such a mode against every decreasing density (`stats.second_mode`), times its distance.

Arrays only. Scores are in standard deviations.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from . import stats
from .linalg import STRIP, single_thread

NEIGHBOUR_Z = 3.5  # standard deviations: two images share something
MEMBER_Z = 5.0  # standard deviations: an image carries a direction
MAX_NEIGHBOURS = 32  # images that make a direction, at most; the strongest
CROWDED_NEIGHBOURS = 4  # times MAX_NEIGHBOURS: dropping the rest before sorting pays
MAX_SEEDS = 2048  # images that directions are started from, at most: those with the nearest neighbours
MAX_CANDIDATES = 24  # directions that are looked at with all images; more of them change little
MODE_FLOOR = 4.0  # standard deviations: scores below it tell nothing of a direction
MODE_WIDTH = 2.0  # standard deviations: an image's own noise makes no mode narrower
CHANCE_STRENGTH = MODE_FLOOR  # strength: what chance gives, one nat at the floor


@dataclass(frozen=True, eq=False)
class Cluster:
    """What some images of a class share.

    members: (n,) bool, of the images searched; mode: of the scores along their sum; noise: mean squared coordinate of
    the members; size: D.
    """

    members: Tensor
    mode: stats.Mode
    noise: float
    size: int

    @property
    def count(self) -> int:
        return int(self.members.sum())

    @property
    def strength(self) -> float:
        """Scan statistic times distance, nats x standard deviations, 0 without a mode. In natural clusters the two
        factors trade off: if one is large, the other is small."""
        return self.mode.log_likelihood_ratio * self.mode.centre if self.mode.log_likelihood_ratio else 0.0

    @property
    def statistic(self) -> float:
        """A monotone function of the strength, 1 where it is 0, with logarithms that are about normal among classes
        without a pattern. By chance the scan statistic is exponential, and the fourth root of an exponential variable
        is nearly normal (Kittlitz, Journal of Quality Technology 1999)."""
        return math.exp((CHANCE_STRENGTH + self.strength) ** 0.25 - CHANCE_STRENGTH**0.25)


def search(products: Tensor, size: int) -> Cluster | None:
    """The strongest cluster of a class; None if there is no cluster.

    products: (n, n) float32, `products` of the class's whitened images; size: D. A direction is a sum of images,
    so that scores along it are sums of the matrix's rows: no image is looked at again.
    """
    settled = [_settle(products, members, size) for members in _candidates(products, size)]
    found = [cluster for cluster in settled if cluster is not None]
    return max(found, key=lambda cluster: cluster.strength, default=None)


def _candidates(products: Tensor, size: int) -> list[Tensor]:
    """Sets of images, (n,) bool each, that may share something: mean shift among the inner products of all pairs.

    A direction is the sum of at most MAX_NEIGHBOURS images at unit length; two that become the same continue as one.
    """
    length, scale = products.diagonal().sqrt(), size**0.5
    unit = (products * (scale / length)).div_(length[:, None]).numpy()
    np.fill_diagonal(unit, 0.0)
    row, column = _nearest(unit, NEIGHBOUR_Z, 8)
    closest = np.argsort(-np.bincount(row, unit[row, column], len(unit)), kind="stable")
    scores, seeds = unit[closest[:MAX_SEEDS]], np.arange(min(MAX_SEEDS, len(unit)))
    row, column = _nearest(scores, NEIGHBOUR_Z, MAX_NEIGHBOURS)
    directions = _directions(np.append(row, seeds), np.append(column, closest[:MAX_SEEDS]), scores.shape)
    for _ in range(3):
        scores = _left_out(directions, unit, scale)
        directions = _directions(*_nearest(scores, MEMBER_Z, MAX_NEIGHBOURS), scores.shape)
    scores = _left_out(directions, unit, scale)
    plain = scores * (length.numpy() / np.float32(scale))  # of the images as they are, not at unit length
    evidence = np.array(
        [stats.second_mode(row, floor=MODE_FLOOR, width=MODE_WIDTH).log_likelihood_ratio for row in plain]
    )
    chosen: list[np.ndarray] = []
    for row in np.argsort(-evidence, kind="stable"):
        members = scores[row] > MEMBER_Z
        overlaps = ((members & other).sum() > 0.5 * min(members.sum(), other.sum()) for other in chosen)
        if evidence[row] > 0 and not any(overlaps):
            chosen.append(members)
        if len(chosen) == MAX_CANDIDATES:
            break
    return [torch.from_numpy(members) for members in chosen]


def _nearest(scores: np.ndarray, least: float, most: int) -> tuple[np.ndarray, np.ndarray]:
    """Places (row, column) of the `most` largest entries of each row that exceed `least`, row by row."""
    above = scores > least
    if np.count_nonzero(above) > CROWDED_NEIGHBOURS * most * len(
        scores
    ):  # nearly all pairs of a class that is one drawn shape
        above &= scores >= np.partition(scores, -most, axis=1)[:, -most, None]
    row, column = np.divmod(np.flatnonzero(above), scores.shape[1])
    order = np.lexsort((-scores[row, column], row))
    rank = np.arange(len(row)) - np.searchsorted(row, row)
    kept = order[rank < most]
    return row[kept], column[kept]


def _directions(row: np.ndarray, column: np.ndarray, shape: tuple[int, ...]) -> sparse.csr_matrix:
    """The different rows, but for empty ones, of a matrix (P, n) float32 that is one at the given places."""
    ones = sparse.csr_matrix((np.ones(len(row), np.float32), (row, column)), shape)
    ones.sort_indices()
    parts = np.split(ones.indices, ones.indptr[1:-1])
    first = {part.tobytes(): place for place, part in reversed(list(enumerate(parts))) if len(part)}
    return ones[sorted(first.values())]


def _left_out(directions: sparse.csr_matrix, unit: np.ndarray, scale: float) -> np.ndarray:
    """Scores (P, n) float32 of all images along each direction (P, n), an image that takes part in it left out of it.

    unit: (n, n) inner products times scale, zero on the diagonal, so that a row's sum leaves the image out by itself.
    """
    scores = np.empty(directions.shape, np.float32)
    for start in range(0, len(unit), STRIP):  # so few columns that they stay in the caches
        strip = slice(start, start + STRIP)
        scores[:, strip] = directions @ np.ascontiguousarray(unit[:, strip])
    row, column = directions.nonzero()
    own = scores[row, column].astype(np.float64)
    squared = np.bincount(row, own / scale + 1, len(scores))  # length of the whole sums
    without = squared[row] - (2 * own / scale + 1)
    scores /= np.sqrt(np.maximum(squared, 1e-6)).astype(np.float32)[:, None]
    scores[row, column] = own / np.sqrt(np.maximum(without, 1e-6))
    return scores


def _settle(products: Tensor, members: Tensor, size: int, rounds: int = 8) -> Cluster | None:
    """The members' direction -> the second mode of the scores along it -> the images in that mode, to a fixed point."""
    best: Cluster | None = None
    own = products.diagonal()
    for _ in range(rounds):
        if members.sum() < 2:
            break
        with single_thread():
            along = products[members].sum(0)
            score = _standardised(along, along[members].sum(), own, members)
        mode = stats.second_mode(score.numpy(), floor=MODE_FLOOR, width=MODE_WIDTH)
        if best is None or mode.log_likelihood_ratio > best.mode.log_likelihood_ratio:
            best = Cluster(members, mode, float(own[members].double().mean()) / size, size)
        inside = (score >= mode.low) & (score <= mode.high + MODE_WIDTH)
        if torch.equal(inside, members):
            break
        members = inside
    return best


def z_scores(whitened: Tensor, total: Tensor, members: Tensor) -> Tensor:
    """(n,) float32, in standard deviations: images along a cluster's direction, every member left out of its own.

    total: (D,), sum of the cluster's whitened images; members: (n,) bool, which of these images are among them.
    """
    with single_thread():
        return _standardised(whitened @ total, total @ total, whitened.square().sum(1), members)


def _standardised(along: Tensor, squared: Tensor, own: Tensor, members: Tensor) -> Tensor:
    """along: (n,), products with a sum of images; squared: of the sum with itself; own: (n,), of images with theirs."""
    out = members.to(along.dtype)
    return (along - out * own) / (squared - out * (2 * along - own)).clamp_min(1e-9).sqrt()


def own_noise(scores: Tensor, squared: Tensor, cluster: Cluster) -> Tensor:
    """(n,) float32: standard deviation of each image's score, without what it carries: a textured image is large
    everywhere. scores, squared: (n,), the latter the mean squared coordinate of each whitened image."""
    carried = scores.clamp(0, cluster.mode.centre).square() / cluster.size
    return (squared - carried).clamp_min(1e-3).sqrt()
