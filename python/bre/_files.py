"""Writing files and folders whole or not at all, and on the disk before they have their names."""

import contextlib
import errno
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import FrameType

from .errors import InputError

try:
    import fcntl
except ImportError:  # Windows: what a killed run left behind stays
    fcntl = None  # type: ignore[assignment]

_PREFIX, _SUFFIX = ".bre.", ".partial"
# files; of more, all that the system has is flushed at once; source: chosen, a flush takes up to some 10 ms on a disk
_FLUSHED_ONE_BY_ONE = 64
_SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")


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
    check_outside(out, outside)
    return out


def check_outside(out: str | os.PathLike[str], dataset: Path | None) -> None:
    """Raises InputError for a path in the dataset's folder."""
    if dataset is not None and Path(out).resolve().is_relative_to(dataset.resolve()):
        raise InputError(f"{out} lies inside the dataset {dataset}: give a path outside of it")


@contextlib.contextmanager
def atomic_path(
    out: str | os.PathLike[str], *, directory: bool = False, beside: Mapping[Path, bytes] | None = None
) -> Iterator[Path]:
    """Yield a fresh path in the folder of `out`: renamed to `out` on success, removed on any exception, Ctrl-C too.

    out: must not exist, its parent must. directory: the yielded path is an empty folder (else an empty file).
    beside: further new files in the same folder, {path: content}, which get their names just before `out` does; one
    that exists with that very content is what a killed run left, and will do. Everything is on the disk before it has
    its name, and no signal comes between the names. Raises InputError when `out` exists or its parent does not.
    """
    out = check_new(out)
    beside = beside or {}
    for path, content in beside.items():
        if not (path.is_file() and path.stat().st_size == len(content) and path.read_bytes() == content):
            check_new(path)
    with _fresh_folder(out.parent) as box:
        part = box / out.name
        part.mkdir() if directory else part.touch()
        yield part
        for path, content in beside.items():
            (box / path.name).write_bytes(content)
        _flush(box)
        if os.path.lexists(out):
            raise InputError(f"{out} appeared while bre was writing it; nothing was overwritten")
        with _signals_later():
            for path in beside:
                (box / path.name).replace(path)
            part.rename(out)
            _flush_one(out.parent)


@contextlib.contextmanager
def _fresh_folder(parent: Path) -> Iterator[Path]:
    """A new folder in `parent`, removed at the end. It is locked while it is in use: one that is not is a killed run's,
    and goes too."""
    _remove_left_behind(parent)
    box, lock = _locked_folder(parent)
    try:
        yield box
    finally:
        shutil.rmtree(box, ignore_errors=True)
        if lock is not None:
            os.close(lock)


def _locked_folder(parent: Path) -> tuple[Path, int | None]:
    """A new folder and what locks it; None where the system has no locks."""
    while True:
        box = Path(tempfile.mkdtemp(prefix=_PREFIX, suffix=_SUFFIX, dir=parent))
        if fcntl is None:
            return box, None
        lock = os.open(box, os.O_RDONLY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:  # another run took it for left behind, in the moment before it was locked
            pass
        except OSError:  # a file system without locks
            return box, lock
        else:
            if box.exists():
                return box, lock
        os.close(lock)


def _remove_left_behind(parent: Path) -> None:
    if fcntl is None:
        return
    for box in parent.glob(f"{_PREFIX}*{_SUFFIX}"):
        with contextlib.suppress(OSError):
            lock = os.open(box, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                if os.fstat(lock).st_uid == os.geteuid():
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(box)
            finally:
                os.close(lock)


def _flush(folder: Path) -> None:
    """Everything in a folder to the disk, and the folder."""
    if os.name != "posix":  # elsewhere only files that are open for writing can be flushed
        return
    found = [folder, *folder.rglob("*")]
    if len(found) > _FLUSHED_ONE_BY_ONE:
        os.sync()
        return
    for path in found:
        _flush_one(path)


def _flush_one(path: Path) -> None:
    if os.name != "posix":
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as e:
        if e.errno not in (errno.EINVAL, errno.ENOTSUP):  # a file system that cannot flush folders
            raise
    finally:
        os.close(handle)


@contextlib.contextmanager
def _signals_later() -> Iterator[None]:
    """Signals that ask for the end come when the block is over: handlers run in the main thread only."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        came.append(number)

    numbers = [getattr(signal, name) for name in _SIGNALS if hasattr(signal, name)]
    before = {number: signal.getsignal(number) for number in numbers}
    held = {number: handler for number, handler in before.items() if handler not in (signal.SIG_IGN, None)}
    for number in held:
        signal.signal(number, note)
    try:
        yield
    finally:
        for number, handler in held.items():
            signal.signal(number, handler)
        for number in came:
            signal.raise_signal(number)
