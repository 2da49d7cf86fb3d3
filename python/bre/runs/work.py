"""What a task is, and how one is done, in whatever thread, process or machine."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from ..method.linalg import single_thread

MAX_CONTEXTS = 2  # contexts; that a worker keeps open; source: derived, a run goes from one to the next


@dataclass(frozen=True)
class Work:
    """A kind of task. name: of it and of its folder in a run's; read: (context, *arguments) -> what `compute` takes;
    compute: the rest, without the context; kinds: the classes that its result consists of, beside arrays and plain
    values. The functions are a module's own, so that they can be sent by name."""

    name: str
    read: Callable[..., tuple[Any, ...]]
    compute: Callable[..., Any]
    kinds: tuple[type, ...] = ()


class Handle(Protocol):
    """A context as a worker gets it. token: the same for the same context."""

    @property
    def token(self) -> str: ...

    def get(self) -> Any:
        """The context, opened."""
        ...


_lock = threading.Lock()
_contexts: OrderedDict[str, tuple[Any, threading.Lock]] = OrderedDict()


def perform(handle: Handle, work: Work, arguments: tuple[Any, ...]) -> Any:
    """The result of one task. Images are read by one thread at a time, since datasets need not be safe to share; the
    rest is done by one thread, so that its last digits are the same everywhere."""
    with _lock:
        if handle.token not in _contexts:
            _contexts[handle.token] = handle.get(), threading.Lock()
            while len(_contexts) > MAX_CONTEXTS:
                _contexts.popitem(last=False)
        context, reading = _contexts[handle.token]
    with reading:
        material = work.read(context, *arguments)
    with single_thread():
        return work.compute(*material)
