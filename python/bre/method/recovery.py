"""From the mean displacement of the images that carry a pattern to the pattern, at full size.

The metric of displacements is block diagonal: one block for each tile. A pattern is taken to be simple in one of three
bases. In pixels, positions (all channels together) are selected tile by tile, exactly. In the cosine and Hartley bases
the metric is an operator: the most promising frequencies are tried, the best is kept. Where a simple pattern explains
the images worse than one that is everywhere does, that one is taken: the posterior mean under independent normal
pixels, or under the images' own covariance. All criteria are twice a negative log likelihood, in units of the noise.

Arrays only; float64, in grey levels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import nnls
from torch import Tensor

from .frequencies import BASES, in_frequencies, in_tiles, without_means
from .whitening import Kind, Whitening

# number; of positions of a simple pattern in a tile; source: chosen, more are no simple pattern
MAX_POSITIONS = 64
# share; of what is not noise that a simple pattern must explain, or one that is everywhere is tried too; source: chosen
EXPLAINED = 0.98
# share; of a Gram matrix's mean diagonal that is left along any direction when noise is taken away; source: chosen
LEAST_REAL = 1e-3
# grey levels, or of the images' own standard deviation over 64; prior of a pattern that is everywhere; source: chosen,
# a marginal likelihood tells them apart
SCALES = tuple(4.0**power for power in range(-2, 5))


@dataclass(frozen=True, eq=False)
class Displacement:
    """tiles: float64 (T, d) by kind of tile, whitened; noise: float64 (T,) by kind, variance of each coordinate;
    images: that it is the mean of."""

    tiles: list[Tensor]
    noise: list[Tensor]
    images: int

    def relative(self) -> list[Tensor]:
        """In standard deviations of the noise."""
        return [tiles / noise.sqrt()[:, None] for tiles, noise in zip(self.tiles, self.noise, strict=True)]


@dataclass(frozen=True, eq=False)
class Recovered:
    """pattern: float64 (D,) grey levels, constant parts of channels unknown; mixture: (S,) on the simplex; basis: what
    the pattern is simple in; criterion: twice the negative log likelihood that was gained, with what its size costs."""

    pattern: np.ndarray
    mixture: np.ndarray
    basis: str
    criterion: float


def mean_displacement(tiles: Sequence[Tensor], sizes: Sequence[list[int]]) -> Displacement:
    """Of whitened images (m, T, d) by kind, each cell's mean with weights 1 / (1 + its mean square), and its noise."""
    means, noises = [], []
    for values, cells in zip(tiles, sizes, strict=True):
        parts, total = [], sum(cells)
        noise = torch.zeros(values.shape[1], dtype=torch.float64, device="cpu")
        for part in torch.split(values.double(), cells, 2):
            weight = 1 / (1 + part.square().mean(2))  # (m, T)
            mean = (weight[..., None] * part).sum(0) / weight.sum(0)[:, None]
            around = (part - mean).square().mean(2)
            noise = noise + part.shape[2] / total * (weight.square() * around).sum(0) / weight.sum(0).square()
            parts.append(mean)
        means.append(torch.cat(parts, dim=1))
        noises.append(noise * len(values) / max(len(values) - 1, 1) + 1e-9)
    return Displacement(means, noises, len(tiles[0]))


def recover(
    displacement: Displacement, whitening: Whitening, means: np.ndarray, counts: np.ndarray | None = None
) -> Recovered:
    """The pattern and the mixture of sources behind a mean displacement, estimated in turn, twice.

    means: float64 (S, D), of the classes that may be sources, channel means and the whitening's mean taken away;
    counts: (S,), images that each is the mean of, None where they are known without noise. The noise of a source's mean
    is that of as many images: where there is one source, it can be most of the noise.
    """
    sources = whitening.displacements(torch.from_numpy(means))
    weights = [noise.rsqrt()[:, None] for noise in displacement.noise]
    columns = torch.cat([(part * weight).flatten(1) for part, weight in zip(sources, weights, strict=True)], dim=1)
    target = torch.cat([part.flatten() for part in displacement.relative()])
    explained = torch.zeros_like(target)
    bases = ["pixel", *BASES]
    for _ in range(2):
        mixture = simplex_fit(columns, target - explained, 0.0 if counts is None else displacement.images / counts)
        wider = 1 + (0.0 if counts is None else displacement.images * float((mixture**2 / counts).sum()))
        noise = [variance * wider for variance in displacement.noise]
        remaining = (target - columns.T @ torch.from_numpy(mixture)) / wider**0.5
        rest = in_tiles(remaining, displacement.tiles)
        fits = [_fit(name, rest, noise, whitening) for name in bases]
        gained = -min((fit[0] for fit in fits), default=0.0)
        if not fits or gained < EXPLAINED * (float(remaining @ remaining) - len(remaining)):
            fits.append(everywhere(rest, noise, whitening))
        best = min(fits, key=lambda fit: fit[0])
        bases = [best[2]] if best[2] in bases else bases[:0]  # the mixture changes little: not which basis
        pattern = torch.from_numpy(best[1])[None]
        moved = whitening.displacements(without_means(pattern, whitening))
        explained = torch.cat([(part[0] * weight).flatten() for part, weight in zip(moved, weights, strict=True)])
    return Recovered(best[1], mixture, best[2], best[0])


