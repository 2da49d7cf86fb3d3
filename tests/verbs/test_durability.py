"""Files written whole or not at all: on the disk before they have their names, together, and without litter."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from bre import _files
from bre._files import atomic_path
from bre.errors import InputError


def test_everything_is_flushed_before_it_has_its_name(tmp_path, monkeypatch):
    events = []
    fsync, rename = os.fsync, Path.rename
    monkeypatch.setattr(os, "fsync", lambda fd: (events.append(os.readlink(f"/proc/self/fd/{fd}")), fsync(fd))[1])
    monkeypatch.setattr(Path, "rename", lambda self, to: (events.append("rename"), rename(self, to))[1])
    with atomic_path(tmp_path / "out", directory=True) as part:
        (part / "deep").mkdir()
        (part / "deep" / "x").write_text("x")
    before, after = events[: events.index("rename")], events[events.index("rename") + 1 :]
    assert [Path(p).name for p in before][1:] == ["out", "deep", "x"]
    assert after == [str(tmp_path)]
    monkeypatch.setattr(os, "sync", lambda: events.append("sync"))
    events.clear()
    with atomic_path(tmp_path / "many", directory=True) as part:
        for i in range(100):
            (part / str(i)).touch()
    assert events == ["sync", "rename", str(tmp_path)]


def test_what_a_killed_run_left_is_removed_by_the_next(tmp_path):
    code = (
        "import os, sys; from bre._files import atomic_path\n"
        "with atomic_path(sys.argv[1]) as part:\n"
        "    part.write_text('half'); os.kill(os.getpid(), 9)\n"
    )
    for _ in range(2):
        subprocess.run([sys.executable, "-c", code, tmp_path / "out"], check=False)
    assert len(list(tmp_path.iterdir())) == 1, "the second has removed what the first left"
    with atomic_path(tmp_path / "one") as part:
        assert len(list(tmp_path.iterdir())) == 1
        with atomic_path(tmp_path / "two"):
            assert part.exists(), "one that is in use stays"
    assert sorted(os.listdir(tmp_path)) == ["one", "two"]


def test_a_signal_comes_before_or_after_both_names(tmp_path, monkeypatch):
    class Stop(KeyboardInterrupt):
        pass

    def stop(number, frame):
        raise Stop

    before = signal.signal(signal.SIGTERM, stop)
    replace = Path.replace

    def replaced(self, to):
        signal.raise_signal(signal.SIGTERM)
        return replace(self, to)

    monkeypatch.setattr(Path, "replace", replaced)
    try:
        with pytest.raises(Stop), atomic_path(tmp_path / "out", beside={tmp_path / "list": b"x"}):
            pass
        assert signal.getsignal(signal.SIGTERM) is stop
    finally:
        signal.signal(signal.SIGTERM, before)
    assert sorted(os.listdir(tmp_path)) == ["list", "out"]


def test_a_list_that_a_killed_run_left_is_no_obstacle(tmp_path):
    (tmp_path / "list").write_bytes(b"x")
    with atomic_path(tmp_path / "out", beside={tmp_path / "list": b"x"}):
        pass
    with (
        pytest.raises(InputError, match="list exists already"),
        atomic_path(tmp_path / "other", beside={tmp_path / "list": b"y"}),
    ):
        pass
    assert sorted(os.listdir(tmp_path)) == ["list", "out"]


def test_signals_in_other_threads_change_nothing():
    def use():
        with _files._signals_later():
            pass

    thread = threading.Thread(target=use)
    handler = signal.getsignal(signal.SIGINT)
    thread.start()
    thread.join()
    assert signal.getsignal(signal.SIGINT) is handler
