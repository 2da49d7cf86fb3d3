"""How fast the ops are: python -m pytest benchmarks/speed/op_times.py

Every answer is asserted before it is timed. The extra columns (--benchmark-json) hold `GB/s`, of the bytes that an op
must read and write, and `G/s`, of its multiplications and additions, with the shares of two ceilings: a large copy and
a large float32 product; and `times eager`, against the plain-torch reference. The op runs in turn with its ceilings and
then with the reference, and of each the shortest counts, so that other work on the machine meets all of them. Inputs of
the ops bound by memory are larger than the caches. Like the copy, `apply_pattern` writes to memory that it is given;
what else the ops return is small, but for the gradient of `loss_head`, which is allocated within the time.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
import torch

from bre import _core, ops
from bre.ops.tiles import tile_order

pytestmark = pytest.mark.benchmark(warmup=True, max_time=0.5, min_rounds=3)

T, N, K, C, H, W = 10, 768, 10, 3, 32, 32
D = C * H * W
M, MOMENTS = 32768, 8192  # images: 100 MB, and for an op bound by arithmetic 25 MB
SIDE = 2048  # of the product's matrices


def in_turn(runs: dict[str, Callable[[], Any]], seconds: float = 2.0, least: int = 3) -> dict[str, float]:
    """The shortest time of each, all of them run one after the other, `least` times or more."""
    best, until, rounds = dict.fromkeys(runs, float("inf")), time.perf_counter() + seconds, 0
    while rounds < least or time.perf_counter() < until:
        rounds += 1
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            best[name] = min(best[name], time.perf_counter() - start)
    return best


@pytest.fixture(scope="session")
def copy() -> tuple[Callable[[], Any], int]:
    """A copy of 128 MB, and the bytes it reads and writes."""
    source = torch.ones(2**25)
    target = torch.empty_like(source)
    return lambda: target.copy_(source), 2 * source.nbytes


@pytest.fixture(scope="session")
def product() -> tuple[Callable[[], Any], int]:
    """A float32 product, and its multiplications and additions."""
    square = torch.rand(SIDE, SIDE)
    target = torch.empty_like(square)
    return lambda: torch.mm(square, square, out=target), 2 * SIDE**3


@pytest.fixture
def timed(benchmark: Any, copy: Any, product: Any) -> Callable[..., None]:
    torch.manual_seed(0)
    benchmark.extra_info.update(threads=torch.get_num_threads(), isa=_core.isa())

    def time_it(
        run: Callable[[], Any], *, moved: int = 0, operations: int = 0, eager: Callable[[], Any] | None = None
    ) -> None:
        """moved: bytes; operations: multiplications and additions; eager: the same by the plain-torch composition."""
        benchmark(run)
        if not benchmark.stats:
            return
        ceilings = [("GB/s", "of copy", moved, *copy), ("G/s", "of product", operations, *product)]
        ceilings = [ceiling for ceiling in ceilings if ceiling[2]]
        best = in_turn({"op": run, **{share: ceiling for _, share, _, ceiling, _ in ceilings}})
        benchmark.extra_info["seconds"] = best["op"]
        for unit, share, amount, _, most in ceilings:
            rate = amount / best["op"] / 1e9
            benchmark.extra_info.update({unit: rate, share: rate / (most / best[share] / 1e9)})
        if eager is not None:
            both = in_turn({"op": run, "eager": eager}, seconds=1)
            benchmark.extra_info["times eager"] = both["eager"] / both["op"]

    return time_it


def rows() -> dict[str, torch.Tensor]:
    return {
        "index": torch.randint(0, M, (T, N)),
        "sign": torch.randint(0, 2, (T, N)).mul(2).sub(1).to(torch.int8),
        "pattern": torch.randn(T, C, H, W) * 0.05,
        "std": torch.rand(C) + 0.1,
    }


def images(count: int = M) -> torch.Tensor:
    return torch.randint(0, 256, (count, C, H, W), dtype=torch.uint8)


def same(got: Any, want: Any, tolerance: float) -> None:
    for mine, theirs in zip(got, want, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["f32", "bf16"])
@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
def test_apply_pattern(timed: Any, layout: str, dtype: torch.dtype) -> None:
    x = images()
    kwargs: dict[str, Any] = {**rows(), "mean": torch.rand(C), "layout": layout, "dtype": dtype}
    want = ops.apply_pattern(x, **kwargs, backend="reference")
    out = torch.empty_like(want)
    same([ops.apply_pattern(x, **kwargs, out=out, backend="cpu")], [want], 2**-7 if dtype == torch.bfloat16 else 1e-5)

    def run(backend: str) -> Callable[[], Any]:
        return lambda: ops.apply_pattern(x, **kwargs, out=out, backend=backend)

    timed(run("cpu"), moved=T * N * D * (1 + out.element_size()), eager=run("reference"))


@pytest.mark.parametrize("classes", [10, 1000])
def test_loss_head(timed: Any, classes: int) -> None:
    logits = torch.randn(T * N, classes) * 5
    kwargs = {"target": torch.randint(0, classes, (T,)), "sign": rows()["sign"], "weight": torch.rand(T, N)}

    def run(backend: str) -> Callable[[], Any]:
        return lambda: ops.loss_head(logits, **kwargs, backend=backend)

    same(run("cpu")(), run("reference")(), 1e-5)
    timed(run("cpu"), moved=2 * logits.nbytes, eager=run("reference"))


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
def test_update_pattern(timed: Any, layout: str) -> None:
    format = torch.contiguous_format if layout == "nchw" else torch.channels_last
    grad, p = torch.randn(T * N, C, H, W).contiguous(memory_format=format), rows()
    fixed: dict[str, Any] = {"images": images(), "index": p["index"], "sign": p["sign"], "std": p["std"]}
    fixed |= {"active": torch.ones(T, dtype=torch.bool)}

    def run(backend: str, pattern: torch.Tensor, momentum: torch.Tensor) -> torch.Tensor:
        kwargs: dict[str, Any] = {"step": 0.1, "decay": 0.5, "bound": 0.3, "backend": backend}
        return ops.update_pattern(grad, **fixed, pattern=pattern, momentum=momentum, **kwargs)

    pattern, momentum = p["pattern"].clone(), torch.zeros(T, C, H, W)
    want_pattern, want_momentum = pattern.clone(), momentum.clone()
    norms, want = run("cpu", pattern, momentum), run("reference", want_pattern, want_momentum)
    same([norms, pattern, momentum], [want, want_pattern, want_momentum], 1e-5)
    timed(
        lambda: run("cpu", pattern, momentum),
        moved=T * N * D * (1 + grad.element_size()),
        eager=lambda: run("reference", pattern, momentum),
    )


@pytest.mark.parametrize("templates", [1, 4, 8])
def test_project(timed: Any, templates: int) -> None:
    x, t = images(), torch.randn(templates, D)

    def run(backend: str) -> Callable[[], Any]:
        return lambda: ops.project(x, templates=t, backend=backend)

    def eager() -> torch.Tensor:
        """In float32, block by block; the reference's float64 is slower."""
        return torch.cat([(block.flatten(1).float() / 255) @ t.T for block in torch.split(x, 2048)])

    same([run("cpu")()], [run("reference")()], 1e-3)
    timed(run("cpu"), moved=x.nbytes, operations=2 * templates * x.nbytes, eager=eager)


