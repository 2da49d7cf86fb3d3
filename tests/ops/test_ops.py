"""Every backend against the reference; the reference against hand-written tables and autograd."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any

import cuda_emulation
import numpy as np
import pytest
import torch
from torch import Tensor

from bre import _core, ops
from bre.ops.tiles import channel_of

INTERPRETED = not torch.cuda.is_available()  # Triton's kernels; see conftest.py

CPU = torch.device("cpu")
F32, BF16, F16 = torch.float32, torch.bfloat16, torch.float16

# Largest allowed |backend - reference| / (1 + |reference|). Exact ops are compared with ==.
TOLERANCE = {
    ("apply_pattern", F32): 1e-6,
    ("apply_pattern", BF16): 2**-7,  # one rounding step: the float32 values may straddle a tie
    ("apply_pattern", F16): 2**-10,
    ("loss_head", F32): 2e-6,
    ("loss_head", BF16): 2**-7,
    ("loss_head", F16): 2**-10,
    ("update_pattern", F32): 2e-6,
    ("update_pattern", BF16): 2e-6,  # the same gradients go in; all sums are float32
    ("update_pattern", F16): 2e-6,
    ("project", F32): 2e-5,  # of sums of thousands of terms
}

# The compiled kernels are tested once per instruction set of this machine, the CUDA sources once per order of their
# threads on the CPU. A backend written for an accelerator gets its tensors there.
BACKENDS = [f"cpu-{isa}" for isa in _core.isas()] + [
    name for name in ("triton", "cuda") if ops.unavailable(name, "cuda" if torch.cuda.is_available() else "cpu") is None
]
if cuda_emulation.missing() is None:
    BACKENDS += [f"emulated-{schedule}" for schedule in cuda_emulation.SCHEDULES]


class Backend:
    """A backend under test, called with host tensors."""

    def __init__(self, name: str, device: str | None = None):
        self.name = name
        self.device = device or ("cuda" if name in ("triton", "cuda") and torch.cuda.is_available() else "cpu")

    def has(self, op: str) -> bool:
        return ops.unavailable(self.name, self.device, op) is None

    def __call__(self, op: str, *args: Tensor, **kwargs: Any) -> Any:
        if not self.has(op):
            pytest.skip(f"{self.name} has no {op}")
        moved = {key: self._move(value) for key, value in kwargs.items()}
        result = getattr(ops, op)(*map(self._move, args), backend=self.name, **moved)
        for key, value in kwargs.items():  # ops that write in place write to the caller's tensors
            if isinstance(value, Tensor) and moved[key] is not value:
                value.copy_(moved[key])
        return result.cpu() if isinstance(result, Tensor) else type(result)(*(x.cpu() for x in result))

    def _move(self, value: Any) -> Any:
        return value.to(self.device) if isinstance(value, Tensor) else value


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> Iterator[Backend]:
    name, _, variant = request.param.partition("-")
    if name == "emulated":
        with cuda_emulation.emulated(variant):
            yield Backend("cuda", "cpu")
        return
    best = _core.isa()
    if variant:
        _core.use_isa(variant)
    yield Backend(name)
    _core.use_isa(best)


reference = Backend("reference")


def close(got: Tensor, want: Tensor, tolerance: float) -> None:
    assert got.shape == want.shape
    assert got.dtype == want.dtype
    got, want = got.double(), want.double()
    assert torch.isfinite(want).all()
    error = ((got - want).abs() / (1 + want.abs())).max().item() if got.numel() else 0.0
    assert error <= tolerance


#         M  T  N  C  H   W      odd sizes, one of everything, nothing at all, more than one tile of 256 pixels
SHAPES = [
    (7, 3, 4, 3, 5, 7),
    (1, 1, 1, 1, 1, 1),
    (5, 2, 3, 3, 32, 32),
    (4, 2, 2, 4, 17, 16),
    (3, 1, 5, 2, 19, 29),
    (5, 2, 19, 3, 6, 5),
    (6, 2, 2, 1, 28, 28),
    (3, 0, 4, 3, 4, 4),
    (3, 2, 0, 3, 4, 4),
    (0, 0, 0, 3, 4, 4),
]


def problem(M: int, T: int, N: int, C: int, H: int, W: int) -> dict[str, Tensor]:
    """Random images with many saturated pixels, all three signs, and patterns large enough to clip."""
    images = torch.randint(-64, 320, (M, C, H, W)).clamp(0, 255).to(torch.uint8)
    pattern = torch.randn(T, C, H, W) * 0.2
    pattern[torch.rand_like(pattern) < 0.3] = 0
    return {
        "images": images,
        "index": torch.randint(0, max(M, 1), (T, N)),
        "sign": torch.randint(-1, 2, (T, N), dtype=torch.int8),
        "pattern": pattern,
        "std": torch.rand(C) + 0.1,
    }


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize("dtype", [F32, BF16, F16], ids=str)
def test_apply_pattern(backend: Backend, shape: tuple[int, ...], layout: str, dtype: torch.dtype) -> None:
    p = problem(*shape)
    images = p.pop("images")
    kwargs = {**p, "mean": torch.rand(shape[3]), "layout": layout, "dtype": dtype}
    got, want = backend("apply_pattern", images, **kwargs), reference("apply_pattern", images, **kwargs)
    close(got, want, TOLERANCE["apply_pattern", dtype])
    format = torch.contiguous_format if layout == "nchw" else torch.channels_last
    assert got.is_contiguous(memory_format=format)
    assert want.is_contiguous(memory_format=format)


def finite(dtype: torch.dtype) -> Tensor:
    """Every finite number of a 16-bit dtype, in order."""
    numbers = torch.arange(-(2**15), 2**15).to(torch.int16).view(dtype)
    return numbers[numbers.isfinite()].float().sort().values


@pytest.mark.parametrize("dtype", [BF16, F16], ids=str)
def test_numbers_of_16_bits_are_rounded_to_the_nearest(backend: Backend, dtype: torch.dtype) -> None:
    """Ties between neighbours, and one step of float32 to either side, black pixels being written as -mean."""
    if backend.name == "triton" and backend.device == "cpu":
        pytest.skip("Triton's interpreter rounds by its own rules, bfloat16 towards zero")
    exact = finite(dtype)[::7]
    ties = exact[:-1] / 2 + exact[1:] / 2
    values = torch.cat([exact, *(torch.nextafter(ties, ties + s * ties.abs()) for s in (-1, 0, 1)), 2 * exact[-9:]])
    got = backend(
        "apply_pattern",
        torch.zeros(1, len(values), 1, 1, dtype=torch.uint8),
        index=torch.zeros(1, 1, dtype=torch.int64),
        sign=torch.zeros(1, 1, dtype=torch.int8),
        pattern=torch.zeros(1, len(values), 1, 1),
        mean=-values,
        std=torch.ones(len(values)),
        dtype=dtype,
    )
    assert torch.equal(got.flatten(), values.to(dtype))


@pytest.mark.parametrize("dtype", [BF16, F16], ids=str)
def test_every_number_of_16_bits_is_read(backend: Backend, dtype: torch.dtype) -> None:
    """As the gradient of a pattern, one number at a time: the step's direction is its sign."""
    numbers = finite(dtype)[::31].to(dtype)
    numbers = numbers[numbers.float().abs() > 1e-37]  # far below, a norm counts as zero
    if backend.name == "triton" and INTERPRETED:
        numbers = numbers[::8].contiguous()  # its interpreter takes a minute for all
    momentum = torch.zeros(len(numbers), 1, 1, 2)
    backend(
        "update_pattern",
        torch.stack([numbers, torch.full_like(numbers, 0.25)], 1).view(-1, 1, 1, 2),
        images=torch.full((1, 1, 1, 2), 128, dtype=torch.uint8),
        index=torch.zeros(len(numbers), 1, dtype=torch.int64),
        sign=torch.ones(len(numbers), 1, dtype=torch.int8),
        pattern=torch.zeros_like(momentum),
        momentum=momentum,
        active=torch.ones(len(numbers), dtype=torch.bool),
        std=torch.ones(1),
        **UPDATE,
    )
    wide = torch.stack([numbers.double(), torch.full((len(numbers),), 0.25).double()], 1)
    want = wide / wide.norm(dim=1, keepdim=True)
    assert ((momentum.view(-1, 2).double() - want).abs() <= 1e-6 * want.abs() + 1e-37).all()


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
def test_apply_pattern_writes_into_out(backend: Backend, layout: str) -> None:
    p = problem(*SHAPES[0])
    images, mean = p.pop("images"), torch.zeros(3)
    want = backend("apply_pattern", images, **p, mean=mean, layout=layout)
    out = torch.full_like(want, torch.nan)
    backend("apply_pattern", images, **p, mean=mean, layout=layout, out=out)
    assert torch.equal(out, want)


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize(("dtype", "channels"), [(F32, 3), (BF16, 3), (F16, 5)], ids=str)
def test_apply_pattern_of_more_than_the_caches_hold(
    backend: Backend, layout: str, dtype: torch.dtype, channels: int
) -> None:
    """Written past the caches, row by row as a few rows are. 60 x 60 is no multiple of the blocks that are written."""
    if backend.name != "cpu":
        pytest.skip("only the CPU's kernels have two ways to write")
    N = 2**25 // (channels * 60 * 60 * dtype.itemsize) + 3
    p = problem(4, 1, N, channels, 60, 60)
    images, index, sign = p.pop("images"), p.pop("index"), p.pop("sign")
    fixed = {**p, "mean": torch.rand(channels), "layout": layout, "dtype": dtype}
    got = backend("apply_pattern", images, index=index, sign=sign, **fixed)
    few = [torch.arange(N).view(1, N)[:, i : i + 500] for i in range(0, N, 500)]
    want = [backend("apply_pattern", images, index=index[0, i], sign=sign[0, i], **fixed) for i in few]
    assert torch.equal(got, torch.cat(want))


