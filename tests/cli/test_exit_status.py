"""How commands end that could not answer, in one line and with status 2."""

import os
from pathlib import Path

import pytest
from command_line import run

from bre.errors import BackendUnavailable, InputError


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (InputError("labels are\nmissing \x1b[31m"), "bre: error: labels are missing \ufffd[31m"),
        (BackendUnavailable("no cuda"), "bre: error: no cuda"),
        (PermissionError(13, "Permission denied", "a\nb"), "bre: error: Permission denied: a b"),
        (InputError("allow it", argument="unsafe"), "bre: error: allow it (option --unsafe-pickle)"),
        (
            InputError("give both", argument=("mean", "input_size", "other")),
            "bre: error: give both (options --mean R,G,B, --input-size H,W, --other)",
        ),
        (InputError("no /a/std=1, mean=2"), "bre: error: no /a/std=1, mean=2"),
        (MemoryError("no"), "bre: error: there is not enough memory here: no"),
        (
            RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried"),
            "bre: error: there is not enough memory here: [enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't "
            "allocate memory: you tried",
        ),
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
        ["detect", "x", "--model", "m", "--std", ""],
        ["screen", "x", "--device", "gpu"],
        ["detect", "x", "--model", "m", "--device", "gpu"],
        ["detect", "x", "--model", "m", "--precision", "float16"],
        ["screen", "x", "--resize", "1,2,3"],
        ["screen", "x", "--columns", "a"],
        ["cleanse", "x", "y"],
        ["--nonsense"],
    ],
)
def test_wrong_usage_ends_with_2(args, answer):
    done = run(*args)
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.startswith("bre: error: ")
    assert done.stderr.endswith(" --help)\n")
    assert done.stderr.count("\n") == 1
    assert not answer.calls


@pytest.mark.parametrize("verb", [["screen"], ["detect", "--model", "m"]])
def test_out_is_looked_at_before_any_work(data, answer, tmp_path, verb):
    for out, message in (
        (tmp_path, "exists already"),
        (tmp_path / "a" / "b", "does not exist"),
    ):
        for option in ("--out", "--sarif"):
            done = run(*verb, data, option, out)
            assert done.exit_code == 2
            assert message in done.stderr
    assert not answer.calls


def test_two_outputs_of_one_name(data, answer, tmp_path):
    done = run("screen", data, "--out", tmp_path / "a", "--sarif", tmp_path / "a")
    assert done.exit_code == 2
    assert "give each a name of its own" in done.stderr
    assert not answer.calls


def test_a_folder_that_takes_no_files(data, answer, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path)  # root may write anywhere
    done = run("screen", data, "--out", tmp_path / "report")
    assert done.exit_code == 2
    assert "no permission to write" in done.stderr
    assert not answer.calls


def test_without_a_command_comes_the_help():
    done = run()
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.startswith("Usage: ")
    assert "bre screen train.npz" in done.stderr


@pytest.mark.parametrize("option", ["--out", "--sarif"])
def test_a_report_is_not_saved_into_the_dataset(answer, images_folder, option):
    done = run("screen", images_folder, option, images_folder / "report")
    assert done.exit_code == 2
    assert "lies inside the dataset" in done.stderr
    assert not answer.calls
