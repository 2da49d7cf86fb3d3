"""Options declared once: as fields of dataclasses, from which come a command's signature and the configuration file.

@dataclass(frozen=True)
class Reading:
    resize: tuple[int, int] | None = option("Bring all images to this size first.", parser=..., metavar="H,W")

@app.command()
@with_options
def screen(data: Data, reading: Reading) -> None: ...
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Annotated, Any, get_type_hints

import typer


@dataclass(frozen=True)
class Declared:
    """One option. kind: the type of its values. flags: its names on the command line. config: whether a configuration
    file may give it. more: its other parameters for typer.Option."""

    name: str
    kind: Any
    default: Any
    flags: tuple[str, ...]
    config: bool
    more: dict[str, Any]

    @property
    def spelled(self) -> str:
        """How messages name it: with its form where that needs telling, as in "--resize H,W"."""
        form = self.more.get("metavar")
        return f"{self.flags[0]} {form}" if form else self.flags[0]


def option(help: str, *flags: str, default: Any = None, config: bool = False, **more: Any) -> Any:
    """A field of a group of options. flags: where they are not made of its name. more: for typer.Option.

    config: whether a configuration file may give it. None of what allows code to be run, or files to be read that
    were not named, may.
    """
    more = {"help": help, "show_default": not (default is None or default is False), **more}
    return field(default=default, metadata={"flags": flags, "config": config, "more": more})


def declared(groups: Iterable[Any]) -> Iterator[Declared]:
    """The options of dataclasses."""
    for group in groups:
        kinds = get_type_hints(group)
        for f in fields(group):
            flags = f.metadata["flags"] or (f"--{f.name.replace('_', '-')}",)
            yield Declared(f.name, kinds[f.name], f.default, flags, f.metadata["config"], f.metadata["more"])


def with_options(command: Callable[..., None]) -> Callable[..., None]:
    """A command for typer, whose parameters that are dataclasses are spread into the options they hold."""
    kinds = get_type_hints(command, include_extras=True)
    groups: dict[str, Any] = {name: kind for name, kind in kinds.items() if is_dataclass(kind)}
    parameters = []
    for parameter in inspect.signature(command).parameters.values():
        if parameter.name not in groups:
            parameters.append(parameter.replace(annotation=kinds[parameter.name], kind=parameter.KEYWORD_ONLY))
        for one in declared([groups[parameter.name]] if parameter.name in groups else []):
            taken = Any if "parser" in one.more else one.kind  # typer would make several values of a tuple
            annotation = Annotated[taken, typer.Option(*one.flags, **one.more)]  # type: ignore[valid-type]
            parameters.append(
                inspect.Parameter(one.name, parameter.KEYWORD_ONLY, default=one.default, annotation=annotation)
            )

    @functools.wraps(command)
    def spread(**given: Any) -> None:
        built = {name: group(**{f.name: given.pop(f.name) for f in fields(group)}) for name, group in groups.items()}
        command(**given, **built)

    spread.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    spread.__annotations__ = {p.name: p.annotation for p in parameters}
    del spread.__wrapped__
    return spread
