"""Work on many image files by several threads: Pillow lets go of Python's lock while it decodes."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from typing import TypeAlias, TypeVar

import torch

from .regular_files import File

# images; that a thread takes at a time; source: chosen, handing one over takes as long as decoding a few hundred pixels
IMAGES_AT_A_TIME = 16
MAX_DECODERS = 8  # threads; that decode at once; source: chosen, so that few files are open at once
T = TypeVar("T")
Numbered: TypeAlias = tuple[int, File]  # (row, the image's file, to be closed by who takes it)


def for_each(files: Iterable[Numbered], work: Callable[[int, File], T]) -> Iterator[T]:
    """Yield work(row, file) in the order of the files, each of which is closed after that.

    As many threads work as torch may use; one works without any. Work that raises ends all, and what was raised first
    in the order of the files comes out.
    """
    workers = min(MAX_DECODERS, torch.get_num_threads())

    def do(some: list[Numbered]) -> list[T]:
        try:
            results = []
            for row, file in some:
                with file:
                    results.append(work(row, file))
            return results
        finally:
            _close(some)

    if workers == 1:
        for one in files:
            yield from do([one])
        return
    waiting: deque[tuple[list[Numbered], Future[list[T]]]] = deque()
    try:
        for some in _chunks(files):
            waiting.append((some, _threads(os.getpid()).submit(do, some)))
            if len(waiting) > workers:
                yield from waiting.popleft()[1].result()
        while waiting:
            yield from waiting.popleft()[1].result()
    finally:
        for some, future in waiting:
            if future.cancel():
                _close(some)
        for _, future in waiting:
            if not future.cancelled():
                future.exception()  # waits: nobody may still read when this is over


def _chunks(files: Iterable[Numbered]) -> Iterator[list[Numbered]]:
    some: list[Numbered] = []
    try:
        for one in files:
            some.append(one)
            if len(some) == IMAGES_AT_A_TIME:
                yield some
                some = []
    except BaseException:
        _close(some)
        raise
    if some:
        yield some


def _close(some: list[Numbered]) -> None:
    for _, file in some:
        file.close()


@lru_cache(1)
def _threads(process: int) -> ThreadPoolExecutor:
    """process: its number: a fork takes no threads along."""
    return ThreadPoolExecutor(MAX_DECODERS, thread_name_prefix="bre-decode")
