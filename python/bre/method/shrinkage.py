"""Shrinkage of a tile's covariance towards one whose blocks are the covariances of tiles half as wide, which is shrunk
likewise, and so on. The weight is that of Ledoit and Wolf (Journal of Multivariate Analysis 2004), measured between
halves of the images. Arrays only; float64."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from . import linalg

ROUNDING_VARIANCE = 1 / 12  # grey levels squared; that rounding to bytes adds to every pixel; source: derived, uniform
SMALLEST_BLOCK = 2  # pixels; a side below which covariances are not split any more; source: chosen, the least above one


def reliability(first: Tensor, second: Tensor, rows: np.ndarray, columns: np.ndarray) -> list[tuple[float, float]]:
    """How much of a covariance's difference from its block diagonal target is real, and how much is noise: squared
    lengths (real, noise) for a whole tile, for blocks half as wide, and so on down to SMALLEST_BLOCK.

    first, second: float64 (d, d), of two halves of the images; rows, columns: (d,), of each value in the tile. In
    coordinates in which the target is the identity I, the halves' covariances A and B have independent errors: <A - I,
    B - I> is what is real of |S - I|^2, S = (A + B) / 2.
    """
    blocks, side = _blocks(rows, columns)
    if not blocks:
        return []
    full, halves = blocks[0], [_mean_block(matrix, blocks) for matrix in (first, second)]
    inner = reliability(halves[0], halves[1], rows[full] % side, columns[full] % side)
    weights = tuple(1.0 if real <= 0 else noise / (real + noise) for real, noise in inner)
    target = shrink((halves[0] + halves[1]) / 2, rows[full] % side, columns[full] % side, weights)
    names = {name: place for place, name in enumerate(_names(rows[full] % side, columns[full] % side))}
    inverses = []
    for block in blocks:
        picked = np.array([names[name] for name in _names(rows[block] % side, columns[block] % side)])
        inverses.append(_inverse_factor(values_at(target, picked)).float())
    real = everything = 0.0
    for place, (block, left) in enumerate(zip(blocks, inverses, strict=True)):
        for beside, right in zip(blocks[place:], inverses[place:], strict=True):
            a, b = (left @ _between(matrix, block, beside).float() @ right.T for matrix in (first, second))
            if beside is block:
                for own, inverse in ((a, left), (b, left)):
                    own.add_(inverse @ inverse.T, alpha=ROUNDING_VARIANCE).diagonal().sub_(1.0)
            count = 1 if beside is block else 2  # the matrices are symmetric
            real += count * float((a * b).sum(dtype=torch.float64))
            everything += count * float(a.add_(b).div_(2).square_().sum(dtype=torch.float64))
    return [(real, max(everything - real, 0.0)), *inner]


def shrink(covariance: Tensor, rows: np.ndarray, columns: np.ndarray, weights: Sequence[float]) -> Tensor:
    """(d, d): the covariance, which is used up, with the rounding's variance, shrunk by weights[0] towards one whose
    blocks are the mean over blocks half as wide, shrunk by weights[1], and so on."""
    blocks, side = _blocks(rows, columns)
    if not blocks:
        covariance.diagonal().add_(ROUNDING_VARIANCE)
        return covariance
    full, weight = blocks[0], weights[0]
    inner = shrink(_mean_block(covariance, blocks), rows[full] % side, columns[full] % side, weights[1:])
    names = {name: place for place, name in enumerate(_names(rows[full] % side, columns[full] % side))}
    covariance.mul_(1 - weight).diagonal().add_((1 - weight) * ROUNDING_VARIANCE)
    for block in blocks:
        picked = np.array([names[name] for name in _names(rows[block] % side, columns[block] % side)])
        _set(covariance, block, values_at(covariance, block) + weight * values_at(inner, picked))
    return covariance


def _blocks(rows: np.ndarray, columns: np.ndarray) -> tuple[list[np.ndarray], int]:
    """Places of the values of blocks that a tile is cut into, the largest first, and the blocks' side; none, where the
    tile is no wider than SMALLEST_BLOCK. Their sides are powers of 2."""
    longest, side = max(int(rows.max()), int(columns.max())) + 1, SMALLEST_BLOCK
    if longest <= SMALLEST_BLOCK:
        return [], 0
    while 2 * side < longest:
        side *= 2
    key = rows // side * 65536 + columns // side
    blocks = [np.flatnonzero(key == value) for value in np.unique(key)]
    return sorted(blocks, key=len, reverse=True), side


def _mean_block(matrix: Tensor, blocks: list[np.ndarray]) -> Tensor:
    """Mean over the blocks on the diagonal that are as large as the first. Values are in the same order in each."""
    full = [block for block in blocks if len(block) == len(blocks[0])]
    total = values_at(matrix, full[0]).clone()
    for block in full[1:]:
        total += values_at(matrix, block)
    return total.div_(len(full))


def _range(places: np.ndarray) -> slice | Tensor:
    """Ascending places as an index: a slice, which copies nothing, where they follow each other, as those of a block of
    cells do in a tile."""
    if places[-1] - places[0] == len(places) - 1 and (np.diff(places) == 1).all():
        return slice(int(places[0]), int(places[-1]) + 1)
    return torch.from_numpy(places)


def values_at(matrix: Tensor, places: np.ndarray) -> Tensor:
    """(k, k): the matrix's values at some rows and columns; a view of it where that can be."""
    return _between(matrix, places, places)


def _between(matrix: Tensor, rows: np.ndarray, columns: np.ndarray) -> Tensor:
    """(k, l): the matrix's values at some rows and columns; a view of it where that can be."""
    return matrix[_range(rows)][:, _range(columns)]


def _set(matrix: Tensor, places: np.ndarray, values: Tensor) -> None:
    """Writes values (k, k) where `_at` reads them."""
    inside = _range(places)
    if isinstance(inside, slice):
        matrix[inside, inside] = values
    else:
        matrix[inside[:, None], inside] = values


def _names(rows: np.ndarray, columns: np.ndarray) -> list[tuple[int, int, int]]:
    """(row, column, channel) of each value; the channels of a pixel come in order."""
    seen: dict[tuple[int, int], int] = {}
    out = []
    for row, column in zip(rows.tolist(), columns.tolist(), strict=True):
        channel = seen.get((row, column), 0)
        seen[row, column] = channel + 1
        out.append((row, column, channel))
    return out


def factor_of(covariance: Tensor) -> Tensor:
    """(d, d) float64, lower Cholesky factor. Raises ValueError if there is none."""
    factor = linalg.cholesky(covariance.to(torch.float64, copy=True, memory_format=torch.contiguous_format))
    if factor is None:
        raise ValueError("expected a covariance that is positive definite")
    return factor


def _inverse_factor(covariance: Tensor) -> Tensor:
    return linalg.inverse_factor(factor_of(covariance))
