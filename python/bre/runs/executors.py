"""Who runs the pieces of a long piece of work: this process, processes beside it, a Ray cluster, or the caller's own.

All of them look like `concurrent.futures.Executor.submit`. What a piece answers may not depend on where it runs.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import queue
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait
from typing import Any, TypeAlias

from .. import _check as check
from ..errors import InputError

Submit: TypeAlias = Callable[..., Any]  # (function, *arguments) -> a future, with result() and add_done_callback()
KINDS = ("local", "ray")
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def check_executor(executor: str | Submit, jobs: int = 1, ray_address: str | None = None) -> None:
    """Raises InputError for an executor that is none, for jobs below 1, and for what the executor has no use for."""
    if not callable(executor) and executor not in KINDS:
        raise InputError(
            f"executor must be {' or '.join(map(repr, KINDS))}, or a function like "
            f"concurrent.futures.Executor.submit; got {check.short(executor)}"
        )
    if check.integer(jobs, "jobs", 1) > 1 and executor != "local":
        raise InputError("this is for local processes; how much runs at once is the executor's to say", argument="jobs")
    if ray_address is not None and executor != "ray":
        raise InputError("an address of Ray is of use with the executor 'ray' only", argument="ray_address")
    if ray_address is not None and not (isinstance(ray_address, str) and ray_address):
        raise InputError(f"expected 'auto' or HOST:PORT, got {check.short(ray_address)}", argument="ray_address")


@contextlib.contextmanager
def submitter(executor: str | Submit = "local", jobs: int = 1, ray_address: str | None = None) -> Iterator[Submit]:
    """Yield `submit(function, *arguments)`, which returns a future.

    executor: "local", which is this process where jobs is 1 (a piece is done when `submit` returns), else that many
    processes; "ray", the cluster at the address ("auto": the one that this machine belongs to; None: one that is
    started here and ended); or a function that is yielded as it is. The function and its arguments are pickled but for
    one job. When the block ends by an exception, pieces that wait are dropped and local processes ended.

    Raises InputError as `check_executor` does, and where Ray is missing or cannot be reached.
    """
    check_executor(executor, jobs, ray_address)
    if callable(executor):
        yield executor
    elif executor == "ray":
        with _ray(ray_address) as submit:
            yield submit
    elif jobs == 1:
        yield _here
    else:
        with _processes(jobs) as submit:
            yield submit


def ended(submit: Submit, pieces: Iterable[tuple[Any, ...]], ahead: int) -> Iterator[tuple[int, Any]]:
    """Yield (number of a piece, its future, which is done) of all pieces, as they end.

    pieces: (function, *arguments) each. ahead: how many may have been submitted and not been yielded; a piece is
    taken from `pieces` when it is submitted.
    """
    done: queue.SimpleQueue[tuple[int, Any]] = queue.SimpleQueue()
    waiting, running, more = enumerate(pieces), 0, True
    while more or running:
        while more and running < ahead and done.empty():
            number, piece = next(waiting, (-1, ()))
            more = number >= 0
            if more:
                running += 1
                submit(*piece).add_done_callback(lambda future, number=number: done.put((number, future)))
        if running:
            yield done.get()
            running -= 1


def _call(function: Callable[..., Any], *arguments: Any) -> Any:
    """A function of Python itself, as Ray wants it: others can be called too."""
    return function(*arguments)


def _here(function: Callable[..., Any], *arguments: Any) -> Future[Any]:
    future: Future[Any] = Future()
    try:
        future.set_result(function(*arguments))
    except Exception as e:
        future.set_exception(e)
    return future


@contextlib.contextmanager
def _processes(jobs: int) -> Iterator[Submit]:
    """A pool of processes, and another one where a process of it was killed: what ran then has failed."""
    spawn = multiprocessing.get_context("spawn")  # a fork would take locks along that other threads hold
    threads = max(1, (os.cpu_count() or 1) // jobs)

    def new() -> ProcessPoolExecutor:
        return ProcessPoolExecutor(jobs, mp_context=spawn, initializer=_prepare, initargs=(threads,))

    pools = [new()]

    def submit(function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        try:
            return pools[-1].submit(function, *arguments)
        except BrokenProcessPool:
            pools.append(new())
            return pools[-1].submit(function, *arguments)

    try:
        yield submit
    except BaseException:
        for pool in pools:
            for process in list((pool._processes or {}).values()):
                process.terminate()
        raise
    finally:
        for pool in pools:
            pool.shutdown(cancel_futures=True)


def _prepare(threads: int) -> None:
    """What a process of the pool begins with. It ends with the process that started it, also where that was killed."""
    for name in _THREADS:  # read when torch and numpy are first imported
        os.environ[name] = str(threads)
    if "torch" in sys.modules:  # the caller's own program has imported it
        sys.modules["torch"].set_num_threads(threads)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all; who started this one ends it
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


@contextlib.contextmanager
def _ray(address: str | None) -> Iterator[Submit]:
    from ..inputs._extras import need  # which imports torch, and what begins a process should not

    ray = need("ray", "ray", "an executor of Ray")
    ours = not ray.is_initialized()
    if ours:
        try:
            ray.init(address=address, log_to_driver=False, include_dashboard=None if address else False)
        except (ConnectionError, ValueError, RuntimeError) as e:
            raise InputError(f"no Ray cluster at {address}: {check.first_line(e)}", argument="ray_address") from e

    call = ray.remote(_call)

    def submit(function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        future: Future[Any] = Future()

        def pass_on(of_ray: Future[Any]) -> None:
            error = of_ray.exception()
            if error is None:
                future.set_result(of_ray.result())
            else:  # what the function raised, without Ray's frame around it
                future.set_exception(getattr(error, "cause", None) or error)

        call.remote(function, *arguments).future().add_done_callback(pass_on)
        return future

    try:
        yield submit
    finally:
        if ours:
            ray.shutdown()
