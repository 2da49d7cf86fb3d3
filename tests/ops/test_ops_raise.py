"""Bad inputs at the door of every op: InputError that names the argument, what was expected and what came."""

from __future__ import annotations

import math
import types
from collections.abc import Callable
from typing import Any

import pytest
import torch

from bre import _core, ops
from bre.errors import BackendUnavailable, BreError, InputError
from bre.ops import cuda

M, T, N, K, C, H, W = 4, 2, 3, 5, 3, 4, 6
D = C * H * W


(GRID,) = ops.grids(H, W)
WEIGHTS = ops.tile_weights(torch.eye(D), torch.zeros(1, D, dtype=torch.float64), shape=(C, H, W))


def good(op: str) -> dict[str, Any]:
    """Valid arguments, positional ones under their own names."""
    images = torch.zeros(M, C, H, W, dtype=torch.uint8)
    rows = {
        "index": torch.zeros(T, N, dtype=torch.int64),
        "sign": torch.ones(T, N, dtype=torch.int8),
        "pattern": torch.zeros(T, C, H, W),
        "std": torch.ones(C),
    }
    return {
        "apply_pattern": {"images": images, **rows, "mean": torch.zeros(C)},
        "loss_head": {
            "logits": torch.zeros(T * N, K),
            "target": torch.zeros(T, dtype=torch.int64),
            "sign": rows["sign"],
            "weight": torch.ones(T, N),
        },
        "update_pattern": {
            "grad": torch.zeros(T * N, C, H, W),
            "images": images,
            **rows,
            "momentum": torch.zeros(T, C, H, W),
            "active": torch.ones(T, dtype=torch.bool),
            "step": 0.1,
            "decay": 0.5,
            "bound": 1.0,
        },
        "moments": {"images": images, "labels": torch.zeros(M, dtype=torch.int64), "classes": K},
        "gram": {"codes": torch.zeros(N, D, dtype=torch.int8), "out": torch.zeros(N, N, dtype=torch.int32)},
        "halve": {"images": images},
        "cross_gram": {"left": torch.zeros(N, D, dtype=torch.int8), "right": torch.zeros(M, D, dtype=torch.int8)},
        "sum_grams": {
            "grams": [torch.zeros(M, D, dtype=torch.int32)] * 2,
            "rows": torch.zeros(M, dtype=torch.int64),
            "floor": 3,
            "out": torch.zeros(M, D, dtype=torch.int32),
        },
        "channel_sums": {"images": images},
        "cut_tiles": {"images": images, "grid": GRID, "chosen": torch.zeros(M, 1, dtype=torch.int64)},
        "tile_moments": {
            "tiles": torch.zeros(M, 2, D, dtype=torch.uint8),
            "group": torch.zeros(M, dtype=torch.int64),
            "groups": K,
            "sums": torch.zeros(M, C, dtype=torch.int64),
            "area": H * W,
            "shape": (C, H, W),
        },
        "whiten": {"images": images, "weights": [WEIGHTS]},
        "project": {"images": images, "templates": torch.zeros(2, D)},
    }[op]


def call(op: str, kwargs: dict[str, Any]) -> Any:
    return getattr(ops, op)(**kwargs)


OPS = [
    "apply_pattern",
    "loss_head",
    "update_pattern",
    "moments",
    "gram",
    "cross_gram",
    "halve",
    "channel_sums",
    "sum_grams",
    "cut_tiles",
    "tile_moments",
    "whiten",
    "project",
]

SPOILS: dict[str, tuple[Callable[[torch.Tensor], Any], str]] = {
    "array": (lambda x: x.numpy(), r"expected a torch\.Tensor, got ndarray"),
    "dtype": (lambda x: x.to(torch.complex64), "expected .*, got complex64"),
    "rank": (lambda x: x[None], "expected shape .*, got"),
    "size": (lambda x: torch.cat([x, x], -1).contiguous(), "expected shape .*, got"),
    "strides": (lambda x: torch.stack([x, x], -1)[..., 0], "expected a contiguous .*tensor, got strides"),
    "device": (lambda x: x.to("meta"), "expected a tensor on (cpu, got one on meta|meta, got one on cpu)"),
}
ANY_SIZE = {  # K, D, n and R are whatever these say
    ("loss_head", "logits"),
    ("moments", "images"),
    ("gram", "codes"),
    ("cross_gram", "left"),
    ("halve", "images"),
    ("channel_sums", "images"),
    ("cut_tiles", "images"),
    ("cut_tiles", "chosen"),
}
CASES = [
    pytest.param(op, name, spoil, id=f"{op}-{name}-{spoil}")
    for op in OPS
    for name, value in good(op).items()
    for spoil in SPOILS
    if isinstance(value, torch.Tensor)
    and not (spoil == "size" and (op, name) in ANY_SIZE)
    and not (spoil == "device" and op in ("halve", "channel_sums", "whiten"))  # of one tensor
]


