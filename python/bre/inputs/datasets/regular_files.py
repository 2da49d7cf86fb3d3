"""Files opened once and without following links, and arrays that are read from them row by row.

Other programs may change a dataset while it is read: put a link where a file was, cut a file. What is read is always
the file that was opened, in the folder that was opened, and what is missing from it is an error.
"""

from __future__ import annotations

import contextlib
import errno
import io
import json
import math
import os
import shutil
import stat
import threading
import weakref
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import numpy as np

from ...errors import InputError
from .remote_path import AnyPath, NotThere

File: TypeAlias = BinaryIO | io.RawIOBase

# bytes; of a JSON or text file that is read whole; source: chosen
MAX_TEXT = 256 << 20
_BENEATH = os.open in os.supports_dir_fd and hasattr(os, "O_NOFOLLOW")
_READ = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
_LINK = (errno.ELOOP, errno.ENOTDIR)
_POINTER = b"version https://git-lfs.github.com/spec/"


def unreadable(path: str | os.PathLike[str], error: OSError) -> InputError:
    """What the system said about a path, for the user: no permission, too many open files, no such file, ..."""
    kind = NotThere if isinstance(error, FileNotFoundError) else InputError
    return kind(f"{str(path)!r} cannot be read: {error.strerror or error}")


def open_regular(path: str | os.PathLike[str]) -> BinaryIO:
    """A file that the user named, opened for reading. Raises InputError for what is no regular file (a pipe, which
    would be waited for, or a device), and where the system does not let it be read."""
    try:
        return _checked(os.open(path, _READ | getattr(os, "O_NONBLOCK", 0)), path)
    except OSError as e:
        raise unreadable(path, e) from e


