"""The command line: what it passes on, what it prints where, and how it ends."""

import io
import json
import os
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from test_cleanse import FLAGGED, LABELS, M, make_report
from typer.testing import CliRunner

import bre
from bre import _progress
from bre.cli import app
from bre.errors import BackendUnavailable, InputError
from bre.report import Report, versions


@pytest.fixture
def data(tmp_path):
    path = tmp_path / "set.npz"
    images = np.random.default_rng(0).integers(0, 256, (M, 5, 7, 3), dtype=np.uint8)
    np.savez(path, images=images, labels=LABELS)
    return path


@pytest.fixture
def answer(monkeypatch):
    """Make screen and detect record how they were called, and return or raise what the test says."""
    state = SimpleNamespace(result=None, calls=[])

    def verb(*args, **kwargs):
        state.calls.append((args, kwargs))
        if isinstance(state.result, BaseException):
            raise state.result
        return state.result

    monkeypatch.setattr(bre, "screen", verb, raising=False)
    monkeypatch.setattr(bre, "detect", verb, raising=False)
    return state


def run(*args):
    return CliRunner().invoke(app, [str(a) for a in args])


# ---- verdicts


def test_poisoning_found(data, answer):
    answer.result = make_report(data)
    done = run("screen", data)
    assert done.exit_code == 1
    assert done.stdout == answer.result.summary() + "\n"
    assert done.stderr == ""


def test_nothing_found(data, answer):
    answer.result = make_report(data, {})
    done = run("detect", data, "--model", "m.pt2")
    assert done.exit_code == 0
    assert done.stdout.startswith("NOTHING FOUND (p = 0.001")


@pytest.mark.parametrize("flagged", [FLAGGED, {}])
def test_json_is_all_there_is_on_stdout(data, answer, flagged, tmp_path):
    answer.result = make_report(data, flagged)
    done = run("screen", data, "--json", "--out", tmp_path / "report")
    assert done.exit_code == bool(flagged)
    assert json.loads(done.stdout) == answer.result.to_dict()
    assert "The report is in" in done.stderr
    assert Report.load(tmp_path / "report").to_dict() == answer.result.to_dict()


def test_quiet_prints_nothing(data, answer, tmp_path):
    answer.result = make_report(data)
    done = run("screen", data, "--quiet", "--out", tmp_path / "report")
    assert (done.exit_code, done.output) == (1, "")
    assert (tmp_path / "report").is_dir()


def test_options_reach_the_verbs(data, answer):
    answer.result = make_report(data, {})
    run("screen", data)
    defaults = {"seed": 0, "alpha": 0.05, "backend": "auto", "unsafe": False, "progress": None}
    assert answer.calls.pop() == ((data,), defaults)
    more = ["--seed", 3, "--alpha", 0.01, "--backend", "reference", "--unsafe"]
    run("detect", data, "--model", "m.pt2", *more, "--mean", "0.5,0.25,0", "--std", "1,1,2")
    (model, dataset), options = answer.calls.pop()
    assert (str(model), dataset) == ("m.pt2", data)
    assert options == {
        "seed": 3,
        "alpha": 0.01,
        "backend": "reference",
        "unsafe": True,
        "progress": None,
        "mean": (0.5, 0.25, 0.0),
        "std": (1.0, 1.0, 2.0),
    }


# ---- could not answer


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (InputError("labels are\nmissing \x1b[31m"), "bre: error: labels are missing \ufffd[31m"),
        (BackendUnavailable("no cuda"), "bre: error: no cuda"),
        (OSError(28, "No space left"), "bre: error: [Errno 28] No space left"),
        (ZeroDivisionError("oh"), "bre: error: ZeroDivisionError: oh (unexpected; --traceback shows where)"),
    ],
)
def test_errors_take_one_line_and_end_with_2(data, answer, error, line):
    answer.result = error
    done = run("screen", data)
    assert (done.exit_code, done.stdout, done.stderr) == (2, "", line + "\n")
    done = run("screen", data, "--traceback")
    assert done.exit_code == 2
    assert "Traceback (most recent call last)" in done.stderr
    assert done.stderr.endswith(line + "\n")


