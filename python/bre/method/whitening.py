"""Whitening with one covariance for all tiles of an image.

An image has its channels' means and a mean image taken away and is cut into tiles; every tile is multiplied by the
inverse Cholesky factor of one covariance, which all tiles share. Natural images look alike at every place, so that a
few hundred of them give tens of thousands of tiles, and nothing of D x D is needed. Where an image is one tile the
covariance is D x D and rests on the images alone: it is shrunk towards one whose blocks are the covariances of tiles
half as wide, which is shrunk likewise, and so on. The weight is that of Ledoit and Wolf (Journal of Multivariate
Analysis 2004), measured between halves of the images, so there is no size of set at which the method changes.

Whitened cells are brought to bounded energy, y = z / sqrt(1 + |z|^2 / d): a textured cell tells less than a smooth
one, and one cell does not speak for an image. Rounded to bytes they are the images' codes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .. import ops
from ..ops import tiles as cuts
from . import linalg
from .levels import Level
from .linalg import single_thread
from .shrinkage import factor_of, reliability, shrink, values_at
from .uploads import Upload

SUMMED_IMAGES = 2**8  # images; whose bytes are summed at a time in float32; source: derived, exact up to 2^16 of them

HOST = torch.device("cpu")


class TileMoments:
    """Tiles of a sample of images, as bytes, for the second moments of any groups of classes.

    level: theirs; per_image: how many are kept of each image; device: where their moments are taken. Sums are of
    integers: exact, whatever the order.
    """

    def __init__(self, level: Level, tiles_per_image: int, device: torch.device = HOST):
        self.level, self.device = level, device
        self.grid = level.grids[0]
        self.per_image = min(tiles_per_image, self.grid.down * self.grid.across)
        self._tiles: list[Tensor] = []
        self._sums: list[Tensor] = []
        self._groups: list[np.ndarray] = []
        self._halves: list[np.ndarray] = []
        self._totals = torch.zeros(0, level.size, dtype=torch.int64, device="cpu")

    def add(self, images: np.ndarray, groups: np.ndarray, halves: np.ndarray, random: np.random.Generator) -> None:
        """images: uint8 (m, C, H, W) of this level; groups, halves: int64 (m,)."""
        self.put(
            cut(self.level, images, self.choose(len(images), random), groups, int(groups.max()) + 1), groups, halves
        )

    def choose(self, count: int, random: np.random.Generator) -> np.ndarray:
        """int64 (count, tiles of each image): which tiles of so many images are kept."""
        places = self.grid.down * self.grid.across
        return np.stack([random.permutation(places)[: self.per_image] for _ in range(count)])

    def put(self, found: CutTiles, groups: np.ndarray, halves: np.ndarray) -> None:
        """What `cut` made of m images; groups, halves: int64 (m,)."""
        self._tiles.append(found.tiles)
        self._sums.append(found.sums)
        self._groups.append(groups)
        self._halves.append(halves)
        held, more = len(self._totals), len(found.totals)
        if held < more:
            self._totals = torch.cat([self._totals, self._totals.new_zeros(more - held, self.level.size)])
        self._totals[:more] += found.totals

    def __getstate__(self) -> dict[str, Any]:
        """Without what is computed from the tiles, which is larger than they are."""
        computed = ("together", "order_in_tile")
        return {name: value for name, value in self.__dict__.items() if name not in computed}

    @property
    def images(self) -> int:
        return sum(map(len, self._groups))

    @property
    def tile_shape(self) -> tuple[int, int, int]:
        return self.level.shape[0], self.grid.height, self.grid.width

    def mean(self, chosen: np.ndarray) -> Tensor:
        """(D,) float32: of the images of chosen groups, (M,) bool by image, channel means removed."""
        groups = torch.from_numpy(np.unique(np.concatenate(self._groups)[chosen]))
        return mean_of_sums(self._totals[groups].sum(0), int(chosen.sum()), self.level.shape[0]).float()

    def second(self, chosen: np.ndarray) -> tuple[int, Tensor]:
        """Tiles of the chosen images, (M,) bool: how many, and their second moments, float64 (d, d), summed."""
        if len(self._tiles) > 1:  # once, after the last block: copies of all tiles take time
            self._tiles, self._sums = [torch.cat(self._tiles)], [torch.cat(self._sums)]
        tiles, sums = self._tiles[0], self._sums[0]
        rows = torch.from_numpy(np.flatnonzero(chosen))
        area = self.level.shape[1] * self.level.shape[2]
        found = ops.tile_moments(
            tiles[rows].to(self.device),
            torch.zeros_like(rows, device=self.device),
            groups=1,
            sums=sums[rows].to(self.device),
            area=area,
            shape=self.tile_shape,
        )
        return len(rows) * self.per_image, found.second[0].cpu()

    @cached_property
    def together(self) -> Together:
        """Of the tiles of all groups."""
        half = np.concatenate(self._halves)
        (a, first), (b, second) = self.second(half == 0), self.second(half == 1)
        total = first + second
        with single_thread():
            reliable = reliability(first.div_(max(a, 1)), second.div_(max(b, 1)), *self.order_in_tile)
        return Together(a + b, total, reliable)

    def whitening(self, left_out: Sequence[int] = ()) -> Whitening:
        """Of the tiles of all groups but these, or of all groups where nothing would be left."""
        together = self.together
        count, total = together.count, together.second
        out = np.isin(np.concatenate(self._groups), list(left_out))
        if out.any() and not out.all():
            own, own_total = self.second(out)
            count, total = count - own, torch.sub(total, own_total, out=own_total)
        else:
            out, total = np.zeros_like(out), total.clone()
        fewer = together.count / max(count, 1)
        weights = tuple(
            1.0 if real <= 0 else noise * fewer / (real + noise * fewer) for real, noise in together.reliable
        )
        covariance = shrink(total.div_(max(count, 1)), *self.order_in_tile, weights)
        return Whitening(self.level, self.mean(~out), covariance, weights, self.device)

    @cached_property
    def order_in_tile(self) -> tuple[np.ndarray, np.ndarray]:
        """Row and column in its tile of every value."""
        order = cuts.tile_order(*self.tile_shape).numpy()
        return order % (self.grid.height * self.grid.width) // self.grid.width, order % self.grid.width


@dataclass(frozen=True, eq=False)
class Together:
    """Tiles of all groups: how many, their second moments, float64 (d, d), summed, and by size of block, from a whole
    tile down, what `reliability` says."""

    count: int
    second: Tensor
    reliable: list[tuple[float, float]]


@dataclass(frozen=True, eq=False)
class CutTiles:
    """Of m images of a level. tiles: uint8, some tiles of each, as `ops.cut_tiles` gives them; sums: of each image's
    channels; totals: int64 (G, D), of the images of each group, pixel by pixel."""

    tiles: Tensor
    sums: Tensor
    totals: Tensor


def cut(level: Level, images: np.ndarray, chosen: np.ndarray, groups: np.ndarray, count: int) -> CutTiles:
    """images: uint8 (m, C, H, W) of the level; chosen: int64 (m, t), numbers of the tiles of each that are kept;
    groups: int64 (m,), each image's; count: G."""
    block = torch.from_numpy(np.ascontiguousarray(images))
    tiles = ops.cut_tiles(block, grid=level.grids[0], chosen=torch.from_numpy(chosen))
    totals = [pixel_sums(block[torch.from_numpy(groups == group)]) for group in range(count)]
    return CutTiles(tiles, ops.channel_sums(block), torch.stack(totals))


