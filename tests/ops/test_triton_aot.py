"""The Triton backend without a GPU: its launches compiled for GPUs that are not there, and its reasons to refuse.

Run as a script with an architecture, this file calls every op of the backend on tensors of the meta device (which have
shapes but no values, so that a launcher that waited for one would raise), compiles what it launches, and prints what
came out as JSON. The tests run it so, because in their own process the kernels are interpreted.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bre import ops
from bre.ops import triton as backend

pytest.importorskip("triton")

SHARED_LIMIT = 99 * 1024  # bytes per program that every GPU from sm_80 on has; an A100 has 163 KB, an H100 227 KB
# Registers per thread, at most: what was measured, rounded up to the next multiple of 8, the hardware's step.
REGISTERS = {
    "apply_pattern": 96,
    "loss_head": 80,
    "sum_gradient": 112,
    "descend": 40,
    "project": 128,
    "sum_classes": 64,
    "second_moment": 168,
    "gram": 184,
    "halve": 96,
    "channel_sums": 32,
    "cut_tiles": 40,
    "sum_grams": 48,
    "whiten": 232,
}
F32, BF16, F16 = torch.float32, torch.bfloat16, torch.float16
SHAPES = {"imagenet": (3, 224, 224), "odd": (3, 19, 29)}
TILED = {**SHAPES, "grey": (1, 64, 64)}  # of images that are cut into tiles
FORMATS = [("nchw", F32), ("nhwc", BF16), ("nchw", BF16), ("nhwc", F32), ("nchw", F16), ("nhwc", F16)]
T, N, M = 100, 60, 5000


def launch_every_op(case: Callable[[str], None]) -> None:
    """Calls of production size, each announced by its name. N is not a multiple of anything a kernel would like."""

    def meta(*shape: int, dtype: torch.dtype = F32) -> torch.Tensor:
        return torch.empty(shape, dtype=dtype, device="meta")

    rows = {"index": meta(T, N, dtype=torch.int64), "sign": meta(T, N, dtype=torch.int8)}
    for name, (C, H, W) in SHAPES.items():
        images = meta(M, C, H, W, dtype=torch.uint8)
        for layout, dtype in FORMATS if name == "imagenet" else FORMATS[:2]:
            p = {**rows, "pattern": meta(T, C, H, W), "std": meta(C)}
            x = meta(T * N, C, H, W, dtype=dtype)
            if layout == "nhwc":
                x = x.contiguous(memory_format=torch.channels_last)
            case(f"apply {name} {layout} {dtype}")
            backend.apply_pattern(images, **p, mean=meta(C), layout=layout, out=x)
            p |= {"momentum": meta(T, C, H, W), "active": meta(T, dtype=torch.bool)}
            case(f"update {name} {layout} {dtype}")
            backend.update_pattern(x, images=images, **p, step=0.1, decay=0.5, bound=1.0)

    for K in (10, 1000, 22_000):
        for dtype in (F32, BF16, F16):
            case(f"loss {K} {dtype}")
            backend.loss_head(
                meta(T * N, K, dtype=dtype), target=meta(T, dtype=torch.int64), sign=rows["sign"], weight=meta(T, N)
            )

    for D in (9, 3072):
        images, K = meta(M, 1, 1, D, dtype=torch.uint8), 10
        case(f"moments {D}")
        out = ops.Moments.zeros(K, D, "meta")
        backend.moments(images, meta(M, dtype=torch.int64), classes=K, out=out)
        for P in (1, 4):
            case(f"project {P} {D}")
            backend.project(images, templates=meta(P, D))
        case(f"gram {D}")
        backend.gram(meta(M, D, dtype=torch.int8), out=meta(M, M, dtype=torch.int32))
        case(f"cross_gram {D}")
        codes = meta(600, D, dtype=torch.int8), meta(M, D, dtype=torch.int8)
        backend.cross_gram(*codes, out=meta(600, M, dtype=torch.int32))
    launch_tile_ops(case, meta)


def launch_tile_ops(case: Callable[[str], None], meta: Callable[..., torch.Tensor]) -> None:
    for count in (1, 4):
        case(f"sum_grams {count}")
        grams = [meta(600, M, dtype=torch.int32) for _ in range(count)]
        backend.sum_grams(grams, rows=meta(600, dtype=torch.int64), floor=99, out=meta(600, M, dtype=torch.int32))
    for name, (C, H, W) in TILED.items():
        images, sums = meta(60, C, H, W, dtype=torch.uint8), meta(60, C, dtype=torch.int64)
        case(f"halve {name}")
        backend.halve(images, out=meta(60, C, -(-H // 2), -(-W // 2), dtype=torch.uint8))
        case(f"channel_sums {name}")
        backend.channel_sums(images, out=sums)
        grid = ops.grids(H, W)[0]
        d = C * grid.height * grid.width
        tiles, chosen = meta(60, 9, d, dtype=torch.uint8), meta(60, 9, dtype=torch.int64)
        case(f"cut_tiles {name}")
        backend.cut_tiles(images, grid=grid, chosen=chosen, out=tiles)
        case(f"tile_moments {name}")
        sides = (C, grid.height, grid.width)
        backend.tile_moments(tiles, meta(60, dtype=torch.int64), groups=1, sums=sums, area=H * W, shape=sides)
        weights = [
            ops.TileWeights(meta(n, n, dtype=torch.int16), meta(n), meta(C, n), meta(each.down * each.across, n))
            for each in ops.grids(H, W)
            for n in (C * each.height * each.width,)
        ]
        case(f"whiten {name}")
        backend.whiten(images, weights=weights, tile=16, out=ops.Codes.empty(70, (C, H, W), 16, "meta"), first=3)


def compile_for(arch: int) -> list[dict[str, Any]]:
    """What `launch_every_op` launches on an sm_<arch>: per launch its case, kernel, grid and what the compiler made."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.runtime.driver import driver

    class Device:
        """All that Triton asks about a device before it launches on it."""

        def get_current_target(self) -> GPUTarget:
            return GPUTarget("cuda", arch, 32)

        def get_current_device(self) -> int:
            return 0

        def get_current_stream(self, device: int) -> int:
            return 0

    launches: list[dict[str, Any]] = []
    current = ""

    def case(name: str) -> None:
        nonlocal current
        current = name

    launch = triton.JITFunction.run

    def compile_only(kernel: Any, *args: Any, grid: tuple[int, ...], warmup: bool, **options: Any) -> None:
        compiled = launch(kernel, *args, grid=grid, warmup=True, **options)
        facts = {
            "case": current,
            "kernel": kernel.__name__,
            "grid": grid,
            "threads": 32 * compiled.metadata.num_warps,
            "dynamic": compiled.metadata.shared,
            "numbers": [x.numel() for x in args if isinstance(x, torch.Tensor)],
            "ptx": instructions(compiled.asm["ptx"]),
        }
        launches.append({**facts, **resources(compiled.asm["cubin"])})

    driver.set_active(Device())
    triton.JITFunction.run = compile_only
    launch_every_op(case)
    return launches


