"""The CUDA kernels on the CPU: what the emulation must complain about, then that no kernel's answer hangs on the order
of its threads, that none leaves its memory, and what the host side does. test_ops.py has parity with the reference."""

from __future__ import annotations

import ctypes
import itertools
import os
import re
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cuda_emulation
import pytest
import torch
from torch import Tensor

from bre import ops
from bre.errors import BackendUnavailable
from bre.ops import cuda

F32, BF16, F16 = torch.float32, torch.bfloat16, torch.float16
emulation = pytest.mark.skipif(cuda_emulation.missing() is not None, reason=str(cuda_emulation.missing()))


# ---- the emulation itself


def under_every_schedule(name: str) -> list[Tensor]:
    answers = []
    for schedule in cuda_emulation.SCHEDULES:
        cuda_emulation.use_schedule(schedule)
        answers.append(cuda_emulation.run_broken(name))
    return answers


@emulation
def test_a_sound_kernel_passes() -> None:
    for answer in under_every_schedule("reverses"):
        assert torch.equal(answer, torch.arange(63.0, -1, -1))


@emulation
def test_shuffles_and_votes() -> None:
    for answer in under_every_schedule("uses_everything"):
        assert answer.all()


@emulation
@pytest.mark.parametrize("name", ["forgets_barrier", "forgets_second_barrier", "reuses_slots"])
def test_a_missing_barrier_shows_under_another_order(name: str) -> None:
    answers = under_every_schedule(name)
    assert not all(itertools.starmap(torch.equal, itertools.pairwise(answers)))


@emulation
@pytest.mark.parametrize("schedule", cuda_emulation.SCHEDULES)
@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("skips_barrier", r"waits in __syncthreads at .*broken\.cu:\d+ for thread 5, which has left the kernel"),
        ("parts_at_barriers", r"waits in __syncthreads at .*:\d+ for thread 32, which waits in __syncthreads"),
        ("skips_shuffle", r"waits in __shfl_xor_sync at .*:\d+ for thread 3, which has left the kernel"),
        ("asks_absent_lane", r"lane \d+, asked for by __shfl_xor_sync at .*:\d+, is not in its mask"),
    ],
)
def test_what_cuda_leaves_undefined_is_an_error(name: str, complaint: str, schedule: str) -> None:
    cuda_emulation.use_schedule(schedule)
    with pytest.raises(RuntimeError, match=complaint):
        cuda_emulation.run_broken(name)
    assert torch.equal(cuda_emulation.run_broken("reverses"), torch.arange(63.0, -1, -1))  # and it goes on working


@emulation
def test_shared_memory_starts_as_nan() -> None:
    unset = cuda_emulation.run_broken("reads_unset_shared").isnan()
    assert torch.equal(unset, torch.arange(64) % 2 == 0)


# ---- the kernels


