from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from . import _check
from ._backends import implementation
from .tiles import CELL, MAX_TILE, TILE, Grid, channel_of, grids, units

MOST_DIGIT = 32000  # of int16; source: chosen, rounding may add one half
ROUNDED_TOGETHER = 256  # rows; that are rounded at a time; source: chosen, for little memory
LEAST_SCALE = 1e-30  # of a row of zeros; source: chosen, no row of a covariance's factor is as small
# of the digits of a row, in sum; source: derived, times the largest byte they fit 32 bits
MOST_SUM = 0.98 * 2**31 / 255
CODE_UNIT = 12  # codes; per standard deviation of a whitened value; source: derived, ten standard deviations fit a byte


class TileWeights(NamedTuple):
    """What takes the tiles of one grid, of d values each, to whitened ones: made by `tile_weights`."""

    rows: Tensor  # (d, d) int16, lower triangular: L^-1 is about scale[:, None] * rows
    scale: Tensor  # (d,) float32
    channel: Tensor  # (C, d) float32: what a channel's mean of 1 adds
    offset: Tensor  # (P, d) float32: what the tiles' means add, P = down * across


def tile_weights(inverse: Tensor, mean: Tensor, *, shape: tuple[int, int, int]) -> TileWeights:
    """The weights of one grid's tiles, from what whitens them and from their means.

    inverse:  (d, d) float32, lower triangular: L^-1, L the Cholesky factor of the covariance of its tiles (values in
              the order of cells, grey levels, channel means of the images taken away); d = C * height * width
    mean:     (P, d) float64, what its tiles have in the mean, in rows from the top left
    shape:    (C, height, width) of a tile
    returns:  TileWeights

    L^-1 is rounded to 16 bits, row by row: a whitened value is wrong by about 0.3 s |x| standard deviations, s the
    row's scale, |x| the length of the tile without its mean. Means are taken away as rounded rows see them.

    Raises InputError. Call it on one thread where the last bits matter.
    """
    C, height, width = shape
    d = C * height * width
    _check.dense("inverse", inverse, (d, d), torch.float32)
    _check.tensor("mean", mean, ("P", d), torch.float64, like=inverse)
    channels = torch.nn.functional.one_hot(channel_of(C, height, width).to(inverse.device), C).T
    columns = torch.cat([channels.double(), mean]).T
    rows = torch.empty_like(inverse, dtype=torch.int16, memory_format=torch.contiguous_format)
    scale, added = inverse.new_empty(d), mean.new_empty(d, columns.shape[1])
    for start in range(0, d, ROUNDED_TOGETHER):
        some = slice(start, start + ROUNDED_TOGETHER)
        size = inverse[some].abs()
        scale[some] = torch.maximum(size.amax(1) / MOST_DIGIT, size.sum(1) / MOST_SUM).clamp_min(LEAST_SCALE)
        rows[some] = (inverse[some] / scale[some, None]).round_()
        added[some] = rows[some].double() @ columns * scale[some, None].double()
    return TileWeights(rows, scale, added[:, :C].T.float().contiguous(), added[:, C:].T.float().contiguous())


class Codes(NamedTuple):
    """Images as whitened bytes: what `whiten` writes, for R images."""

    values: Tensor  # (R * D,) int8
    kept: Tensor  # (cells, R) float32

    @classmethod
    def empty(cls, R: int, shape: tuple[int, int, int], tile: int = TILE, device: torch.device | str = "cpu") -> Codes:
        """For R images of shape (C, H, W), to be filled."""
        C, H, W = shape
        count = sum(len(unit.cells) for unit in units(C, H, W, tile))
        return cls(
            torch.empty(R * C * H * W, dtype=torch.int8, device=device),
            torch.empty(count, R, dtype=torch.float32, device=device),
        )


def whiten(
    images: Tensor,
    *,
    weights: Sequence[TileWeights],
    tile: int = TILE,
    out: Codes | None = None,
    first: int = 0,
    backend: str = "auto",
) -> Codes:
    """Images to the codes of their whitened tiles, in one pass over bytes.

    images:   (M, C, H, W) uint8
    weights:  for each of the `grids(H, W, tile)`
    tile:     pixels a side of a tile: a multiple of 8, at most 32
    out:      for R images, of which these are `first` and on, and are overwritten; None makes it for these alone
    returns:  out. values: unit by unit (see `units`); a unit of n values that begins at `start` has its R rows, one an
              image, in values[R * start :][: R * n].view(R, n). kept: of each cell, in the order of units, how much of
              its length a pattern keeps there

    A whitened value is in standard deviations. The n values y of a cell become kept * y, kept = (1 + |y|^2 / n)^(-1/2),
    so that no cell counts for more than one standard deviation a value, times 12 and rounded. Up to float32, all is
    exact.

    Equivalent to, for the tiles x of each grid, m the mean of each channel of the image:
        y = scale * (rows.tril() @ x) - offset - channel.T @ m
        kept = (1 + |y|^2 / n) ** -0.5                                # |y| and n of the value's cell
        code = (12 * kept * y).round().clamp(-127, 127)

    Raises InputError.
    """
    _check.images(images)
    M, C, H, W = images.shape
    D = C * H * W
    if tile not in range(CELL, MAX_TILE + 1, CELL):
        _check.refuse("tile", f"a multiple of {CELL} up to {MAX_TILE}", tile)
    cut = grids(H, W, tile)
    if len(weights) != len(cut):
        _check.refuse("weights", f"those of {len(cut)} grids", len(weights))
    for grid, given in zip(cut, weights, strict=True):
        _check_weights(grid, given, C, images)
    if out is None:
        out, first = Codes.empty(M, (C, H, W), tile, images.device), 0
    R = len(out.values) // D
    cells = sum(len(unit.cells) for unit in units(C, H, W, tile))
    _check.tensor("out.values", out.values, (R * D,), torch.int8, like=images)
    _check.tensor("out.kept", out.kept, (cells, R), torch.float32, like=images)
    if not 0 <= first <= R - M:
        _check.refuse("first", f"a place for {M} images among {R}", first)
    implementation("whiten", backend, images.device)(images, weights=weights, tile=tile, out=out, first=first)
    return out


def _check_weights(grid: Grid, weights: TileWeights, C: int, images: Tensor) -> None:
    d, P = C * grid.height * grid.width, grid.down * grid.across
    expected = {"rows": ((d, d), torch.int16), "scale": ((d,), torch.float32)}
    expected |= {"channel": ((C, d), torch.float32), "offset": ((P, d), torch.float32)}
    for name, (shape, dtype) in expected.items():
        _check.tensor(f"weights.{name}", getattr(weights, name), shape, dtype, like=images)
