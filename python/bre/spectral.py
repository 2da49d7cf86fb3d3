"""The data's view: a planted pattern is a common additive component inside one class.

An image x of class t is whitened against the images of all other classes: z = L^-1 (C x - mu), where C removes each
channel's mean (a constant offset is lost in the images' own brightness) and L L' is the other classes' covariance.
There an image that carries the pattern v is displaced by u = L^-1 C v, and unrelated images are nearly orthogonal:
the normalised inner product z_i.z_j sqrt(D) / |z_i||z_j| has unit variance. So poisoned images form a dense cluster,
even a handful of them.

Natural look-alikes form clusters too, but one thing tells them apart: an attacker adds the same pattern to every image,
so the poisoned images' scores along it, each taken with the image itself left out of the direction, form a second mode
as narrow as an image's own noise. Natural scores fall off: many images carry a little of a look, few carry much. The
evidence of such a mode against every decreasing density (`stats.second_mode`), times its distance, is what a class is
judged by.

Knows nothing of models and of where images come from. All floats are grey levels (0 to 255), not pixels of [0, 1].
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from scipy import sparse
from torch import Tensor
from torch.nn import functional

from . import linalg, stats
from .linalg import STRIP, single_thread
from .ops import Moments, moments, project

NEIGHBOUR = 3.5  # standard deviations: two images share something
MEMBER = 5.0  # standard deviations: an image carries a direction
COMPANY = 32  # images that make a direction, at most; the strongest
CROWDED = 4  # times as much company as makes a direction: dropping the rest before sorting pays
SEEDS = 2048  # images that directions are started from, at most: those with the closest company
CANDIDATES = 24  # directions that are looked at with all images; more of them change little
FLOOR = 4.0  # standard deviations: scores below it tell nothing of a direction
WIDTH = 2.0  # standard deviations: an image's own noise makes no mode narrower
CHANCE = FLOOR  # strength: what chance gives, one nat at the floor
SAME_PHOTOGRAPH = 0.9  # cosine: two images are versions of one photograph, which is no planted pattern
SINGLE_PRECISION = 1e3  # variance of a class over that of the others up to which single precision can part the two
ROUNDING_ERROR = 1e-4  # of products of unit vectors in single precision, amply
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

    @cached_property
    def _single_factor(self) -> Tensor:
        return self.factor.float()

    def whiten(self, images: np.ndarray) -> Tensor:
        """images: uint8 (m, C, H, W) -> (m, D) float32, unit covariance for images like the background."""
        mean = self.mean.float()
        centred = mean.new_empty(len(images), len(mean))
        for start in range(0, len(images), STRIP):
            some = slice(start, start + STRIP)
            torch.sub(remove_channel_means(torch.from_numpy(images[some]).float()), mean, out=centred[some])
        return linalg.solve_rows(self._single_factor, centred)

    def templates(self, directions: Tensor) -> Tensor:
        """directions: (D, k) unit vectors among whitened images -> (D + 1, k) float64 for `filtered`: what takes an
        image to its scores along them."""
        with single_thread():
            weights = torch.linalg.solve_triangular(self.factor.T, directions.double(), upper=True)
        weights = remove_channel_means(weights.T.reshape(-1, *self.shape)).T
        return torch.cat([weights, -(self.mean @ weights)[None]])

    def displacements(self, patterns: Tensor) -> Tensor:
        """patterns: (k, D) grey levels -> (k, D) float64, what they displace whitened images by: L^-1 C v of each."""
        return linalg.solve_rows(self.factor, remove_channel_means(patterns.double().reshape(-1, *self.shape)))

    def metric(self) -> Tensor:
        """C Sigma^-1 C, (D, D) float64: squared length of a displacement as a quadratic form over patterns."""
        return _centred(linalg.inverse_of(self.factor.clone()), self.shape)


def remove_channel_means(images: Tensor) -> Tensor:
    """(m, C, H, W) -> (m, D) with every channel's mean over H and W taken away."""
    return (images - images.mean((2, 3), keepdim=True)).flatten(1)


def background(everything: Moments, own: Moments, shape: tuple[int, int, int]) -> Background:
    """The mean and covariance of all images but one class's, from exact integer moments."""
    count = int(everything.count.sum() - own.count.sum())
    total = everything.sum.sum(0) - own.sum.sum(0)
    second = np.subtract(everything.second.numpy(), own.second.numpy(), dtype=np.float64)  # exact: far below 2^53
    return _background(torch.from_numpy(second), total.double() / count, count, count, shape)


def common_background(everything: Moments, others: int, shape: tuple[int, int, int]) -> Background:
    """All images' mean, and their covariance as if they were `others` images: to be used with `without_own`."""
    count = int(everything.count.sum())
    return _background(everything.second.double(), everything.sum.sum(0).double() / count, count, others, shape)