@pytest.mark.parametrize("op", OPS)
def test_the_good_arguments_are_good(op: str) -> None:
    call(op, good(op))


@pytest.mark.parametrize(("op", "name", "spoil"), CASES)
def test_bad_tensor(op: str, name: str, spoil: str) -> None:
    arguments = good(op)
    change, says = SPOILS[spoil]
    arguments[name] = change(arguments[name])
    with pytest.raises(InputError, match=says):
        call(op, arguments)


@pytest.mark.parametrize(
    ("op", "name", "value", "says"),
    [
        (
            "apply_pattern",
            "index",
            torch.full((T, N), M),
            r"index: expected values in \[0, 3\], got values in \[4, 4\]",
        ),
        ("apply_pattern", "index", torch.full((T, N), -1), r"index: expected values in \[0, 3\]"),
        ("apply_pattern", "images", torch.zeros(0, C, H, W, dtype=torch.uint8), r"index: expected values in \[0, -1\]"),
        ("apply_pattern", "sign", torch.full((T, N), 2, dtype=torch.int8), r"sign: expected values in \[-1, 1\]"),
        ("apply_pattern", "layout", "hwc", "layout: expected 'nchw' or 'nhwc', got 'hwc'"),
        ("apply_pattern", "dtype", torch.float64, "dtype: expected torch.float32 or torch.bfloat16 or torch.float16"),
        ("apply_pattern", "out", torch.zeros(T * N, C, H, W + 1), r"out: expected shape \(6, 3, 4, 6\)"),
        ("apply_pattern", "out", torch.zeros(T * N, C, H, W, dtype=torch.bfloat16), "out: expected float32"),
        ("apply_pattern", "out", torch.zeros(T * N, H, W, C).permute(0, 3, 1, 2), "out: expected nchw memory"),
        ("loss_head", "target", torch.full((T,), K), r"target: expected values in \[0, 4\]"),
        ("loss_head", "logits", torch.zeros(T * N, 1), "at least K = 2 classes, got 1"),
        ("update_pattern", "grad", torch.zeros(T * N, C, W, H).transpose(2, 3), "contiguous or channels_last"),
        ("update_pattern", "step", -0.1, "step: expected a length >= 0, got -0.1"),
        ("update_pattern", "step", float("nan"), "step: .* got nan"),
        ("update_pattern", "decay", 1.0, r"decay: expected a number in \[0, 1\), got 1.0"),
        ("update_pattern", "bound", 0.0, "bound: expected a magnitude > 0, got 0.0"),
        ("moments", "labels", torch.full((M,), K), r"labels: expected values in \[0, 4\], got values in \[5, 5\]"),
        ("moments", "classes", 0, "classes: expected K >= 1, got 0"),
        ("gram", "codes", torch.zeros(N, 2**17, dtype=torch.int8), "codes: expected at most 131071 columns"),
        (
            "cross_gram",
            "left",
            torch.zeros(N, D + 1, dtype=torch.int8),
            r"right: expected shape \(n, 73\), got \(4, 72\)",
        ),
        ("cross_gram", "out", torch.zeros(M, N, dtype=torch.int32), r"out: expected shape \(3, 4\), got \(4, 3\)"),
        ("gram", "out", torch.zeros(N, N, dtype=torch.int64), "out: expected int32, got int64"),
        ("tile_moments", "group", torch.full((M,), K), r"group: expected values in \[0, 4\], got values in \[5, 5\]"),
        ("tile_moments", "groups", 0, "groups: expected G >= 1, got 0"),
        ("tile_moments", "area", 2**20 + 1, r"area: expected 1 to 2\*\*20 pixels, got 1048577"),
        ("tile_moments", "shape", (C, H, W + 1), r"tiles: expected shape \(M, Q, 84\), got \(4, 2, 72\)"),
        (
            "cut_tiles",
            "grid",
            GRID._replace(width=5),
            r"grid: expected one of \[Grid\(.*width=6, step=16\)\], got Grid",
        ),
        (
            "cut_tiles",
            "chosen",
            torch.ones(M, 1).long(),
            r"chosen: expected values in \[0, 0\], got values in \[1, 1\]",
        ),
        ("whiten", "weights", [], "weights: expected those of 1 grids, got 0"),
        (
            "whiten",
            "weights",
            [WEIGHTS._replace(scale=torch.ones(3))],
            r"weights.scale: expected shape \(72\), got \(3,\)",
        ),
        ("whiten", "weights", [WEIGHTS._replace(rows=torch.eye(D))], "weights.rows: expected int16, got float32"),
        ("sum_grams", "grams", [], "grams: expected 1 to 4 matrices, got 0"),
        ("sum_grams", "grams", [torch.zeros(M, D)], "grams: expected int32, got float32"),
        ("sum_grams", "rows", torch.full((M,), D), r"rows: expected values in \[0, 71\], got values in \[72, 72\]"),
        ("sum_grams", "floor", 2**31, "floor: expected a number of 32 bits, got 2147483648"),
        ("whiten", "tile", 20, "tile: expected a multiple of 8 up to 32, got 20"),
        ("whiten", "tile", 40, "tile: expected a multiple of 8 up to 32, got 40"),
        ("whiten", "out", ops.Codes.empty(2, (C, H, W)), "first: expected a place for 4 images among 2, got 0"),
        (
            "whiten",
            "out",
            ops.Codes.empty(4, (C, H, W))._replace(kept=torch.ones(2, 4)),
            r"kept: expected shape \(1, 4\)",
        ),
        ("moments", "out", ops.Moments.zeros(K, D + 1), r"out.sum: expected shape \(5, 72\), got \(5, 73\)"),
        ("moments", "out", ops.Moments.zeros(K + 1, D), r"out.count: expected shape \(5\)"),
    ],
)
def test_bad_value(op: str, name: str, value: Any, says: str) -> None:
    with pytest.raises(InputError, match=says):
        call(op, {**good(op), name: value})


