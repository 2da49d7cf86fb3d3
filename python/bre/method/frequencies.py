"""A pattern that is simple in frequencies: which few of them explain a mean displacement, in the cosine and Hartley
bases, where the metric of displacements is an operator. Arrays only; float64."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from scipy import fft, ndimage
from torch import Tensor

from .whitening import Whitening

# number; of frequencies of a simple pattern; source: chosen, more are no simple pattern
MAX_FREQUENCIES = 12
# number; of frequencies that are tried at a time; source: chosen, the most promising one is nearly always the best
TRIED = 4
# rounds; of trying in vain; source: chosen, a metric that is taken too small promises much
VAIN_ROUNDS = 8
# number; of random patterns of an octave that the metric of its frequencies is estimated from; source: chosen
PROBES = 12
# share; of what others explain that a further frequency must explain; source: chosen, what is left of the images' own
# content is smooth, and large where it explains little
LEAST_PART = 0.05
# ratio; of the metric of a frequency to its octave's mean, at least; source: chosen, an estimate may be near zero
LEAST_METRIC = 0.05
# frequencies; on each side and axis that share the metric of one; source: chosen
METRIC_WINDOW = 5

Transform = Callable[[np.ndarray], np.ndarray]


def _hartley(planes: np.ndarray) -> np.ndarray:
    spectrum = fft.fft2(planes, norm="ortho")
    out: np.ndarray = spectrum.real - spectrum.imag
    return out


def _cosine(planes: np.ndarray) -> np.ndarray:
    out: np.ndarray = fft.dctn(planes, axes=(-2, -1), norm="ortho")
    return out


def _inverse_cosine(planes: np.ndarray) -> np.ndarray:
    out: np.ndarray = fft.idctn(planes, axes=(-2, -1), norm="ortho")
    return out


BASES: dict[str, tuple[Transform, Transform]] = {  # orthonormal over H and W: to coefficients, and back
    "hartley": (_hartley, _hartley),
    "cosine": (_cosine, _inverse_cosine),
}


def in_frequencies(
    rest: list[Tensor], noise: list[Tensor], whitening: Whitening, name: str
) -> tuple[float, np.ndarray, str]:
    """Frequencies (all channels together), one after another: orthogonal matching pursuit. Returns (criterion, pattern
    (D,), name).

    rest, noise: of a displacement, in units of the noise, by kind of tile; name: of `BASES`. Of the TRIED most
    promising frequencies the one with the largest exact gain is kept; where none is worth its price, they are trusted
    less.
    """
    basis = _Basis(name, whitening, [variance.rsqrt()[:, None] for variance in noise])
    price = 2 * whitening.level.shape[0] * np.log(whitening.level.size)
    target = torch.cat([part.flatten() for part in rest])
    fit, support, vain = _LeastSquares.of(target), np.zeros(0, np.int64), 0
    trust = np.ones(whitening.level.size // whitening.level.shape[0])
    while len(support) < MAX_FREQUENCIES and vain < VAIN_ROUNDS:
        least = max(price, LEAST_PART * fit.gain)
        residual = [part[None] for part in in_tiles(fit.residual, rest)]
        promise = basis.metric.promise(basis.along(residual)[0]).ravel() * trust
        promise[support] = -1.0
        tried = np.argsort(-promise, kind="stable")[:TRIED]
        if promise[tried[0]] * TRIED < least:
            break
        fits = [fit.with_columns(columns, target) for columns in basis.moved(tried)]
        gains = np.array([each.gain - fit.gain for each in fits])
        trust[tried] *= np.minimum(gains / np.maximum(promise[tried], 1e-9), 1.0)
        if gains.max() <= least:
            vain += 1
            continue
        fit, support, vain = fits[int(gains.argmax())], np.append(support, tried[gains.argmax()]), 0
    return float(price * len(support) - fit.gain), basis.pattern(support, fit.values.numpy()), name


@dataclass(frozen=True, eq=False)
class _Basis:
    """A basis of patterns, and what displacements are in it. weights: (T, 1) by kind of tile, one over the noise."""

    name: str
    whitening: Whitening
    weights: list[Tensor]

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.whitening.level.shape

    def along(self, parts: Sequence[Tensor]) -> np.ndarray:
        """(k, C, H, W): products of displacements (k, T, d) by kind, in units of the noise, with those of all
        frequencies."""
        scaled = [part * weight for part, weight in zip(parts, self.weights, strict=True)]
        return BASES[self.name][0](self.whitening.templates(scaled).numpy().reshape(-1, *self.shape))

    def moved(self, frequencies: np.ndarray) -> Tensor:
        """(k, C, D): displacements by each channel of each of the frequencies (k,), in units of the noise."""
        channels, height, width = self.shape
        units = np.zeros((len(frequencies), channels, channels, height * width))
        for channel in range(channels):
            units[np.arange(len(frequencies)), channel, channel, frequencies] = 1.0
        parts = self._displacements(units.reshape(-1, *self.shape))
        moved = [(part * weight).flatten(1) for part, weight in zip(parts, self.weights, strict=True)]
        return torch.cat(moved, dim=1).view(len(frequencies), channels, -1)

    def pattern(self, frequencies: np.ndarray, values: np.ndarray) -> np.ndarray:
        """(D,); values: (k * C,), of each channel of each of the frequencies (k,)."""
        channels, height, width = self.shape
        coefficients = np.zeros((channels, height * width))
        coefficients[:, frequencies] = values.reshape(len(frequencies), channels).T
        pattern: np.ndarray = BASES[self.name][1](coefficients.reshape(self.shape)).ravel()
        return pattern

    def _displacements(self, coefficients: np.ndarray) -> list[Tensor]:
        """By patterns of these coefficients (k, C, H, W)."""
        patterns = np.ascontiguousarray(BASES[self.name][1](coefficients)).reshape(len(coefficients), -1)
        return self.whitening.displacements(without_means(torch.from_numpy(patterns), self.whitening))

    @cached_property
    def metric(self) -> _Metric:
        """From random patterns of one octave of frequencies each: what is smooth weighs little beside what is not, and
        grey little beside coloured, so that the estimate of the one would drown in the other's noise."""
        random, near = np.random.default_rng(0), "wrap" if self.name == "hartley" else "nearest"
        axes, values = np.zeros((self.shape[0], *self.shape)), np.ones(self.shape)
        octaves = _octaves(self.shape[1:], self.name)
        for octave in range(int(octaves.max()) + 1):
            inside = octaves == octave
            signs = random.choice([-1.0, 1.0], size=(PROBES, *self.shape)) * inside
            moved = zip(self._displacements(signs), self.weights, strict=True)
            along = self.along([part * weight for part, weight in moved])
            together = np.einsum("pahw,pbhw->ab", signs, along)
            turn = np.linalg.eigh(together + together.T)[1].T
            product = (np.einsum("kc,pchw->pkhw", turn, signs) * np.einsum("kc,pchw->pkhw", turn, along)).mean(0)
            window = (0, METRIC_WINDOW, METRIC_WINDOW)
            summed, counted = (
                ndimage.uniform_filter(part, window, mode=near) for part in (product, 1.0 * inside[None])
            )
            least = LEAST_METRIC * np.abs(product[:, inside].mean(1))[:, None] + 1e-12
            axes[:, :, inside] = turn[:, :, None]
            values[:, inside] = np.maximum((summed / np.maximum(counted, 1e-9))[:, inside], least)
        return _Metric(axes, values)