def simplex_fit(columns: Tensor, target: Tensor, noise: np.ndarray | float = 0.0) -> np.ndarray:
    """Weights (S,) >= 0 that sum to one and bring columns' (S, D) mixture closest to a target (D,) with noise of 1.

    noise: (S,), the variance of each column's values. What it adds to the columns' squares is taken away, or a mixture
    of all columns, whose noise averages out, would come closer than the right one (errors in variables). Where columns
    differ by little beside the noise, that leaves nothing to go by: there the weights are drawn towards equal ones, as
    far as makes their expected error least.
    """
    gram, along, count = (columns @ columns.T).numpy(), (columns @ target).numpy(), len(columns)
    size = max(float(np.trace(gram)) / count, 1e-12)
    noise = np.broadcast_to(np.asarray(noise, float), count)
    real, directions = np.linalg.eigh(gram - columns.shape[1] * np.diag(noise))
    real = np.maximum(real, LEAST_REAL * size)
    error = noise.mean() * (columns.shape[1] * (1 + noise.mean() / 2) + real / 2)  # of products, by the columns' noise
    drawn = error * count / real  # a weight's variance is about 1 / count
    gram = (directions * (real + drawn)) @ directions.T
    along = along + (directions * drawn) @ directions.T @ np.full(count, 1 / count)
    gram = gram + 1e3 * size + 1e-9 * size * np.eye(count)  # the sum is held to one stiffly
    along = along + 1e3 * size
    factor = np.linalg.cholesky(gram)
    weights, _ = nnls(factor.T, np.linalg.solve(factor, along))
    out: np.ndarray = weights / max(weights.sum(), 1e-12)
    return out


Fit = tuple[float, np.ndarray, str]


def _fit(name: str, rest: list[Tensor], noise: list[Tensor], whitening: Whitening) -> Fit:
    if name == "pixel":
        return in_pixels(rest, noise, whitening)
    return in_frequencies(rest, noise, whitening, name)


def in_pixels(rest: list[Tensor], noise: list[Tensor], whitening: Whitening) -> Fit:
    """Positions, tile by tile: forward stepwise selection with exact conditional gains, then backward elimination."""
    channels, size = whitening.level.shape[0], whitening.level.size
    price = 2 * channels * np.log(size)
    pattern, gained = np.zeros(size), 0.0
    for kind, tiles, variance in zip(whitening.kinds, rest, noise, strict=True):
        metric, groups = kind.metric.numpy(), kind_groups(kind, whitening.level.shape)
        scores = (tiles @ kind.inverse_as(torch.float64)).numpy()
        blocks = metric[groups[:, :, None], groups[:, None, :]]
        by_group = scores[:, groups]  # (T, g, C)
        gains = np.einsum("tgc,gcd,tgd->tg", by_group, np.linalg.inv(blocks), by_group)
        for tile in np.flatnonzero(gains.max(1) > price):
            values, gain = select(metric, scores[tile], groups, price)
            pattern[kind.places[tile]] = values * float(variance[tile]) ** 0.5
            gained += gain
    return -gained, pattern, "pixel"


def kind_groups(kind: Kind, shape: tuple[int, int, int]) -> np.ndarray:
    """(g, C): the values of a tile that are one position."""
    position = kind.places[0] % (shape[1] * shape[2])
    return np.argsort(position, kind="stable").reshape(-1, shape[0])


