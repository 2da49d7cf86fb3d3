from __future__ import annotations

import torch
from torch import Tensor

from . import _check
from ._backends import implementation

# columns; of rows whose products fit 32 bits together; source: derived, each product is 2^14 at most
MAX_COLUMNS = 2**17 - 1


def gram(codes: Tensor, *, out: Tensor | None = None, backend: str = "auto") -> Tensor:
    """Inner products of all pairs of rows of bytes, exact.

    codes:    (n, D) int8, D < 2^17
    out:      (n, n) int32, symmetric, to add to, in place, for rows that come piece by piece: sums must fit 32 bits;
              None starts at zero
    returns:  (n, n) int32, symmetric

    Equivalent to:
        out += codes.int() @ codes.int().T

    Raises InputError.
    """
    _check.tensor("codes", codes, ("n", "D"), torch.int8)
    n, D = codes.shape
    if D > MAX_COLUMNS:
        _check.refuse("codes", f"at most {MAX_COLUMNS} columns, whose sums fit 32 bits", D)
    if out is None:
        out = codes.new_zeros((n, n), dtype=torch.int32)
    else:
        _check.tensor("out", out, (n, n), torch.int32, like=codes)
    if D:
        implementation("gram", backend, codes.device)(codes, out=out)
    return out


def cross_gram(left: Tensor, right: Tensor, *, out: Tensor | None = None, backend: str = "auto") -> Tensor:
    """Inner products of rows of bytes with other rows, exact: of a class too large for those of all pairs.

    left:     (r, D) int8, D < 2^17
    right:    (n, D) int8
    out:      (r, n) int32, to add to, in place; sums must fit 32 bits; None starts at zero. Where left is right itself,
              symmetric
    returns:  (r, n) int32

    Equivalent to:
        out += left.int() @ right.int().T

    Raises InputError.
    """
    _check.tensor("left", left, ("r", "D"), torch.int8)
    r, D = left.shape
    _check.tensor("right", right, ("n", D), torch.int8, like=left)
    n = len(right)
    if D > MAX_COLUMNS:
        _check.refuse("left", f"at most {MAX_COLUMNS} columns, whose sums fit 32 bits", D)
    if out is None:
        out = left.new_zeros((r, n), dtype=torch.int32)
    else:
        _check.tensor("out", out, (r, n), torch.int32, like=left)
    if r and n and D:
        implementation("cross_gram", backend, left.device)(left, right, out=out)
    return out
