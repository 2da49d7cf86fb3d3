"""Write docs/reference.md: the public names of bre, with their signatures and docstrings as they stand in the code."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bre
import bre.attacks
import bre.inputs
import bre.ops

PAGE = Path(__file__).parent / "reference.md"
SECTIONS: list[tuple[str, str, list[Any]]] = [
    ("Verbs", "bre", [bre.screen, bre.detect, bre.cleanse, bre.removed, bre.Removed, bre.annotate, bre.sweep]),
    (
        "Datasets and models",
        "bre.inputs",
        [bre.inputs.open_dataset, bre.inputs.open_model, bre.inputs.ImageSet, bre.inputs.Classifier],
    ),
    (
        "Report",
        "bre",
        [
            bre.Report,
            bre.Finding,
            bre.Histogram,
            bre.DatasetFacts,
            bre.ClassRow,
            bre.StatisticTest,
            bre.Cost,
            bre.SweepResult,
        ],
    ),
    ("Errors", "bre", [bre.BreError, bre.InputError, bre.BackendUnavailable]),
    ("Attacks", "bre.attacks", []),
    ("Ops", "bre.ops", []),
]
HEAD = """\
# Python reference

Made from the docstrings by `python docs/make_reference.py`; do not edit. Letters: K classes, M images, C, H, W,
D = C·H·W. Float pixels are in [0, 1]. Every error that bre raises on purpose is a `bre.BreError`. The terms are in the
[glossary](glossary.md).

`bre.open_dataset` and `bre.open_model` are those of `bre.inputs`.
"""


def page() -> str:
    parts = [HEAD]
    for title, module, names in SECTIONS:
        parts.append(f"## {title}\n")
        for value in names or _public(module):
            parts.extend(_entry(f"{module}.{value.__name__}", value))
    return "\n".join(parts)


def _public(module: str) -> list[Any]:
    """Functions and classes of a module: those it lists, or else those it defines, in order."""
    here = importlib.import_module(module)
    if hasattr(here, "__all__"):
        listed = [getattr(here, name) for name in here.__all__]
        return [value for value in listed if callable(value)]
    own = [v for n, v in vars(here).items() if not n.startswith("_") and getattr(v, "__module__", "") == module]
    return [v for v in own if inspect.isfunction(v) or inspect.isclass(v)]


def _entry(name: str, value: Any) -> Iterator[str]:
    yield f"### {value.__name__}\n"
    yield f"```python\n{_signature(name, value)}\n```\n"
    yield _text(value)
    if inspect.isclass(value) and not issubclass(value, BaseException | tuple):
        for key, member in vars(value).items():
            plain = member.__func__ if isinstance(member, staticmethod | classmethod) else member
            if key.startswith("_") or not (inspect.isfunction(plain) or isinstance(plain, property)):
                continue
            if isinstance(plain, property):
                yield f"```python\n{value.__name__}.{key}  # property\n```\n"
            else:
                yield f"```python\n{_signature(f'{value.__name__}.{key}', plain)}\n```\n"
            yield _text(plain)


def _signature(name: str, value: Any) -> str:
    if inspect.isclass(value) and issubclass(value, BaseException):
        return f"class {name}({value.__base__.__name__})"
    if inspect.isclass(value) and dataclasses.is_dataclass(value):
        fields = ",\n".join(f"    {f.name}: {_type(f.type)}" for f in dataclasses.fields(value))
        return f"{name}(\n{fields},\n)"
    found = inspect.signature(value)
    parameters = [p for p in found.parameters.values() if p.name != "self"]
    parts, star = [], False
    for p in parameters:
        if p.kind is p.KEYWORD_ONLY and not star:
            parts.append("*")
            star = True
        star = star or p.kind is p.VAR_POSITIONAL
        default = "" if p.default is p.empty else f" = {p.default!r}"
        annotation = "" if p.annotation is p.empty else f": {_type(p.annotation)}"
        mark = {p.VAR_POSITIONAL: "*", p.VAR_KEYWORD: "**"}.get(p.kind, "")
        parts.append(f"{mark}{p.name}{annotation}{default if annotation else default.replace(' ', '')}")
    back = (
        ""
        if inspect.isclass(value) or found.return_annotation is found.empty
        else (f" -> {_type(found.return_annotation)}")
    )
    line = f"{name}({', '.join(parts)}){back}"
    return line if len(line) <= 100 else f"{name}(\n" + "".join(f"    {part},\n" for part in parts) + f"){back}"


def _type(annotation: Any) -> str:
    return annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)


def _text(value: Any) -> str:
    """The docstring as it stands, whose layout is made for a terminal."""
    return f"```text\n{inspect.getdoc(value) or ''}\n```\n"


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