class Folder:
    """A folder held open. Files in it are opened by their names in it, and no link is followed on the way."""

    def __init__(self, path: str | os.PathLike[str]):
        """path: links to it and above it are followed, as the user named it. path of the object: without them."""
        self.path = Path(os.path.realpath(path))
        self._handle = -1
        if _BENEATH:
            try:
                self._handle = os.open(self.path, _READ | os.O_DIRECTORY)
            except OSError as e:
                raise unreadable(path, e) from e
            weakref.finalize(self, os.close, self._handle)

    def open(self, name: str) -> BinaryIO:
        """name: relative, with / between its parts, of a regular file. Raises InputError for anything else that is
        found there now, be it a link that was not there before."""
        try:
            return _checked(self._open(name.split("/")), self.path / name)
        except OSError as e:
            if e.errno in _LINK:
                raise InputError(
                    f"{self.path / name} is a link, or lies behind one, that was not there when the dataset was opened"
                ) from e
            raise unreadable(self.path / name, e) from e

    def _open(self, parts: list[str]) -> int:
        if any(part in ("", ".", "..") for part in parts):
            raise InputError(f"{'/'.join(parts)!r} is no name of a file in {self.path}")
        if not _BENEATH:  # Windows, where links need privileges
            return os.open(self.path.joinpath(*parts), _READ)
        folder = self._handle
        try:
            for part in parts[:-1]:
                deeper = os.open(part, _READ | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=folder)
                if folder != self._handle:
                    os.close(folder)
                folder = deeper
            return os.open(parts[-1], _READ | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
        finally:
            if folder != self._handle:
                os.close(folder)

    def link_or_copy(self, name: str, target: Path) -> None:
        """Hard-link a file at `target`, or copy it where the file system cannot link (another device, FAT)."""
        with self.open(name) as file:
            try:
                os.link(self.path / name, target, follow_symlinks=False)
                if os.path.samestat(os.lstat(target), os.fstat(file.fileno())):
                    return
                target.unlink()  # something else has taken its name meanwhile
            except OSError:
                pass
            with target.open("xb") as copy:
                shutil.copyfileobj(file, copy, 1 << 20)
            info = os.fstat(file.fileno())
            with contextlib.suppress(OSError):
                os.utime(target, ns=(info.st_atime_ns, info.st_mtime_ns))


def _checked(handle: int, path: str | os.PathLike[str]) -> BinaryIO:
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise InputError(f"{path} is no regular file (a folder, a pipe or a device)")
        return os.fdopen(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def size_of(file: File) -> int:
    """In bytes; a file on disk stays where it was read to."""
    if isinstance(file, io.BufferedReader):
        return os.fstat(file.fileno()).st_size
    return file.seek(0, os.SEEK_END)


def refuse_pointer(head: bytes, path: object) -> None:
    """Raise InputError for what Git LFS leaves in the place of a file that was not fetched. head: of the file, 64
    bytes or more."""
    if head.startswith(_POINTER):
        raise InputError(f"{path} is a pointer of Git LFS to the file, and not the file: run `git lfs pull` first")


def read_text(file: BinaryIO, path: str | os.PathLike[str]) -> str:
    """A whole UTF-8 file. Raises InputError for one that is larger than MAX_TEXT, or no UTF-8."""
    data = file.read(MAX_TEXT + 1)
    if len(data) > MAX_TEXT:
        raise InputError(f"{path} is larger than {MAX_TEXT >> 20} MiB, which no such file is")
    refuse_pointer(data[:64], path)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as e:
        raise InputError(f"{path} is damaged, or no UTF-8 text: {e}; save it as UTF-8") from e


def parse_json(text: str | bytes, where: str | os.PathLike[str]) -> Any:
    """Raises InputError for what is no JSON, and for what is nested too deep."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as e:
        raise InputError(f"{where} is damaged, or no JSON: {str(e)[:200]}") from e


def read_json_object(path: Path) -> dict[str, Any]:
    """A file that holds one JSON object. Raises InputError for anything else."""
    with open_regular(path) as file:
        content = parse_json(read_text(file, path), path)
    if not isinstance(content, dict):
        raise InputError(f"{path} holds {type(content).__name__}, expected an object")
    return content


class FileRows:
    """An array in a file, C-contiguous, whose rows are read when they are asked for.

    As numpy's memmap, but a file that another program cuts is an error: with a memmap it ends the process.
    """

    def __init__(self, file: BinaryIO, start: int, shape: tuple[int, ...], dtype: np.dtype[Any], where: str):
        """file: kept open, and closed with this object. start: of the first row, in bytes."""
        self._file, self._start, self._where = file, start, where
        weakref.finalize(self, file.close)
        self.shape, self.dtype, self.ndim = shape, dtype, len(shape)
        self._row = math.prod(shape[1:]) * dtype.itemsize

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice | np.ndarray) -> np.ndarray:
        """rows: a slice, or (m,) integers in [0, M). Raises InputError when the file no longer holds them."""
        if isinstance(rows, slice):
            rows = np.arange(*rows.indices(len(self)))
        out = np.empty((len(rows), *self.shape[1:]), self.dtype)
        if not out.size:
            return out
        view = out.reshape(len(rows), -1).view(np.uint8)
        breaks = np.flatnonzero(np.diff(rows) != 1) + 1  # runs of neighbours are read at once
        for first, last in zip([0, *breaks.tolist()], [*breaks.tolist(), len(rows)], strict=True):
            self._fill(view[first:last].reshape(-1), int(rows[first]))
        return out

    def _fill(self, out: np.ndarray, row: int) -> None:
        """out: uint8, of some rows from `row` on."""
        data = read_at(self._file, self._start + row * self._row, len(out))
        if len(data) != len(out):
            raise InputError(f"{self._where} was cut by another program while it was read")
        out[:] = np.frombuffer(data, np.uint8)


class Positioned(io.RawIOBase, ABC):
    """A file of known size that is read from a place of its own; subclasses say how bytes at a place are had."""

    def __init__(self, size: int):
        self._size, self._at = size, 0

    @abstractmethod
    def read_at(self, start: int, size: int) -> bytes:
        """`size` bytes from `start` on, all of them in the file."""

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._at = max(0, offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence])
        return self._at

    def tell(self) -> int:
        return self._at

    def read(self, size: int | None = -1) -> bytes:
        left = max(0, self._size - self._at)
        data = self.read_at(self._at, left if size is None or size < 0 else min(size, left))
        self._at += len(data)
        return data

    def readinto(self, buffer: Any) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


class FileSlice(Positioned):
    """A part of a file as a file of its own, to be read by several threads: closing it leaves the file open."""

    def __init__(self, file: BinaryIO, start: int, size: int, keeper: object = None):
        """keeper: what closes the file when it goes, and so is to stay as long as this."""
        super().__init__(size)
        self._file, self._start, self._keeper = file, start, keeper

    def read_at(self, start: int, size: int) -> bytes:
        return read_at(self._file, self._start + start, size)


def read_at(file: BinaryIO, start: int, size: int) -> bytes:
    """Up to `size` bytes; fewer where the file ends."""
    elsewhere = getattr(file, "read_at", None)  # of what does not lie on this machine
    if elsewhere is not None:
        data: bytes = elsewhere(start, size)
        return data
    if hasattr(os, "pread"):
        parts = []
        while size > 0 and (data := os.pread(file.fileno(), size, start)):
            parts.append(data)
            start, size = start + len(data), size - len(data)
        return parts[0] if len(parts) == 1 else b"".join(parts)
    with _LOCK:  # Windows
        file.seek(start)
        return file.read(size)


_LOCK = threading.Lock()


class _Keeper:
    """What several hold on to, and what happens when none does any more."""


class Reopened(ABC):
    """A file, here or elsewhere, that is opened again each time it is needed. ahead: lists of parts that are made
    before the first is read."""

    path: AnyPath
    ahead = 1

    @property
    @abstractmethod
    def size(self) -> int:
        """In bytes."""

    @abstractmethod
    def open(self) -> BinaryIO:
        """Raises InputError where it is not what it was the first time."""

    @abstractmethod
    def spans(self, ranges: np.ndarray) -> Iterator[list[File]]:
        """ranges: (m, 2) int64, where each part begins and its length -> a file for each, in order, in lists of those
        that are read together. Any thread may read them, at any time."""


class SameFile(Reopened):
    """A file that is opened anew each time it is needed, of which there may be thousands. It must be the one that it
    was the first time: one that was replaced or written to meanwhile is an error."""

    path: Path

    def __init__(self, path: Path, folder: Folder | None = None):
        """folder: what the file lies in, where the user named that; then no link is followed."""
        self.path, self._folder = path, folder
        with self._open() as file:
            self._identity = _identity(file)

    @property
    def size(self) -> int:
        return self._identity[2]

    def _open(self) -> BinaryIO:
        return open_regular(self.path) if self._folder is None else self._folder.open(self.path.name)

    def open(self) -> BinaryIO:
        file = self._open()
        if _identity(file) != self._identity:
            file.close()
            raise InputError(f"{self.path} has changed since the dataset was opened")
        return file

    def spans(self, ranges: np.ndarray) -> Iterator[list[File]]:
        file = self.open()
        keeper = _Keeper()
        weakref.finalize(keeper, file.close)
        yield [FileSlice(file, start, size, keeper) for start, size in ranges.tolist()]


def parts(wanted: Iterable[tuple[Reopened, np.ndarray]]) -> Iterator[File]:
    """The parts of several files, see `Reopened.spans`, one after the other."""
    waiting: deque[list[File]] = deque()
    for file, ranges in wanted:
        for span in file.spans(ranges):
            waiting.append(span)
            if len(waiting) >= file.ahead:
                yield from waiting.popleft()
    while waiting:
        yield from waiting.popleft()


def _identity(file: BinaryIO) -> tuple[int, int, int, int]:
    info = os.fstat(file.fileno())
    return info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns
