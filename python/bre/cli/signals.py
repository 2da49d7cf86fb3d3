"""Ctrl-C, kill and a closed terminal end the program in order; and words on stderr that never fail."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from types import FrameType

_NAMES = ("SIGINT", "SIGTERM", "SIGHUP")
_received: list[int] = []
_told: list[int] = []  # of these, those that the user knows of


class Stopped(KeyboardInterrupt):
    """A signal asked for the end; everything that is open is closed and cleaned up."""


def heed() -> None:
    """From now on these signals raise Stopped, unless the caller ignores them (as nohup does SIGHUP)."""
    for name in _NAMES:
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
            signal.signal(number, _stop)


def _stop(number: int, frame: FrameType | None) -> None:
    _received.append(number)
    raise Stopped


def received() -> int | None:
    """The first signal that came. An import or an extension may have turned Stopped into another exception."""
    return _received[0] if _received else None


def interrupted(number: int | None = None) -> int:
    """Says, once, that the program was stopped; its exit status."""
    if number is None or number not in _told:
        tell("bre: interrupted, nothing was left half-written")
    if number is not None:
        _told.append(number)
    return 128 + (number or signal.SIGINT)


def open_streams() -> None:
    """Make stdout and stderr files that can be written to, whatever the caller closed, in ASCII too."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by the caller, who wants none of it
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115  # for as long as we run
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")  # a class name must not break an ASCII terminal


def tell(line: str) -> None:
    """A line on stderr, where that takes one: a full disk under a log must not change the exit status."""
    try:
        print(line, file=sys.stderr, flush=True)
    except OSError:
        drop(sys.stderr.fileno())


def drop(descriptor: int) -> None:
    """What this stream does not take any more is lost; the flush at the end must not fail over it again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)
