"""gpu.py and roofline.py: bytes are counted right, docs/gpu.md is up to date, answers come before times."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from benchmarks import gpu
from benchmarks.common.places import ROOT
from benchmarks.speed import gpu_page, gpu_steps, image_floors, roofline
from bre import ops

OPS = ["apply_pattern", "loss_head", "update_pattern"]


@pytest.fixture
def tiny() -> Any:
    def network() -> nn.Module:
        return nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(36, 5))

    return roofline.Case("tiny", (3, 8, 8), 5, network)


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_bytes_are_those_of_the_tensors(tiny: Any, op: str, dtype: torch.dtype) -> None:
    """What comes in and goes out, images by the row; the update also writes what it reads, and passes on a gradient."""
    T, N, D = 3, 4, 3 * 8 * 8
    given = roofline.arguments(op, tiny, T, N, dtype, "cpu")
    tensors = {name: x for name, x in given.items() if isinstance(x, torch.Tensor)}
    out = getattr(ops, op)(**given, backend="reference")
    moved = sum(x.nbytes for x in [*tensors.values(), *roofline.tensors([out])])
    if "images" in tensors:
        moved += T * N * D - tensors["images"].nbytes
    if op == "update_pattern":
        moved += given["pattern"].nbytes + given["momentum"].nbytes + 2 * given["pattern"].nbytes
    assert roofline.least_bytes(op, T=T, N=N, D=D, C=3, K=5, size=dtype.itemsize) == moved


def test_eager_operations_are_counted_as_they_are() -> None:
    x, pool = torch.zeros(10, 4), torch.zeros(100, 4)
    with roofline.Eager() as count:
        x.view(40).add_(1)  # reads and writes 160 bytes
        y = x + torch.zeros(4, device="cpu").expand(10, 4)  # zeros writes 16; the sum reads 160 and 16, writes 160
        y.copy_(x)  # reads 160, writes 160
        pool[torch.arange(3)]  # arange writes 24; reads 24 and 48, writes 48
    assert count.launches == 6
    assert count.bytes == 320 + 16 + 336 + 320 + 24 + 120


def test_resnet50_is_resnet50() -> None:
    """25.6 million parameters and 4.1 billion multiply-adds per image forward, as published."""
    with torch.device("meta"):
        network = roofline.resnet50()
    assert sum(p.numel() for p in network.parameters()) == 25_557_032
    _, flop = roofline.network_cost(roofline.CASES[1], 2)
    assert flop / 2 / 2 / 2 == pytest.approx(4.1e9, rel=0.01)  # images, directions, operations per multiply-add


def test_the_page_says_what_the_script_counts() -> None:
    page = gpu.PAGE.read_text()
    if f"torch {torch.__version__.partition('+')[0]} " not in page:
        pytest.skip("the page's eager operations are another torch's")
    assert page == gpu.with_predictions(page), "run: python benchmarks/gpu.py --predict --write"


@pytest.mark.parametrize("options", [[], ["--all"]])
def test_without_a_card_it_says_so(options: list[str]) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is one")
    done = subprocess.run([sys.executable, "-m", "benchmarks.gpu", *options], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == "there is no CUDA device here, so nothing can be measured (--predict needs none)\n"
    assert done.stdout == ""


def test_it_measures_what_there_is(tiny: Any, capsys: pytest.CaptureFixture[str]) -> None:
    gpu.measure_kernels([tiny], 3, 4, ("cpu", "reference"), "cpu")
    gpu.measure_steps([tiny], 3, 4, "cpu")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("device copy: ")
    assert [line.split()[1:3] for line in lines[1:7]] == [[op, name] for op in OPS for name in ("cpu", "reference")]
    assert [line.split()[1:3] for line in lines[7:]] == [
        [precision, way] for precision in ("float32", "bfloat16") for way in ("plain", "graph")
    ]
    assert all(math.isfinite(float(line.split()[3])) for line in lines[1:])


def test_wrong_answers_are_not_timed(
    tiny: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from bre.ops import cpu

    def wrong(*_: Any, out: torch.Tensor, **__: Any) -> None:
        out.fill_(0.25)

    monkeypatch.setattr(cpu, "apply_pattern", wrong)
    with pytest.raises(AssertionError, match="not close"):
        gpu.measure_kernels([tiny], 3, 4, ("cpu",), "cpu")
    assert "apply_pattern" not in capsys.readouterr().out


def test_a_dry_run_does_every_step(tmp_path: Path) -> None:
    out = tmp_path / "gpu.json"
    assert gpu.main(["--all", "--dry-run", "--out", str(out)]) == 0
    result = json.loads(out.read_text())
    assert result["dry"] is True
    assert list(result["steps"]) == ["parity", "verdicts", "image_ops", "kernels", "steps", "sizes"]
    assert all("found" in step for step in result["steps"].values())
    on_images = {"halve", "channel_sums", "cut_tiles", "tile_moments", "whiten", "moments", "project"}
    assert set(result["steps"]["parity"]["found"]["cpu"]) == {*on_images, "gram", "cross_gram", "sum_grams"}
    with pytest.raises(ValueError, match="got a dry run"):
        gpu_page.measured(result)
    assert "**sizes**" in gpu_page.measured({**result, "dry": False})


def test_a_cut_run_still_says_something(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What failed says how, what there was no time for is named, and each step is written before the next begins."""
    out, seen = tmp_path / "gpu.json", []

    def fails() -> None:
        seen.append(json.loads(out.read_text())["steps"])
        raise AssertionError("they differ")

    monkeypatch.setattr(gpu, "steps_of", lambda run: {"first": lambda: [1], "second": fails})
    result = gpu.measure_all(gpu_steps.Run("cpu", ("cpu",), dry=True), out)
    assert seen == [{"first": {"found": [1], "seconds": 0.0}}]
    assert result["steps"]["second"]["failed"] == "AssertionError: they differ"
    late = gpu.measure_all(gpu_steps.Run("cpu", ("cpu",), dry=True), out, most=-1)
    assert "would have begun" in late["steps"]["first"]["left_out"]


def test_wrong_answers_on_the_card_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    from bre.ops import cpu

    monkeypatch.setattr(cpu, "halve", lambda images, *, out: out.zero_())
    with pytest.raises(AssertionError, match="halve"):
        gpu_steps.parity(gpu_steps.Run("cpu", ("cpu",), dry=True))


def test_the_page_has_what_was_measured_or_says_that_nothing_was() -> None:
    result = json.loads(gpu.RESULT.read_text()) if gpu.RESULT.exists() else None
    page = gpu.PAGE.read_text()
    assert page == gpu_page.with_measured(page, result)


def test_floors_of_the_images_view() -> None:
    """By hand, for images that are one tile: 5000 of a class, 1024 of them with all others."""
    moments, whitening, products, _ = image_floors.floors(image_floors.SETS[0])
    assert moments.products == 2 * 8192 * 3072**2 / 2
    assert whitening.products == 10 * 5000 * 3072**2 / 2
    assert products.products == 10 * 1024 * 5000 * 3072
