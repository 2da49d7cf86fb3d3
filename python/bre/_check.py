"""Checks of values that came from outside, and text from there made harmless. Every failure is an InputError."""

from __future__ import annotations

import math
import reprlib
import sys
from collections.abc import Iterable
from typing import Any

import numpy as np

from .errors import InputError

# probability; smallest alpha that is taken; source: chosen, so that no configuration beside the data switches the gate
# off; a test at a ten-thousandth of the usual level has little power left
MIN_ALPHA = 1e-4
_LARGEST = 2**63 - 1  # number; largest whole one that is taken; source: derived, of int64


def printable(text: str, limit: int = 500) -> str:
    """Text that came from outside, made harmless for a terminal: one line, no control codes, not endless."""
    text = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text[: limit + 1])
    return text if len(text) <= limit else text[: limit - 1] + "\N{HORIZONTAL ELLIPSIS}"


def short(value: Any) -> str:
    """Any value for an error message."""
    return printable(reprlib.repr(value), 100)


def integer(value: Any, what: str, low: int = 0, high: int = _LARGEST) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or not low <= value <= high:
        raise InputError(f"{what} must be an integer from {low} to {high}, got {short(value)}")
    return int(value)


def real(value: Any, what: str, low: float = -math.inf, high: float = math.inf) -> float:
    number = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
    if not number or not abs(value) <= sys.float_info.max or not low <= value <= high:  # NaN fails too
        raise InputError(f"{what} must be a finite number in [{low:g}, {high:g}], got {short(value)}")
    return float(value)


def optional(value: Any, what: str, low: float = -math.inf, high: float = math.inf) -> float | None:
    return None if value is None else real(value, what, low, high)


def truth(value: Any, what: str) -> bool:
    if not isinstance(value, (bool, np.bool_)):
        raise InputError(f"{what} must be true or false, got {short(value)}")
    return bool(value)


def text(value: Any, what: str) -> str:
    if not isinstance(value, str):
        raise InputError(f"{what} must be text, got {short(value)}")
    return value


def choice(value: Any, what: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise InputError(f"{what} must be one of {', '.join(choices)}; got {short(value)}")


def mapping(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise InputError(f"{what} must be a mapping from text, got {short(value)}")
    return value


def items(value: Any, what: str) -> list[Any] | tuple[Any, ...]:
    if not isinstance(value, (list, tuple)):
        raise InputError(f"{what} must be a list, got {short(value)}")
    return value


def instance(value: Any, kind: type, what: str) -> None:
    if not isinstance(value, kind):
        raise InputError(f"{what} must be {kind.__name__}, got {type(value).__name__}")


def instances(values: Any, kind: type, what: str) -> tuple[Any, ...]:
    for value in items(values, what):
        if not isinstance(value, kind):
            raise InputError(f"{what} must hold {kind.__name__}, got {type(value).__name__}")
    return tuple(values)


def same_keys(content: dict[str, Any], expected: Iterable[str], what: str) -> None:
    expected = set(expected)
    if content.keys() != expected:
        missing, extra = sorted(expected - content.keys()), sorted(content.keys() - expected)
        raise InputError(f"{what}: missing {short(missing)}, unknown {short(extra)}")


def array(values: Any, what: str, kinds: str, dtype: type, ndim: int) -> np.ndarray:
    """A read-only copy of `values`, of kind `kinds` and `ndim` axes, as `dtype`."""
    try:
        values = np.asarray(values)
    except ValueError:  # lists of several lengths
        raise InputError(f"{what} must be {np.dtype(dtype)} with {ndim} axes, got {short(values)}") from None
    if values.dtype.kind not in kinds or values.ndim != ndim:
        raise InputError(
            f"{what} must be {np.dtype(dtype)} with {ndim} axes, got {values.dtype} of shape {values.shape}"
        )
    copy: np.ndarray = np.array(values, dtype, order="C")
    copy.flags.writeable = False
    return copy


def assign(frozen: Any, **values: Any) -> None:
    """Set fields of a frozen dataclass to their checked values, from its `__post_init__`."""
    for name, value in values.items():
        object.__setattr__(frozen, name, value)


def first_line(error: BaseException) -> str:
    """What an error says, in one line: its type, and its first line up to 300 characters."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:300]}" if lines else type(error).__name__
