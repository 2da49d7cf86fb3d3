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
from .tiles import CELL, TILE, Grid, grids, tile_order
from .whiten import TileWeights


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

    def halve(self, images: Tensor, *, out: Tensor) -> None:
        M, *size = images.shape
        self._run("halve", images=images, M=M, size=size, out=out)

    def tile_moments(
        self, images: Tensor, group: Tensor, *, groups: int, grid: Grid, step: int
    ) -> tuple[Tensor, Tensor]:
        """By the exact moments of bytes. With s an image's sum of tiles x, m its channels' means as a tile and P tiles,
        sum (x - m)(x - m)^T = sum x x^T - s m^T - m s^T + P m m^T."""
        M, C, H, W = images.shape
        d, P = C * grid.height * grid.width, grid.down * grid.across
        tiles = images.new_empty(M, P, d)
        self._run("cut_tiles", images=images, M=M, size=(C, H, W), grid=(*grid, TILE, CELL), out=tiles)
        tiles = tiles[:, ::step]
        kept = tiles.shape[1]
        channel = tile_order(C, grid.height, grid.width).to(images.device) // (grid.height * grid.width)
        totals = images.flatten(2).sum(2, dtype=torch.int64)  # H * W times the means
        count = torch.zeros(groups, dtype=torch.int64, device=images.device)
        second = torch.zeros(groups, d, d, dtype=torch.float64, device=images.device)
        for g in range(groups):
            rows = (group == g).nonzero()[:, 0]
            if not len(rows):
                continue
            own, total = tiles[rows].view(len(rows) * kept, 1, 1, d), totals[rows]
            sums = Moments.zeros(1, d, images.device)
            self.moments(own, torch.zeros(len(own), dtype=torch.int64, device=images.device), classes=1, out=sums)
            with_sum = (tiles[rows].sum(1, dtype=torch.int64).T @ total)[:, channel].double() / (H * W)
            with_mean = _outer_sums(total)[channel[:, None], channel] * (kept / (H * W) ** 2)
            count[g] = len(own)
            second[g] = sums.second.double() - with_sum - with_sum.T + with_mean
        return count, second

    def round_weights(self, inverse: Tensor, *, factor: Tensor) -> tuple[Tensor, Tensor]:
        d = len(inverse)
        rows, scale = inverse.new_empty(d, d, dtype=torch.int16), inverse.new_empty(d, dtype=torch.float32)
        self._run("round_weights", inverse=inverse, factor=factor, d=d, rows=rows, scale=scale)
        return rows, scale

    def whiten(self, images: Tensor, *, weights: Sequence[TileWeights], out: Tensor, first: int) -> None:
        M, C, H, W = images.shape
        means = images.new_empty(M, C, dtype=torch.float32)
        self._run("channel_means", images=images, M=M, size=(C, H, W), means=means)
        for grid, given in zip(grids(H, W), weights, strict=True):
            self._run(
                "whiten",
                images=images,
                M=M,
                size=(C, H, W),
                grid=(*grid, TILE, CELL),
                means=means,
                **given._asdict(),
                out=out,
                total=len(out) // (C * H * W),
                first=first,
            )

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


def _outer_sums(rows: Tensor) -> Tensor:
    """rows: (n, C) int64 below 2^28 -> (C, C) float64: sum of their outer products, 64 at a time in exact integers."""
    total = torch.zeros(rows.shape[1], rows.shape[1], dtype=torch.float64, device=rows.device)
    for part in torch.split(rows, 64):
        total += (part.T @ part).double()
    return total


def _dtype(tensor: Tensor) -> str:
    return {torch.float32: "f32", torch.bfloat16: "bf16", torch.float16: "f16"}[tensor.dtype]
