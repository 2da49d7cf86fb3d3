"""benchmarks/accuracy/sensitivity.py: how a constant is changed, and what the page makes of rows."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.accuracy import sensitivity
from benchmarks.common.constants import Constant


@pytest.mark.parametrize(
    ("value", "factor", "expected"),
    [
        (4, 0.5, 2),
        (1, 0.5, 1),
        (5, 2.0, 10),
        (3.0, 2.0, 6.0),
        (0.3, 2.0, 0.6),
        (0.9, 2.0, 0.95),
        (0.9, 0.5, 0.45),
        (-1.1, 2.0, -2.2),
        ((0.5, 3.0), 2.0, (0.75, 6.0)),
        ({"a": 0.2, "b": 2}, 0.5, {"a": 0.1, "b": 1}),
    ],
)
def test_changed(value: Any, factor: float, expected: Any) -> None:
    assert sensitivity.changed(value, factor) == pytest.approx(expected)


@pytest.mark.parametrize(("name", "new"), [("A", "6"), ("B", "12.0"), ("C", "{KEY: 0.75, 'x': 2.0}"), ("D", "(12.0,)")])
def test_only_the_constant_is_rewritten(name: str, new: str) -> None:
    source = 'KEY = "k"\nA = 3  # of µ\nB: float = 2 * A + 0.0\nC = {\n    KEY: 0.5 * 1,\n    "x": 1.0,\n}\nD = (B,)\n'
    made, value = sensitivity.rewritten(source, name, 2.0)
    assert value == new
    scope: dict[str, Any] = {}
    exec(made, scope)
    assert scope[name] == eval(value, {"KEY": "k"})
    others = {"A": 3, "B": 6.0, "C": {"k": 0.5, "x": 1.0}, "D": (6.0,)}
    dependent = {"A": ("B", "D"), "B": ("D",)}.get(name, ())  # these follow
    assert all(scope[other] == others[other] for other in others if other not in (name, *dependent))


def row(constant: str, factor: float, case: str, **facts: Any) -> dict[str, Any]:
    stamp = {"code": "x", "date": "2026-11-29", "machine": "m", "versions": {"bre": "0.2"}, "value": "1"}
    usual = {"verb": "screen", "p_value": 0.01, "targets": [1], "recall": 1.0, "false_positives": 0}
    return {"constant": constant, "factor": factor, "case": case, **usual, **stamp, **facts}


def test_the_page() -> None:
    found = [Constant("bre.method.one", name, 1, "3", "", "", "chosen", "") for name in ("MOVES", "STILL", "NOT_RUN")]
    rows = [
        row(sensitivity.AS_IT_IS, 1.0, "a", flagged=[1, 2]),
        row("bre.method.one.MOVES", 0.5, "a", targets=[], more=0, fewer=2),
        row("bre.method.one.MOVES", 2.0, "a", more=3, fewer=0),
        row("bre.method.one.STILL", 0.5, "a", more=0, fewer=0),
        row("bre.method.one.STILL", 2.0, "a", more=0, fewer=0),
    ]
    lines = sensitivity.page(rows, found).splitlines()
    moved = "| `method.one.MOVES` | `3` | **a (screen): none instead of 1** | a (screen): 3 more flags, 0 fewer |"
    assert moved in lines
    assert lines[-1] == "`method.one.STILL`."
    assert not any("NOT_RUN" in line for line in lines)


def test_flags_are_compared_with_those_as_it_is() -> None:
    base = {("a", "screen"): row(sensitivity.AS_IT_IS, 1.0, "a", flagged=[1, 2, 3])}
    made = sensitivity.compared(row("X", 2.0, "a", flagged=[3, 4]), base)
    assert (made["more"], made["fewer"]) == (1, 2)
    assert "flagged" not in made
