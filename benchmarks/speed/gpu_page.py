"""The measured half of docs/gpu.md, from what `benchmarks/gpu.py --all` found."""

from __future__ import annotations

import json
from typing import Any

BEGIN, END = "<!-- measured -->", "<!-- /measured -->"
NOTHING = "Nothing was measured: nobody has run `python benchmarks/gpu.py --all` on a card and committed what it found."


def with_measured(text: str, result: dict[str, Any] | None) -> str:
    """The page with what stands between its two marks made anew; None for no result."""
    before, rest = text.split(BEGIN)
    return f"{before}{BEGIN}\n{measured(result)}\n{END}{rest.split(END)[1]}"


def measured(result: dict[str, Any] | None) -> str:
    if result is None:
        return NOTHING
    if result["dry"]:
        raise ValueError("expected what was measured on a card, got a dry run")
    used = ", ".join(result["backends"]) or "none"
    lines = [f"On {result['machine']}, torch {result['torch']}, {result['date']}, backends {used}.", ""]
    for name, step in result["steps"].items():
        said = step.get("failed") or step.get("left_out")
        lines += [f"**{name}**" + (f": {said}" if said else f" ({step['seconds']} s)"), ""]
        if said is None:
            lines += ["```", *shown(step["found"]), "```", ""]
    return "\n".join(lines).rstrip()


def shown(found: Any) -> list[str]:
    """A line for each row."""
    rows = found.items() if isinstance(found, dict) else enumerate(found)
    return [row if isinstance(row, str) else f"{key} {json.dumps(row)}" for key, row in rows]
