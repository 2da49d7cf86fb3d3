"""Write docs/constants.md: every number that bre is tuned by, as its comment in the code has it."""

from __future__ import annotations

import sys
from itertools import groupby
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.common.constants import KINDS, Constant, constants

PAGE = Path(__file__).parent / "constants.md"
HEAD = """\
# Constants

Made from the code by `python docs/make_constants.py`; do not edit. Every public module-level number of the package,
with what its comment says of it. Where a number is from:

| source | means |
|---|---|
| paper | a publication, which is named |
| derived | it follows from other constants, or from how numbers are stored |
| simulated | set on simulated or random sets that no table of results shows |
| chosen | by judgement; what it trades off is said |

`benchmarks/accuracy/sensitivity.py` halves and doubles those that can move a verdict.
"""


def page(found: list[Constant]) -> str:
    parts = [HEAD]
    for room, group in groupby(found, key=lambda one: one.module.split(".")[1]):
        parts.append(f"## {room}\n\n| constant | value | unit | what it is | source |\n|---|---|---|---|---|")
        parts += [_row(one) for one in group]
        parts.append("")
    return "\n".join(parts).rstrip("\n") + "\n"


def _row(one: Constant) -> str:
    source = f"{one.kind}: {one.detail}" if one.detail else one.kind or "not said"
    place = f"`{one.path.with_suffix('').as_posix()}.{one.name}`"
    return (
        "| "
        + " | ".join(cell.replace("|", "\\|") for cell in (place, f"`{one.value}`", one.unit, one.meaning, source))
        + " |"
    )


def without_source(found: list[Constant]) -> list[str]:
    return [f"{one.module}.{one.name}" for one in found if one.kind not in KINDS]


def main() -> None:
    found = constants()
    PAGE.write_text(page(found), "utf-8")
    for name in without_source(found):
        print(f"{name} has no source", file=sys.stderr)


if __name__ == "__main__":
    main()
