"""The data's view: a planted pattern is a common additive component inside one class.

An image x of class t is whitened against the images of all other classes: z = L^-1 (C x - mu), where C removes each
channel's mean (a constant offset is lost in the images' own brightness) and L L' is the other classes' covariance.
There an image that carries the pattern v is displaced by u = L^-1 C v, and unrelated images are nearly orthogonal:
the normalised inner product z_i.z_j sqrt(D) / |z_i||z_j| has unit variance. So poisoned images form a dense cluster,
even a handful of them, and `search` finds it on one half of a class and judges it on the other.

Knows nothing of models and of where images come from. All floats are grey levels (0 to 255), not pixels of [0, 1].
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .ops import Moments

NEIGHBOUR = 5.0  # standard deviations: two images share something
MEMBER = 6.0  # standard deviations: an image carries a direction
SAME_PHOTOGRAPH = 0.9  # cosine: two images are versions of one photograph, which is no planted pattern
MAX_SEEDS = 400
AMPLITUDES = ((1.0, 0.9), (0.5, 0.1))  # (amplitude, prior): saturated pixels swallow part of a pattern
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
class Direction:
    """A direction of whitened space, found in one class.

    statistic: mean squared score of held-out images along it (1 for images like the background); axis: (D,) unit.
    """

    statistic: float
    axis: Tensor


def search(whitened: Tensor, seed: int) -> Direction:
    """The densest cluster of directions in a class, found on one half and judged on the other, both ways round.

    whitened: (n, D) float32, n >= 4. The statistic is the geometric mean of the two judgements.
    """
    unit = whitened / whitened.norm(dim=1, keepdim=True)
    order = torch.randperm(len(unit), generator=torch.Generator().manual_seed(seed))
    halves = unit[order[: len(unit) // 2]], unit[order[len(unit) // 2 :]]
    axes = [_densest(half) for half in halves]
    judged = [float(_scores(other, axis[None]).square().mean()) for axis, other in zip(axes, halves[::-1], strict=True)]
    total = axes[0] + axes[1]
    return Direction(float(np.sqrt(judged[0] * judged[1])), total / total.norm())


def _scores(unit: Tensor, axes: Tensor) -> Tensor:
    """(n, D) unit rows, (P, D) unit axes -> (P, n) in standard deviations of unrelated images."""
    return (axes @ unit.T) * unit.shape[1] ** 0.5


def _densest(unit: Tensor) -> Tensor:
    """The axis (D,) with the most mass of member images: mean shift from every image that has company."""
    scale = unit.shape[1] ** 0.5
    related = (unit @ unit.T).fill_diagonal_(0.0) > NEIGHBOUR / scale
    company = related.sum(1)
    seeds = torch.argsort(company, descending=True, stable=True)[:MAX_SEEDS]
    seeds = seeds[: max(1, int((company[seeds] >= 2).sum()))]
    axes = torch.nn.functional.normalize(related[seeds].float() @ unit + unit[seeds], dim=1)
    for _ in range(3):
        members = _scores(unit, axes) > MEMBER
        axes = torch.nn.functional.normalize(members.float() @ unit, dim=1)
    scores = _scores(unit, axes)
    mass = torch.where(scores > MEMBER, scores, 0.0).square().mean(1)
    return axes[mass.argmax()]


@dataclass(frozen=True, eq=False)
class Cluster:
    """What the poisoned images of a class share.

    displacement: (D,) float32, mean of the member images in whitened space; share: of members in the class;
    noise: variance of each coordinate of `displacement`; members: (n,) bool, of the images it was refined on.
    """

    displacement: Tensor
    share: float
    noise: float
    members: Tensor


def refine(whitened: Tensor, axis: Tensor, rounds: int = 6) -> Cluster | None:
    """Members along an axis -> their mean displacement -> members by likelihood ratio, to a fixed point.

    whitened: (n, D) float32; axis: (D,) unit. None if no image is a member.
    """
    members = _scores(whitened / whitened.norm(dim=1, keepdim=True), axis[None])[0] > MEMBER
    for _ in range(rounds):
        if not members.any():
            return None
        cluster = _cluster(whitened, members)
        members = score(whitened, cluster)[1] > 0
        if torch.equal(members, cluster.members):
            break
    return _cluster(whitened, members) if members.any() else None


def _cluster(whitened: Tensor, members: Tensor) -> Cluster:
    inside = whitened[members]
    noise = float(inside.square().mean(1).double().mean(0)) / len(inside)
    return Cluster(inside.mean(0), float(members.float().mean()), noise, members)


def score(whitened: Tensor, cluster: Cluster) -> tuple[Tensor, Tensor]:
    """(amplitude, log odds), float32 (n,) each: how much of the displacement an image carries, and whether it does.

    Image i is z_i = a u + c_i e with a = 0 or one of AMPLITUDES, e standard normal and c_i its own scale, since a
    textured image is large everywhere.
    """
    squared = float(cluster.displacement @ cluster.displacement)
    amplitude = (whitened @ cluster.displacement) / squared
    spread = whitened.square().mean(1) - amplitude.clamp(0, 1).square() * squared / whitened.shape[1]
    likelihoods = [np.log(p) + a * (amplitude - a / 2) * squared / spread.clamp_min(1e-3) for a, p in AMPLITUDES]
    prior = np.log(cluster.share / max(1 - cluster.share, 1e-4))
    return amplitude, torch.logsumexp(torch.stack(likelihoods), 0) + prior
