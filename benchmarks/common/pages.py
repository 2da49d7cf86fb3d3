"""What the pages in docs/ have in common: where their numbers come from, tables, how a number is written."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

IMAGES = (
    "CIFAR-10's images were recompressed as JPEG at 32 x 32, which removes most of their sensor noise. If a row has "
    "noise, that many grey levels were added again; these sets are harder and more natural."
)


def made_by(script: str, rows: Iterable[dict[str, Any]]) -> str:
    """ "Made by ...", without a full stop, from the rows' `date` (YYYY-MM-DD), `machine` and `versions` (by name)."""
    rows = list(rows)
    dates, machines = sorted(row["date"] for row in rows), sorted({row["machine"] for row in rows})
    versions = {name: sorted({row["versions"][name] for row in rows}) for name in rows[0]["versions"]}
    return (
        f"Made by `benchmarks/{script}` on "
        + " to ".join(dict.fromkeys((dates[0], dates[-1])))
        + f": {'; '.join(machines)}; "
        + ", ".join(f"{name} {' and '.join(found)}" for name, found in versions.items())
    )


def table(head: Sequence[Any], rows: Iterable[Sequence[Any]]) -> list[str]:
    cells = [list(map(str, row)) for row in (head, ["---"] * len(head), *rows)]
    return ["| " + " | ".join(row) + " |" for row in cells] if len(cells) > 2 else ["No rows so far."]


def percent(value: float | None, digits: int = 1) -> str:
    return "" if value is None else f"{100 * value:.{digits}f}%"


def number(value: float | None, digits: int = 3) -> str:
    return "" if value is None else f"{value:.{digits}f}"
