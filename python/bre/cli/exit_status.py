"""How a command ends: 0 nothing found, 1 poisoning found, 2 could not answer, 128 + n stopped by signal n."""

from __future__ import annotations

import contextlib
import errno
import re
import sys
import traceback as tracebacks
from collections.abc import Iterator
from typing import Any

import typer
from typer.core import TyperGroup

from .._check import printable
from ..errors import BreError, InputError, with_names
from . import signals
from .options import spelled

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_OUT_OF_MEMORY = re.compile("out of memory|not enough memory|can't allocate memory")  # as torch says it


class Commands(TyperGroup):
    """Commands whose wrong usage takes one line, like every other error."""

    def main(self, *args: Any, **options: Any) -> Any:
        try:
            status = super().main(*args, **{**options, "standalone_mode": False})
        except typer.TyperException as e:  # wrong usage
            context = getattr(e, "ctx", None)
            command = context.command_path if context else "bre"
            complain(f"{e.format_message().rstrip('.')} (see {command} --help)")
            status = 2
        except SystemExit:  # typer's own, where nobody reads its help: 1, which here says that poisoning was found
            _drop_output()
            status = 2
        if signals.received():  # also where typer ended for it without a word
            status = signals.interrupted(signals.received())
        sys.exit(status or 0)

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:  # wherever in a command; typer would make any of them 130, without a word
            raise typer.Exit(signals.interrupted(signals.received())) from None


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
        if signals.received():
            raise signals.Stopped from e
        if traceback:
            tracebacks.print_exc()
        _drop_output()
        complain(_message(e))
        raise typer.Exit(2) from None


def complain(message: str) -> None:
    signals.tell(f"bre: error: {one_line(message)}")


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
    if isinstance(e, MemoryError) or (isinstance(e, RuntimeError) and _OUT_OF_MEMORY.search(str(e))):
        return f"there is not enough memory here: {e}"
    return f"{type(e).__name__}: {e} (unexpected; --traceback shows where)"


def _drop_output() -> None:
    try:
        sys.stdout.flush()
    except OSError:
        signals.drop(sys.stdout.fileno())