def resources(cubin: bytes) -> dict[str, int]:
    """Registers per thread; bytes of stack and local memory, which hold what registers could not; static shared."""
    import triton

    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        tool = [triton.knobs.nvidia.cuobjdump.path, "--dump-resource-usage", file.name]
        text = subprocess.run(tool, capture_output=True, text=True, check=True).stdout
    fields = dict(re.findall(r"\b(REG|STACK|SHARED|LOCAL):(\d+)", text))
    return {name.lower(): int(value) for name, value in fields.items()}


def instructions(ptx: str) -> Counter[str]:
    """How often the program text has each kind of memory access, atomic operation and matrix product."""
    kinds = r"(?:ld|st)\.global(?:\.v\d)?\.b\d+|(?:atom|red)\.global[\w.]*|\w*mma\.[\w.:]*(?:s8|i8)\b"
    return Counter(re.findall(rf"\b({kinds})", ptx))


# ---- the tests


@pytest.fixture(scope="module", params=[80, 90, 100])
def launches(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    environment["TRITON_CACHE_DIR"] = str(tmp_path_factory.mktemp("triton"))
    script = [sys.executable, "-W", "error", Path(__file__), str(request.param)]
    run = subprocess.run(script, capture_output=True, text=True, env=environment)
    assert run.returncode == 0, run.stderr
    result = json.loads(run.stdout)
    if isinstance(result, str):
        pytest.skip(result)
    return [{**facts, "ptx": Counter(facts["ptx"])} for facts in result]


def of(launches: list[dict[str, Any]], kernel: str, *words: str) -> list[dict[str, Any]]:
    found = [x for x in launches if x["kernel"] == kernel and set(words) <= set(x["case"].split())]
    assert found
    return found


def test_every_kernel_fits(launches: list[dict[str, Any]]) -> None:
    assert {x["kernel"] for x in launches} == set(REGISTERS)
    for x in launches:
        said = f"{x['kernel']} in {x['case']}"
        assert (x["stack"], x["local"]) == (0, 0), f"{said} spills registers"
        assert x["reg"] <= REGISTERS[x["kernel"]], said
        assert x["reg"] * x["threads"] <= 65536, said
        assert x["dynamic"] + x["shared"] <= SHARED_LIMIT, said
        assert all(0 < size < 2**16 for size in x["grid"][1:]), said
        assert 0 < x["grid"][0] < 2**31, said


def test_launches_and_scratch(launches: list[dict[str, Any]]) -> None:
    """One launch, and two for the update; it keeps nothing larger than the pattern that its caller does not have.

    Whitening sums the channels, and for each grid lays tiles out and multiplies them."""
    per_case = Counter(x["case"] for x in launches)
    for name, (_, H, W) in TILED.items():
        assert per_case.pop(f"whiten {name}") == 1 + 2 * len(ops.grids(H, W))
    assert {case.split()[0]: count for case, count in per_case.items()} == {
        "apply": 1,
        "update": 2,
        "loss": 1,
        "moments": 2,
        "gram": 1,
        "project": 1,
        **dict.fromkeys(("cross_gram", "sum_grams", "halve", "channel_sums", "cut_tiles", "tile_moments"), 1),
    }
    for name, (C, H, W) in SHAPES.items():
        for x in of(launches, "descend", name):
            assert max(x["numbers"]) == T * C * H * W
        for x in of(launches, "sum_gradient", name):
            *given, gradient, squares = x["numbers"]
            assert squares < gradient == T * C * H * W
            assert given[:2] == [T * N * C * H * W, M * C * H * W]


def test_images_are_read_16_bytes_at_a_time(launches: list[dict[str, Any]]) -> None:
    for x in of(launches, "apply_pattern", "imagenet"):
        assert x["ptx"]["ld.global.v4.b32"] == 4 + 1  # a thread's 16 numbers: of pattern in four loads, of image in one
        assert x["ptx"]["ld.global.b8"] == 1  # the sign
    for dtype, loads in ((F32, 4), (BF16, 2), (F16, 2)):
        for x in of(launches, "sum_gradient", "imagenet", "nchw", str(dtype)):
            assert x["ptx"]["ld.global.v4.b32"] == loads + 1
        for x in of(launches, "apply_pattern", "imagenet", "nchw", str(dtype)):
            assert x["ptx"]["st.global.v4.b32"] == loads
    for x in of(launches, "project", "3072") + of(launches, "sum_classes", "3072"):
        assert x["ptx"]["ld.global.v4.b32"] >= 1
        assert not x["ptx"]["ld.global.b8"]


def test_rows_that_are_not_aligned_are_not_read_as_if_they_were(launches: list[dict[str, Any]]) -> None:
    for kernel in ("apply_pattern", "sum_gradient"):
        for x in of(launches, kernel, "odd"):
            assert x["ptx"]["ld.global.b8"] >= 16
            assert not any(".v4" in name for name in x["ptx"])


@pytest.mark.parametrize("K", ["1000", "22000"])
def test_logits_are_read_and_written_16_bytes_at_a_time(launches: list[dict[str, Any]], K: str) -> None:
    for x in of(launches, "loss_head", K):
        assert x["ptx"]["ld.global.v4.b32"] == 2 * x["ptx"]["st.global.v4.b32"] > 0  # twice read, once written


def test_only_integers_are_added_atomically(launches: list[dict[str, Any]]) -> None:
    for x in launches:
        atomics = {name for name in x["ptx"] if name.startswith(("atom", "red"))}
        exact = x["kernel"] in ("sum_classes", "second_moment")
        assert atomics == ({"red.global.gpu.relaxed.add.u64"} if exact else set()), x["kernel"]


def test_products_of_bytes_use_the_int8_tensor_cores(launches: list[dict[str, Any]]) -> None:
    for x in of(launches, "second_moment") + of(launches, "gram") + of(launches, "whiten"):
        assert any("mma" in name for name in x["ptx"])


def test_two_products_divide_every_byte() -> None:
    """kernels._shifted, with multiply-adds as a GPU fuses them: the sum of the exact product rounds once."""
    x = np.arange(256, dtype=np.float32)
    high, low = np.float32(257 / 65536), np.float32(1 / 255 - 257 / 65536)
    wide = np.float64  # holds these products, and their sums to far below half a float32 step
    for quotient in (
        x * high + x * low,
        (wide(x) * wide(high) + wide(x * low)).astype(np.float32),
        (wide(x * high) + wide(x) * wide(low)).astype(np.float32),
    ):
        assert np.array_equal(quotient, x / np.float32(255))


# ---- when it cannot be used


def test_without_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "kernels", None)
    monkeypatch.setattr(backend, "_missing", "No module named 'triton'", raising=False)
    reason = ops.unavailable("triton", "cuda")
    assert reason == "triton did not load (No module named 'triton'); install it with: pip install 'bre-engine[triton]'"


