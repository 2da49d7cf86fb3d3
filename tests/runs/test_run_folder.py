"""The folder of a run: what is done stays done, what is half-written is not there, other runs' folders are refused."""

from __future__ import annotations

import os
import time

import numpy as np
import pytest

from bre import InputError
from bre.runs.run import Run
from bre.runs.run_folder import OLD_SECONDS, RunFolder
from bre.runs.work import Work

calls: list[int] = []


def read(context, number):
    calls.append(number)
    return (number,)


def square(number):
    return np.array([number * number])


SQUARE = Work("square", read, square)


def results(folder, numbers):
    calls.clear()
    return [int(found[0]) for found in Run(folder).all(SQUARE, [(n,) for n in numbers], None)]


def test_what_is_done_is_not_done_again(tmp_path):
    assert results(RunFolder(tmp_path / "run", {"data": "a"}), (1, 2)) == [1, 4]
    assert calls == [1, 2]
    assert results(RunFolder(tmp_path / "run", {"data": "a"}), (3, 2, 1)) == [9, 4, 1]
    assert calls == [3]
    assert results(None, (3, 2)) == [9, 4]


def test_a_task_that_fails_leaves_what_was_done(tmp_path, monkeypatch):
    folder = RunFolder(tmp_path / "run", {})
    with pytest.raises(TypeError):
        Run(folder).all(SQUARE, [(2,), ("x",)], None)
    assert results(folder, (2,)) == [4]
    assert calls == []


def test_a_damaged_file_is_named_and_removing_it_helps(tmp_path):
    folder = RunFolder(tmp_path / "run", {})
    results(folder, (2,))
    (file,) = (tmp_path / "run" / "square").iterdir()
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(InputError, match=f"{file.name} is damaged"):
        results(folder, (2,))
    file.unlink()
    assert results(folder, (2,)) == [4]


@pytest.mark.parametrize(
    ("identity", "message"),
    [
        ({"data": "b", "seed": 0}, "made with another data"),
        ({"data": "a", "seed": 1}, r"made with another seed \(0, here 1\)"),
        ({"data": "a"}, "another seed"),
    ],
)
def test_a_folder_of_another_run_is_refused(tmp_path, identity, message):
    RunFolder(tmp_path / "run", {"data": "a", "seed": 0})
    with pytest.raises(InputError, match=message) as error:
        RunFolder(tmp_path / "run", identity)
    assert error.value.arguments == ("workdir",)


def test_a_folder_that_is_none_is_refused(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="no run's folder"):
        RunFolder(tmp_path, {})
    with pytest.raises(InputError, match="is no folder"):
        RunFolder(tmp_path / "file", {})
    with pytest.raises(InputError, match="cannot be used"):
        RunFolder(tmp_path / "deep" / "run", {})
    for content in (b"{", b"[]", b"x" * 2**21):
        folder = tmp_path / str(len(content))
        folder.mkdir()
        (folder / "run.json").write_bytes(content)
        with pytest.raises(InputError, match="damaged, or no run's"):
            RunFolder(folder, {})


def test_what_a_killed_run_left_is_no_task_and_goes_when_it_is_old(tmp_path):
    RunFolder(tmp_path / "run", {})
    new, old = tmp_path / "run" / ".new.partial", tmp_path / "run" / "square" / ".old.partial"
    old.parent.mkdir()
    for path in (new, old):
        path.write_bytes(b"half")
    os.utime(old, (time.time() - 2 * OLD_SECONDS,) * 2)
    assert results(RunFolder(tmp_path / "run", {}), (2,)) == [4]
    assert new.exists()
    assert not old.exists()
