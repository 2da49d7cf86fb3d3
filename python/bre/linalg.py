"""Dense linear algebra on one thread: BLAS and LAPACK as scipy has them, without a copy, quicker here than torch's own.

The last bits of a product or a factor depend on the number of threads, and answers must not. Matrices are contiguous
CPU tensors, float32 or float64.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from scipy.linalg import blas, lapack
from threadpoolctl import ThreadpoolController
from torch import Tensor

STRIP = 256  # rows or columns that are worked on at a time
LIBRARIES = ThreadpoolController()


def single_blas() -> AbstractContextManager[Any]:
    """One thread for every call of BLAS and LAPACK in all of the process: to be held around a pool of threads. Of
    threads that hold it at once the first decides, and when it leaves, it is over."""
    limit: AbstractContextManager[Any] = LIBRARIES.limit(limits=1, user_api="blas")
    return limit


@contextmanager
def single_thread() -> Iterator[None]:
    """`single_blas`, and one thread for torch in this thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with single_blas():
            yield
    finally:
        torch.set_num_threads(threads)


def cholesky(matrix: Tensor) -> Tensor | None:
    """The lower factor L of a symmetric matrix L L' (n, n), which is used up; None if it is not positive definite."""
    with single_thread():
        factor, failed = _of("potrf", matrix)(matrix.numpy().T, lower=0, clean=1, overwrite_a=1)
    return None if failed else torch.from_numpy(factor.T)


def inverse_of(factor: Tensor) -> Tensor:
    """(L L')^-1, (n, n), from the lower factor L, which is used up."""
    with single_thread():
        inverse, _ = _of("potri", factor)(factor.numpy().T, lower=0, overwrite_c=1)
    return _mirrored(torch.from_numpy(inverse.T))


def solve_rows(factor: Tensor, rows: Tensor) -> Tensor:
    """L^-1 x for each row x of (m, n), which are used up."""
    if not len(rows):
        return rows
    with single_thread():
        solved = _of("trsm", factor)(1.0, factor.numpy().T, rows.numpy().T, lower=0, trans_a=1, overwrite_b=1)
    return torch.from_numpy(solved.T)


def products(rows: Tensor) -> Tensor:
    """Inner products of all pairs of rows, (m, m) for (m, n)."""
    if not len(rows):
        return rows.new_zeros(0, 0)
    with single_thread():
        half = _of("syrk", rows)(1.0, rows.numpy().T, trans=1, lower=0)
    return _mirrored(torch.from_numpy(half.T))


def _mirrored(lower: Tensor) -> Tensor:
    """A symmetric matrix of which only the lower half is set, made whole in place."""
    for start in range(0, len(lower), STRIP):
        strip, beyond = slice(start, start + STRIP), slice(start + STRIP, None)
        corner = lower[strip, strip].tril()
        lower[strip, strip] = corner + corner.tril(-1).T
        lower[strip, beyond] = lower[beyond, strip].T
    return lower


def _of(name: str, matrix: Tensor) -> Callable[..., Any]:
    """scipy's routine for a matrix of this type."""
    prefix = {torch.float32: "s", torch.float64: "d"}[matrix.dtype]
    routine: Callable[..., Any] = getattr(lapack if name.startswith("po") else blas, prefix + name)
    return routine
