"""The ops on a compiled module: bre._core for host memory, bre._cuda for CUDA devices. Both have the same functions.

Arrays go by their addresses, sizes as numbers. A compiled function calls its arguments as the op calls them, so that
what the op takes and no size is read from goes through by name, unread (`given`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from .moments import Moments
from .tiles import CELL, Grid, channel_of, grids
from .whiten import Codes, TileWeights

PRODUCTS_TOGETHER = 256  # images; whose tiles' sums are in floating point at a time; source: chosen, for little memory


class Native:
    """extension: the compiled module, None where it did not load; launch: what says on a device where and how a
    function runs, as further arguments of every function."""

    def __init__(self, extension: ModuleType | None, launch: Callable[[torch.device], dict[str, int]]) -> None:
        self.extension: Any = extension
        self.launch = launch

    def apply_pattern(self, images: Tensor, *, layout: str, out: Tensor, **given: Tensor) -> None:
        T, N = given["index"].shape
        self._run(
            "apply_pattern",
            images=images,
            shape=images.shape[1:],
            T=T,
            N=N,
            layout=layout,
            dtype=_dtype(out),
            out=out,
            **given,
        )

    def loss_head(self, logits: Tensor, *, weight: Tensor, **given: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        T, N = weight.shape
        loss, success = torch.empty_like(weight), torch.empty_like(weight, dtype=torch.bool)
        grad = torch.empty_like(logits)
        self._run(
            "loss_head",
            logits=logits,
            dtype=_dtype(logits),
            weight=weight,
            T=T,
            N=N,
            K=logits.shape[1],
            loss=loss,
            grad=grad,
            success=success,
            **given,
        )
        return loss, grad, success

    def update_pattern(
        self, grad: Tensor, *, images: Tensor, pattern: Tensor, step: float, decay: float, bound: float, **given: Tensor
    ) -> Tensor:
        T, N = given["index"].shape
        gradient, norms = torch.empty_like(pattern), pattern.new_empty(T)
        self._run(
            "update_pattern",
            grad=grad,
            dtype=_dtype(grad),
            layout="nchw" if grad.is_contiguous() else "nhwc",
            images=images,
            shape=images.shape[1:],
            T=T,
            N=N,
            pattern=pattern,
            step=(step, decay, bound),
            gradient=gradient,
            norms=norms,
            **given,
        )
        return norms

    def moments(self, images: Tensor, labels: Tensor, *, classes: int, out: Moments) -> None:
        ordered, order = labels.sort(stable=True)  # each class's images in a row: no atomics, any number of classes
        offsets = torch.searchsorted(ordered, torch.arange(classes + 1, device=labels.device))
        M, D = len(images), images.shape[1:].numel()
        self._run("moments", images=images, M=M, D=D, order=order, offsets=offsets, K=classes, **out._asdict())

    def gram(self, codes: Tensor, *, out: Tensor) -> None:
        n, D = codes.shape
        self._run("gram", codes=codes, n=n, D=D, out=out)

    def cross_gram(self, left: Tensor, right: Tensor, *, out: Tensor) -> None:
        (r, n), D = out.shape, left.shape[1]
        self._run("cross_gram", left=left, r=r, right=right, n=n, D=D, out=out)

    def sum_grams(self, grams: Sequence[Tensor], *, rows: Tensor, floor: int, out: Tensor) -> tuple[Tensor, Tensor]:
        (r, n), parts = out.shape, [gram.data_ptr() for gram in grams]
        excess, above = torch.empty_like(rows), torch.empty_like(rows)
        self._run("sum_grams", parts=parts, rows=rows, r=r, n=n, floor=floor, out=out, excess=excess, above=above)
        return excess, above

    def halve(self, images: Tensor, *, out: Tensor) -> None:
        M, *size = images.shape
        self._run("halve", images=images, M=M, size=size, out=out)

    def channel_sums(self, images: Tensor, *, out: Tensor) -> None:
        M, *size = images.shape
        self._run("channel_sums", images=images, M=M, size=size, out=out)

    def cut_tiles(self, images: Tensor, *, grid: Grid, chosen: Tensor, out: Tensor) -> None:
        M, *size = images.shape
        Q = chosen.shape[1]
        tables = self.tables(size[0], grid, size[1], size[2], images.device)
        self._run("cut_tiles", images=images, M=M, size=size, grid=(*grid, CELL), chosen=chosen, Q=Q, out=out, **tables)

    def tile_moments(
        self, tiles: Tensor, group: Tensor, *, groups: int, sums: Tensor, area: int, shape: tuple[int, int, int]
    ) -> tuple[Tensor, Tensor]:
        """By the exact moments of bytes. With s the sum of an image's Q tiles x and m its channels' means as a tile,
        sum (x - m)(x - m)^T = sum x x^T - s m^T - m s^T + Q m m^T."""
        Q, d, C = *tiles.shape[1:], sums.shape[1]
        channel = channel_of(*shape).to(tiles.device)
        count = group.new_zeros(groups)
        second = tiles.new_empty(groups, d, d, dtype=torch.float64)
        found = Moments.zeros(1, d, tiles.device)
        for g in range(groups):
            rows = (group == g).nonzero()[:, 0]
            own, total = tiles[rows], sums[rows]
            found.second.zero_()
            self.moments(own.view(-1, 1, 1, d), group.new_zeros(len(rows) * Q), classes=1, out=found)
            count[g] = len(rows) * Q
            self._run(
                "centre_moments",
                exact=found.second,
                with_sum=_tiles_with_sums(own, total) / area,
                with_mean=_outer_sums(total) * (Q / area**2),
                channel=channel,
                d=d,
                C=C,
                out=second[g],
            )
        return count, second

    def whiten(self, images: Tensor, *, weights: Sequence[TileWeights], tile: int, out: Codes, first: int) -> None:
        M, C, H, W = images.shape
        sums = images.new_empty(M, C, dtype=torch.int64)
        self.channel_sums(images, out=sums)
        for grid, given in zip(grids(H, W, tile), weights, strict=True):
            self._run(
                "whiten",
                images=images,
                M=M,
                size=(C, H, W),
                grid=(*grid, CELL),
                sums=sums,
                **self.tables(C, grid, H, W, images.device),
                **given._asdict(),
                **out._asdict(),
                total=out.kept.shape[1],
                first=first,
            )

    def tables(self, C: int, grid: Grid, H: int, W: int, device: torch.device) -> dict[str, Tensor]:
        """What the module's kernels want to know of a grid of tiles beside its numbers: here nothing."""
        return {}

    def project(self, images: Tensor, *, templates: Tensor) -> Tensor:
        (M, P), D = (len(images), len(templates)), images.shape[1:].numel()
        scores = templates.new_empty(M, P)
        self._run("project", images=images, M=M, D=D, templates=templates, P=P, out=scores)
        return scores

    def _run(self, op: str, **arguments: Any) -> None:
        """The compiled function on the device of the arguments, which live until it is done or, on a device, put on
        the stream that torch frees their memory in the order of."""
        device = next(value.device for value in arguments.values() if isinstance(value, Tensor))
        passed = {name: value.data_ptr() if isinstance(value, Tensor) else value for name, value in arguments.items()}
        getattr(self.extension, op)(**passed, **self.launch(device))


def _tiles_with_sums(tiles: Tensor, sums: Tensor) -> Tensor:
    """tiles: (n, Q, d) uint8, sums: (n, C) below 2^28 -> (d, C) float64: sum of their products, a few images at a time:
    integers below 2^53, so exact in any order, and memory that is used again costs less than fresh memory."""
    total = torch.zeros(tiles.shape[2], sums.shape[1], dtype=torch.float64, device=tiles.device)
    for some, own in zip(torch.split(tiles, PRODUCTS_TOGETHER), torch.split(sums, PRODUCTS_TOGETHER), strict=True):
        total += some.sum(1).double().T @ own.double()
    return total


def _outer_sums(rows: Tensor) -> Tensor:
    """rows: (n, C) int64 below 2^28 -> (C, C) float64: sum of their outer products, 64 at a time in exact integers."""
    total = torch.zeros(rows.shape[1], rows.shape[1], dtype=torch.float64, device=rows.device)
    for part in torch.split(rows, 64):
        total += (part.T @ part).double()
    return total


def _dtype(tensor: Tensor) -> str:
    return {torch.float32: "f32", torch.bfloat16: "bf16", torch.float16: "f16"}[tensor.dtype]