def test_moments(timed: Any) -> None:
    """Against the usual inexact way, float32 BLAS with its conversion; the exact float64 reference is slower still.
    The result is symmetric, and operations are counted as if both halves were computed."""
    x, labels = images(MOMENTS), torch.randint(0, K, (MOMENTS,))
    out = ops.Moments.zeros(K, D)
    same(ops.moments(x, labels, classes=K), ops.moments(x, labels, classes=K, backend="reference"), 0)

    def blas() -> torch.Tensor:
        f = x.flatten(1).float()
        return f.T @ f

    timed(lambda: ops.moments(x, labels, classes=K, out=out, backend="cpu"), operations=2 * MOMENTS * D * D, eager=blas)


@pytest.mark.parametrize("rows", [600, 4096])
def test_gram(timed: Any, rows: int) -> None:
    """Against float32 BLAS on codes that are float32 already. The result is symmetric, and operations are counted as if
    both halves were computed."""
    codes = torch.randint(-127, 128, (rows, D), dtype=torch.int8)
    floats, out = codes.float(), torch.zeros(rows, rows, dtype=torch.int32)
    same([ops.gram(codes)], [ops.gram(codes, backend="reference")], 0)
    timed(lambda: ops.gram(codes, out=out.zero_()), operations=2 * rows**2 * D, eager=lambda: floats @ floats.T)