def pixel_sums(images: Tensor) -> Tensor:
    """uint8 (m, C, H, W) -> int64 (D,), summed over images, many times as quick as in integers, and as exact: sums of
    so few bytes fit the 24 bits that float32 holds."""
    parts = torch.split(images.flatten(1), SUMMED_IMAGES)
    return torch.stack([part.float().sum(0) for part in parts]).long().sum(0)


def mean_of_sums(sums: Tensor, count: int, channels: int) -> Tensor:
    """int64 (D,), summed over so many images -> float64 (D,), their mean, with every channel's mean taken away."""
    planes = sums.double().view(channels, -1) / max(count, 1)
    return (planes - planes.mean(1, keepdim=True)).flatten()


def mean_of(images: np.ndarray) -> Tensor:
    """uint8 (m, C, H, W) -> float64 (D,), their mean, with every channel's mean over H and W taken away."""
    return mean_of_sums(pixel_sums(torch.from_numpy(images)), len(images), images.shape[1])


def _whitened(tiles: Tensor, inverse: Tensor, sizes: Sequence[int]) -> Tensor:
    """(m, T, d) -> the inverse factor (d, d), of the same type, times each, cell by cell, of these sizes: it is lower
    triangular."""
    whitened, start = torch.empty_like(tiles), 0
    for size in sizes:
        end = start + size
        whitened[..., start:end] = tiles[..., :end] @ inverse[start:end, :end].T
        start = end
    return whitened


def _back(whitened: Tensor, inverse: Tensor, sizes: Sequence[int]) -> Tensor:
    """(m, T, d) times the inverse factor (d, d), cell by cell, as in `_whitened`."""
    rows, start = whitened.flatten(0, 1), 0
    out = torch.zeros_like(rows)
    for size in sizes:
        end = start + size
        out[:, :end].addmm_(rows[:, start:end], inverse[start:end, :end])
        start = end
    return out.view_as(whitened)


def remove_channel_means(images: np.ndarray) -> Tensor:
    """uint8 (m, C, H, W) -> float32 (m, D) with every channel's mean over H and W taken away."""
    values = torch.from_numpy(images).float()
    return (values - values.mean((2, 3), keepdim=True)).flatten(1)


