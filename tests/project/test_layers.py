"""Calls go downwards only, as pyproject.toml's contracts have it."""

from __future__ import annotations

from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2] / "pyproject.toml"


def test_the_contracts_hold(capsys: pytest.CaptureFixture[str]) -> None:
    linter = pytest.importorskip("importlinter.cli")
    status = linter.lint_imports(str(PROJECT), no_cache=True, no_logo=True)
    assert status == 0, capsys.readouterr().out
