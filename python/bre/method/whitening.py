"""Whitening with one covariance for all tiles of an image.

An image has its channels' means and a mean image taken away and is cut into tiles; every tile is multiplied by the
inverse Cholesky factor of one covariance, which all tiles share. Natural images look alike at every place, so that a few
hundred of them give tens of thousands of tiles, and nothing of D x D is needed. Where an image is one tile the covariance
is D x D and rests on the images alone: it is shrunk towards one whose blocks are the covariances of tiles half as wide,
which is shrunk likewise, and so on. The weight is that of Ledoit and Wolf (Journal of Multivariate Analysis 2004), measured
between halves of the images, so there is no size of set at which the method changes.

Whitened cells are brought to bounded energy, y = z / sqrt(1 + |z|^2 / d): a textured cell tells less than a smooth one, and
one cell does not speak for an image. Rounded to bytes they are the images' codes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from .levels import Level

ROUNDING_VARIANCE = 1 / 12  # grey levels squared: what rounding to bytes adds to every pixel
CODE = 12.0  # codes per unit of a cell's values, which never exceed sqrt(192) and hardly ever 10
SMALLEST = 2  # pixels a side: blocks below which covariances are not split any more


class TileMoments:
    """Second moments of tiles, by group of classes and half of the images, summed block by block.

    second: float32 (2, G, d, d); count: int64 (2, G), tiles; total: float64 (D,), of images; images: how many.
    """

    def __init__(self, level: Level, groups: int, tiles_per_image: int):
        self.level = level
        height, width = level.tile_sides
        self.order = np.concatenate([places for *_, places in level.cell_places(0, 0, height, width)])
        full = [tile for tile in level.tiles if tile[2:] == (height, width)]
        self.offsets = np.array([top * level.shape[2] + left for top, left, *_ in full])
        self.per_image = min(tiles_per_image, len(full))
        size = len(self.order)
        self.second = torch.zeros(2, groups, size, size)
        self.count = np.zeros((2, groups), np.int64)
        self.total, self.images = torch.zeros(level.size, dtype=torch.float64), 0

    def add(self, images: np.ndarray, groups: np.ndarray, halves: np.ndarray, random: np.random.Generator) -> None:
        """images: uint8 (m, C, H, W) of this level; groups, halves: int64 (m,)."""
        centred = remove_channel_means(images)
        self.total += centred.sum(0, dtype=torch.float64)
        self.images += len(images)
        chosen = np.stack([random.permutation(len(self.offsets))[: self.per_image] for _ in range(len(images))])
        places = torch.from_numpy(self.offsets[chosen])[:, :, None] + torch.from_numpy(self.order)
        for half in range(2):
            for group in np.unique(groups):
                inside = torch.from_numpy(np.flatnonzero((groups == group) & (halves == half)))
                if not len(inside):
                    continue
                tiles = centred[inside].gather(1, places[inside].flatten(1)).view(-1, len(self.order))
                self.second[half, group].addmm_(tiles.T, tiles)
                self.count[half, group] += len(tiles)

    @cached_property
    def reliable(self) -> list[tuple[float, float]]:
        """Of all groups together, by size of block from a whole tile down: see `reliability`."""
        counts = np.maximum(self.count.sum(1), 1)
        halves = [self.second[half].sum(0) / float(counts[half]) for half in range(2)]
        return reliability(halves[0], halves[1], *self._shape_of_order())

    def whitening(self, left_out: Sequence[int] = ()) -> Whitening:
        """Of the tiles of all groups but these, or of all groups where nothing would be left."""
        tiles = self.count.sum(0)
        kept = [group for group in np.flatnonzero(tiles).tolist() if group not in left_out]
        kept = kept or np.flatnonzero(tiles).tolist()
        count = int(tiles[kept].sum())
        covariance = self.second[:, kept].sum((0, 1)) / float(max(count, 1))
        fewer = tiles.sum() / max(count, 1)
        weights = tuple(1.0 if real <= 0 else noise * fewer / (real + noise * fewer) for real, noise in self.reliable)
        covariance = shrunk(covariance, *self._shape_of_order(), weights)
        return Whitening(self.level, (self.total / max(1, self.images)).float(), covariance, weights)

    def _shape_of_order(self) -> tuple[np.ndarray, np.ndarray]:
        """Row and column in its tile of every value."""
        width, area = self.level.shape[2], self.level.shape[1] * self.level.shape[2]
        return self.order % area // width, self.order % width


def remove_channel_means(images: np.ndarray) -> Tensor:
    """uint8 (m, C, H, W) -> float32 (m, D) with every channel's mean over H and W taken away."""
    values = torch.from_numpy(images).float()
    return (values - values.mean((2, 3), keepdim=True)).flatten(1)