SIDE_224 = (3, 224, 224)


def photographs(count: int) -> torch.Tensor:
    """Noise that is smooth like photographs: (count, 3, 224, 224) uint8."""
    coarse = torch.rand(count, 3, 28, 28) * 255
    smooth = torch.nn.functional.interpolate(coarse, size=SIDE_224[1:], mode="bilinear")
    return (smooth + torch.randn(count, *SIDE_224) * 8).clamp(0, 255).to(torch.uint8)


def test_whiten(timed: Any) -> None:
    """Against the same in float32: tiles gathered from centred images, one product, cells scaled and rounded."""
    x = photographs(32)
    (grid,), d = ops.grids(*SIDE_224[1:]), 768
    tiles = ops.cut_tiles(x, grid=grid)
    sums, group = ops.channel_sums(x), torch.zeros(len(x), dtype=torch.int64)
    found = ops.tile_moments(tiles, group, groups=1, sums=sums, area=224 * 224, shape=(3, 16, 16))
    covariance = found.second[0] / found.count[0] + torch.eye(d) / 12
    inverse = torch.linalg.inv(torch.linalg.cholesky(covariance)).tril().float()
    weights = [ops.tile_weights(inverse, torch.zeros(196, d, dtype=torch.float64), shape=(3, 16, 16))]
    out, order = ops.Codes.empty(len(x), SIDE_224), tile_order(3, 16, 16)

    def eager() -> torch.Tensor:
        centred = x.float() - x.float().mean((2, 3), keepdim=True)
        patches = centred.view(-1, 3, 14, 16, 14, 16).permute(0, 2, 4, 1, 3, 5).reshape(-1, d)[:, order]
        z = (patches @ inverse.T).view(-1, 4, 192)
        kept = (1 + z.square().mean(2, keepdim=True)).rsqrt()
        return (z * kept * 12).round().clamp(-127, 127).to(torch.int8).view(len(x), 196, d)

    got = ops.whiten(x, weights=weights, out=out).values.view(196, len(x), d).transpose(0, 1)
    difference = (got.int() - eager().int()).abs()
    assert difference.max() <= 1
    assert difference.double().mean() < 0.01
    timed(lambda: ops.whiten(x, weights=weights, out=out), operations=len(x) * 196 * d * d, eager=eager)


def test_halve(timed: Any) -> None:
    x = photographs(100)

    def eager() -> torch.Tensor:
        pairs = x.view(-1, 3, 112, 2, 112, 2).to(torch.int16)
        return ((pairs.sum((3, 5), dtype=torch.int16) + 2) // 4).to(torch.uint8)

    same([ops.halve(x)], [eager()], 0)
    timed(lambda: ops.halve(x), moved=x.nbytes * 5 // 4, eager=eager)


def test_tile_moments(timed: Any) -> None:
    """Against float32 BLAS on tiles that are centred and in float32 already."""
    M, Q, d = 2000, 8, 768
    tiles = torch.randint(0, 256, (M, Q, d), dtype=torch.uint8)
    kwargs: dict[str, Any] = {"groups": 1, "area": 224 * 224, "shape": (3, 16, 16)}
    sums, group = torch.full((M, 3), 224 * 224 * 127), torch.zeros(M, dtype=torch.int64)
    centred = (tiles.float() - 127).view(-1, d)

    def run(backend: str) -> Callable[[], Any]:
        return lambda: ops.tile_moments(tiles, group, sums=sums, backend=backend, **kwargs)

    same(run("cpu")(), run("reference")(), 1e-9)
    timed(run("cpu"), operations=2 * M * Q * d * d, eager=lambda: centred.T @ centred)


def test_sum_grams(timed: Any) -> None:
    grams = [torch.randint(-(10**6), 10**6, (600, 600), dtype=torch.int32) for _ in range(4)]
    rows, out = torch.arange(600), torch.empty(600, 600, dtype=torch.int32)

    def run(backend: str) -> Callable[[], Any]:
        return lambda: ops.sum_grams(grams, rows=rows, floor=3 * 10**6, out=out, backend=backend)

    def eager() -> torch.Tensor:
        total = grams[0] + grams[1]
        total += grams[2]
        total += grams[3]
        return torch.relu(total.float() - 3e6).sum(1)

    same(run("cpu")(), run("reference")(), 0)
    timed(run("cpu"), moved=5 * out.nbytes, eager=eager)
