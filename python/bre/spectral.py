"""The data's view: a planted pattern is a common additive component inside one class.

An image x of class t is whitened against the images of all other classes: z = L^-1 (C x - mu), where C removes each
channel's mean (a constant offset is lost in the images' own brightness) and L L' is the other classes' covariance.
There an image that carries the pattern v is displaced by u = L^-1 C v, and unrelated images are nearly orthogonal:
the normalised inner product z_i.z_j sqrt(D) / |z_i||z_j| has unit variance. So poisoned images form a dense cluster,
even a handful of them.

Natural look-alikes form clusters too, but one thing tells them apart: an attacker adds the same pattern to every image,
so the poisoned images' scores along it, each taken with the image itself left out of the direction, form a second mode
as narrow as an image's own noise. Natural scores fall off: many images carry a little of a look, few carry much. The
evidence of such a mode against every decreasing density (`stats.second_mode`) is the statistic of a class.

Knows nothing of models and of where images come from. All floats are grey levels (0 to 255), not pixels of [0, 1].
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from . import stats
from .ops import Moments

NEIGHBOUR = 3.5  # standard deviations: two images share something
MEMBER = 5.0  # standard deviations: an image carries a direction
COMPANY = 32  # images that make a direction, at most; the strongest
SEEDS = 2048  # images that directions are started from, at most: those with the closest company
CANDIDATES = 8  # directions that are looked at with all images
FLOOR = 4.0  # standard deviations: scores below it tell nothing of a direction
WIDTH = 2.0  # standard deviations: an image's own noise makes no mode narrower
CHANCE = 25.0  # nats x standard deviations: a statistic of this size is nothing, and its ratios mean nothing
SAME_PHOTOGRAPH = 0.9  # cosine: two images are versions of one photograph, which is no planted pattern
PARTIAL = 0.1  # share of the poisoned images that carry only a part of the pattern: saturated pixels swallow the rest
ROUNDING_VARIANCE = 1 / 12  # grey levels squared: what rounding to bytes adds to every pixel


@dataclass(frozen=True, eq=False)
class Background:
    """What the images of the other classes look like: their mean and covariance, channel means removed.

    mean: (D,) float64; factor: (D, D) float64, lower Cholesky factor of the covariance; count: images it rests on.
    """

    mean: Tensor
    factor: Tensor
    count: int
    shape: tuple[int, int, int]

    def whiten(self, images: np.ndarray) -> Tensor:
        """images: uint8 (m, C, H, W) -> (m, D) float32, unit covariance for images like the background."""
        centred = (remove_channel_means(torch.from_numpy(images).float()) - self.mean.float()).T
        with single_thread():
            return torch.linalg.solve_triangular(self.factor.float(), centred, upper=False).T.contiguous()

    def unwhitened(self) -> Tensor:
        """L^-1 C, (D, D) float64: takes a pattern in grey levels to the displacement of a whitened image."""
        identity = torch.eye(len(self.factor), dtype=torch.float64)
        with single_thread():
            inverse = torch.linalg.solve_triangular(self.factor, identity, upper=False)
        return remove_channel_means(inverse.reshape(-1, *self.shape))


def remove_channel_means(images: Tensor) -> Tensor:
    """(m, C, H, W) -> (m, D) with every channel's mean over H and W taken away."""
    return (images - images.mean((2, 3), keepdim=True)).flatten(1)


def background(everything: Moments, own: Moments, shape: tuple[int, int, int]) -> Background:
    """The mean and covariance of all images but one class's, from exact integer moments."""
    count = int(everything.count.sum() - own.count.sum())
    mean = (everything.sum.sum(0) - own.sum.sum(0)).double() / count
    second = (everything.second - own.second).double() / count
    covariance = _centre_channels(second - torch.outer(mean, mean), shape)
    covariance.diagonal().add_(ROUNDING_VARIANCE)
    with single_thread():
        factor = torch.linalg.cholesky(covariance)
    return Background(remove_channel_means(mean.reshape(1, *shape)).flatten(), factor, count, shape)


def _centre_channels(matrix: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """C matrix C, where C removes the mean of each channel."""
    channels, pixels = shape[0], shape[1] * shape[2]
    blocks = matrix.reshape(channels, pixels, channels, pixels)
    blocks = blocks - blocks.mean(1, keepdim=True)
    return (blocks - blocks.mean(3, keepdim=True)).reshape(matrix.shape)


@contextmanager
def single_thread():
    """LAPACK's blocking, and with it the last bits of the answer, depends on the number of threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def distinct(images: np.ndarray) -> np.ndarray:
    """The first of every group of versions of one photograph: (n,) bool for uint8 (n, C, H, W) images.

    Versions agree in their content, poisoned images only in what is planted in them, which is lost when the images are
    compared coarsely, at half the resolution. Left in, they would look like a common pattern.
    """
    coarse = torch.nn.functional.avg_pool2d(torch.from_numpy(images).float(), 2, ceil_mode=True)
    unit = torch.nn.functional.normalize(remove_channel_means(coarse), dim=1)
    same = torch.triu(unit @ unit.T > SAME_PHOTOGRAPH, diagonal=1)
    return ~same.any(0).numpy()


@dataclass(frozen=True, eq=False)
class Cluster:
    """What some images of a class share.

    total: (D,) float32, sum of the member images in whitened space; members: (n,) bool, of the images searched;
    mode: of the scores along it; noise: mean squared coordinate of the members.
    """

    total: Tensor
    members: Tensor
    mode: stats.Mode
    noise: float

    @property
    def count(self) -> int:
        return int(self.members.sum())

    @property
    def statistic(self) -> float:
        """Evidence times distance: natural look-alikes have little of the one where they have much of the other."""
        return CHANCE + self.mode.evidence * self.mode.centre if self.mode.evidence else CHANCE

    @property
    def displacement(self) -> Tensor:
        """(D,) mean of the members; its coordinates have the variance noise / count."""
        return self.total / self.count


def search(whitened: Tensor) -> Cluster | None:
    """The cluster of a class with the most evidence of a second mode. whitened: (n, D) float32. None: no cluster."""
    settled = [_settle(whitened, members) for members in _candidates(whitened)]
    found = [cluster for cluster in settled if cluster is not None]
    return max(found, key=lambda cluster: cluster.mode.evidence, default=None)


def _candidates(whitened: Tensor) -> list[Tensor]:
    """Sets of images, (n,) bool each, that may share something: mean shift among the inner products of all pairs.

    A direction is the sum of at most COMPANY images, so that its scores are sums of rows of the Gram matrix.
    """
    length = whitened.norm(dim=1, keepdim=True)
    unit, scale = whitened / length, whitened.shape[1] ** 0.5
    with single_thread():
        gram = ((unit @ unit.T) * scale).numpy()
    np.fill_diagonal(gram, 0.0)
    company = -np.partition(-gram, min(8, len(gram) - 1), axis=1)[:, :8]
    closest = np.argsort(-np.where(company > NEIGHBOUR, company, 0.0).sum(1), kind="stable")
    seeds = closest[:SEEDS]
    scores = gram[seeds]
    weights = _company(scores, NEIGHBOUR) + sparse.csr_matrix(
        (np.ones(len(seeds), np.float32), (np.arange(len(seeds)), seeds)), shape=scores.shape
    )
    for _ in range(4):
        scores = _left_out(weights, gram, scale)
        weights = _company(scores, MEMBER)
    plain = scores * (length.flatten().numpy() / scale)  # of the images as they are, not at unit length
    evidence = np.array([stats.second_mode(row, floor=FLOOR, width=WIDTH).evidence for row in plain])
    chosen: list[np.ndarray] = []
    for row in np.argsort(-evidence, kind="stable"):
        members = scores[row] > MEMBER
        overlaps = ((members & other).sum() > 0.5 * min(members.sum(), other.sum()) for other in chosen)
        if evidence[row] > 0 and not any(overlaps):
            chosen.append(members)
        if len(chosen) == CANDIDATES:
            break
    return [torch.from_numpy(members) for members in chosen]


def _company(scores: np.ndarray, least: float) -> sparse.csr_matrix:
    """Ones at the COMPANY largest entries of each row (P, n) that exceed `least`."""
    width = min(COMPANY, scores.shape[1])
    columns = np.argpartition(-scores, width - 1, axis=1)[:, :width]
    chosen = np.take_along_axis(scores, columns, 1) > least
    starts = np.append(0, np.cumsum(chosen.sum(1)))
    return sparse.csr_matrix((np.ones(starts[-1], np.float32), columns[chosen], starts), shape=scores.shape)


def _left_out(weights: sparse.csr_matrix, gram: np.ndarray, scale: float) -> np.ndarray:
    """Scores (P, n) of all images along each direction, an image that takes part in the direction left out of it.

    gram: (n, n), zero on the diagonal, so that a row's sum leaves the image out by itself.
    """
    products = weights @ gram
    lengths = weights.multiply(products).sum(1).A / scale + weights.sum(1).A  # squared, of the whole sums
    without = lengths - weights.multiply(2 * products / scale + 1).toarray()
    return (products / np.sqrt(np.maximum(without, 1e-6))).astype(np.float32)


def _settle(whitened: Tensor, members: Tensor, rounds: int = 8) -> Cluster | None:
    """The members' direction -> the second mode of the scores along it -> the images in that mode, to a fixed point."""
    best: Cluster | None = None
    for _ in range(rounds):
        if members.sum() < 2:
            break
        cluster = _cluster(whitened, members)
        if best is None or cluster.mode.evidence > best.mode.evidence:
            best = cluster
        score = scores(whitened, cluster, members)
        inside = (score >= cluster.mode.low) & (score <= cluster.mode.high + WIDTH)
        if torch.equal(inside, members):
            break
        members = inside
    return best


def _cluster(whitened: Tensor, members: Tensor) -> Cluster:
    inside = whitened[members]
    total, noise = inside.sum(0), float(inside.square().mean(1).double().mean(0))
    score = _along(whitened, total, members)
    return Cluster(total, members, stats.second_mode(score.numpy(), floor=FLOOR, width=WIDTH), noise)


def scores(whitened: Tensor, cluster: Cluster, members: Tensor) -> Tensor:
    """(n,) float32, in standard deviations: images along a cluster's direction, every member left out of its own.

    members: (n,) bool, which of these images are members of the cluster.
    """
    return _along(whitened, cluster.total, members)


def _along(whitened: Tensor, total: Tensor, members: Tensor) -> Tensor:
    products, own = whitened @ total, whitened.square().sum(1)
    out = members.to(whitened.dtype)
    length = (total @ total - out * (2 * products - own)).clamp_min(1e-9).sqrt()
    return (products - out * own) / length


def log_odds(scores: Tensor, squared: Tensor, cluster: Cluster) -> Tensor:
    """(n,) float64, that an image carries the cluster's pattern.

    scores: (n,), of all the class's images; squared: (n,), mean squared coordinate of each. The score of image i is
    normal around 0 or, where it carries the pattern, around the mode's centre, with the image's own scale, since a
    textured image is large everywhere. PARTIAL of the poisoned images lie anywhere between FLOOR and the mode's upper
    edge. Natural look-alikes fall off as the scores on the other side of 0 do.
    """
    mode, size = cluster.mode, len(cluster.total)
    score, above = scores.double(), scores > FLOOR
    variance = (squared.double() - score.clamp(0, mode.centre).square() / size).clamp_min(1e-3)
    mirrored = (-score[score < -FLOOR] - FLOOR).clamp_max(mode.centre)
    count = len(mirrored) + 1
    decay = (float(mirrored.sum()) + WIDTH) / count
    look_alikes = above * count / (len(scores) * decay) * torch.exp(-(score - FLOOR) / decay)
    share = mode.inside / len(cluster.members)
    plain = (1 - share) * _normal(score, variance) + look_alikes
    partial = above * PARTIAL / (mode.high - FLOOR)
    whole = (1 - PARTIAL) * _normal(score - mode.centre, variance + ((mode.high - mode.low) / 4) ** 2)
    return (share * (whole + partial)).clamp_min(1e-300).log() - plain.clamp_min(1e-300).log()


def _normal(distance: Tensor, variance: Tensor) -> Tensor:
    return torch.exp(-distance.square() / (2 * variance)) / (2 * np.pi * variance).sqrt()