def everything() -> list[Tensor]:
    """Every kernel and every way of picking one: aligned and not, rows of a warp, of a block and longer."""
    torch.manual_seed(1)
    answers: list[Tensor] = []
    for C, H, W in [(3, 24, 32), (4, 8, 8), (2, 6, 5)]:
        M, T, N, D = 70, 2, 11, C * H * W
        images = torch.randint(0, 256, (M, C, H, W), dtype=torch.uint8)
        index, sign = torch.randint(0, M, (T, N)), torch.randint(-1, 2, (T, N), dtype=torch.int8)
        std, active = torch.rand(C) + 0.1, torch.ones(T).bool()
        for dtype, layout in itertools.product([F32, BF16, F16], ["nchw", "nhwc"]):
            pattern, momentum = torch.randn(T, C, H, W), torch.randn(T, C, H, W)
            rows = {"index": index, "sign": sign, "pattern": pattern, "std": std}
            x = ops.apply_pattern(images, **rows, mean=torch.rand(C), layout=layout, dtype=dtype, backend="cuda")
            steps = {"step": 0.1, "decay": 0.5, "bound": 0.25}
            rest = {"images": images, "momentum": momentum, "active": active, **steps, "backend": "cuda"}
            answers += [x, ops.update_pattern(torch.randn_like(x), **rows, **rest), pattern, momentum]
        answers += ops.moments(images, torch.randint(0, 5, (M,)), classes=5, backend="cuda")
        answers += [ops.project(images, templates=torch.randn(P, D), backend="cuda") for P in (1, 4, 8)]
    for n, D in [(70, 64), (129, 33)]:
        codes = torch.randint(-128, 128, (n, D), dtype=torch.int8)
        answers.append(ops.gram(codes, backend="cuda"))
        answers.append(ops.cross_gram(codes[:9], codes, backend="cuda"))
        grams, rows = [answers[-1], answers[-1]], torch.arange(9)
        answers += ops.sum_grams(grams, rows=rows, floor=99, backend="cuda")
    for shape, tile in [((3, 3, 8, 8), 16), ((2, 2, 17, 12), 8), ((1, 5, 8, 9), 16)]:
        answers += on_tiles(torch.randint(0, 256, shape, dtype=torch.uint8), tile)
    for K, dtype in itertools.product([10, 300, 2000, 9000, 23_000], [F32, BF16, F16]):
        logits, weight = torch.randn(3, K).to(dtype), torch.rand(1, 3)
        answers += ops.loss_head(
            logits, target=torch.tensor([K // 2]), sign=torch.ones(1, 3).char(), weight=weight, backend="cuda"
        )
    return answers


def on_tiles(images: Tensor, tile: int) -> list[Tensor]:
    """Every op on tiles: cells of one, two and three pieces, and of more than a block holds at once."""
    (_, C, H, W), given = images.shape, {"backend": "cuda"}
    sums = ops.channel_sums(images, **given)
    answers, weights = [ops.halve(images, **given), sums], []
    for grid in ops.grids(H, W, tile):
        d = C * grid.height * grid.width
        inverse = (torch.randn(d, d).tril_() + 20 * torch.eye(d)) / 400
        mean = torch.randn(grid.down * grid.across, d, dtype=torch.float64)
        sides = (C, grid.height, grid.width)
        weights.append(ops.tile_weights(inverse, mean, shape=sides))
        tiles = ops.cut_tiles(images, grid=grid, **given)
        group = torch.arange(len(images)) % 2
        answers.append(tiles)
        answers += ops.tile_moments(tiles, group, groups=2, sums=sums, area=H * W, shape=sides, **given)
    return [*answers, *ops.whiten(images, weights=weights, tile=tile, **given)]


@emulation
def test_same_bits_in_any_order_of_threads() -> None:
    with cuda_emulation.emulated("forward"):
        first = everything()
        for schedule, seed in [("reverse", 0), ("random", 1), ("random", 2)]:
            cuda_emulation.use_schedule(schedule, seed)
            for i, (got, want) in enumerate(zip(everything(), first, strict=True)):
                assert torch.equal(got, want), (schedule, seed, i)


@emulation
@pytest.mark.parametrize("K", [129, 1025, 8193, 22_529, 50_000])
@pytest.mark.parametrize("dtype", [F32, BF16, F16], ids=str)
def test_rows_longer_than_the_last_kernel_takes(K: int, dtype: torch.dtype) -> None:
    logits = (torch.randn(4, K) * 3).to(dtype)
    kwargs: dict[str, Tensor] = {
        "target": torch.tensor([0, K - 1]),
        "sign": torch.tensor([[1, -1], [-1, 1]], dtype=torch.int8),
        "weight": torch.rand(2, 2),
    }
    with cuda_emulation.emulated("random"):
        got = ops.loss_head(logits, **kwargs, backend="cuda")
    want = ops.loss_head(logits, **kwargs, backend="reference")
    torch.testing.assert_close(got.loss, want.loss, rtol=2e-6, atol=2e-6)
    torch.testing.assert_close(got.grad, want.grad, rtol={F32: 2e-6, BF16: 2**-7, F16: 2**-10}[dtype], atol=1e-7)
    assert torch.equal(got.success, want.success)


@emulation
@pytest.mark.parametrize("sign", [-1, 0, 1])
def test_every_byte_is_divided_exactly(sign: int) -> None:
    """What the kernels compute in place of a division, against the division, for all 256 bytes and many patterns."""
    images = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    pattern = torch.cat([torch.zeros(1, 1, 16, 16), torch.randn(30, 1, 16, 16)])
    kwargs: dict[str, Any] = {
        "index": torch.zeros(31, 1, dtype=torch.int64),
        "sign": torch.full((31, 1), sign, dtype=torch.int8),
        "pattern": pattern,
        "mean": torch.zeros(1),
        "std": torch.ones(1),
    }
    with cuda_emulation.emulated("forward"):
        got = ops.apply_pattern(images, **kwargs, backend="cuda")
    assert torch.equal(got, (images / torch.tensor(255.0) + sign * pattern).clamp(0, 1))


# ---- the same under AddressSanitizer: in a process of its own, where its runtime is loaded first


def under_sanitizer(*command: str) -> subprocess.CompletedProcess[str]:
    def library(name: str) -> str:
        where = [str(cuda_emulation.COMPILER), f"-print-file-name={name}"]
        return subprocess.run(where, capture_output=True, text=True, check=True).stdout.strip()

    cuda_emulation.build(sanitize=True)  # here, so that what the compiler says is seen
    environment = os.environ | {
        "LD_PRELOAD": f"{library('libasan.so')}:{library('libstdc++.so')}",
        "ASAN_OPTIONS": "detect_leaks=0",
        "OMP_NUM_THREADS": "1",
    }
    here, support = Path(__file__).parent, Path(cuda_emulation.__file__).parents[1]
    environment["PYTHONPATH"] = os.pathsep.join([str(support), os.environ.get("PYTHONPATH", "")])
    return subprocess.run([sys.executable, *command], capture_output=True, text=True, env=environment, cwd=here)


needs_sanitizer = pytest.mark.skipif(
    cuda_emulation.missing() is not None or cuda_emulation.sanitized(), reason="this process is the sanitized one"
)


@needs_sanitizer
def test_past_the_end_of_shared_memory() -> None:
    sound = under_sanitizer("-c", "import cuda_emulation as e; assert e.sanitized(); e.run_broken('reverses')")
    assert sound.returncode == 0, sound.stderr
    broken = under_sanitizer("-c", "import cuda_emulation as e; e.run_broken('runs_past_shared')")
    assert broken.returncode != 0
    assert "global-buffer-overflow" in broken.stderr
    assert "runs_past_shared" in broken.stderr


@needs_sanitizer
def test_every_access_is_inside() -> None:
    tests = ["test_ops.py", "test_cuda_emulated.py::test_same_bits_in_any_order_of_threads"]
    some = ["-k", "(emulated-random and not 16_bits) or any_order", "-p", "no:cacheprovider"]  # those are all numbers
    done = under_sanitizer("-m", "pytest", "-qx", *tests, *some)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None
    assert int(passed[1]) > 100


# ---- the host side


class Recorder:
    """Stands for bre._cuda: remembers calls, computes nothing."""

    architectures = "80-real 90-real 100"

    def __init__(self, devices: int = 2, capability: int = 90, error: str = ""):
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self._devices, self._capability, self._error = devices, capability, error

    def device_count(self) -> int:
        if self._error:
            raise RuntimeError(self._error)
        return self._devices

    def capability(self, device: int) -> int:
        return self._capability

    def __getattr__(self, name: str) -> Any:
        return lambda **kwargs: self.calls.append((name, kwargs))


def test_kernels_go_to_the_current_stream_of_the_tensors_device(monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = Recorder()
    monkeypatch.setattr(cuda.native, "extension", recorder)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 3)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: types.SimpleNamespace(cuda_stream=1234))
    images, pattern = torch.zeros(2, 3, 4, 5, dtype=torch.uint8), torch.zeros(1, 3, 4, 5)
    rows = {"index": torch.zeros(1, 2).long(), "sign": torch.zeros(1, 2).char(), "pattern": pattern}
    x = torch.zeros(2, 3, 4, 5).contiguous(memory_format=torch.channels_last)
    cuda.apply_pattern(images, **rows, mean=torch.zeros(3), std=torch.ones(3), layout="nhwc", out=x.bfloat16())
    cuda.loss_head(torch.zeros(2, 7).half(), target=torch.zeros(1).long(), sign=rows["sign"], weight=torch.ones(1, 2))
    rest = {"momentum": pattern, "active": torch.ones(1).bool(), "step": 0.1, "decay": 0.5, "bound": 1.0}
    cuda.update_pattern(x, images=images, **rows, std=torch.ones(3), **rest)
    cuda.moments(images, torch.tensor([1, 0]), classes=2, out=ops.Moments.zeros(2, 60))
    cuda.project(images, templates=torch.zeros(1, 60))
    codes = torch.zeros(2, 5).char()
    cuda.gram(codes, out=torch.zeros(2, 2).int())
    cuda.cross_gram(codes, codes, out=torch.zeros(2, 2).int())
    cuda.sum_grams([torch.zeros(2, 2).int()], rows=torch.arange(2), floor=0, out=torch.zeros(2, 2).int())
    sums = torch.zeros(2, 3).long()
    cuda.halve(images, out=torch.zeros(2, 3, 2, 3).byte())
    cuda.channel_sums(images, out=sums)
    (grid,) = ops.grids(4, 5)
    tiles = torch.zeros(2, 1, 60).byte()
    cuda.cut_tiles(images, grid=grid, chosen=torch.zeros(2, 1).long(), out=tiles)
    cuda.tile_moments(tiles, torch.zeros(2).long(), groups=1, sums=sums, area=20, shape=(3, 4, 5))
    weights = ops.TileWeights(torch.zeros(60, 60).short(), torch.ones(60), torch.zeros(3, 60), torch.zeros(1, 60))
    cuda.whiten(images, weights=[weights], tile=16, out=ops.Codes.empty(2, (3, 4, 5)), first=0)
    names = ["apply_pattern", "loss_head", "update_pattern", "moments", "project", "gram", "cross_gram", "sum_grams"]
    names += ["halve", "channel_sums", "cut_tiles", "add_second_moment", "channel_sums", "whiten"]
    assert [name for name, _ in recorder.calls] == names
    for name, kwargs in recorder.calls:
        assert (kwargs["device"], kwargs["stream"]) == (3, 1234), name
    assert [kwargs["layout"] for name, kwargs in recorder.calls if "layout" in kwargs] == ["nhwc", "nhwc"]
    assert [kwargs["dtype"] for name, kwargs in recorder.calls if "dtype" in kwargs] == ["bf16", "f16", "f32"]


def test_classes_reach_the_kernel_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[int]] = []

    def moments(order: int, offsets: int, M: int, K: int, **_: Any) -> None:
        for address, n in ((order, M), (offsets, K + 1)):
            seen.append(list((ctypes.c_int64 * n).from_address(address)))

    monkeypatch.setattr(cuda.native, "extension", types.SimpleNamespace(moments=moments))
    monkeypatch.setattr(cuda.native, "launch", lambda device: {})
    labels = torch.tensor([3, 1, 1, 0, 3])
    cuda.moments(torch.zeros(5, 1, 1, 1, dtype=torch.uint8), labels, classes=5, out=ops.Moments.zeros(5, 1))
    assert seen == [[3, 1, 2, 0, 4], [0, 1, 3, 3, 5, 5]]


