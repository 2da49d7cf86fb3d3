"""How fast the ops are, next to the plain-torch reference: pytest benchmarks/test_ops.py

Every answer is asserted before it is timed. `GB/s` counts the bytes an op must read and write, `G/s` for moments its
multiply-adds; both stand in the extra columns of the saved results (--benchmark-json).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from bre import _core, ops

pytestmark = pytest.mark.benchmark(warmup=True, max_time=0.3, min_rounds=3)

T, N, M, K, C, H, W = 10, 64, 2000, 10, 3, 32, 32  # one step over CIFAR-10: 64 images for each of ten targets
D = C * H * W

BACKENDS = ["reference", "cpu"]


@pytest.fixture(autouse=True)
def _problem(benchmark: Any) -> None:
    torch.manual_seed(0)
    benchmark.extra_info.update(threads=torch.get_num_threads(), isa=_core.isa())


def rows() -> dict[str, torch.Tensor]:
    return {
        "index": torch.randint(0, M, (T, N)),
        "sign": torch.randint(0, 2, (T, N)).mul(2).sub(1).to(torch.int8),
        "pattern": torch.randn(T, C, H, W) * 0.05,
        "std": torch.rand(C) + 0.1,
    }


def images() -> torch.Tensor:
    return torch.randint(0, 256, (M, C, H, W), dtype=torch.uint8)


def same(got: Any, want: Any, tolerance: float) -> None:
    for mine, theirs in zip(got, want, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=tolerance, atol=tolerance)


def timed(benchmark: Any, bytes_moved: int, run: Callable[[], Any]) -> None:
    benchmark(run)
    if benchmark.stats:
        benchmark.extra_info["GB/s"] = round(bytes_moved / benchmark.stats.stats.min / 1e9, 2)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
def test_apply_pattern(benchmark: Any, backend: str, layout: str, dtype: torch.dtype) -> None:
    x, kwargs = images(), {**rows(), "mean": torch.rand(C), "layout": layout, "dtype": dtype}
    want = ops.apply_pattern(x, **kwargs, backend="reference")
    out = torch.empty_like(want)
    same([ops.apply_pattern(x, **kwargs, out=out, backend=backend)], [want], 2**-7 if dtype == torch.bfloat16 else 1e-5)
    moved = T * N * D * (1 + out.element_size())
    timed(benchmark, moved, lambda: ops.apply_pattern(x, **kwargs, out=out, backend=backend))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("classes", [10, 1000])
def test_loss_head(benchmark: Any, backend: str, classes: int) -> None:
    logits = torch.randn(T * N, classes) * 5
    kwargs = {"target": torch.randint(0, classes, (T,)), "sign": rows()["sign"], "weight": torch.rand(T, N)}
    want = ops.loss_head(logits, **kwargs, backend="reference")
    same(ops.loss_head(logits, **kwargs, backend=backend), want, 1e-5)
    timed(benchmark, 2 * logits.nbytes, lambda: ops.loss_head(logits, **kwargs, backend=backend))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
def test_update_pattern(benchmark: Any, backend: str, layout: str) -> None:
    format = torch.contiguous_format if layout == "nchw" else torch.channels_last
    grad, p = torch.randn(T * N, C, H, W).contiguous(memory_format=format), rows()
    fixed = {"images": images(), "index": p["index"], "sign": p["sign"], "std": p["std"]}
    fixed |= {"active": torch.ones(T, dtype=torch.bool)}

    def run(name: str, pattern: torch.Tensor, momentum: torch.Tensor) -> torch.Tensor:
        kwargs = {"step": 0.1, "decay": 0.5, "bound": 0.3, "backend": name}
        return ops.update_pattern(grad, **fixed, pattern=pattern, momentum=momentum, **kwargs)

    pattern, momentum = p["pattern"].clone(), torch.zeros(T, C, H, W)
    want_pattern, want_momentum = pattern.clone(), momentum.clone()
    norms, want = run(backend, pattern, momentum), run("reference", want_pattern, want_momentum)
    same([norms, pattern, momentum], [want, want_pattern, want_momentum], 1e-5)
    timed(benchmark, T * N * D * (1 + grad.element_size()), lambda: run(backend, pattern, momentum))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("templates", [1, 8])
def test_project(benchmark: Any, backend: str, templates: int) -> None:
    x, t = images(), torch.randn(templates, D)
    want = ops.project(x, templates=t, backend="reference")
    same([ops.project(x, templates=t, backend=backend)], [want], 1e-3)
    timed(benchmark, x.nbytes, lambda: ops.project(x, templates=t, backend=backend))


@pytest.mark.parametrize("way", ["cpu", "float32 X.T @ X"])
def test_moments(benchmark: Any, way: str) -> None:
    """Against the usual inexact way, with its conversion; the exact float64 reference is slower still."""
    x, labels = images(), torch.randint(0, K, (M,))
    out = ops.Moments.zeros(K, D)
    same(ops.moments(x, labels, classes=K), ops.moments(x, labels, classes=K, backend="reference"), 0)

    def blas() -> torch.Tensor:
        f = x.flatten(1).float()
        return f.T @ f

    def ours() -> ops.Moments:
        return ops.moments(x, labels, classes=K, out=out, backend=way)

    benchmark(blas if way != "cpu" else ours)
    if benchmark.stats:
        benchmark.extra_info["G/s"] = round(M * D * D / benchmark.stats.stats.min / 1e9, 1)