@pytest.mark.parametrize("offset", [0, 1, 4, 8])
def test_apply_pattern_writes_past_the_caches_wherever_out_begins(backend: Backend, offset: int) -> None:
    """As wide as the place is aligned for: 64, 4, 16 or 32 bytes."""
    if backend.name != "cpu":
        pytest.skip("only the CPU's kernels have two ways to write")
    N = 2**25 // (3 * 32 * 32 * 4) + 2
    p = problem(4, 1, N, 3, 32, 32)
    images, fixed = p.pop("images"), {**p, "mean": torch.rand(3), "layout": "nchw"}
    whole = torch.full((N * 3 * 32 * 32 + 16,), torch.nan)
    out = whole[offset : offset + N * 3 * 32 * 32].view(N, 3, 32, 32)
    backend("apply_pattern", images, **fixed, out=out)
    assert torch.equal(out, backend("apply_pattern", images, **fixed))
    assert whole[:offset].isnan().all()
    assert whole[offset + out.numel() :].isnan().all()


@pytest.mark.parametrize(
    ("T", "N", "K"),
    [(3, 4, 10), (1, 1, 2), (2, 3, 16), (2, 5, 17), (2, 2, 1000), (1, 2, 22_000), (0, 3, 5), (3, 0, 5)],
)
@pytest.mark.parametrize("scale", [1, 30, 1e4])
@pytest.mark.parametrize("dtype", [F32, BF16, F16], ids=str)
def test_loss_head(backend: Backend, T: int, N: int, K: int, scale: float, dtype: torch.dtype) -> None:
    logits = (torch.randn(T * N, K).clamp(-1, 1) * scale).to(dtype)
    kwargs = {
        "target": torch.randint(0, K, (T,)),
        "sign": torch.randint(-1, 2, (T, N), dtype=torch.int8),
        "weight": torch.rand(T, N) - 0.3,
    }
    got, want = backend("loss_head", logits, **kwargs), reference("loss_head", logits, **kwargs)
    assert got.grad.dtype == dtype
    close(got.loss, want.loss, TOLERANCE["loss_head", F32])
    close(got.grad, want.grad, TOLERANCE["loss_head", dtype])
    assert torch.equal(got.success, want.success)


