"""Dense linear algebra on one thread, by the BLAS and LAPACK that come with scipy: quicker here than torch's.

The last bits of a factor depend on the number of threads, and answers must not. scipy's own wrappers keep Python's
lock, so that threads would wait for each other; called by their addresses the same routines run side by side. They
take matrices column by column: what is a lower half here is an upper one there. Matrices are CPU tensors, float32 or
float64.
"""

from __future__ import annotations

import ctypes
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import scipy
import torch
from scipy.linalg import cython_blas, cython_lapack
from threadpoolctl import ThreadpoolController
from torch import Tensor

# Those that threadpoolctl knows: OpenBLAS, MKL, BLIS, FlexiBLAS. Not Apple's Accelerate (its issues 135 and 136), which
# scipy may use on macOS and which divides its work as it likes: there the last bits of a factor are not promised.
LIBRARIES = ThreadpoolController().select(user_api="blas").lib_controllers
PREFIX = {torch.float32: "s", torch.float64: "d"}
REAL = {torch.float32: ctypes.c_float, torch.float64: ctypes.c_double}


def blas() -> str:
    """The BLAS behind these functions: name and version as scipy was built with, and the processor it computes for
    where that is known. The last bits of a factor depend on all three."""
    built = scipy.show_config(mode="dicts")["Build Dependencies"]["blas"]
    kernels = {
        library.info().get("architecture") for library in LIBRARIES if "scipy" in Path(library.filepath).parent.name
    }
    return " ".join([built["name"], built["version"], *(f"({kernel})" for kernel in sorted(filter(None, kernels)))])


class _SingleBlas:
    """One thread for every call of BLAS and LAPACK in the process, while any thread holds it.

    The number is one for the whole process. Were it set and put back by each thread for itself, the last to leave could
    put back what another had set.
    """

    def __init__(self) -> None:
        self._lock, self._holders = threading.Lock(), 0
        self._before: list[int] = []

    def __enter__(self) -> None:
        with self._lock:
            self._holders += 1
            if self._holders == 1:
                self._before = [library.num_threads for library in LIBRARIES]
                self._set([1] * len(LIBRARIES))

    def __exit__(self, *failure: object) -> None:
        with self._lock:
            self._holders -= 1
            if self._holders == 0:
                self._set(self._before)

    def _set(self, threads: list[int]) -> None:
        for library, number in zip(LIBRARIES, threads, strict=True):
            disown = getattr(library, "clear_controlling_thread", lambda force: None)  # else only one thread's word
            disown(force=True)  # would count, from threadpoolctl 3.8 on
            library.set_num_threads(number)
            disown(force=True)


single_blas = _SingleBlas()


@contextmanager
def single_thread() -> Iterator[None]:
    """`single_blas`, and one thread for torch in this thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with single_blas:
            yield
    finally:
        torch.set_num_threads(threads)


def cholesky(matrix: Tensor) -> Tensor | None:
    """The lower factor L of a symmetric matrix L L' (n, n), which is used up; None if it is not positive definite."""
    factor, failed = matrix.contiguous(), ctypes.c_int()
    _call("potrf", factor, "U", len(factor), factor, len(factor), failed)
    return None if failed.value else factor.tril_()


def inverse_factor(factor: Tensor) -> Tensor:
    """L^-1, (n, n), of a lower factor L, which is used up. Raises ValueError for a zero on L's diagonal."""
    inverse, failed = factor.contiguous(), ctypes.c_int()
    _call("trtri", inverse, "U", "N", len(inverse), inverse, len(inverse), failed)
    if failed.value:
        raise ValueError(f"expected a factor without a zero on its diagonal, got one at {failed.value - 1}")
    return inverse


def gram_of_lower(factor: Tensor) -> Tensor:
    """L' L, (n, n), of a lower triangular L, which is used up: a sixth of what the product of two matrices costs."""
    product, failed = factor.contiguous(), ctypes.c_int()
    _call("lauum", product, "U", len(product), product, len(product), failed)
    product.tril_()
    return product.add_(product.tril(-1).T)


def eigh(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues (n,), ascending, and eigenvectors (n, n), in columns, of a symmetric matrix, which is used up. Raises
    ValueError where they are not found, as for NaN."""
    vectors, n, failed = matrix.contiguous(), len(matrix), ctypes.c_int()
    values, work = vectors.new_empty(n), vectors.new_empty(1 + 6 * n + 2 * n * n)
    integers = torch.empty(3 + 5 * n, dtype=torch.int32, device="cpu")
    _call("syevd", vectors, "V", "U", n, vectors, n, values, work, len(work), integers, len(integers), failed)
    if failed.value or not bool(torch.isfinite(values).all()):
        raise ValueError("expected a symmetric matrix of finite numbers")
    return values, vectors.T.contiguous()


def _call(name: str, of: Tensor, *arguments: str | int | float | Tensor | ctypes.c_int) -> None:
    """A routine for matrices of a tensor's type, with arguments as Fortran wants them: every one by its address.
    Raises ValueError for a matrix of another type: the routine would write beyond it."""
    given: list[Any] = []
    for argument in arguments:
        if isinstance(argument, str):
            given.append(ctypes.c_char_p(argument.encode()))
        elif isinstance(argument, int):
            given.append(ctypes.byref(ctypes.c_int(argument)))
        elif isinstance(argument, float):
            given.append(ctypes.byref(REAL[of.dtype](argument)))
        elif isinstance(argument, Tensor):
            if (
                argument.dtype not in (of.dtype, torch.int32)
                or argument.device.type != "cpu"
                or not argument.is_contiguous()
            ):
                raise ValueError(
                    f"expected a contiguous {of.dtype} matrix on the CPU, got {argument.dtype} on "
                    f"{argument.device}, strides {argument.stride()}"
                )
            given.append(ctypes.c_void_p(argument.data_ptr()))
        else:
            given.append(ctypes.byref(argument))
    with single_thread():
        _routine(PREFIX[of.dtype] + name)(*given)


@cache
def _routine(name: str) -> Any:
    """By its address in scipy, which offers it to compiled code; Python's lock is free while it runs. Raises
    RuntimeError where scipy's integers are not C's int (a scipy built for BLAS with 64-bit integers): they would be
    read from beyond ours."""
    capsule = {**cython_blas.__pyx_capi__, **cython_lapack.__pyx_capi__}[name]
    signature, address = ctypes.pythonapi.PyCapsule_GetName, ctypes.pythonapi.PyCapsule_GetPointer
    signature.restype, signature.argtypes = ctypes.c_char_p, [ctypes.py_object]
    address.restype, address.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    types = signature(capsule)
    if not re.search(rb"(?<!long )\bint \*", types):
        raise RuntimeError(f"scipy's BLAS does not take 32-bit integers, which bre needs: {name} is {types.decode()}")
    return ctypes.CFUNCTYPE(None)(address(capsule, types))
