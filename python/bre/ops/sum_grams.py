from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from . import _check
from ._backends import implementation

MAX_GRAMS = 4  # matrices; added in one pass; source: chosen


class GramSum(NamedTuple):
    """What `sum_grams` returns."""

    total: Tensor  # (r, n) int32
    excess: Tensor  # (r,) int64: sum of what entries exceed the floor by
    above: Tensor  # (r,) int64: entries that exceed it


def sum_grams(
    grams: Sequence[Tensor], *, rows: Tensor, floor: int, out: Tensor | None = None, backend: str = "auto"
) -> GramSum:
    """A window's inner products from those of its parts, and how close every image's company is, in one pass.

    grams:    one to four of (r, n) int32, whose sum fits 32 bits: products of r images with n, as from `gram`
    rows:     (r,) int64, values in [0, n): which of the n images each of the r is, since itself is no company
    floor:    in 32 bits: products above it count
    out:      (r, n) int32, to be overwritten, one of grams or apart from all of them; None allocates it
    returns:  GramSum

    Equivalent to:
        total = sum(grams)
        over = (total.long() - floor).clamp(min=0); over[arange(r), rows] = 0
        excess, above = over.sum(1), (over > 0).sum(1)

    Raises InputError. Values of rows are looked at only in host memory.
    """
    if not 1 <= len(grams) <= MAX_GRAMS:
        _check.refuse("grams", f"1 to {MAX_GRAMS} matrices", len(grams))
    _check.tensor("grams", grams[0], ("r", "n"), torch.int32)
    r, n = grams[0].shape
    for each in grams[1:]:
        _check.tensor("grams", each, (r, n), torch.int32, like=grams[0])
    _check.tensor("rows", rows, (r,), torch.int64, like=grams[0])
    _check.values("rows", rows, 0, n - 1)
    if not -(2**31) <= floor < 2**31:
        _check.refuse("floor", "a number of 32 bits", floor)
    if out is None:
        out = torch.empty_like(grams[0])
    else:
        _check.tensor("out", out, (r, n), torch.int32, like=grams[0])
    function = implementation("sum_grams", backend, rows.device)
    return GramSum(out, *function(grams, rows=rows, floor=floor, out=out))