@pytest.mark.parametrize("target", range(4))
def test_ties_go_to_the_lowest_class(backend: Backend, target: int) -> None:
    logits = torch.tensor([[0.0, 2.0, 1.0, 2.0], [3.0, 3.0, 3.0, 3.0]])
    kwargs = {"target": torch.tensor([target]), "sign": torch.ones(1, 2, dtype=torch.int8), "weight": torch.ones(1, 2)}
    for run in (reference, backend):
        assert run("loss_head", logits, **kwargs).success.tolist() == [[target == 1, target == 0]]


UPDATE = {"step": 0.1, "decay": 0.5, "bound": 0.25}


def updated(backend: Backend, gradient: list[float], momentum: Tensor, steps: int = 1) -> Tensor:
    """The pattern that steps along one gradient make of nothing, momentum in place."""
    D = len(gradient)
    pattern, images = torch.zeros(1, 1, 1, D), torch.full((1, 1, 1, D), 128, dtype=torch.uint8)
    for _ in range(steps):
        backend(
            "update_pattern",
            torch.tensor(gradient).view(1, 1, 1, D),
            images=images,
            index=torch.zeros(1, 1, dtype=torch.int64),
            sign=torch.ones(1, 1, dtype=torch.int8),
            pattern=pattern,
            momentum=momentum,
            active=torch.ones(1, dtype=torch.bool),
            std=torch.ones(1),
            **UPDATE,
        )
    return pattern.flatten()


def test_norms_without_an_inverse_count_as_zero(backend: Backend) -> None:
    momentum = torch.zeros(1, 1, 1, 4)
    assert torch.equal(updated(backend, [1e-39, 2e-39, 0.0, -1e-39], momentum), torch.zeros(4))
    assert torch.equal(momentum, torch.zeros_like(momentum))
    momentum = torch.tensor([0.5, -0.5, 0.5, -0.5]).view(1, 1, 1, 4)  # halves, until it is gone
    pattern = updated(backend, [0.0] * 4, momentum, steps=160)
    assert torch.equal(pattern, torch.tensor([-0.25, 0.25, -0.25, 0.25]))


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_what_is_not_finite_does_not_become_a_pattern(backend: Backend, bad: float) -> None:
    with np.errstate(invalid="ignore"):  # Triton's interpreter computes by numpy
        pattern = updated(backend, [1.0, bad, 2.0], torch.zeros(1, 1, 1, 3))
    assert pattern[1].isnan()


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize("dtype", [F32, BF16, F16], ids=str)
def test_update_pattern(backend: Backend, shape: tuple[int, ...], layout: str, dtype: torch.dtype) -> None:
    _, T, N, C, H, W = shape
    p = problem(*shape)
    format = torch.contiguous_format if layout == "nchw" else torch.channels_last
    active = torch.arange(T) != 1
    results = []
    grads = [torch.randn(T * N, C, H, W).to(dtype).contiguous(memory_format=format) for _ in range(2)]
    for run in (backend, reference):
        pattern, momentum = p["pattern"].clone(), torch.zeros(T, C, H, W)
        for grad in grads:
            norms = run("update_pattern", grad, **{**p, "pattern": pattern}, momentum=momentum, active=active, **UPDATE)
        close(norms, pattern.flatten(1).norm(dim=1), 1e-6)
        assert torch.equal(pattern[~active], p["pattern"][~active])
        assert not momentum[~active].any()
        results.append((pattern, momentum, norms))
    for got, want in zip(*results, strict=True):
        close(got, want, TOLERANCE["update_pattern", dtype])


def test_update_pattern_with_no_gradient_keeps_still(backend: Backend) -> None:
    p = problem(*SHAPES[0])
    p["pattern"].clamp_(-0.25, 0.25)
    before, momentum = p["pattern"].clone(), torch.zeros_like(p["pattern"])
    backend("update_pattern", torch.zeros(12, 3, 5, 7), **p, momentum=momentum, active=torch.ones(3).bool(), **UPDATE)
    assert torch.equal(p["pattern"], before)
    assert not momentum.any()


def test_saturated_pixels_move_inwards(backend: Backend) -> None:
    """From v = 0 a black pixel can be brightened and a white one darkened; once outside, the clip stops them."""
    kwargs = {
        "images": torch.tensor([0, 255], dtype=torch.uint8).view(1, 1, 1, 2),
        "index": torch.zeros(1, 1, dtype=torch.int64),
        "sign": torch.ones(1, 1, dtype=torch.int8),
        "active": torch.ones(1).bool(),
        "std": torch.ones(1),
        "step": math.sqrt(2),
        "decay": 0.0,
        "bound": 2.0,
    }
    for run in (reference, backend):
        pattern, momentum = torch.zeros(1, 1, 1, 2), torch.zeros(1, 1, 1, 2)
        inwards = torch.tensor([-1.0, 1.0]).view(1, 1, 1, 2)
        run("update_pattern", inwards, pattern=pattern, momentum=momentum, **kwargs)
        close(pattern.flatten(), torch.tensor([1.0, -1.0]), 1e-6)
        pattern.copy_(torch.tensor([-0.1, 0.1]).view(1, 1, 1, 2))
        run("update_pattern", inwards, pattern=pattern, momentum=momentum, **kwargs)
        close(pattern.flatten(), torch.tensor([-0.1, 0.1]), 0)


