"""The configuration file: TOML, a key for each option that may stand there, checked by the options' own types."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

import typer

from .._check import short
from .declare import Declared

# bytes; of a configuration file; source: chosen, a few lines are expected, and nested brackets take time and stack to
# read
MAX_CONFIG = 1 << 16


def read_config(path: Path, options: Iterable[Declared]) -> dict[str, Any]:
    """{option: value}, lists as tuples. Raises BadParameter, naming the file and the key, for anything else.

    options: those of the command line; a file may give those with `config`. Ranges are checked where the command
    line's own values are.
    """
    known = {one.name: one.kind for one in options if one.config}
    given = {}
    for key, value in _toml(path).items():
        if key not in known:
            raise typer.BadParameter(f"{path}: unknown key {short(key)}, known are {', '.join(known)}")
        form, fits = _form(known[key])
        if not fits(value):
            raise typer.BadParameter(f"{path}: {key}: expected {form}, got {short(value)}")
        given[key] = tuple(value) if isinstance(value, list) else value
    return given


def _toml(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as f:
            content = f.read(MAX_CONFIG + 1)
    except OSError as e:
        raise typer.BadParameter(f"cannot read {path}: {e.strerror}") from None
    if len(content) > MAX_CONFIG:
        raise typer.BadParameter(f"{path} is no configuration: it is larger than {MAX_CONFIG >> 10} KiB")
    try:
        return tomllib.loads(content.decode())
    except RecursionError:
        raise typer.BadParameter(f"{path} is no configuration: it is nested too deeply") from None
    except ValueError as e:  # no TOML, or no UTF-8
        raise typer.BadParameter(f"{path} is no TOML: {e}") from None


def _form(kind: Any) -> tuple[str, Any]:
    """What an option's value is called, and whether a value of TOML is one."""
    if get_origin(kind) in (Union, UnionType):
        (kind,) = (k for k in get_args(kind) if k is not NoneType)
    if get_origin(kind) is tuple:
        name, fits = _form(get_args(kind)[0])
        name = name.removeprefix("an ").removeprefix("a ")
        return f"a list of {name}{'s' * (name != 'text')}", lambda v: isinstance(v, list) and all(map(fits, v))
    if kind is bool:
        return "true or false", lambda v: isinstance(v, bool)
    if kind is int:
        return "an integer", lambda v: isinstance(v, int) and not isinstance(v, bool)
    if kind is float:
        return "a number", lambda v: isinstance(v, int | float) and not isinstance(v, bool)
    if kind is str or get_origin(kind) is Literal:
        return "text", lambda v: isinstance(v, str)
    raise TypeError(f"an option of type {kind} has no form in TOML")
