"""Writing a file or folder whole or not at all, and so that a power cut does not take it back."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from .errors import InputError

if sys.platform != "win32":
    import fcntl

PREFIX, SUFFIX = ".bre.", ".partial"  # of the folder in which a file or folder is made
ABANDONED = 3600  # seconds after which an empty one, which nobody holds, is not a run that has just begun
MAX_FLUSHED = 1000  # files of a folder that are flushed one by one; of more, the whole machine's are at once


def check_new(out: str | os.PathLike[str], *, outside: Path | None = None) -> Path:
    """`out` as a path. Raises InputError when it exists, its parent does not exist or may not be written to, or it lies
    in the folder `outside`."""
    out = Path(out)
    if os.path.lexists(out):
        raise InputError(f"{out} exists already; bre never overwrites, give a new name")
    if not out.parent.is_dir():
        raise InputError(f"cannot write {out}: the folder {out.parent} does not exist")
    if not os.access(out.parent, os.W_OK | os.X_OK):
        raise InputError(f"cannot write {out}: no permission to write in {out.parent}")
    if outside is not None and out.resolve().is_relative_to(outside.resolve()):
        raise InputError(f"{out} lies inside the dataset {outside}: give a path outside of it")
    return out


@contextlib.contextmanager
def atomic_path(out: str | os.PathLike[str], *, directory: bool = False) -> Iterator[Path]:
    """Yield a fresh path beside `out`: renamed to `out` on success, removed on any exception, Ctrl-C too.

    out: must not exist, its parent must. directory: the yielded path is an empty folder (else an empty file).
    What was written is on the disk before it has its final name, and the name is before this returns. What a killed run
    left beside `out` is removed. Raises InputError when `out` exists or its parent does not.
    """
    out = check_new(out)
    remove_abandoned(out.parent)
    box = Path(tempfile.mkdtemp(prefix=PREFIX, suffix=SUFFIX, dir=out.parent))
    try:
        with _held(box):
            part = box / out.name
            part.mkdir() if directory else part.touch()
            yield part
            if os.path.lexists(out):
                raise InputError(f"{out} appeared while bre was writing it; nothing was overwritten")
            flush(part)
            part.rename(out)
            _flush_folder(out.parent)
    finally:
        shutil.rmtree(box, ignore_errors=True)


def remove_abandoned(folder: Path) -> None:
    """Remove what killed runs were making in a folder.

    A run that lives holds the lock on the folder that it writes in, from before there is anything in it.
    """
    with contextlib.suppress(OSError):  # not ours to list, or to remove
        for entry in list(os.scandir(folder)):
            if entry.name.startswith(PREFIX) and entry.name.endswith(SUFFIX) and entry.is_dir(follow_symlinks=False):
                _remove_if_abandoned(Path(entry.path))


def _remove_if_abandoned(box: Path) -> None:
    with contextlib.suppress(OSError):
        if any(box.iterdir()) or time.time() - box.stat().st_mtime > ABANDONED:
            with _held(box) as held:
                if held:
                    shutil.rmtree(box, ignore_errors=True)


@contextlib.contextmanager
def _held(folder: Path) -> Iterator[bool]:
    """Hold the lock on a folder; whether that was possible. It ends with the process, however that ends."""
    if sys.platform == "win32":
        yield False
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            held = True
        except OSError:  # another process holds it, or the file system has no locks
            held = False
        yield held
    finally:
        os.close(descriptor)


def flush(path: Path) -> None:
    """Wait until a file, or a folder with all that is in it, is on the disk."""
    if not path.is_dir():
        _flush_file(path)
        return
    folders = [(Path(folder), files) for folder, _, files in os.walk(path)]
    if hasattr(os, "sync") and sum(len(files) for _, files in folders) > MAX_FLUSHED:
        os.sync()
        return
    for folder, files in reversed(folders):
        for name in files:
            _flush_file(folder / name)
        _flush_folder(folder)


def _flush_file(path: Path) -> None:
    if stat.S_ISREG(path.lstat().st_mode):
        with path.open("rb" if sys.platform != "win32" else "r+b") as f:  # Windows flushes only what may be written to
            os.fsync(f.fileno())


def _flush_folder(folder: Path) -> None:
    if sys.platform == "win32":  # which has no such thing
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as e:
        if e.errno not in (errno.EINVAL, errno.ENOTSUP):  # as some network file systems say
            raise
    finally:
        os.close(descriptor)


def link_or_copy(source: Path, target: Path) -> None:
    """Hard-link `source` at `target`, or copy it where the file system cannot link (another device, FAT)."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