def reliability(first: Tensor, second: Tensor, rows: np.ndarray, columns: np.ndarray) -> list[tuple[float, float]]:
    """How much of a covariance's difference from its block diagonal target is real, and how much is noise: squared
    lengths (real, noise) for a whole tile, for blocks half as wide, and so on down to SMALLEST.

    first, second: float32 (d, d), of two halves of the images; rows, columns: (d,), of each value in the tile. In
    coordinates in which the target is the identity I, the halves' covariances A and B have independent errors: <A - I,
    B - I> is what is real of |S - I|^2, S = (A + B) / 2.
    """
    blocks, side = _blocks(rows, columns)
    if not blocks:
        return []
    full, halves = blocks[0], [_mean_block(matrix, blocks) for matrix in (first, second)]
    inner = reliability(halves[0], halves[1], rows[full] % side, columns[full] % side)
    weights = tuple(1.0 if real <= 0 else noise / (real + noise) for real, noise in inner)
    target = shrunk((halves[0] + halves[1]) / 2, rows[full] % side, columns[full] % side, weights)
    names = {name: place for place, name in enumerate(_names(rows[full] % side, columns[full] % side))}
    differences = [first.clone(), second.clone()]
    for block in blocks:
        picked = [names[name] for name in _names(rows[block] % side, columns[block] % side)]
        inverse = torch.linalg.inv(torch.linalg.cholesky(target[picked][:, picked])).float()
        inside = torch.from_numpy(block)
        for matrix in differences:
            matrix.diagonal()[inside] += ROUNDING_VARIANCE
            matrix[inside] = inverse @ matrix[inside]
            matrix[:, inside] = matrix[:, inside] @ inverse.T
    for matrix in differences:
        matrix.diagonal().sub_(1.0)
    real = (
        float(differences[0].flatten().double() @ differences[1].flatten().double())
        if len(first) < 1000
        else sum(float(a.double() @ b.double()) for a, b in zip(*differences, strict=True))
    )
    everything = float(differences[0].add_(differences[1]).div_(2).norm().double().square())
    return [(real, max(everything - real, 0.0)), *inner]


def shrunk(covariance: Tensor, rows: np.ndarray, columns: np.ndarray, weights: Sequence[float]) -> Tensor:
    """(d, d) float32, used up: the covariance, with the rounding's variance, shrunk by weights[0] towards one whose
    blocks are the mean over blocks half as wide, shrunk by weights[1], and so on."""
    blocks, side = _blocks(rows, columns)
    if not blocks:
        covariance = covariance.clone()
        covariance.diagonal().add_(ROUNDING_VARIANCE)
        return covariance
    full, weight = blocks[0], weights[0]
    inner = shrunk(_mean_block(covariance, blocks), rows[full] % side, columns[full] % side, weights[1:])
    names = {name: place for place, name in enumerate(_names(rows[full] % side, columns[full] % side))}
    out = covariance.mul(1 - weight)
    out.diagonal().add_((1 - weight) * ROUNDING_VARIANCE)
    for block in blocks:
        picked = torch.tensor([names[name] for name in _names(rows[block] % side, columns[block] % side)])
        inside = torch.from_numpy(block)
        out[inside[:, None], inside] += weight * inner[picked][:, picked]
    return out


def _blocks(rows: np.ndarray, columns: np.ndarray) -> tuple[list[np.ndarray], int]:
    """Places of the values of blocks that a tile is cut into, the largest first, and the blocks' side; none, where the
    tile is no wider than SMALLEST. Their sides are powers of 2."""
    longest, side = max(int(rows.max()), int(columns.max())) + 1, SMALLEST
    if longest <= SMALLEST:
        return [], 0
    while 2 * side < longest:
        side *= 2
    key = rows // side * 65536 + columns // side
    blocks = [np.flatnonzero(key == value) for value in np.unique(key)]
    return sorted(blocks, key=len, reverse=True), side


def _mean_block(matrix: Tensor, blocks: list[np.ndarray]) -> Tensor:
    """Mean over the blocks on the diagonal that are as large as the first. Values are in the same order in each."""
    full = [block for block in blocks if len(block) == len(blocks[0])]
    return torch.stack([matrix[block][:, block] for block in full]).mean(0)


def _names(rows: np.ndarray, columns: np.ndarray) -> list[tuple[int, int, int]]:
    """(row, column, channel) of each value; the channels of a pixel come in order."""
    seen: dict[tuple[int, int], int] = {}
    out = []
    for row, column in zip(rows.tolist(), columns.tolist(), strict=True):
        channel = seen.get((row, column), 0)
        seen[row, column] = channel + 1
        out.append((row, column, channel))
    return out