@pytest.mark.parametrize("op", OPS)
def test_unknown_backend(op: str) -> None:
    with pytest.raises(InputError, match=r"backend: expected 'auto' or one of 'reference', .*, got 'gpu'"):
        call(op, {**good(op), "backend": "gpu"})


@pytest.mark.parametrize("op", OPS)
def test_unusable_backend_says_why(op: str) -> None:
    reason = ops.unavailable("cuda", "cpu")
    assert reason
    with pytest.raises(BackendUnavailable, match="backend 'cuda' cannot be used: "):
        call(op, {**good(op), "backend": "cuda"})


def test_errors_are_ours_and_pythons() -> None:
    assert issubclass(InputError, BreError)
    assert issubclass(InputError, ValueError)
    assert issubclass(BackendUnavailable, RuntimeError)


def test_unknown_instruction_set() -> None:
    with pytest.raises(ValueError, match="no instruction set is called sse9"):
        _core.use_isa("sse9")


@pytest.mark.parametrize("shape", [(2, 0, 4, 4), (2, 3, 0, 4), (2, 3, 4, 0)])
def test_images_of_nothing(shape):
    images, D = torch.zeros(shape, dtype=torch.uint8), math.prod(shape[1:])
    index, sign = torch.zeros(1, 1, dtype=torch.int64), torch.ones(1, 1, dtype=torch.int8)
    pattern, channels = torch.zeros(1, *shape[1:]), torch.ones(shape[1])
    calls = {
        "apply_pattern": lambda: ops.apply_pattern(
            images, index=index, sign=sign, pattern=pattern, mean=channels, std=channels, layout="nhwc"
        ),
        "update_pattern": lambda: ops.update_pattern(
            pattern,
            images=images,
            index=index,
            sign=sign,
            pattern=pattern,
            momentum=pattern.clone(),
            active=torch.ones(1, dtype=torch.bool),
            std=channels,
            step=0.1,
            decay=0.5,
            bound=1.0,
        ),
        "moments": lambda: ops.moments(images, torch.zeros(2, dtype=torch.int64), classes=1),
        "project": lambda: ops.project(images, templates=torch.zeros(1, D)),
    }
    for call in calls.values():
        with pytest.raises(InputError, match="images: expected at least one channel and one pixel, got shape"):
            call()


@pytest.mark.parametrize(
    ("made", "capability", "fits"),
    [
        ("80-real 90-real 100", 80, True),
        ("80-real 90-real 100", 86, True),
        ("80-real 90-real 100", 120, True),
        ("90", 80, False),
        ("90", 100, True),
        ("90-real", 100, False),
        ("90-virtual", 90, True),
        ("86-real", 80, False),
        ("native", 80, True),
        ("90a-real", 80, True),
    ],
)
def test_what_the_cuda_kernels_were_compiled_for(monkeypatch, made, capability, fits):
    monkeypatch.setattr(
        cuda.native,
        "extension",
        types.SimpleNamespace(architectures=made, device_count=lambda: 1, capability=lambda ordinal: capability),
    )
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    reason = cuda.unavailable(torch.device("cuda", 0))
    assert (reason is None) == fits
    if not fits:
        assert reason == f"cuda:0 is of capability sm_{capability}, this build's kernels are for {made}"


def test_the_reference_is_float32_under_autocast():
    images, templates = torch.randint(0, 256, (3, 3, 8, 8), dtype=torch.uint8), torch.randn(2, 192)
    plain = ops.project(images, templates=templates, backend="reference")
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(ops.project(images, templates=templates, backend="reference"), plain)
