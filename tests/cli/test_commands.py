"""Commands beside screen and detect."""

import json
import os
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from command_line import run
from reports import M, flagging

from bre.verbs.versions import versions


def test_cleanse(data, tmp_path):
    flagging(data).save(tmp_path / "report")
    done = run("cleanse", data, tmp_path / "report", "--out", tmp_path / "clean.npz")
    assert done.exit_code == 0, done.output
    assert f"{M - 3} images kept in {tmp_path / 'clean.npz'}, 3 removed" in done.stdout
    with np.load(tmp_path / "clean.npz") as z:
        assert len(z["labels"]) == M - 3
    assert (tmp_path / "clean.npz.removed.csv").is_file()
    done = run("cleanse", data, tmp_path / "report", "--out", tmp_path / "clean.npz")
    assert done.exit_code == 2
    assert "exists already" in done.stderr
    done = run("cleanse", data, tmp_path / "report", "--out", tmp_path / "more.npz", "--json")
    assert json.loads(done.stdout) == {
        "removed": 3,
        "kept": M - 3,
        "out": str(tmp_path / "more.npz"),
        "list": str(tmp_path / "more.npz.removed.csv"),
    }


def test_cleanse_refuses_a_report_on_another_dataset(data, tmp_path):
    other = tmp_path / "other.npz"
    np.savez(other, images=np.zeros((4, 5, 7, 3), np.uint8), labels=np.arange(4) % 2)
    flagging(other, {}).save(tmp_path / "report")
    done = run("cleanse", data, tmp_path / "report", "--out", tmp_path / "clean.npz", "--quiet")
    assert done.exit_code == 2
    assert "another dataset: 4 images" in done.stderr
    assert sorted(os.listdir(tmp_path)) == ["other.npz", "report", "set.npz"]


def test_info():
    done = run("info")
    assert done.exit_code == 0
    for part in ("python", "torch", "numpy", "threads", "reference  available", "cpu "):
        assert part in done.stdout
    facts = json.loads(run("info", "--json").stdout)
    assert facts["versions"] == versions()
    assert facts["backends"]["reference"] is None
    assert set(facts["backends"]) == {"reference", "cpu", "triton", "cuda"}


def test_info_says_why_a_backend_cannot_be_used_on_its_own_devices(monkeypatch):
    monkeypatch.setattr("bre.ops._backends.unavailable", lambda name, device: f"no {name} on {device}")
    assert json.loads(run("info", "--json").stdout)["backends"] == {
        "reference": "no reference on cpu",
        "cpu": "no cpu on cpu",
        "triton": "no triton on cuda",
        "cuda": "no cuda on cuda",
    }


@pytest.mark.parametrize(("compiled", "shown"), [("80-real 90", "sm_80 sm_90"), (None, None)])
def test_info_says_what_the_cuda_kernels_were_compiled_for(monkeypatch, compiled, shown):
    monkeypatch.setattr("bre.ops.cuda.architectures", lambda: compiled)
    assert json.loads(run("info", "--json").stdout)["cuda"] == shown
    assert ("for CUDA        sm_80 sm_90\n" in run("info").stdout) == bool(shown)


def test_demo_passes_its_lines_on(monkeypatch, tmp_path):
    def demo(*, seed, out, echo):
        echo(f"planted with seed {seed}, saved to {out}")

    monkeypatch.setitem(sys.modules, "bre.demo", SimpleNamespace(run=demo))
    done = run("demo", "--seed", "5", "--out", tmp_path / "r")
    assert (done.exit_code, done.stdout) == (0, f"planted with seed 5, saved to {tmp_path / 'r'}\n")
    assert run("demo", "--out", tmp_path).exit_code == 2