@dataclass(frozen=True, eq=False)
class Whitening:
    """An operator on images of one level.

    mean: float32 (D,), image order, channel means removed; covariance: float64 (d, d) of a full tile, in the order of its
    cells; weights: how far it was shrunk, from the largest blocks to the smallest.
    """

    level: Level
    mean: Tensor
    covariance: Tensor
    weights: tuple[float, ...]

    @cached_property
    def kinds(self) -> list[Kind]:
        """Tiles of equal shape, with the factor of the part of the covariance that they hold."""
        level, out = self.level, []
        tall, wide = level.tile_sides
        full = [places for *_, places in level.cell_places(0, 0, tall, wide)]
        where = {int(p): i for i, p in enumerate(np.concatenate(full))}
        for height, width in sorted({tile[2:] for tile in level.tiles}, reverse=True):
            inside = np.concatenate([places for *_, places in level.cell_places(0, 0, height, width)])
            picked = torch.tensor([where[int(p)] for p in inside])
            factor = torch.linalg.cholesky(self.covariance[picked][:, picked].double())
            tiles = [level.cell_places(*tile) for tile in level.tiles if tile[2:] == (height, width)]
            inverse = (
                torch.linalg.inv(factor)
                if len(factor) <= 768
                else torch.linalg.solve_triangular(factor, torch.eye(len(factor), dtype=factor.dtype), upper=False)
            )
            out.append(
                Kind(
                    places=np.stack([np.concatenate([p for *_, p in cells]) for cells in tiles]),
                    cells=[[(row, column) for row, column, _ in cells] for cells in tiles],
                    sizes=[len(p) for *_, p in tiles[0]],
                    factor=factor,
                    inverse=inverse.float(),
                )
            )
        return out

    def whiten(self, images: np.ndarray) -> list[Tensor]:
        """uint8 (m, C, H, W) -> whitened tiles by `kinds`: float32 (m, T, d) each."""
        return self.displacements(remove_channel_means(images) - self.mean)

    def displacements(self, values: Tensor) -> list[Tensor]:
        """(m, D), channel means removed -> (m, T, d) each of the values' type: L^-1 times every tile, by `kinds`."""
        out = []
        for kind in self.kinds:
            tiles = values[:, torch.from_numpy(kind.places).flatten()].view(len(values), *kind.places.shape)
            whitened, start = torch.empty_like(tiles), 0
            for size in kind.sizes:  # the factor is lower triangular
                end = start + size
                whitened[..., start:end] = tiles[..., :end] @ kind.inverse[start:end, :end].T.to(tiles.dtype)
                start = end
            out.append(whitened)
        return out

    def templates(self, whitened: Sequence[Tensor]) -> Tensor:
        """(m, T, d) each, by `kinds` -> (m, D): what takes images to their inner products with these, C L^-T of each."""
        out = whitened[0].new_zeros(len(whitened[0]), self.level.size)
        for kind, tiles in zip(self.kinds, whitened, strict=True):
            back = tiles @ kind.inverse.to(tiles.dtype)
            out[:, torch.from_numpy(kind.places).flatten()] = back.flatten(1)
        planes = out.view(len(out), self.level.shape[0], -1)
        return (planes - planes.mean(2, keepdim=True)).flatten(1)

    def cells(self, whitened: Sequence[Tensor]) -> dict[tuple[int, int], Tensor]:
        """(m, T, d) each, by `kinds` -> the values of every cell, (m, d), by its (row, column)."""
        out = {}
        for kind, tiles in zip(self.kinds, whitened, strict=True):
            for number, places in enumerate(kind.cells):
                for place, part in zip(places, tiles[:, number].split(kind.sizes, dim=1), strict=True):
                    out[place] = part
        return out

    def codes(self, images: np.ndarray) -> dict[tuple[int, int], Tensor]:
        """uint8 (m, C, H, W) -> codes of every cell, int8 (m, d)."""
        return {place: quantise(values) for place, values in self.cells(self.whiten(images)).items()}


@dataclass(frozen=True, eq=False)
class Kind:
    """Tiles of one shape: places (T, d) of their values in an image; cells: their (row, column), tile by tile; sizes: of
    the cells; factor: float64 (d, d), lower Cholesky factor; inverse: float32, its inverse."""

    places: np.ndarray
    cells: list[list[tuple[int, int]]]
    sizes: list[int]
    factor: Tensor
    inverse: Tensor


def quantise(values: Tensor) -> Tensor:
    """Whitened values of a cell, (m, d), to codes int8 (m, d): of bounded energy, CODE to the unit."""
    scale = (1 + values.square().mean(1, keepdim=True)).rsqrt_()
    return (values * (CODE * scale)).round_().clamp_(-127, 127).to(torch.int8)