def test_interrupted(data, answer):
    answer.result = KeyboardInterrupt()
    done = run("screen", data, "--json")
    assert (done.exit_code, done.stdout) == (130, "")
    assert done.stderr == "bre: interrupted, nothing was left half-written\n"


@pytest.mark.parametrize(
    "args",
    [
        ["screen"],
        ["nonsense"],
        ["screen", "x", "--alpha", "2"],
        ["screen", "x", "--seed", "-1"],
        ["detect", "x"],
        ["detect", "x", "--model", "m", "--mean", "a,b"],
        ["cleanse", "x", "y"],
    ],
)
def test_wrong_usage_ends_with_2(args, answer):
    done = run(*args)
    assert (done.exit_code, done.stdout) == (2, "")
    assert "Error" in done.stderr
    assert not answer.calls


@pytest.mark.parametrize("verb", [["screen"], ["detect", "--model", "m"]])
def test_out_is_looked_at_before_any_work(data, answer, tmp_path, verb):
    for out, message in (
        (tmp_path, "exists already"),
        (tmp_path / "a" / "b", "does not exist"),
    ):
        done = run(*verb, data, "--out", out)
        assert done.exit_code == 2
        assert message in done.stderr
    assert not answer.calls


def test_a_report_is_not_saved_into_the_dataset(answer, tmp_path):
    done = run("screen", tmp_path, "--out", tmp_path / "report")
    assert done.exit_code == 2
    assert "lies inside the dataset" in done.stderr
    assert not answer.calls


# ---- cleanse, info, demo


def test_cleanse(data, tmp_path):
    make_report(data).save(tmp_path / "report")
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
    make_report(other, {}).save(tmp_path / "report")
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


@pytest.mark.parametrize(("result", "status"), [(None, 0), (0, 0), (1, 1)])
def test_demo_passes_its_lines_on(monkeypatch, result, status):
    def demo(*, seed, echo):
        echo(f"planted with seed {seed}")
        return result

    monkeypatch.setitem(sys.modules, "bre.demo", SimpleNamespace(run=demo))
    done = run("demo", "--seed", "5")
    assert (done.exit_code, done.stdout) == (status, "planted with seed 5\n")


# ---- progress


def test_progress_is_for_terminals_only(monkeypatch):
    with _progress.progress_bar("opening") as progress:
        assert progress is None

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    with _progress.progress_bar("opening", wanted=False) as progress:
        assert progress is None
    with _progress.progress_bar("opening") as progress:
        progress("covariance [bold]", 0.5)
        progress("covariance [bold]", 1.0)
        progress("patterns", 0.25)
    assert "opening" in terminal.getvalue()


# ---- as a program


PROGRAM = "from bre.cli import main; main()"


def program(*args, code=PROGRAM, **options):
    command = [sys.executable, "-W", "error", "-c", code, *args]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, **options)


def test_help_has_an_example_for_every_command():
    done = run("--help")
    assert done.exit_code == 0
    for name in ("screen", "detect", "cleanse", "demo", "info"):
        assert f"\n  {name} " in done.stdout
        assert f"Example: bre {name}" in run(name, "--help").stdout
    assert "..." not in done.stdout.partition("Commands:")[2]


def test_the_program_runs():
    done = program("--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Usage: bre ")
    done = program("info")
    assert (done.returncode, done.stderr) == (0, "")
    assert versions()["torch"] in done.stdout
    done = program("--version")
    assert done.stdout == f"bre {versions()['bre']}\n"


def test_errors_of_the_program(tmp_path):
    done = program("cleanse", "set.npz", "report", "--out", "clean.npz", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "bre: error: no such report: report (a saved report is a folder)\n"


@pytest.mark.skipif(os.name != "posix", reason="needs a real SIGINT")
def test_ctrl_c_in_the_program(tmp_path):
    code = f"""
import os, signal, bre
bre.screen = lambda *args, **kwargs: os.kill(os.getpid(), signal.SIGINT)
{PROGRAM}
"""
    done = program("screen", "set", "--out", "report", code=code, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr == "bre: interrupted, nothing was left half-written\n"
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(os.name != "posix", reason="needs a pipe closed at its reading end")
def test_nobody_reads_the_output():
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-c", PROGRAM, "info"]
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, timeout=60)
    os.close(writing)
    assert (done.returncode, done.stderr) == (2, "")
