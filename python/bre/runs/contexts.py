"""What all tasks need, a dataset above all, and how it gets to those who do them: once to each, not with every task."""

from __future__ import annotations

import os
import pickle
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ..errors import InputError
from ..inputs._extras import need
from .machine import machine

MAX_CONTEXTS = 2  # contexts; that a worker keeps open; source: derived, a run goes from one to the next


class Handle(Protocol):
    """A context as a worker gets it. token: the same for the same context."""

    @property
    def token(self) -> str: ...

    def get(self) -> Any:
        """The context, opened."""
        ...


@dataclass(frozen=True, eq=False)
class Sent:
    """Goes along with every task; between threads nothing is copied."""

    token: str
    context: Any

    def get(self) -> Any:
        return self.context


@dataclass(frozen=True)
class InFile:
    """In a private file of this machine, that the process which started the workers wrote."""

    token: str
    path: str

    def get(self) -> Any:
        return pickle.loads(Path(self.path).read_bytes())


@dataclass(frozen=True)
class InRay:
    """In Ray's store, from which each machine fetches it once."""

    token: str
    reference: Any

    def get(self) -> Any:
        return pickle.loads(_ray().get(self.reference))


def shared(context: Any, executor: str | Callable[..., Any], folder: str) -> Handle:
    """A handle for workers of an executor; folder: a private one of this process. Raises InputError where the context,
    the dataset in it, cannot be sent."""
    token = os.urandom(16).hex()
    if callable(executor):
        return Sent(token, context)
    try:
        data = pickle.dumps((machine(), context), protocol=5)
    except InputError:
        raise
    except Exception as e:  # whatever a caller's dataset raises
        raise InputError(
            f"this dataset cannot be sent to other processes ({e}): give its path, or leave the executor out",
            argument="executor",
        ) from e
    if executor == "ray":
        return InRay(token, _ray().put(data))
    path = os.path.join(folder, token)
    Path(path).write_bytes(data)
    return InFile(token, path)


_lock = threading.Lock()
_opened: OrderedDict[str, tuple[Any, threading.Lock]] = OrderedDict()


def opened(handle: Handle) -> tuple[Any, threading.Lock]:
    """The context behind a handle, opened once in each process, and the lock that its images are read under.

    Raises InputError on a machine with other versions than the one where the run began: last digits would differ."""
    with _lock:
        if handle.token not in _opened:
            context = handle.get()
            if not isinstance(handle, Sent):
                began, context = context
                for name, value in machine().items():
                    if value != began.get(name):
                        raise InputError(
                            f"a worker has another {name} ({value}) than where the run began ({began.get(name)}), so "
                            "its last digits would differ: give all machines the same"
                        )
            _opened[handle.token] = context, threading.Lock()
            while len(_opened) > MAX_CONTEXTS:
                _opened.popitem(last=False)
        return _opened[handle.token]


def _ray() -> Any:
    return need("ray", "ray", "an executor of Ray")