@pytest.mark.parametrize(
    ("recorder", "device", "reason"),
    [
        (None, "cuda", "this build of bre has no CUDA kernels"),
        (Recorder(), "cpu", "it computes on CUDA devices, the tensors are on cpu"),
        (Recorder(), "meta", "the tensors are on meta"),
        (Recorder(error="cudaErrorInsufficientDriver: too old (csrc/cuda/device.cpp:31)"), "cuda:0", "too old"),
        (Recorder(devices=1), "cuda:1", r"there is no cuda:1: CUDA sees 1 device"),
        (Recorder(capability=75), "cuda:0", "cuda:0 is of capability sm_75, the kernels need sm_80 or later"),
    ],
)
def test_why_it_cannot_be_used(
    monkeypatch: pytest.MonkeyPatch, recorder: Recorder | None, device: str, reason: str
) -> None:
    monkeypatch.setattr(cuda.native, "extension", recorder)
    monkeypatch.setattr(cuda, "_missing", "No module named 'bre._cuda'", raising=False)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    with pytest.raises(BackendUnavailable, match=f"backend 'cuda' cannot be used: .*{reason}"):
        ops.resolve("cuda", device)


def test_it_can_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda.native, "extension", Recorder())
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    assert ops.resolve("auto", "cuda:1") == "cuda"
    monkeypatch.setattr(torch.version, "cuda", None)
    assert "is built without CUDA" in str(ops.unavailable("cuda", "cuda:1"))


