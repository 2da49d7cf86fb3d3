"""Files and folders that are written whole or not at all: on the disk before they have their name, no litter."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import bre
from bre import _files
from bre._files import atomic_path, check_new
from bre.errors import InputError

posix = pytest.mark.skipif(sys.platform == "win32", reason="no such calls there")


def test_a_file_and_a_folder(tmp_path):
    with atomic_path(tmp_path / "file") as part:
        part.write_text("whole")
        assert os.listdir(tmp_path) != ["file"]
    with atomic_path(tmp_path / "folder", directory=True) as part:
        (part / "within").mkdir()
        (part / "within" / "file").write_text("whole")
    assert sorted(os.listdir(tmp_path)) == ["file", "folder"]
    assert (tmp_path / "folder" / "within" / "file").read_text() == (tmp_path / "file").read_text() == "whole"


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_nothing_is_left_of_what_failed(tmp_path, error):
    def failing():
        with atomic_path(tmp_path / "folder", directory=True) as part:
            (part / "file").write_text("half")
            raise error

    with pytest.raises(error):
        failing()
    assert os.listdir(tmp_path) == []


def test_nothing_is_overwritten(tmp_path):
    (tmp_path / "there").write_text("old")
    with pytest.raises(InputError, match="exists already"):
        check_new(tmp_path / "there")

    def overtaken():
        with atomic_path(tmp_path / "new") as part:
            part.write_text("new")
            (tmp_path / "new").write_text("other")

    with pytest.raises(InputError, match="appeared while"):
        overtaken()
    assert (tmp_path / "new").read_text() == "other"


@posix
@pytest.mark.parametrize("directory", [False, True])
def test_what_is_renamed_was_flushed_and_its_folder_is_afterwards(tmp_path, monkeypatch, directory):
    calls = []
    fsync, rename = os.fsync, Path.rename
    monkeypatch.setattr(os, "fsync", lambda fd: (calls.append(os.readlink(f"/proc/self/fd/{fd}")), fsync(fd))[1])
    monkeypatch.setattr(Path, "rename", lambda self, to: (calls.append("rename"), rename(self, to))[1])
    with atomic_path(tmp_path / "out", directory=directory) as part:
        (part / "file" if directory else part).write_text("whole")
    names = [Path(call).name for call in calls]
    at = names.index("rename")
    assert set(["file", "out"] if directory else ["out"]) <= set(names[:at])
    assert names[at + 1 :] == [tmp_path.name]


@posix
def test_many_files_are_flushed_at_once(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(_files, "_FLUSHED_ONE_BY_ONE", 3)
    monkeypatch.setattr(os, "sync", lambda: calls.append("sync"))
    with atomic_path(tmp_path / "out", directory=True) as part:
        for k in range(4):
            (part / str(k)).write_text("whole")
    assert calls == ["sync"]  # and the folder that holds the name by itself


def test_a_full_disk_is_not_passed_over(tmp_path, monkeypatch):
    def full(_descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"), atomic_path(tmp_path / "out") as part:
        part.write_text("half")
    assert os.listdir(tmp_path) == []


KILLED = """
import os, sys, time
from bre._files import atomic_path
with atomic_path(sys.argv[1], directory=True) as part:
    (part / "file").write_text("half")
    print("begun", flush=True)
    time.sleep(600)
"""


def begun(out):
    environment = {**os.environ, "PYTHONPATH": str(Path(bre.__file__).parents[1])}
    process = subprocess.Popen([sys.executable, "-c", KILLED, out], stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout.readline() == "begun\n"
    return process


@posix
def test_litter_of_a_killed_run_is_removed_by_the_next_and_a_living_one_is_left_alone(tmp_path):
    living = begun(tmp_path / "living")
    try:
        killed = begun(tmp_path / "killed")
        killed.send_signal(signal.SIGKILL)
        killed.communicate()
        assert len(os.listdir(tmp_path)) == 2
        with atomic_path(tmp_path / "out") as part:
            part.write_text("whole")
        left = [name for name in os.listdir(tmp_path) if name != "out"]
        assert [os.listdir(tmp_path / name) for name in left] == [["living"]]
    finally:
        living.kill()
        living.communicate()


@posix
def test_what_only_looks_like_litter_is_left_alone(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "file").write_text("kept")
    (tmp_path / ".bre.link.partial").symlink_to(tmp_path / "elsewhere")
    (tmp_path / ".bre.file.partial").write_text("kept")
    (tmp_path / ".bre.old.partial").mkdir()
    os.utime(tmp_path / ".bre.old.partial", (0, 0))
    with atomic_path(tmp_path / "out"):
        pass
    left = {".bre.file.partial", ".bre.link.partial", "elsewhere", "out"}
    assert set(os.listdir(tmp_path)) == left
    assert (tmp_path / "elsewhere" / "file").read_text() == "kept"