@dataclass(frozen=True, eq=False)
class _LeastSquares:
    """columns: float64 (p, D); values: (p,), theirs; residual: (D,), what they leave; gain: squared length that they
    explain."""

    columns: Tensor
    values: Tensor
    residual: Tensor
    gain: float

    @classmethod
    def of(cls, target: Tensor) -> _LeastSquares:
        return cls(target.new_zeros(0, len(target)), target.new_zeros(0), target, 0.0)

    def with_columns(self, more: Tensor, target: Tensor) -> _LeastSquares:
        """With further columns (q, D), solved anew."""
        columns = torch.cat([self.columns, more])
        gram, along = columns @ columns.T, columns @ target
        ridge = 1e-9 * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype, device="cpu")
        values = torch.linalg.solve(gram + ridge, along)
        return _LeastSquares(columns, values, target - columns.T @ values, float(values @ along))


@dataclass(frozen=True, eq=False)
class _Metric:
    """About what the metric of single frequencies is. axes: float64 (C, C, H, W), orthonormal combinations of channels,
    rows, in which it is diagonal; values: (C, H, W) > 0, along them."""

    axes: np.ndarray
    values: np.ndarray

    def promise(self, along: np.ndarray) -> np.ndarray:
        """(H, W): the squared length that each frequency would explain; along: (C, H, W), products with a residual."""
        gained: np.ndarray = (np.square(np.einsum("kchw,chw->khw", self.axes, along)) / self.values).sum(0)
        return gained


def _octaves(sides: tuple[int, ...], basis: str) -> np.ndarray:
    """(H, W) int64: the octave of each frequency."""
    height, width = (np.arange(side) for side in sides)
    if basis == "hartley":  # from the middle on they fall again
        height, width = np.minimum(height, sides[0] - height), np.minimum(width, sides[1] - width)
    octaves: np.ndarray = np.log2(np.maximum.outer(height, width) + 1).astype(np.int64)
    return octaves


def in_tiles(values: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    """(D,) cut into tensors of these shapes."""
    parts = torch.split(values, [part.numel() for part in like])
    return [part.view_as(shape) for part, shape in zip(parts, like, strict=True)]


def without_means(patterns: Tensor, whitening: Whitening) -> Tensor:
    """(k, D) with the mean of every channel taken away."""
    planes = patterns.view(len(patterns), whitening.level.shape[0], -1)
    return (planes - planes.mean(2, keepdim=True)).flatten(1)