def test_tensors_on_the_wrong_device() -> None:
    with pytest.raises(BackendUnavailable, match="backend 'cuda' cannot be used"):
        ops.project(torch.zeros(1, 1, 1, 1, dtype=torch.uint8), templates=torch.zeros(1, 1), backend="cuda")


@emulation
@pytest.mark.parametrize("device", [0, 1])
def test_launches_go_to_the_stream_and_device_they_are_given(monkeypatch: pytest.MonkeyPatch, device: int) -> None:
    """And the calling thread's current device is afterwards what it was."""
    images, pattern = torch.zeros(2, 3, 4, 4, dtype=torch.uint8), torch.zeros(1, 3, 4, 4)
    rows = {"index": torch.zeros(1, 2).long(), "sign": torch.ones(1, 2).char(), "std": torch.ones(3)}
    head = {"target": torch.zeros(1).long(), "sign": rows["sign"], "weight": torch.ones(1, 2)}
    rest = {"momentum": pattern, "active": torch.ones(1).bool(), "step": 0.1, "decay": 0.5, "bound": 1.0}
    calls: dict[str, Callable[[], Any]] = {
        "apply_pattern": lambda: ops.apply_pattern(
            images, **rows, pattern=pattern, mean=torch.zeros(3), layout="nhwc", backend="cuda"
        ),
        "loss_head": lambda: ops.loss_head(torch.zeros(2, 7), **head, backend="cuda"),
        "update_pattern": lambda: ops.update_pattern(
            torch.zeros(2, 3, 4, 4), images=images, **rows, pattern=pattern, **rest, backend="cuda"
        ),
        "moments": lambda: ops.moments(images, torch.zeros(2).long(), classes=1, backend="cuda"),
        "project": lambda: ops.project(images, templates=torch.zeros(8, 48), backend="cuda"),
        "gram": lambda: ops.gram(torch.zeros(2, 5).char(), backend="cuda"),
    }
    launches = {"apply_pattern": 1, "loss_head": 1, "update_pattern": 2, "moments": 2, "project": 1, "gram": 1}
    with cuda_emulation.emulated("forward"):
        monkeypatch.setattr(cuda.native, "launch", lambda _: {"device": device, "stream": 4321})
        cuda_emulation.launches()
        for name, call in calls.items():
            call()
            assert cuda_emulation.launches() == [(device, 4321)] * launches[name], name
        monkeypatch.undo()
        ops.project(images, templates=torch.zeros(1, 48), backend="cuda")
    assert cuda_emulation.launches() == [(0, 0)]


