"""The numbers that the package is tuned by, as they stand in its source: name, value, unit, meaning, where from.

A constant is a public module-level name in capitals whose value is a number, an expression of numbers and earlier
constants, or a tuple or dict of such. Its comment, behind it or in the lines above it, is

    # UNIT; MEANING; source: KIND, DETAIL        (UNIT and DETAIL may be missing)

KIND is one of
    paper      from a publication, which DETAIL names
    derived    follows from other constants, or from how numbers are stored; DETAIL says how
    simulated  set on simulated or random sets that no table shows; DETAIL says which
    chosen     by judgement; DETAIL says what it trades off
Comments above a constant count where none stands behind it, or where that has no source.
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from pathlib import Path

from benchmarks.common.places import ROOT

PACKAGE = ROOT / "python" / "bre"
LEFT_OUT = ("demo.py",)  # what the demo makes up is no part of the method
KINDS = ("paper", "derived", "simulated", "chosen")
_COMMENT = re.compile(rf"(?P<text>.*?)[;.,]? *\bsource: (?P<kind>{'|'.join(KINDS)})\b[,;:]? *(?P<detail>.*)", re.DOTALL)


@dataclass(frozen=True)
class Constant:
    """module: as it is imported; line: of the file, from 1; value: the expression as written.

    kind is empty where the comment names no source.
    """

    module: str
    name: str
    line: int
    value: str
    unit: str
    meaning: str
    kind: str
    detail: str

    @property
    def path(self) -> Path:
        """Of the file, relative to the package."""
        module = PACKAGE.joinpath(*self.module.split(".")[1:])
        return (module / "__init__.py" if module.is_dir() else module.with_suffix(".py")).relative_to(PACKAGE)


def constants(package: Path = PACKAGE) -> list[Constant]:
    """All of them, by file and line."""
    return [
        one for path in sorted(package.rglob("*.py")) if path.name not in LEFT_OUT for one in _of_file(path, package)
    ]


def assignments(source: str) -> list[tuple[str, ast.expr, int]]:
    """(name, value, line) of each constant of a module's source."""
    found: list[tuple[str, ast.expr, int]] = []
    for node in ast.parse(source).body:
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                pass
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                pass
            case _:
                continue
        known = {other for other, _, _ in found}
        if name.isupper() and not name.startswith("_") and _is_numeric(value, known):
            found.append((name, value, node.lineno))
    return found


def _is_numeric(value: ast.expr, known: set[str]) -> bool:
    match value:
        case ast.Tuple(elts=parts) | ast.List(elts=parts) | ast.Dict(values=parts):
            return bool(parts) and all(_is_number(part, known) for part in parts)
    return _is_number(value, known)


def _is_number(value: ast.expr, known: set[str]) -> bool:
    match value:
        case ast.Constant(value=number):
            return isinstance(number, (int, float)) and not isinstance(number, bool)
        case ast.Name(id=name):
            return name in known
        case ast.UnaryOp(operand=operand):
            return _is_number(operand, known)
        case ast.BinOp(left=left, right=right):
            return _is_number(left, known) and _is_number(right, known)
    return False


def _of_file(path: Path, package: Path) -> list[Constant]:
    source = path.read_text("utf-8")
    lines = source.splitlines()
    module = ".".join(("bre", *path.relative_to(package).with_suffix("").parts)).removesuffix(".__init__")
    found = []
    for name, value, line in assignments(source):
        unit, meaning, kind, detail = _pedigree(lines, line, value)
        found.append(Constant(module, name, line, ast.unparse(value), unit, meaning, kind, detail))
    return found


def _pedigree(lines: list[str], line: int, value: ast.expr) -> tuple[str, str, str, str]:
    """(unit, meaning, kind, detail) of the comment of a constant."""
    last = value.end_lineno or line
    behind = lines[last - 1].encode()[value.end_col_offset or 0 :].decode()
    inside = [text.partition("#")[2] for text in lines[line - 1 : last - 1] if "#" in text]
    inside += [behind.partition("#")[2]] if "#" in behind else []
    above: list[str] = []
    while line >= 2 and lines[line - 2].startswith("#"):
        line -= 1
        above.insert(0, lines[line - 1].removeprefix("#"))
    for block in (inside, [*above, *inside]):
        comment = " ".join(text.strip() for text in block)
        if found := _COMMENT.fullmatch(comment):
            first, separator, rest = found["text"].partition("; ")
            unit, meaning = (first, rest) if separator else ("", first)
            return unit.strip(), meaning.strip(), found["kind"], found["detail"].strip()
    return "", " ".join(text.strip() for text in inside or above), "", ""
