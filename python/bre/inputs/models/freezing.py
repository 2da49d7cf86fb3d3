"""A module held in evaluation mode, its weights asking for no gradient, and given back as it was."""

from __future__ import annotations

import threading
from weakref import WeakKeyDictionary

from torch import nn


class Holder:
    """Of one module. One thread at a time holds it: another that wants it waits. The same thread may hold it again, and
    the module is as it was when that thread has let go of it as often."""

    def __init__(self) -> None:
        self._lock, self._depth = threading.RLock(), 0
        self._training: list[tuple[nn.Module, bool]] = []
        self._requires_grad: list[tuple[nn.Parameter, bool]] = []

    def hold(self, module: nn.Module) -> None:
        self._lock.acquire()
        self._depth += 1
        if self._depth == 1:
            self._training = [(m, m.training) for m in module.modules() if hasattr(m, "training")]
            self._requires_grad = [(p, p.requires_grad) for p in module.parameters()]
            try:
                self._freeze(module)
            except BaseException:
                self.let_go()
                raise

    def _freeze(self, module: nn.Module) -> None:
        try:
            module.eval()
        except NotImplementedError:  # an exported part, which has no modes: set the flags of the rest
            for m, _ in self._training:
                m.training = False
        for p, _ in self._requires_grad:
            p.requires_grad_(False)

    def let_go(self) -> None:
        self._depth -= 1
        if self._depth == 0:
            for m, flag in self._training:
                m.training = flag
            for p, flag in self._requires_grad:
                p.requires_grad_(flag)
            self._training, self._requires_grad = [], []
        self._lock.release()


_HOLDERS: WeakKeyDictionary[nn.Module, Holder] = WeakKeyDictionary()
_LOCK = threading.Lock()


def holder_of(module: nn.Module) -> Holder:
    """The one holder of a module."""
    with _LOCK:
        return _HOLDERS.setdefault(module, Holder())