def test_launchers_neither_allocate_nor_wait() -> None:
    """All that csrc/cuda asks of CUDA's runtime: so a graph can hold any launcher, and none touches another stream."""
    sources = [path.read_text() for path in sorted((cuda_emulation.CSRC / "cuda").iterdir())]
    asked = set(re.findall(r"\bcuda[A-Z]\w*(?=\()", "".join(sources)))
    errors = {"cudaGetLastError", "cudaGetErrorName", "cudaGetErrorString"}
    devices = {"cudaGetDevice", "cudaSetDevice", "cudaGetDeviceCount", "cudaDeviceGetAttribute"}
    assert asked == {"cudaLaunchKernelEx", *errors, *devices}
    assert not any("<<<" in source for source in sources)


@emulation
def test_a_failed_call_says_where() -> None:
    nowhere = {"images": 0, "templates": 0, "out": 0, "M": 1, "P": 1, "D": 2**31, "stream": 0}
    with pytest.raises(RuntimeError, match=r"cudaErrorInvalidValue: .* \(csrc/cuda/project\.cu:\d+: fits_int"):
        cuda_emulation.module().project(**nowhere, device=0)
    with pytest.raises(RuntimeError, match=r"cudaErrorInvalidValue: .* \(csrc/cuda/device\.cpp:\d+: cudaSetDevice"):
        cuda_emulation.module().project(**nowhere | {"D": 1}, device=5)
    with pytest.raises(RuntimeError, match=r"cudaErrorInvalidConfiguration: .* \(csrc/cuda/project\.cu:\d+: launch"):
        cuda_emulation.module().project(**nowhere | {"D": 1, "M": 2**36}, device=0)
