"""Our names for scipy's BLAS and LAPACK, against plain products: both precisions."""

from __future__ import annotations

import ctypes
import re
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from bre.method import linalg

SIZES = [1, 2, 255, 256, 257, 600]
BOTH = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])


def definite(size: int, dtype: torch.dtype) -> torch.Tensor:
    rows = torch.randn(size, size + 5, dtype=torch.float64, generator=torch.Generator().manual_seed(size))
    return (rows @ rows.T / size + torch.eye(size)).to(dtype)


@BOTH
@pytest.mark.parametrize("size", SIZES)
def test_a_factor_and_the_inverse_from_it(size, dtype):
    matrix = definite(size, dtype)
    factor = linalg.cholesky(matrix.clone())
    assert torch.equal(factor, factor.tril())
    torch.testing.assert_close(factor @ factor.T, matrix, rtol=1e-4, atol=1e-4)
    inverse = linalg.inverse_factor(factor.clone())
    assert torch.equal(inverse, inverse.tril())
    torch.testing.assert_close(inverse.T @ inverse @ matrix, torch.eye(size, dtype=dtype), rtol=0, atol=2e-4)
    gram = linalg.gram_of_lower(inverse.clone())
    assert torch.equal(gram, gram.T)
    torch.testing.assert_close(gram, inverse.T @ inverse, rtol=1e-4, atol=1e-4)


def test_what_is_not_positive_definite_has_no_factor():
    assert linalg.cholesky(torch.tensor([[1.0, 2.0], [2.0, 1.0]])) is None


def test_a_singular_factor_has_no_inverse():
    with pytest.raises(ValueError, match="without a zero on its diagonal, got one at 2"):
        linalg.inverse_factor(torch.diag(torch.tensor([1.0, 2.0, 0.0, 1.0])))


@pytest.mark.parametrize(
    "integer", [b"long *", b"long int *", b"int64_t *", b"npy_int64 *", b"__pyx_t_5scipy_blas_int *"]
)
def test_a_blas_of_other_integers_is_refused(monkeypatch: pytest.MonkeyPatch, integer: bytes) -> None:
    """Capsules as scipy makes them, whose names are the functions' types in C."""
    real = linalg.cython_lapack.__pyx_capi__["dpotrf"]
    name = ctypes.pythonapi.PyCapsule_GetName
    name.restype, name.argtypes = ctypes.c_char_p, [ctypes.py_object]
    assert b"int *" in name(real)
    make = ctypes.pythonapi.PyCapsule_New
    make.restype, make.argtypes = ctypes.py_object, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
    types = name(real).replace(b"int *", integer)
    monkeypatch.setitem(linalg.cython_lapack.__pyx_capi__, "dpotrf", make(1, types, None))
    linalg._routine.cache_clear()
    with pytest.raises(RuntimeError, match="does not take 32-bit integers, which bre needs: dpotrf is void"):
        linalg.cholesky(torch.eye(3, dtype=torch.float64))


def test_the_name_of_blas():
    assert re.match(r"\S+ \d+\.\d+", linalg.blas())


def of_blas() -> set[int]:
    return {library.num_threads for library in linalg.LIBRARIES}


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = of_blas()
    linalg.single_blas._set([2] * len(linalg.LIBRARIES))
    yield
    linalg.single_blas._set([max(before)] * len(linalg.LIBRARIES))


@pytest.mark.usefixtures("two_threads")
def test_threads_are_given_back():
    before = torch.get_num_threads()
    with linalg.single_thread():
        assert torch.get_num_threads() == 1
        assert of_blas() == {1}
        with linalg.single_thread():
            pass
        assert of_blas() == {1}
    with pytest.raises(np.linalg.LinAlgError), linalg.single_thread():
        raise np.linalg.LinAlgError
    assert (torch.get_num_threads(), of_blas()) == (before, {2})


@pytest.mark.usefixtures("two_threads")
def test_threads_that_hold_it_at_once_are_all_waited_for():
    inside, outside = threading.Event(), threading.Event()

    def hold() -> None:
        with linalg.single_blas:
            inside.set()
            outside.wait(10)

    with linalg.single_blas:
        other = threading.Thread(target=hold)
        other.start()
        inside.wait(10)
    assert of_blas() == {1}  # the first one left, the second has not
    outside.set()
    other.join()
    assert of_blas() == {2}


def test_what_would_be_written_beyond_its_end_is_refused():
    factor, failed = linalg.cholesky(definite(4, torch.float64)), ctypes.c_int()
    for other, match in ((factor.float(), "float64 matrix on the CPU, got torch.float32"), (factor.T, "strides")):
        with pytest.raises(ValueError, match=match):
            linalg._call("trtri", factor, "U", "N", 4, other, 4, failed)


def test_two_threads_run_side_by_side():
    """Python's lock is free while a routine runs: else another thread would stand still for all of it."""
    factor, ticks, done = torch.eye(1500) + torch.ones(1500, 1500).tril(), [], threading.Event()

    def tick() -> None:
        while not done.wait(0.001):
            ticks.append(time.perf_counter())

    other = threading.Thread(target=tick)
    other.start()
    start = time.perf_counter()
    for _ in range(5):
        linalg.inverse_factor(factor.clone())
    stop = time.perf_counter()
    done.set()
    other.join()
    inside = [tick for tick in ticks if start < tick < stop]
    assert len(inside) > 10


@BOTH
@pytest.mark.parametrize("size", SIZES)
def test_eigenvalues_and_eigenvectors(size, dtype):
    matrix = definite(size, dtype)
    values, vectors = linalg.eigh(matrix.clone())
    assert bool((values.diff() >= 0).all())
    torch.testing.assert_close((vectors * values) @ vectors.T, matrix, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(vectors.T @ vectors, torch.eye(size, dtype=dtype), rtol=0, atol=1e-4)


def test_what_is_not_finite_has_no_eigenvalues():
    with pytest.raises(ValueError, match="symmetric matrix of finite numbers"):
        linalg.eigh(torch.full((4, 4), float("nan"), dtype=torch.float64))
