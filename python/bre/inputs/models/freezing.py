"""A module in evaluation mode, its weights asking for no gradient, and given back as it was."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from weakref import WeakKeyDictionary

from torch import nn


@contextlib.contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """Inside, the module is in evaluation mode and its parameters ask for no gradient.

    One thread at a time: another that wants the module waits. The same thread may enter again; when it has left as
    often, in any order, the module is as it was found.
    """
    with _LOCK:
        found = _FOUND.setdefault(module, _Found())
    with found.lock:
        if found.depth == 0:
            found.training = [(m, m.training) for m in module.modules() if hasattr(m, "training")]
            found.requires_grad = [(p, p.requires_grad) for p in module.parameters()]
        found.depth += 1
        try:
            if found.depth == 1:
                _freeze(module, found)
            yield
        finally:
            found.depth -= 1
            if found.depth == 0:
                _restore(found)


class _Found:
    """How a module was before it was frozen, and how often it is."""

    def __init__(self) -> None:
        self.lock, self.depth = threading.RLock(), 0
        self.training: list[tuple[nn.Module, bool]] = []
        self.requires_grad: list[tuple[nn.Parameter, bool]] = []


def _freeze(module: nn.Module, found: _Found) -> None:
    try:
        module.eval()
    except NotImplementedError:  # an exported part, which has no modes: set the flags of the rest
        for m, _ in found.training:
            m.training = False
    for p, _ in found.requires_grad:
        p.requires_grad_(False)


def _restore(found: _Found) -> None:
    for m, training in found.training:
        m.training = training
    for p, requires_grad in found.requires_grad:
        p.requires_grad_(requires_grad)
    found.training, found.requires_grad = [], []


_FOUND: WeakKeyDictionary[nn.Module, _Found] = WeakKeyDictionary()
_LOCK = threading.Lock()
