"""The loop over tasks: what is done already is taken from the folder, the rest is done here or by an executor."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from ..errors import BreError
from . import packing
from .contexts import Handle, shared
from .executors import Submit, submitter
from .executors import ended as in_any_order
from .machine import machine
from .run_folder import RunFolder
from .threads import workers
from .work import Work, perform

WAITING = 2  # tasks; for each process, that are done or wait; source: chosen, so that none is idle
# tasks; that an executor whose size is not known holds at a time; source: chosen, a small cluster is busy with them
CLUSTER_TASKS = 128

Numbered = Sequence[tuple[int, tuple[Any, ...]]]


class Run:
    """Where tasks are done, and what of them is kept."""

    def __init__(self, folder: RunFolder | None = None, others: Others | None = None):
        """folder: None keeps nothing; others: None does tasks here, a few threads at a time."""
        self.folder, self._others = folder, others

    def map(
        self,
        work: Work,
        each: Iterable[tuple[Any, ...]],
        context: Any,
        *,
        memory: int = 1,
        kinds: tuple[type, ...] = (),
        report: Callable[[float], None] = lambda fraction: None,
    ) -> Iterator[tuple[int, Any]]:
        """(number, result) of the task of each tuple of arguments, in any order; what the folder holds comes first.

        context: what `work.read` takes, before the arguments; memory: bytes that one task holds; kinds: the classes
        that arguments consist of; report: called with the fraction done.
        """
        tasks = list(enumerate(each))
        names = [packing.digest_of(arguments, kinds) for _, arguments in tasks] if self.folder else []
        left, done = [], 0
        for number, arguments in tasks:
            found, result = self.folder.load(work.name, names[number], work.kinds) if self.folder else (False, None)
            if found:
                done += 1
                yield number, result
            else:
                left.append((number, arguments))
        results = (self._others.results if self._others else _here)(work, left, context, memory) if left else ()
        for number, result in results:
            if self.folder:
                self.folder.save(work.name, names[number], result, work.kinds)
            done += 1
            report(done / len(tasks))
            yield number, result

    def all(self, work: Work, each: Iterable[tuple[Any, ...]], context: Any, **more: Any) -> list[Any]:
        """The results of all tasks, in their order; more: as for `map`."""
        return [result for _, result in sorted(self.map(work, each, context, **more), key=lambda pair: pair[0])]

    def one(self, work: Work, arguments: tuple[Any, ...], context: Any, **more: Any) -> Any:
        """The result of one task."""
        (result,) = self.all(work, [arguments], context, **more)
        return result


def _here(work: Work, tasks: Numbered, context: Any, memory: int) -> Iterator[tuple[int, Any]]:
    """In this process: images are read by the caller's thread, the rest is done by a few, each one task."""

    def made() -> Iterator[tuple[int, Callable[[], Any]]]:
        for number, arguments in tasks:
            material = work.read(context, *arguments)
            yield number, lambda material=material: work.finish(material)  # type: ignore[misc]

    if work.compute is None:
        yield from ((number, work.read(context, *arguments)) for number, arguments in tasks)
        return
    with workers(max(memory, 1)) as threads:
        yield from threads.in_order(made(), lambda number: None)


class Others:
    """Workers of an executor, which get a context once. width: tasks that they hold at a time."""

    def __init__(self, submit: Submit, executor: str | Submit, width: int, folder: str):
        self._submit, self._executor, self._width, self._folder = submit, executor, width, folder
        self._shared: tuple[Any, Handle] | None = None

    def results(self, work: Work, tasks: Numbered, context: Any, memory: int) -> Iterator[tuple[int, Any]]:
        if self._shared is None or self._shared[0] is not context:
            self._shared = context, shared(context, self._executor, self._folder)
        handle = self._shared[1]
        pieces = ((perform, handle, work, arguments) for _, arguments in tasks)
        for place, future in in_any_order(self._submit, pieces, self._width):
            try:
                yield tasks[place][0], future.result()
            except BrokenProcessPool as e:
                raise BreError(
                    "a worker process was lost, killed for want of memory perhaps: give fewer jobs. With a workdir, "
                    "the same command goes on where this one ended"
                ) from e


@contextlib.contextmanager
def opened_run(
    workdir: str | os.PathLike[str] | None,
    executor: str | Submit,
    jobs: int,
    ray_address: str | None,
    made_from: Mapping[str, Any],
) -> Iterator[Run]:
    """workdir, executor, jobs, ray_address: as `bre.screen` takes them; made_from: what all tasks' results depend on,
    beside this machine. Raises InputError for a folder of another run, and for what `submitter` refuses."""
    kept = None if workdir is None else RunFolder(workdir, {**made_from, **machine()})
    if executor == "local" and jobs == 1:
        yield Run(kept)
        return
    width = WAITING * jobs if executor == "local" else CLUSTER_TASKS
    private = tempfile.mkdtemp(prefix="bre-")  # for its owner alone
    try:
        with submitter(executor, jobs, ray_address) as submit:
            yield Run(kept, Others(submit, executor, width, private))
    finally:
        shutil.rmtree(private, ignore_errors=True)