def test_clip_mask_is_exact_for_every_byte(backend: Backend) -> None:
    """x/255 + sign*v one rounding step inside and outside of [0, 1], and on it: gradient where the reference has it."""
    x = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    to_white, to_black = 1 - x / 255, -x / 255
    edges = torch.cat([torch.nextafter(v, v + d) for v in (to_white, to_black) for d in (-1, 0, 1)])
    kwargs = {
        "images": x,
        "index": torch.zeros(12, 1, dtype=torch.int64),
        "sign": torch.tensor([1, -1], dtype=torch.int8).repeat_interleave(6).view(12, 1),
        "pattern": torch.cat([edges, -edges]),
        "active": torch.ones(12).bool(),
        "std": torch.ones(1),
        **UPDATE,
    }
    masks = []
    for run in (backend, reference):
        momentum = torch.zeros(12, 1, 16, 16)
        run("update_pattern", torch.ones(12, 1, 16, 16), momentum=momentum, **kwargs)
        kwargs["pattern"] = torch.cat([edges, -edges])
        masks.append(momentum != 0)
    assert torch.equal(*masks)
    assert 0 < masks[0].sum() < masks[0].numel()


#                  M     K  C  H   W
MOMENT_SHAPES = [
    (1, 1, 1, 1, 1),
    (0, 3, 1, 2, 2),
    (5, 3, 3, 5, 7),
    (130, 10, 3, 8, 9),
    (515, 2, 1, 20, 20),
    (4101, 4, 1, 3, 3),
]


@pytest.mark.parametrize("shape", MOMENT_SHAPES, ids=str)
def test_moments(backend: Backend, shape: tuple[int, ...]) -> None:
    M, K, C, H, W = shape
    images, labels = torch.randint(0, 256, (M, C, H, W), dtype=torch.uint8), torch.randint(0, K, (M,))
    got, want = backend("moments", images, labels, classes=K), reference("moments", images, labels, classes=K)
    for mine, theirs in zip(got, want, strict=True):
        assert torch.equal(mine, theirs)


def test_moments_of_white_images_do_not_overflow(backend: Backend) -> None:
    M = 70_000  # more than one int32 sum of squares of 255 can hold
    images, labels = torch.full((M, 1, 1, 3), 255, dtype=torch.uint8), torch.zeros(M, dtype=torch.int64)
    got = backend("moments", images, labels, classes=1)
    assert got.count.tolist() == [M]
    assert got.sum.tolist() == [[M * 255] * 3]
    assert got.second.tolist() == [[M * 255 * 255] * 3] * 3


def test_moments_accumulate_block_by_block(backend: Backend) -> None:
    if backend.device != "cpu":
        pytest.skip("the accumulators of this test are in host memory")
    images, labels = torch.randint(0, 256, (50, 3, 4, 5), dtype=torch.uint8), torch.randint(0, 4, (50,))
    out = ops.Moments.zeros(4, 60)
    for begin in range(0, 50, 17):
        result = ops.moments(images[begin:][:17], labels[begin:][:17], classes=4, out=out, backend=backend.name)
        assert result is out
    for mine, theirs in zip(out, reference("moments", images, labels, classes=4), strict=True):
        assert torch.equal(mine, theirs)


GRAM_SHAPES = [(1, 1), (0, 5), (4, 0), (7, 13), (49, 64), (65, 192), (130, 771), (200, 16), (3, 4101)]


@pytest.mark.parametrize("shape", GRAM_SHAPES, ids=str)
def test_gram(backend: Backend, shape: tuple[int, int]) -> None:
    codes = torch.randint(-128, 128, shape, dtype=torch.int8)
    got, want = backend("gram", codes), reference("gram", codes)
    assert torch.equal(got, want)
    assert got.dtype == torch.int32


@pytest.mark.parametrize(("r", "n", "D"), [(1, 1, 1), (5, 200, 7), (200, 5, 64), (49, 50, 2050), (0, 3, 4), (3, 0, 4)])
def test_cross_gram(backend: Backend, r: int, n: int, D: int) -> None:
    left, right = (torch.randint(-128, 128, (rows, D), dtype=torch.int8) for rows in (r, n))
    if not backend.has("cross_gram"):
        pytest.skip(f"{backend.name} has no cross_gram")
    want = left.int() @ right.int().T
    assert torch.equal(reference("cross_gram", left, right), want)
    assert torch.equal(backend("cross_gram", left, right), want)
    out = torch.arange(r * n, dtype=torch.int32).view(r, n)
    assert torch.equal(backend("cross_gram", left, right, out=out.clone()), want + out)
    assert torch.equal(backend("cross_gram", left, left), reference("gram", left))


