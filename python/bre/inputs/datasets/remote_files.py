"""Files that lie elsewhere, read by parts: several at once, ahead of who reads on, again where a request failed."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from typing import Any, TypeVar

import numpy as np

from ...errors import InputError
from .regular_files import File, FileSlice, Positioned, Reopened, SameFile
from .remote_path import AnyPath, RemotePath

PART_BYTES = 1 << 20  # bytes; that a request asks for; source: chosen, takes about as long as the way there and back
MAX_REQUESTS = 16  # requests; at once; source: chosen, above that a machine's network is full
MAX_AHEAD = 4  # blocks; that are fetched ahead of who reads on in a file; source: chosen, as several are read
MAX_GAP = 1 << 17  # bytes; read for nothing rather than asked for around; source: chosen, take an eighth of a request
MAX_WHOLE = 64 << 20  # bytes; of an image that is fetched before it is looked at; source: chosen, real ones are smaller
RECHECK = 60.0  # seconds; after which a file is asked again whether it is the same; source: chosen
_IDENTITY = ("size", "ETag", "etag", "LastModified", "last_modified", "mtime", "created", "blob_id", "md5Hash")
T = TypeVar("T")
S = TypeVar("S")


@lru_cache(1)
def _requests(process: int) -> ThreadPoolExecutor:
    """process: its number: a fork takes no threads along."""
    return ThreadPoolExecutor(MAX_REQUESTS, thread_name_prefix="bre-fetch")


def all_at_once(work: Callable[[S], T], items: Iterable[S], threads: int = MAX_REQUESTS) -> Iterator[T]:
    """work(item) in the order of the items, several at a time; with one thread, without any."""
    if threads == 1:
        yield from map(work, items)
        return
    with ThreadPoolExecutor(threads, thread_name_prefix="bre-open") as pool:
        waiting: deque[Future[T]] = deque()
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) >= threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def same_files(paths: Iterable[AnyPath]) -> list[Reopened]:
    """Files to be opened again and again, on this machine or elsewhere."""
    paths = list(paths)
    return list(all_at_once(same_file, paths, MAX_REQUESTS if any(isinstance(p, RemotePath) for p in paths) else 1))


def same_file(path: AnyPath) -> Reopened:
    return SameRemoteFile(path) if isinstance(path, RemotePath) else SameFile(path)


class SameRemoteFile(Reopened):
    """As SameFile; whether it is the one that it was is asked at most every RECHECK seconds."""

    path: RemotePath
    ahead = MAX_REQUESTS

    def __init__(self, path: RemotePath, facts: dict[str, Any] | None = None):
        """facts: what its place tells of it, where that is known.

        Raises InputError where the place does not tell the size, or does not give parts of files.
        """
        self.path = path
        self._facts = self._ask() if facts is None else facts
        self._checked = time.monotonic()
        size = self._facts.get("size")
        if not isinstance(size, int):
            raise InputError(f"{path} has no size that its place tells of: fetch it first")
        whole = path.protocol in ("http", "https") and not self._facts.get("partial")
        if whole and size > PART_BYTES:
            raise InputError(f"{path} is {size} bytes large, and its server gives no parts of files: fetch it first")
        self._size = size

    @property
    def size(self) -> int:
        return self._size

    def _ask(self) -> dict[str, Any]:
        facts: dict[str, Any] = self.path.ask(lambda: self.path.files.info(self.path.key))
        return facts

    def open(self) -> Any:  # RemoteFile, which is no BinaryIO to mypy
        if time.monotonic() - self._checked > RECHECK:
            self.path.files.invalidate_cache()
            facts = self._ask()
            if any(facts.get(name) != self._facts.get(name) for name in _IDENTITY):
                raise InputError(f"{self.path} has changed since the dataset was opened")
            self._checked = time.monotonic()
        return RemoteFile(self.path, self._size)

    def spans(self, ranges: np.ndarray) -> Iterator[list[File]]:
        """Neighbours are fetched together, from when they are yielded on."""
        file: Any = self.open()
        for begin, end in _runs(ranges):
            some = ranges[begin:end]
            start = int(some[:, 0].min())
            span: Any = _Span(start, int(some.sum(axis=1).max()) - start, file)
            yield [FileSlice(span, start, size) for start, size in some.tolist()]


class RemoteFile(Positioned):
    """A file elsewhere, of known size. Blocks of it are kept, the last few; read on, and more are fetched ahead."""

    def __init__(self, path: RemotePath, size: int):
        super().__init__(size)
        self._path = path
        self._lock, self._last = threading.Lock(), -2
        self._blocks: dict[int, Future[bytes]] = {}

    def read_at(self, start: int, size: int) -> bytes:
        """Up to `size` bytes; fewer where the file ends. For any thread."""
        stop = min(start + size, self._size)
        parts = []
        for number in range(start // PART_BYTES, -(-stop // PART_BYTES)):
            block, begin = self._block(number), number * PART_BYTES
            parts.append(block[max(0, start - begin) : stop - begin])
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def fetch(self, start: int, size: int) -> Future[bytes]:
        """Bytes that lie in the file, as soon as they are there."""
        return _requests(os.getpid()).submit(self._fetch, start, size)

    def _fetch(self, start: int, size: int) -> bytes:
        path = self._path

        def request() -> bytes:
            data: bytes = path.files.cat_file(path.key, start=start, end=start + size)
            if len(data) != size:
                raise OSError(f"{len(data)} bytes came, {size} were asked for: it was cut, or the connection was")
            return data

        return path.ask(request)

    def _block(self, number: int) -> bytes:
        with self._lock:
            ahead = 1 + MAX_AHEAD if number in (self._last, self._last + 1) else 1
            self._last = number
            for n in range(number, min(number + ahead, -(-self._size // PART_BYTES))):
                if n not in self._blocks:
                    self._blocks[n] = self.fetch(n * PART_BYTES, min(PART_BYTES, self._size - n * PART_BYTES))
            block = self._blocks.pop(number)
            for old in [n for n in self._blocks if not number - 2 <= n <= number + MAX_AHEAD]:
                self._blocks.pop(old).cancel()
            self._blocks[number] = block
        try:
            return block.result()
        except InputError:
            with self._lock:
                self._blocks.pop(number, None)
            raise


class _Span:
    """Neighbouring bytes of a file, fetched at once; as a file they are read from where they lie in that."""

    def __init__(self, start: int, size: int, file: RemoteFile):
        self._start, self._file = start, file
        self._data = file.fetch(start, size) if size <= MAX_WHOLE else None

    def read_at(self, start: int, size: int) -> bytes:
        if self._data is None:
            return self._file.read_at(start, size)
        start -= self._start
        return self._data.result()[start : start + size]


def _runs(ranges: np.ndarray) -> Iterator[tuple[int, int]]:
    """(begin, end) of those of the ranges, (m, 2) int64, that are fetched together: neighbours in the order given, a
    block at most."""
    begin = 0
    for i in range(1, len(ranges) + 1):
        if i < len(ranges):
            gap = ranges[i, 0] - ranges[i - 1].sum()
            if 0 <= gap <= MAX_GAP and ranges[i].sum() - ranges[begin, 0] <= PART_BYTES:
                continue
        if begin < i:
            yield begin, i
        begin = i