def _background(second: Tensor, mean: Tensor, count: int, divisor: int, shape: tuple[int, int, int]) -> Background:
    """second: (D, D) float64, sum over `count` images, used up; the covariance is a sum divided by `divisor`."""
    with single_thread():  # the last bits of a sum depend on the number of threads as well
        covariance = second.addr_(mean, mean, alpha=-count).div_(divisor)
        _centred(covariance, shape).diagonal().add_(ROUNDING_VARIANCE)
    factor = linalg.cholesky(covariance)
    assert factor is not None  # the rounding's variance sees to it
    return Background(remove_channel_means(mean.reshape(1, *shape)).flatten(), factor, divisor, shape)


def _centred(matrix: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """C matrix C of a symmetric (D, D) matrix, in place."""
    channels, pixels = shape[0], shape[1] * shape[2]
    blocks = matrix.view(channels, pixels, channels, pixels)
    blocks -= blocks.mean(1, keepdim=True)
    blocks -= blocks.mean(3, keepdim=True)
    return matrix


def products(whitened: Tensor, backend: str) -> Tensor:
    """Inner products of all pairs of rows, (n, n) float32 for (n, D) float32, each row rounded to 255 levels.

    Rounding moves a normalised product by about 0.01 standard deviations. All else is exact, in integers: the second
    moments of D "images" of n bytes, which are quicker to come by than products in single precision.
    """
    (count, size), levels = whitened.shape, 128
    unit, out = whitened.new_empty(count), whitened.new_empty(count, count)
    if not count:  # images of no pixels have no moments
        return out
    codes = whitened.new_empty(size, count, dtype=torch.uint8)
    strips = [slice(start, start + STRIP) for start in range(0, count, STRIP)]
    for strip in strips:
        unit[strip] = whitened[strip].abs().amax(1).clamp_min_(1e-30) / (levels - 1)
        codes[:, strip] = (whitened[strip] / unit[strip, None]).round_().add_(levels).to(torch.uint8).T
    one_class = codes.new_zeros(size, dtype=torch.int64)
    _, (total,), second = moments(codes.view(size, count, 1, 1), one_class, classes=1, backend=backend)
    offset = levels * total - levels**2 * size // 2
    for strip in strips:
        torch.mul(unit[strip, None], unit, out=out[strip])
        out[strip] *= second[strip].sub_(offset[strip, None]).sub_(offset)
    return out


def without_own(products: Tensor, others: int, divisor: int) -> Tensor | None:
    """All inner products of a class whitened against all other images, from those of the class whitened against all.

    products: (n, n) float32, of all the class's images against `common_background(everything, divisor)`; others: images
    that are not of the class. Returns (n, n) float32, or None where single precision is not enough: the class alone has
    nearly all of the variance somewhere.

    With Y the class's centred images, A the covariance of all and N the others' number, the others' covariance is
    A - Y T Y' / N and an image's distance to their mean a column of Y T, T = I + 1 1' / N. So by Woodbury's identity

        T Y' (A - Y T Y' / N)^-1 Y T = N R [(I - R Y' A^-1 Y R / N)^-1 - I] R,    R R = T,

    and a factor of D x D serves all the classes. The rounding term in A counts for `divisor` images in place of N.
    """
    n = len(products)
    shift = ((1 + n / others) ** 0.5 - 1) / n

    def both_sides(matrix: Tensor) -> Tensor:
        """R matrix R."""
        sums = shift * matrix.sum(0)
        sums += shift * sums.sum() / 2
        return matrix.add_(sums).add_(sums[:, None])

    with single_thread():
        rest = both_sides(products / -divisor)
        rest.diagonal().add_(1.0)
        factor = linalg.cholesky(rest)
        if factor is None:
            return None
        inverse = linalg.inverse_of(factor)
        inverse.diagonal().sub_(1.0)
        if not inverse.norm() < SINGLE_PRECISION:
            return None
        return both_sides(inverse).mul_(others)


def distinct(images: np.ndarray) -> np.ndarray:
    """The first of every group of versions of one photograph: (n,) bool for uint8 (n, C, H, W) images.

    Versions agree in their content, poisoned images only in what is planted in them, which is lost when the images are
    compared coarsely, at half the resolution. Left in, they would look like a common pattern. Unit vectors of cosine c
    are sqrt(2 - 2 c) apart and no further at a quarter of the resolution, which rules out nearly all pairs.
    """
    coarse = functional.avg_pool2d(torch.from_numpy(images).float(), 2, ceil_mode=True)
    unit = functional.normalize(remove_channel_means(coarse), dim=1)
    coarser = functional.avg_pool2d(unit.view(coarse.shape), 2, ceil_mode=True, divisor_override=2).flatten(1)
    half = coarser.square().sum(1) / 2
    seen = unit.new_zeros(len(unit), dtype=torch.bool)
    for start in range(0, len(unit), STRIP):
        strip = slice(start, start + STRIP)
        closest = torch.addmm(-half[strip, None], coarser[strip], coarser[start:].T).amax(0) - half[start:]
        near = torch.nonzero(closest > SAME_PHOTOGRAPH - 1 - ROUNDING_ERROR)[:, 0]  # minus half their distance squared
        cosine = unit[strip] @ unit[start + near].T
        cosine[near <= torch.arange(len(cosine), device="cpu")[:, None]] = -1.0  # only what comes after counts
        seen[start + near] |= cosine.amax(0) > SAME_PHOTOGRAPH
    return ~seen.numpy()


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
        """Evidence times distance, nats x standard deviations, 0 without a mode: natural look-alikes have little of the
        one where they have much of the other."""
        return self.mode.evidence * self.mode.centre if self.mode.evidence else 0.0

    @property
    def statistic(self) -> float:
        """A monotone function of the strength, 1 where it is 0, with logarithms that are about normal among classes
        without a pattern. Evidence is exponential by chance, and the fourth root of an exponential variable is nearly
        normal (Kittlitz, Journal of Quality Technology 1999)."""
        return math.exp((CHANCE + self.strength) ** 0.25 - CHANCE**0.25)


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

    A direction is the sum of at most COMPANY images at unit length; two that become the same go on as one.
    """
    length, scale = products.diagonal().sqrt(), size**0.5
    unit = (products * (scale / length)).div_(length[:, None]).numpy()
    np.fill_diagonal(unit, 0.0)
    row, column = _company(unit, NEIGHBOUR, 8)
    closest = np.argsort(-np.bincount(row, unit[row, column], len(unit)), kind="stable")
    scores, seeds = unit[closest[:SEEDS]], np.arange(min(SEEDS, len(unit)))
    row, column = _company(scores, NEIGHBOUR, COMPANY)
    directions = _directions(np.append(row, seeds), np.append(column, closest[:SEEDS]), scores.shape)
    for _ in range(3):
        scores = _left_out(directions, unit, scale)
        directions = _directions(*_company(scores, MEMBER, COMPANY), scores.shape)
    scores = _left_out(directions, unit, scale)
    plain = scores * (length.numpy() / np.float32(scale))  # of the images as they are, not at unit length
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


def _company(scores: np.ndarray, least: float, most: int) -> tuple[np.ndarray, np.ndarray]:
    """Places (row, column) of the `most` largest entries of each row that exceed `least`, row by row."""
    above = scores > least
    if np.count_nonzero(above) > CROWDED * most * len(scores):  # nearly all pairs of a class that is one drawn shape
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
        mode = stats.second_mode(score.numpy(), floor=FLOOR, width=WIDTH)
        if best is None or mode.evidence > best.mode.evidence:
            best = Cluster(members, mode, float(own[members].double().mean()) / size, size)
        inside = (score >= mode.low) & (score <= mode.high + WIDTH)
        if torch.equal(inside, members):
            break
        members = inside
    return best


def scores(whitened: Tensor, total: Tensor, members: Tensor) -> Tensor:
    """(n,) float32, in standard deviations: images along a cluster's direction, every member left out of its own.

    total: (D,), sum of the cluster's whitened images; members: (n,) bool, which of these images are among them.
    """
    with single_thread():
        return _standardised(whitened @ total, total @ total, whitened.square().sum(1), members)


def filtered(images: np.ndarray, templates: Tensor, backend: str) -> Tensor:
    """(m, k) float32: scores of uint8 images (m, C, H, W), of no direction's members, from `Background.templates`:
    nothing is whitened."""
    weights, offset = (255 * templates[:-1].T).float().contiguous(), templates[-1].float()
    with single_thread():
        return project(torch.from_numpy(images), templates=weights, backend=backend).add_(offset)


def _standardised(along: Tensor, squared: Tensor, own: Tensor, members: Tensor) -> Tensor:
    """along: (n,), products with a sum of images; squared: of the sum with itself; own: (n,), of images with theirs."""
    out = members.to(along.dtype)
    return (along - out * own) / (squared - out * (2 * along - own)).clamp_min(1e-9).sqrt()


def own_noise(scores: Tensor, squared: Tensor, cluster: Cluster) -> Tensor:
    """(n,) float32: standard deviation of each image's score, without what it carries: a textured image is large
    everywhere. scores, squared: (n,), the latter the mean squared coordinate of each whitened image."""
    carried = scores.clamp(0, cluster.mode.centre).square() / cluster.size
    return (squared - carried).clamp_min(1e-3).sqrt()