def test_on_the_cpu_only_under_the_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend.kernels, "INTERPRETED", True)
    assert ops.unavailable("triton", "cpu") is None
    monkeypatch.setattr(backend.kernels, "INTERPRETED", False)
    reason = ops.unavailable("triton", "cpu")
    assert reason is not None
    assert "the tensors are on cpu" in reason
    assert "TRITON_INTERPRET=1" in reason


def test_on_other_devices() -> None:
    assert ops.unavailable("triton", "xpu") == "it computes on NVIDIA GPUs, the tensors are on xpu"


@pytest.mark.parametrize(
    ("capability", "reason"),
    [
        ((7, 5), "Double is sm_75; it needs sm_80 or later"),
        ((8, 0), None),
        ((9, 0), None),
        ((12, 0), None),
    ],
)
def test_old_gpus(monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], reason: str | None) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Double")
    assert ops.unavailable("triton", "cuda") == reason


@pytest.mark.parametrize(
    "error", [AssertionError("Torch not compiled with CUDA enabled"), RuntimeError("The NVIDIA driver is too old\n...")]
)
def test_no_gpu(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def init() -> None:
        raise error

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "init", init)
    said = str(error).partition("\n")[0]
    assert ops.unavailable("triton", "cuda") == f"torch sees no CUDA device ({said})"