@pytest.mark.parametrize("D", [4096, 2**17 - 1])
def test_gram_of_the_largest_codes(backend: Backend, D: int) -> None:
    codes = torch.full((2, D), -128, dtype=torch.int8)
    codes[1, : D // 2] = 127
    small, large = D - D // 2, D // 2
    assert backend("gram", codes).tolist() == [
        [D * 128**2, small * 128**2 - large * 127 * 128],
        [small * 128**2 - large * 127 * 128, small * 128**2 + large * 127**2],
    ]


def test_gram_adds_piece_by_piece(backend: Backend) -> None:
    codes, out = torch.randint(-128, 128, (70, 90), dtype=torch.int8), torch.zeros(70, 70, dtype=torch.int32)
    for piece in torch.split(codes, 32, 1):
        backend("gram", piece.contiguous(), out=out)
    assert torch.equal(out, reference("gram", codes))


@pytest.mark.parametrize("P", [0, 1, 3, 4, 9])
@pytest.mark.parametrize("shape", [(0, 1, 2, 2), (1, 1, 1, 1), (19, 3, 5, 7), (3, 3, 32, 32), (5, 1, 41, 31)], ids=str)
def test_project(backend: Backend, P: int, shape: tuple[int, ...]) -> None:
    images, D = torch.randint(0, 256, shape, dtype=torch.uint8), math.prod(shape[1:])
    templates = torch.randn(P, D)
    got, want = backend("project", images, templates=templates), reference("project", images, templates=templates)
    close(got, want, TOLERANCE["project", F32])


@pytest.mark.parametrize("shape", [(1, 1), (0, 4), (7, 7), (9, 130), (3, 1100)], ids=str)
@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_sum_grams(backend: Backend, shape: tuple[int, int], count: int) -> None:
    grams = [torch.randint(-(2**29), 2**29, shape, dtype=torch.int32) for _ in range(count)]
    if not backend.has("sum_grams"):
        pytest.skip(f"{backend.name} has no sum_grams")
    for floor in (0, 12345, -(2**31), 2**31 - 1):
        kwargs = {"rows": torch.randint(0, shape[1], shape[:1]), "floor": floor}
        got, want = backend("sum_grams", grams, **kwargs), reference("sum_grams", grams, **kwargs)
        assert all(map(torch.equal, got, want))
    in_place = backend("sum_grams", grams, **kwargs, out=grams[-1])
    assert in_place.total is grams[-1]
    assert all(map(torch.equal, in_place, want))


def test_sum_grams_by_hand() -> None:
    grams = [torch.tensor([[9, 5], [2, 1]], dtype=torch.int32), torch.tensor([[9, -2], [2, 9]], dtype=torch.int32)]
    got = reference("sum_grams", grams, rows=torch.tensor([0, 1]), floor=2)
    assert [x.tolist() for x in got] == [[[18, 3], [4, 10]], [1, 2], [1, 1]]


@pytest.mark.parametrize("shape", [(0, 1, 2, 2), (1, 1, 1, 1), (3, 2, 5, 7), (2, 1, 33, 1), (3, 2, 5, 48)], ids=str)
def test_halve(backend: Backend, shape: tuple[int, ...]) -> None:
    images = torch.randint(0, 256, shape, dtype=torch.uint8)
    assert torch.equal(backend("halve", images), reference("halve", images))


# Pixels a side of a tile and images: one grid, four, none inside, tiles with one cell, with two, cells of one pixel; a
# tile that is the image, ragged or not; cells of one, three, four and five channels; more tiles than a block, none.
TILED = [
    (16, (5, 3, 32, 32)),
    (16, (3, 4, 30, 30)),
    (16, (2, 1, 41, 16)),
    (16, (70, 1, 7, 9)),
    (8, (2, 5, 9, 17)),
    (24, (2, 1, 24, 50)),
    (32, (2, 1, 32, 32)),
    (32, (3, 1, 28, 25)),
    (16, (0, 3, 16, 16)),
]


def tile_factors(images: Tensor, grid: ops.Grid) -> tuple[Tensor, Tensor]:
    """A covariance like that of smooth images, its factor, and means of the grid's tiles."""
    C, P = images.shape[1], grid.down * grid.across
    smooth = torch.linspace(0, 5, C * grid.height * grid.width, dtype=torch.float64)
    covariance = 900 * torch.exp(-(smooth[:, None] - smooth).abs()) + torch.eye(len(smooth)) / 12
    generator = torch.Generator().manual_seed(P)
    mean = torch.randn(P, len(smooth), dtype=torch.float64, generator=generator) * 20
    return torch.linalg.cholesky(covariance), mean


def weights_for(images: Tensor, tile: int) -> list[ops.TileWeights]:
    made = []
    for grid in ops.grids(*images.shape[2:], tile):
        factor, mean = tile_factors(images, grid)
        inverse = torch.linalg.inv(factor).tril().float()
        made.append(ops.tile_weights(inverse, mean, shape=(images.shape[1], grid.height, grid.width)))
    return made


@pytest.mark.parametrize(("tile", "shape"), TILED, ids=str)
def test_whiten(backend: Backend, tile: int, shape: tuple[int, ...]) -> None:
    """The same integers up to float32 on every backend: a code differs where its value lies between two, by one."""
    if not backend.has("whiten"):
        pytest.skip(f"{backend.name} has no whiten")
    images = torch.randint(0, 256, shape, dtype=torch.uint8)
    weights = weights_for(images, tile)
    got, want = (run("whiten", images, weights=weights, tile=tile) for run in (backend, reference))
    close(got.kept, want.kept, 1e-6)
    difference = (got.values.int() - want.values.int()).abs()
    assert difference.sum() <= 1e-4 * len(difference)
    assert shape[0] == 0 or (difference.max() <= 1 and got.values.max() > 10)


def test_whiten_fills_its_rows(backend: Backend) -> None:
    """Block by block, and nothing beside them."""
    if not backend.has("whiten"):
        pytest.skip(f"{backend.name} has no whiten")
    images = torch.randint(0, 256, (9, 3, 18, 20), dtype=torch.uint8)
    weights = weights_for(images, 16)
    want = backend("whiten", images, weights=weights)
    out = ops.Codes.empty(11, (3, 18, 20))
    out.values.fill_(99)
    out.kept.fill_(-1)
    for begin in (0, 4, 7):
        backend("whiten", images[begin : begin + 4], weights=weights, out=out, first=begin + 1)
    assert torch.equal(out.kept[:, 1:10], want.kept)
    assert (out.kept[:, [0, 10]] == -1).all()
    for unit in ops.units(3, 18, 20):
        rows = out.values[11 * unit.start :][: 11 * unit.size].view(11, -1)
        assert torch.equal(rows[1:10], want.values[9 * unit.start :][: 9 * unit.size].view(9, -1))
        assert (rows[[0, 10]] == 99).all()


@pytest.mark.parametrize(("tile", "H", "W"), [(16, 21, 16), (24, 24, 24)])
def test_whitened_images_are_white(tile: int, H: int, W: int) -> None:
    """Against float64, gathered by hand: to the rounding of codes and a hundredth of a standard deviation."""
    images = torch.randint(0, 256, (4, 3, H, W), dtype=torch.uint8)
    codes = ops.whiten(images, weights=weights_for(images, tile), tile=tile, backend="cpu")
    centred = images.double() - images.double().mean((2, 3), keepdim=True)
    placed = [(unit, cell) for unit in ops.units(3, H, W, tile) for cell in unit.cells]
    for grid in ops.grids(H, W, tile):
        factor, mean = tile_factors(images, grid)
        inside = [(n, unit, cell) for n, (unit, cell) in enumerate(placed) if cell.top // tile * tile == grid.top]
        parts = [centred[:, :, c.top : c.top + c.height, c.left : c.left + c.width].flatten(1) for _, _, c in inside]
        white = torch.linalg.solve_triangular(factor, torch.cat(parts, 1).T - mean.T, upper=False).T
        for (n, unit, cell), y in zip(inside, torch.split(white, [part.shape[1] for part in parts], 1), strict=True):
            kept = (1 + y.square().mean(1, keepdim=True)).rsqrt()
            got = codes.values[4 * unit.start :][: 4 * unit.size].view(4, -1)[:, cell.start - unit.start :]
            assert (got[:, : y.shape[1]] - 12 * kept * y).abs().max() < 0.5 + 12 * 0.01
            torch.testing.assert_close(codes.kept[n].double(), kept[:, 0], rtol=1e-3, atol=0)


@pytest.mark.parametrize("d", [3, 12, 300])
def test_tile_weights(d: int) -> None:
    """Rows are as near as 16 bits allow, whatever they sum to; what means add is that of the rounded rows."""
    inverse, mean = torch.randn(d, d).tril(), torch.randn(2, d, dtype=torch.float64)
    inverse[-1] = 100.0  # a row without a large value of its own
    rows, scale, channel, offset = ops.tile_weights(inverse, mean, shape=(3, 1, d // 3))
    assert (rows.long().abs().sum(1) * 255 < 2**31).all()
    assert not rows.triu(1).any()
    rounded = rows.double() * scale.double()[:, None]
    assert ((rounded - inverse).abs() <= 0.501 * scale[:, None]).all()
    close(offset.double(), mean @ rounded.T, 1e-6)
    channels = channel_of(3, 1, d // 3)
    close(channel.double(), torch.stack([rounded[:, channels == c].sum(1) for c in range(3)]), 1e-6)


@pytest.mark.parametrize(("tile", "shape"), TILED, ids=str)
def test_cut_tiles(backend: Backend, tile: int, shape: tuple[int, ...]) -> None:
    images = torch.randint(0, 256, shape, dtype=torch.uint8)
    for grid in ops.grids(*shape[2:], tile):
        chosen = torch.randint(0, grid.down * grid.across, (shape[0], 3))
        for kwargs in ({"grid": grid}, {"grid": grid, "chosen": chosen}):
            assert torch.equal(backend("cut_tiles", images, **kwargs), reference("cut_tiles", images, **kwargs))
    assert torch.equal(backend("channel_sums", images), reference("channel_sums", images))


@pytest.mark.parametrize(("tile", "shape"), TILED, ids=str)
def test_tile_moments(backend: Backend, tile: int, shape: tuple[int, ...]) -> None:
    images, group = torch.randint(0, 256, shape, dtype=torch.uint8), torch.randint(0, 2, shape[:1])
    if backend.name == "triton" and shape[1] * tile**2 > 600 and INTERPRETED:
        pytest.skip("Triton's interpreter takes too long")
    for grid in ops.grids(*shape[2:], tile):
        tiles, sums = ops.cut_tiles(images, grid=grid), ops.channel_sums(images)
        sides = (shape[1], grid.height, grid.width)
        kwargs = {"groups": 3, "sums": sums, "area": shape[2] * shape[3], "shape": sides}
        got, want = backend("tile_moments", tiles, group, **kwargs), reference("tile_moments", tiles, group, **kwargs)
        assert torch.equal(got.count, want.count)
        torch.testing.assert_close(got.second, want.second, rtol=1e-12, atol=1e-6)


def test_tiles_by_hand() -> None:
    assert ops.grids(40, 16) == [ops.Grid(0, 0, 2, 1, 16, 16, 16), ops.Grid(32, 0, 1, 1, 8, 16, 16)]
    assert ops.grids(10, 20) == [ops.Grid(0, 0, 1, 1, 10, 16, 16), ops.Grid(0, 16, 1, 1, 10, 4, 16)]
    assert ops.grids(28, 28, 32) == [ops.Grid(0, 0, 1, 1, 28, 28, 32)]
    assert [(unit.start, unit.size) for unit in ops.units(2, 10, 20)] == [(0, 320), (320, 80)]
    assert [tuple(cell) for unit in ops.units(2, 10, 20) for cell in unit.cells] == [
        (0, 0, 8, 8, 0),
        (0, 8, 8, 8, 128),
        (8, 0, 2, 8, 256),
        (8, 8, 2, 8, 288),
        (0, 16, 8, 4, 320),
        (8, 16, 2, 4, 384),
    ]
    first, second, third = ops.units(1, 17, 25, 32)[:3]
    assert [cell[:2] for cell in second.cells] == [(0, 16), (0, 24), (8, 16), (8, 24)]
    assert [unit.start for unit in (first, second, third)] == [0, 256, 400]


def test_cells_by_hand() -> None:
    """A row of three cells of one channel: bytes that count the pixels."""
    image = torch.arange(24, dtype=torch.uint8).repeat(2, 1).view(1, 1, 2, 24)
    wide, narrow = ops.grids(2, 24)
    assert reference("cut_tiles", image, grid=wide).tolist() == [[[*range(8)] * 2 + [*range(8, 16)] * 2]]
    assert reference("cut_tiles", image, grid=narrow).tolist() == [[[*range(16, 24)] * 2]]


def test_halve_by_hand() -> None:
    image = torch.tensor([[1, 2, 5], [3, 3, 6], [7, 8, 9]], dtype=torch.uint8).view(1, 1, 3, 3)
    assert reference("halve", image)[0, 0].tolist() == [[2, 6], [8, 9]]


def test_same_bits_on_any_number_of_threads(backend: Backend) -> None:
    p = problem(40, 5, 7, 3, 9, 31)
    images, D = p.pop("images"), 3 * 9 * 31
    inputs = {"mean": torch.rand(3)}
    grad, logits = torch.randn(35, 3, 9, 31), torch.randn(35, 10)
    labels, templates = torch.randint(0, 4, (40,)), torch.randn(3, D)
    codes = torch.randint(-128, 128, (500, 70), dtype=torch.int8)
    weight, target = torch.rand(5, 7), torch.randint(0, 10, (5,))

    def everything() -> list[Tensor]:
        pattern, momentum = p["pattern"].clone(), torch.zeros_like(p["pattern"])
        kwargs = {**p, "images": images, "pattern": pattern, "momentum": momentum, "active": torch.ones(5).bool()}
        return [
            backend("apply_pattern", images, **p, **inputs),
            *backend("loss_head", logits, target=target, sign=p["sign"], weight=weight),
            backend("update_pattern", grad, **kwargs, **UPDATE),
            pattern,
            momentum,
            *backend("moments", images, labels, classes=4),
            backend("project", images, templates=templates),
            backend("gram", codes),
        ]

    def for_tiles() -> list[Tensor]:
        tiles, sums = (backend("cut_tiles", images, grid=ops.grids(9, 31)[0]), backend("channel_sums", images))
        kwargs = {"groups": 3, "sums": sums, "area": 279, "shape": (3, 9, 16)}
        return [
            backend("halve", images),
            backend("cross_gram", codes[:300], codes),
            *backend("sum_grams", [gram, gram], rows=torch.arange(500), floor=99),
            *backend("whiten", images, weights=tile_weights),
            *(tiles, sums),
            *backend("tile_moments", tiles, torch.arange(40) % 3, **kwargs),
        ]

    tile_weights, gram = weights_for(images, 16), reference("gram", codes)

    if not all(map(backend.has, ("apply_pattern", "loss_head", "update_pattern", "moments", "project", "gram"))):
        pytest.skip(f"{backend.name} lacks some ops")
    results = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        results.append(everything() + (for_tiles() if backend.name == "cpu" else []))
    for first, other in itertools.pairwise(results):
        assert all(itertools.starmap(torch.equal, zip(first, other, strict=True)))


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize("channels", [3, 5])
def test_one_target_is_the_same_on_any_number_of_threads(backend: Backend, layout: str, channels: int) -> None:
    """A single pattern, larger than one thread's share, is cut finer the more threads there are."""
    if backend.name != "cpu":
        pytest.skip("threads are the CPU's")
    p = problem(6, 1, 7, channels, 40, 41)
    format = torch.contiguous_format if layout == "nchw" else torch.channels_last
    grad = torch.randn(7, channels, 40, 41).contiguous(memory_format=format)
    results = []
    for threads in (1, 2, 5):
        torch.set_num_threads(threads)
        pattern, momentum = p["pattern"].clone(), torch.zeros_like(p["pattern"])
        kwargs = {**p, "pattern": pattern, "momentum": momentum, "active": torch.ones(1).bool()}
        results.append([backend("update_pattern", grad, **kwargs, **UPDATE), pattern, momentum])
    want = p["pattern"].clone()
    reference("update_pattern", grad, **{**kwargs, "pattern": want, "momentum": torch.zeros_like(want)}, **UPDATE)
    close(results[0][1], want, TOLERANCE["update_pattern", F32])
    for other in results[1:]:
        assert all(map(torch.equal, results[0], other))


# ---- the reference itself


@pytest.mark.parametrize(
    ("byte", "sign", "v", "answer"),
    [
        (0, 0, 0.5, -1.0),  # (0 - 0.5) / 0.5
        (255, 0, 0.5, 1.0),
        (51, 1, 0.25, -0.1),  # 0.2 + 0.25
        (51, -1, 0.25, -1.0),  # 0.2 - 0.25, clipped
        (204, 1, 0.25, 1.0),  # 0.8 + 0.25, clipped
        (204, -1, 0.25, 0.1),
        (204, 1, -0.25, 0.1),
    ],
)
def test_apply_pattern_by_hand(byte: int, sign: int, v: float, answer: float) -> None:
    got = reference(
        "apply_pattern",
        torch.tensor([byte], dtype=torch.uint8).view(1, 1, 1, 1),
        index=torch.zeros(1, 1, dtype=torch.int64),
        sign=torch.tensor([[sign]], dtype=torch.int8),
        pattern=torch.tensor([v]).view(1, 1, 1, 1),
        mean=torch.tensor([0.5]),
        std=torch.tensor([0.5]),
    )
    assert got.item() == pytest.approx(answer, abs=1e-6)


LN2 = math.log(2)


@pytest.mark.parametrize(
    ("logits", "target", "sign", "loss", "grad", "success"),
    [
        ([0, 0], 0, 1, LN2, [-0.5, 0.5], True),
        ([0, 0], 1, 1, LN2, [0.5, -0.5], False),
        ([0, 0], 1, 0, LN2, [0.5, -0.5], False),  # sign 0 counts as an addition
        ([0, 0], 0, -1, LN2, [0.5, -0.5], False),
        ([0, 0], 1, -1, LN2, [-0.5, 0.5], True),
        ([LN2, 0, 0], 0, 1, LN2, [-0.5, 0.25, 0.25], True),
        ([LN2, 0, 0], 0, -1, LN2, [0.5, -0.25, -0.25], False),
        ([1e4, -1e4], 0, 1, 0, [0, 0], True),
        ([1e4, -1e4], 1, 1, 2e4, [1, -1], False),
        ([1e4, -1e4], 0, -1, 2e4, [1, -1], False),
        ([1e4, -1e4], 1, -1, 0, [0, 0], True),
    ],
)
def test_loss_head_by_hand(
    logits: list[float], target: int, sign: int, loss: float, grad: list[float], success: bool
) -> None:
    got = reference(
        "loss_head",
        torch.tensor([logits], dtype=F32),
        target=torch.tensor([target]),
        sign=torch.tensor([[sign]], dtype=torch.int8),
        weight=torch.full((1, 1), 2.0),
    )
    assert got.loss.item() == pytest.approx(loss, abs=1e-6)
    assert got.grad[0].tolist() == pytest.approx([2 * g for g in grad], abs=1e-6)
    assert got.success.item() is success


def test_loss_head_against_autograd() -> None:
    T, N, K = 3, 5, 7
    logits = (torch.randn(T * N, K) * 4).requires_grad_()
    target, weight = torch.randint(0, K, (T,)), torch.rand(T, N)
    sign = torch.randint(-1, 2, (T, N), dtype=torch.int8)
    p = logits.double().softmax(1).view(T, N, K).gather(2, target.view(T, 1, 1).expand(T, N, 1)).squeeze(2)
    loss = torch.where(sign >= 0, -p.log(), -(1 - p).log())
    (grad,) = torch.autograd.grad((weight * loss).sum(), logits)
    got = reference("loss_head", logits.detach(), target=target, sign=sign, weight=weight)
    close(got.loss, loss.detach().float(), 1e-5)
    close(got.grad, grad, 1e-5)


def test_update_follows_the_gradient_of_apply() -> None:
    """With no momentum yet, the first move is along autograd's gradient through apply_pattern's own clip."""
    p = problem(6, 3, 4, 3, 5, 7)
    images, mean = p["images"], torch.rand(3)
    cotangent = torch.randn(12, 3, 5, 7)
    v = p["pattern"].clone().requires_grad_()
    x = (images[p["index"]] / 255 + p["sign"].view(3, 4, 1, 1, 1) * v[:, None]).clamp(0, 1)
    y = ((x - mean.view(3, 1, 1)) / p["std"].view(3, 1, 1)).flatten(0, 1)
    close(reference("apply_pattern", images, **{k: p[k] for k in p if k != "images"}, mean=mean), y.detach(), 1e-6)
    (g,) = torch.autograd.grad((y * cotangent).sum(), v)

    momentum = torch.zeros(3, 3, 5, 7)
    kwargs = {"active": torch.ones(3).bool(), "step": 0.1, "decay": 0.5, "bound": 10.0}
    before = p["pattern"].clone()
    reference("update_pattern", cotangent, **p, momentum=momentum, **kwargs)
    unit = g / g.flatten(1).norm(dim=1).view(3, 1, 1, 1)
    close(momentum, unit, 1e-6)
    close(p["pattern"], before - 0.1 * unit, 1e-6)


def test_moments_by_hand() -> None:
    images = torch.tensor([[1, 2], [3, 4], [255, 0]], dtype=torch.uint8).view(3, 1, 1, 2)
    got = reference("moments", images, torch.tensor([2, 0, 2]), classes=3)
    assert got.count.tolist() == [1, 0, 2]
    assert got.sum.tolist() == [[3, 4], [0, 0], [256, 2]]
    assert got.second.tolist() == [[65035, 14], [14, 20]]


def test_gram_by_hand() -> None:
    codes = torch.tensor([[1, -2], [3, 4], [-128, 127]], dtype=torch.int8)
    assert reference("gram", codes).tolist() == [[5, -5, -382], [-5, 25, 124], [-382, 124, 32513]]


def test_project_by_hand() -> None:
    images = torch.tensor([[255, 0], [51, 102]], dtype=torch.uint8).view(2, 1, 1, 2)
    got = reference("project", images, templates=torch.tensor([[1.0, 1.0], [0.0, 5.0], [-1.0, 2.0]]))
    close(got, torch.tensor([[1.0, 0.0, -1.0], [0.6, 2.0, 0.6]]), 1e-6)


# ---- which backend


def test_the_compiled_backend_is_there() -> None:
    assert ops.unavailable("cpu") is None
    assert ops.resolve("auto") == "cpu"
    assert ops.resolve("reference") == "reference"


def test_the_triton_backend_is_there() -> None:
    pytest.importorskip("triton")
    assert "triton" in BACKENDS


def test_auto_takes_the_next_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    from bre.ops import cpu

    monkeypatch.setattr(cpu.native, "extension", None)
    monkeypatch.setattr(cpu, "_missing", "No module named 'bre._core'", raising=False)
    assert ops.resolve("auto") == "reference"
    reason = ops.unavailable("cpu")
    assert reason is not None
    assert "pip install" in reason
