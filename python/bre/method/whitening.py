"""Whitening: images against the mean and covariance of the images of other classes.

An image x of class t is whitened against the images of all other classes: z = L^-1 (C x - mu), where C removes each
channel's mean (a constant offset is lost in the images' own brightness) and L L' is the other classes' covariance.
There an image that carries the pattern v is displaced by u = L^-1 C v, and unrelated images are nearly orthogonal:
the normalised inner product z_i.z_j sqrt(D) / |z_i||z_j| has unit variance.

Arrays only. All floats are grey levels (0 to 255), not pixels of [0, 1].
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from ..ops import Moments, gram, project
from . import linalg
from .linalg import STRIP, single_thread

SINGLE_PRECISION = 1e3  # variance of a class over that of the others up to which single precision can part the two
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

    Rounding moves a normalised product by about 0.01 standard deviations. All else is exact, in integers, which are
    quicker to come by than products in single precision. backend: of `ops.gram`.
    """
    count, levels = len(whitened), 127
    unit, out = whitened.new_empty(count), whitened.new_empty(count, count)
    codes = torch.empty_like(whitened, dtype=torch.int8)
    strips = [slice(start, start + STRIP) for start in range(0, count, STRIP)]
    for strip in strips:
        unit[strip] = whitened[strip].abs().amax(1).clamp_min_(1e-30) / levels
        codes[strip] = (whitened[strip] / unit[strip, None]).round_()
    exact = gram(codes, backend=backend)
    for strip in strips:
        torch.mul(unit[strip, None], unit, out=out[strip])
        out[strip] *= exact[strip]
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


def matched_filter(images: np.ndarray, templates: Tensor, backend: str) -> Tensor:
    """(m, k) float32: scores of uint8 images (m, C, H, W), of no direction's members, from `Background.templates`:
    nothing is whitened."""
    weights, offset = (255 * templates[:-1].T).float().contiguous(), templates[-1].float()
    with single_thread():
        return project(torch.from_numpy(images), templates=weights, backend=backend).add_(offset)
