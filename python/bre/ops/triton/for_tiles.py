"""Launchers of the ops on tiles. Nothing waits for the device, but for small tables that a grid brings there once."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .. import _geometry as geometry
from ..tiles import CELL, Grid, grids
from ..whiten import CODE_UNIT, Codes, TileWeights
from . import tile_kernels as kernels
from .launching import ceil_div, launch, power_of_2

_DEPTH = 64  # values; that tensor cores take at once; source: derived, whole lines of a tile's bytes
_STAGED = 2**25  # bytes; of tiles that are laid out at a time; source: chosen, they stay in the second cache
_WIDEST = 64  # values; of a cell that a program holds; source: derived, 16 registers of each of 256 threads: more spill


def halve(images: Tensor, *, out: Tensor) -> None:
    M, C, H, W = images.shape
    lines, width = M * C * ceil_div(H, 2), ceil_div(W, 2)
    columns = min(power_of_2(width), 128)
    rows = max(1, 1024 // columns)
    launch(
        kernels.halve,
        (ceil_div(lines, rows), ceil_div(width, columns)),
        *(images, out, lines),
        H=H,
        W=W,
        ROWS=rows,
        COLUMNS=columns,
    )


def channel_sums(images: Tensor, *, out: Tensor) -> None:
    M, C, H, W = images.shape
    block = min(power_of_2(H * W), 2048)
    rows = 2048 // block
    launch(kernels.channel_sums, (ceil_div(M * C, rows),), images, out, M * C, H * W, ROWS=rows, BLOCK=block)


def cut_tiles(images: Tensor, *, grid: Grid, chosen: Tensor, out: Tensor) -> None:
    M, Q = chosen.shape
    _cut(images, grid, out, 0, M * Q, Q, chosen)


def _cut(images: Tensor, grid: Grid, out: Tensor, first: int, rows: int, Q: int, chosen: Tensor | None = None) -> None:
    """Some of the tiles, laid out; with `chosen` those, as bytes, else all of them, less 128, to rows of out's width"""
    C, H, W = images.shape[1:]
    places = geometry.places(C, grid, H, W, images.device)
    stride = out.shape[-1]
    block = min(power_of_2(stride), 1024)
    tiles = max(1, 2048 // block)
    launch(
        kernels.cut_tiles,
        (ceil_div(rows, tiles), ceil_div(stride, block)),
        *(images, places if chosen is None else chosen, places, out, first, rows, Q),
        *(grid.across, grid.top, grid.left, grid.step),
        W=W,
        D=C * H * W,
        DEPTH=len(places),
        STRIDE=stride,
        EVERY=chosen is None,
        CENTRED=chosen is None,
        ROWS=tiles,
        BLOCK=block,
    )


def sum_grams(grams: Sequence[Tensor], *, rows: Tensor, floor: int, out: Tensor) -> tuple[Tensor, Tensor]:
    r, n = out.shape
    excess, above = torch.empty_like(rows), torch.empty_like(rows)
    four = [grams[i if i < len(grams) else 0] for i in range(4)]  # where there is none, the first again, unread
    block = min(power_of_2(n), 1024)
    launch(
        kernels.sum_grams,
        (r,),
        *(*four, rows, out, excess, above, n, floor),
        COUNT=len(grams),
        BLOCK=block,
        num_warps=min(max(block // 128, 1), 8),
    )
    return excess, above


def whiten(images: Tensor, *, weights: Sequence[TileWeights], tile: int, out: Codes, first: int) -> None:
    """Tiles are laid out as signed bytes first: 2 bytes moved per value, most of them in the second cache, for which
    the products read whole lines. Gathered byte by byte in the products they would come slower than those are."""
    H, W = images.shape[2:]
    sums = images.new_empty(images.shape[:2], dtype=torch.int64)
    channel_sums(images, out=sums)
    means = (sums.double() / (H * W)).float()
    for grid, given in zip(grids(H, W, tile), weights, strict=True):
        _whiten_grid(images, grid, given, means, out, first)


def _whiten_grid(images: Tensor, grid: Grid, weights: TileWeights, means: Tensor, out: Codes, first: int) -> None:
    (M, C, _, W), P, d = images.shape, grid.down * grid.across, len(weights.scale)
    cells = geometry.cells(C, grid, images.device)
    down_cells, across_cells = geometry.cells_before(grid, W)
    stride, width = _DEPTH * ceil_div(d, _DEPTH), min(max(power_of_2(cells.widest), 16), _WIDEST)
    tiles = 64
    high, low, total = split(weights.rows, stride, stride + width)
    most = tiles * max(1, _STAGED // (stride * tiles))
    for begin in range(0, M * P, most):
        rows = min(most, M * P - begin)
        staged = high.new_zeros(tiles * ceil_div(rows, tiles), stride)
        _cut(images, grid, staged, begin, rows, P)
        prefix = staged.view(len(staged), -1, _DEPTH).sum(2, dtype=torch.int32).cumsum(1, dtype=torch.int32)
        launch(
            kernels.whiten,
            (ceil_div(rows, tiles) * (len(cells.start) - 1),),
            *(staged, high, low, total, prefix, weights.scale, weights.channel, weights.offset, means),
            *(cells.start, cells.unit, out.values, out.kept, begin, rows, P),
            *(grid.across, grid.top, grid.left, grid.height, grid.step, W, out.kept.shape[1], first),
            *(len(cells.start) - 1, stride, d, C, down_cells, across_cells),
            CELL=CELL,
            UNIT=float(CODE_UNIT),
            PIECES=ceil_div(cells.widest, width),
            DEPTH=_DEPTH,
            TILES=tiles,
            WIDTH=width,
            num_warps=8,
        )


def split(rows: Tensor, stride: int, height: int) -> tuple[Tensor, Tensor, Tensor]:
    """Weights (d, d) int16 as bytes, 256 high + low + 128, (height, stride) int8 each, zeros beyond them; and the sums
    of their rows, (d,) int32."""
    d, digits = len(rows), rows.tril()
    high, low = (rows.new_zeros(height, stride, dtype=torch.int8) for _ in range(2))
    high[:d, :d] = (digits >> 8).to(torch.int8)
    low[:d, :d] = ((digits & 255) - 128).to(torch.int8)
    return high, low, digits.sum(1, dtype=torch.int32)