@dataclass(frozen=True, eq=False)
class Whitening:
    """An operator on images of one level.

    mean: float32 (D,), image order, channel means removed; covariance: float64 (d, d) of a full tile, in the order
    of its cells; weights: how far it was shrunk, from the largest blocks to the smallest; device: where images become
    codes.
    """

    level: Level
    mean: Tensor
    covariance: Tensor
    weights: tuple[float, ...]
    device: torch.device = HOST

    def on(self, device: torch.device) -> Whitening:
        """The same operator, with codes made there."""
        return self if device == self.device else replace(self, device=device)

    @cached_property
    def kinds(self) -> list[Kind]:
        """Tiles of equal shape, with the factor of the part of the covariance that they hold."""
        level, out = self.level, []
        tall, wide = level.tile_sides
        full = [places for *_, places in level.cell_places(0, 0, tall, wide)]
        where = {int(p): i for i, p in enumerate(np.concatenate(full))}
        for height, width in sorted({tile[2:] for tile in level.tiles}, reverse=True):
            inside = np.concatenate([places for *_, places in level.cell_places(0, 0, height, width)])
            factor = factor_of(values_at(self.covariance, np.array([where[int(p)] for p in inside])))
            tiles = [level.cell_places(*tile) for tile in level.tiles if tile[2:] == (height, width)]
            out.append(
                Kind(
                    places=np.stack([np.concatenate([p for *_, p in cells]) for cells in tiles]),
                    cells=[[(row, column) for row, column, _ in cells] for cells in tiles],
                    sizes=[len(p) for *_, p in tiles[0]],
                    factor=factor,
                    inverse=linalg.inverse_factor(factor.float()),
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
            out.append(_whitened(tiles, kind.inverse_as(values.dtype), kind.sizes))
        return out

    def templates(self, whitened: Sequence[Tensor]) -> Tensor:
        """(m, T, d) each, by `kinds` -> (m, D): what takes images to their inner products with these, C L^-T of
        each."""
        out = whitened[0].new_zeros(len(whitened[0]), self.level.size)
        for kind, tiles in zip(self.kinds, whitened, strict=True):
            back = _back(tiles, kind.inverse_as(tiles.dtype), kind.sizes)
            out[:, torch.from_numpy(kind.places).flatten()] = back.flatten(1)
        planes = out.view(len(out), self.level.shape[0], -1)
        return (planes - planes.mean(2, keepdim=True)).flatten(1)

    def cells(self, whitened: Sequence[Tensor]) -> dict[tuple[int, int], Tensor]:
        """(m, T, d) each, by `kinds` -> the values of every cell, (m, d), by its (row, column)."""
        out = {}
        for kind, tiles in zip(self.kinds, whitened, strict=True):
            for number, places in enumerate(kind.cells):
                for place, part in zip(places, torch.split(tiles[:, number], kind.sizes, 1), strict=True):
                    out[place] = part
        return out

    @cached_property
    def weights_of_kinds(self) -> list[ops.TileWeights]:
        """What `ops.whiten` takes."""
        with single_thread():
            made = [
                ops.tile_weights(
                    kind.inverse,
                    self.mean[torch.from_numpy(kind.places)].double(),
                    shape=(self.level.shape[0], grid.height, grid.width),
                )
                for kind, grid in zip(self.kinds, self.level.grids, strict=True)
            ]
        return [ops.TileWeights(*(part.to(self.device) for part in weights)) for weights in made]

    def encode(self, images: np.ndarray, out: ops.Codes, first: int = 0, upload: Upload | None = None) -> None:
        """uint8 (m, C, H, W) -> their codes, rows `first` and on of `out`, which is for images of the level's tile, on
        the device; upload: what brings them there, None for one that is made for them alone."""
        block = (upload or Upload(self.device))(images)
        ops.whiten(block, weights=self.weights_of_kinds, tile=self.level.tile, out=out, first=first)


COMPUTED = ("metric", "spectrum", "_inverse_in_double")  # of a kind, which is not sent to other processes


@dataclass(frozen=True, eq=False)
class Kind:
    """Tiles of one shape: places (T, d) of their values in an image; cells: their (row, column), tile by tile;
    sizes: of the cells; factor: float64 (d, d), lower Cholesky factor; inverse: float32, its inverse."""

    places: np.ndarray
    cells: list[list[tuple[int, int]]]
    sizes: list[int]
    factor: Tensor
    inverse: Tensor

    def __getstate__(self) -> dict[str, Any]:
        """Without what is computed, which is larger."""
        return {name: value for name, value in self.__dict__.items() if name not in COMPUTED}

    def inverse_as(self, dtype: torch.dtype) -> Tensor:
        """The inverse in single or double precision."""
        return self.inverse if dtype == self.inverse.dtype else self._inverse_in_double

    @cached_property
    def _inverse_in_double(self) -> Tensor:
        return self.inverse.double()

    @cached_property
    def metric(self) -> Tensor:
        """(L L')^-1, float64 (d, d)."""
        return linalg.gram_of_lower(self.inverse.double())

    @cached_property
    def spectrum(self) -> tuple[Tensor, Tensor]:
        """Eigenvalues (d,), ascending, and eigenvectors (d, d) of the metric, float64: seconds for d = 3072, so they
        are kept. Found in single precision, in half the time: what that blurs are the eigenvalues next to zero, along
        which nothing is known anyway."""
        values, vectors = linalg.eigh(self.metric.float())
        return values.double().clamp_min_(0), vectors.double()