def test_a_gpu_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert ops.unavailable("triton", "cuda:1") == "there is no cuda:1: torch sees 1 device(s)"


def test_kernels_go_to_the_tensors_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Triton launches on the current stream of torch's current device, which is made the tensors' own."""
    current: list[int] = []

    class Device:
        def __init__(self, index: int):
            self.index = index

        def __enter__(self) -> None:
            current.append(self.index)

        def __exit__(self, *_: object) -> None:
            current.pop()

    class Kernel:
        def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
            return lambda *args, **options: launches.append((grid, current[-1]))

    class OnDevice(torch.Tensor):
        def get_device(self) -> int:
            return 3

    launches: list[tuple[tuple[int, ...], int]] = []
    monkeypatch.setattr(torch.cuda, "device", Device)
    images = torch.zeros(1).as_subclass(OnDevice)
    backend.launch(Kernel(), (2, 1), images)
    backend.launch(Kernel(), (0, 1), images)  # no programs, no launch
    assert launches == [((2, 1), 3)]


if __name__ == "__main__":
    from triton import knobs

    try:
        assert knobs.nvidia.ptxas.path
        assert knobs.nvidia.cuobjdump.path
    except RuntimeError as missing:
        print(json.dumps(f"Triton's own assembler is not there: {missing}"))
    else:
        print(json.dumps(compile_for(int(sys.argv[1]))))