def select(metric: np.ndarray, score: np.ndarray, groups: np.ndarray, price: float) -> tuple[np.ndarray, float]:
    """Values (d,) of the groups that are worth more than their price, and what they gain after it.

    Forward: sweeping a chosen group out of the metric and the score leaves what the others still explain given the
    chosen ones. Only what is asked for is swept, the groups' own blocks and a group's columns once it is chosen: the
    swept metric is metric - left @ right. Then backward, one group at a time. metric: (d, d); score: (d,); groups:
    (g, C).
    """
    width, swept = groups.shape[1], score.copy()
    chosen: list[int] = []
    blocks = metric[groups[:, :, None], groups[:, None, :]]
    ridge = 1e-12 * np.trace(metric) / len(metric) * np.eye(width)
    left, right = np.zeros((len(metric), 0)), np.zeros((0, len(metric)))
    while len(chosen) < min(MAX_POSITIONS, len(groups)):
        parts = swept[groups]
        gains = (parts * np.linalg.solve(blocks + ridge, parts[..., None])[..., 0]).sum(1)
        gains[chosen] = -1.0
        group = int(gains.argmax())
        if gains[group] <= price:
            break
        members = groups[group]
        columns = metric[:, members] - left @ right[:, members]
        solved = np.linalg.solve(blocks[group] + ridge, columns.T)
        swept = swept - swept[members] @ solved
        blocks -= columns[groups] @ solved.T[groups].swapaxes(1, 2)
        left, right = np.hstack([left, columns]), np.vstack([right, solved])
        chosen.append(group)
    return _eliminate(metric, score, groups[chosen], price)


def _eliminate(metric: np.ndarray, score: np.ndarray, groups: np.ndarray, price: float) -> tuple[np.ndarray, float]:
    """Backward: while some group is worth less than its price given the others, the least of them goes."""
    out = np.zeros(len(score))
    while len(groups):
        support, width = groups.ravel(), groups.shape[1]
        inverse = np.linalg.inv(metric[np.ix_(support, support)])
        values = inverse @ score[support]
        place = np.arange(len(support)).reshape(-1, width)
        parts, blocks = values.reshape(-1, width), inverse[place[:, :, None], place[:, None, :]]
        losses = (parts * np.linalg.solve(blocks, parts[..., None])[..., 0]).sum(1)
        if losses.min() > price:
            out[support] = values
            return out, float(values @ score[support]) - price * len(groups)
        groups = np.delete(groups, int(losses.argmin()), axis=0)
    return out, 0.0


def everywhere(rest: list[Tensor], noise: list[Tensor], whitening: Whitening) -> Fit:
    """Posterior mean of a pattern that is everywhere, tile by tile: under independent normal pixels, or under the
    images' own covariance; the scale by marginal likelihood."""
    best: Fit | None = None
    spectra = []
    for kind, tiles, variance in zip(whitening.kinds, rest, noise, strict=True):
        values, vectors = kind.spectrum
        spectra.append((values, vectors, (tiles @ kind.inverse_as(torch.float64)) @ vectors, variance))
    for scale in SCALES:
        criterion, parts = 0.0, []
        for values, vectors, along, variance in spectra:
            precision = values / variance[:, None] + scale**-2
            amount = along / variance.sqrt()[:, None] / precision
            criterion += float((1 + scale**2 * values / variance[:, None]).log().sum())
            criterion -= float((along / variance.sqrt()[:, None] * amount).sum())
            parts.append(amount @ vectors.T)
        if best is None or criterion < best[0]:
            best = criterion, _assemble(parts, whitening), "dense"
        share = float(scale) ** 2 / 64**2  # of the images' own variance
        criterion, parts = 0.0, []
        for kind, tiles, variance in zip(whitening.kinds, rest, noise, strict=True):
            ratio = share / variance
            criterion += float(tiles.shape[1] * (1 + ratio).log().sum())
            criterion -= float((tiles.square().sum(1) * ratio / (1 + ratio)).sum())
            kept = tiles * (variance.sqrt() * ratio / (1 + ratio))[:, None]
            parts.append(kept @ kind.factor.T)
        if criterion < best[0]:
            best = criterion, _assemble(parts, whitening), "image"
    assert best is not None
    return best


def _assemble(parts: list[Tensor], whitening: Whitening) -> np.ndarray:
    """Tiles (T, d) by kind -> (D,)."""
    out = np.zeros(whitening.level.size)
    for kind, part in zip(whitening.kinds, parts, strict=True):
        out[kind.places] = part.numpy()
    return out
