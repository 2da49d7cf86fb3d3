"""Which backends there are, which can be used here, and why not.

A backend is a module `bre.ops.<name>` with `unavailable(device) -> str | None` and functions named and called like the
public ops, less `backend`. It may lack some ops. It may assume that its arguments are valid: the public op checked.
The public op and its reference write out the arguments; other backends may pass on by name what they do not look at.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch

from ..errors import BackendUnavailable, InputError

NAMES = ("reference", "cpu", "triton", "cuda")
_PREFERENCE = {"cpu": ("cpu", "reference"), "cuda": ("cuda", "triton", "reference")}


def backends(device: torch.device | str = "cpu") -> tuple[str, ...]:
    """The names `auto` tries for tensors on `device`, best first."""
    return _PREFERENCE.get(torch.device(device).type, ("reference",))


def unavailable(name: str, device: torch.device | str = "cpu", op: str | None = None) -> str | None:
    """Why backend `name` cannot run (`op`) on tensors of `device`; None if it can."""
    if name not in NAMES:
        raise InputError(f"backend: expected 'auto' or one of {', '.join(map(repr, NAMES))}, got {name!r}")
    module = _module(name)
    reason: str | None = module.unavailable(torch.device(device))
    if reason is None and op is not None and not hasattr(module, op):
        return f"the {name} backend has no {op}"
    return reason


def resolve(name: str, device: torch.device | str = "cpu", op: str | None = None) -> str:
    """The backend that `name` stands for on `device`: itself, or for "auto" the first usable one.

    Raises BackendUnavailable, with the reason, when the one asked for by name cannot be used.
    """
    if name == "auto":
        return next(name for name in backends(device) if unavailable(name, device, op) is None)
    reason = unavailable(name, device, op)
    if reason is not None:
        raise BackendUnavailable(f"backend {name!r} cannot be used: {reason}")
    return name


def implementation(op: str, name: str, device: torch.device) -> Callable[..., Any]:
    """The function that computes `op` for tensors on `device` under backend `name` (or "auto")."""
    function: Callable[..., Any] = getattr(_module(resolve(name, device, op)), op)
    return function


@functools.cache
def _module(name: str) -> ModuleType:
    return importlib.import_module(f".{name}", __package__)
