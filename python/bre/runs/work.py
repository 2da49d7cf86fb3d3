"""What a task is, and how one is done, in whatever thread, process or machine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..method.linalg import single_thread
from .contexts import Handle, opened


@dataclass(frozen=True)
class Work:
    """A kind of task. name: of it and of its folder in a run's; read: (context, *arguments) -> what `compute` takes;
    compute: the rest, without the context, None where all is done while reading; kinds: the classes that its result
    consists of, beside arrays and plain values. The functions are a module's own, so that they can be sent by name."""

    name: str
    read: Callable[..., Any]
    compute: Callable[..., Any] | None
    kinds: tuple[type, ...] = ()

    def finish(self, material: Any) -> Any:
        return material if self.compute is None else self.compute(*material)


def perform(handle: Handle, work: Work, arguments: tuple[Any, ...]) -> Any:
    """The result of one task. Images are read by one thread of a process at a time, since datasets need not be safe to
    share; the rest is done by one thread, so that its last digits are the same everywhere."""
    context, reading = opened(handle)
    with reading:
        material = work.read(context, *arguments)
    with single_thread():
        return work.finish(material)
