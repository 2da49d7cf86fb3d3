"""How the program ends: 0 nothing found, 1 poisoning found, 2 could not answer, 128 + n stopped by signal n."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import sys
import traceback as tracebacks
from collections.abc import Iterator
from types import FrameType
from typing import Any

import typer
from typer.core import TyperGroup

from .._check import printable
from ..errors import BreError, InputError, with_names
from .options import spelled

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Stopped(KeyboardInterrupt):
    """A signal asked for the end; as after Ctrl-C, everything that is open is closed and cleaned up."""

    def __init__(self, number: int):
        super().__init__(number)
        self.number = number


def heed_signals() -> None:
    """Make kill and a closed terminal end the program as orderly as Ctrl-C does."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise Stopped(number)

    for name in ("SIGTERM", "SIGHUP"):
        if hasattr(signal, name) and signal.getsignal(getattr(signal, name)) == signal.SIG_DFL:  # nohup ignores SIGHUP
            signal.signal(getattr(signal, name), stop)


class Commands(TyperGroup):
    """Commands whose wrong usage takes one line, like every other error."""

    def main(self, *args: Any, **options: Any) -> Any:
        try:
            status = super().main(*args, **{**options, "standalone_mode": False})
        except typer.TyperException as e:
            context = getattr(e, "ctx", None)
            command = context.command_path if context else "bre"
            complain(f"{e.format_message().rstrip('.')} (see {command} --help)")
            status = 2
        sys.exit(status or 0)

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as e:  # wherever in a command; typer would make any of them 130, without a word
            typer.echo("bre: interrupted, nothing was left half-written", err=True)
            raise typer.Exit(128 + (e.number if isinstance(e, Stopped) else signal.SIGINT)) from None


@contextlib.contextmanager
def answering(traceback: bool) -> Iterator[None]:
    """Turn every way to fail, but for a signal, into one line on stderr and its exit status."""
    try:
        yield
        sys.stdout.flush()
    except (typer.Exit, typer.TyperException):
        raise
    except BrokenPipeError:  # whoever read stdout is gone, and needs no message
        _drop_output()
        raise typer.Exit(2) from None
    except Exception as e:
        if traceback:
            tracebacks.print_exc()
        _drop_output()
        complain(_message(e))
        raise typer.Exit(2) from None


def complain(message: str) -> None:
    typer.echo(f"bre: error: {one_line(message)}", err=True)


def one_line(text: str) -> str:
    return printable(" ".join(text.split()), 2000)


def _message(e: Exception) -> str:
    if isinstance(e, InputError):
        return with_names(e.message, "option", tuple(map(spelled, e.arguments)))
    if isinstance(e, BreError):
        return str(e)
    if isinstance(e, OSError) and e.strerror:
        text = e.strerror + (f": {e.filename}" if e.filename else "")
        return f"{text}; nothing was left half-written, write to where there is room" if e.errno in _FULL else text
    return f"{type(e).__name__}: {e} (unexpected; --traceback shows where)"


def _drop_output() -> None:
    """What stdout does not take any more is lost; the flush at the end must not fail over it again."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
