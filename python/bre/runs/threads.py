"""Searches side by side, one thread each, so that answers are the same at any number of threads."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch

from ..method import linalg

MAX_WORKERS = 4  # threads; that search classes; source: chosen
WORKERS_MEMORY = 2**30  # bytes; of large matrices that all the workers together may hold; source: chosen

Key = TypeVar("Key")
Result = TypeVar("Result")


class Workers:
    """Threads of one torch thread each; see `workers`."""

    def __init__(self, pool: ThreadPoolExecutor, count: int):
        self.pool, self.count = pool, count

    def in_order(
        self, tasks: Iterable[tuple[Key, Callable[[], Result]]], before: Callable[[int], None]
    ) -> Iterator[tuple[Key, Result]]:
        """The results of keyed tasks, in their order, a few of them at work at any time. The next task is made by the
        caller's thread, once there is room for it; before: called with its number."""
        waiting: deque[tuple[Key, Future[Result]]] = deque()
        for number, (key, task) in enumerate(tasks):
            before(number)
            waiting.append((key, self.pool.submit(task)))
            if len(waiting) > self.count:
                key, future = waiting.popleft()
                yield key, future.result()
        while waiting:
            key, future = waiting.popleft()
            yield key, future.result()


@contextmanager
def workers(memory: int) -> Iterator[Workers]:
    """As many as torch has threads here and as WORKERS_MEMORY allows, `memory` bytes each. What is queued when the
    block ends by an error or by Ctrl-C is not begun any more."""
    threads = torch.get_num_threads()
    count = max(1, min(threads, MAX_WORKERS, WORKERS_MEMORY // memory))
    pool = ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(1,))
    try:
        with linalg.single_blas:
            try:
                yield Workers(pool, count)
            finally:
                pool.shutdown(cancel_futures=True)
    finally:
        torch.set_num_threads(threads)  # of threads that are yet to be made
