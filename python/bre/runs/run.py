"""The loop over tasks: what is done already is taken from the folder, the rest is given to an executor."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from . import packing
from .executors import Executor, Here
from .folder import RunFolder
from .work import Work


class Run:
    """folder: None keeps nothing; executor: None does tasks here."""

    def __init__(self, folder: RunFolder | None = None, executor: Executor | None = None):
        self.folder, self.executor = folder, executor or Here()

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
        for number, result in self.executor.results(work, left, context, memory) if left else ():
            if self.folder:
                self.folder.save(work.name, names[number], result, work.kinds)
            done += 1
            report(done / len(tasks))
            yield number, result

    def one(self, work: Work, arguments: tuple[Any, ...], context: Any, *, kinds: tuple[type, ...] = ()) -> Any:
        """The result of one task."""
        ((_, result),) = self.map(work, [arguments], context, kinds=kinds)
        return result

    def all(self, work: Work, each: Iterable[tuple[Any, ...]], context: Any, **more: Any) -> list[Any]:
        """The results of all tasks, in their order."""
        return [result for _, result in sorted(self.map(work, each, context, **more), key=lambda pair: pair[0])]
