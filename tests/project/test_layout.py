"""Where files lie: no two have one name, so that a name in a message or a search says which file is meant."""

from __future__ import annotations

import subprocess
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def tracked() -> list[Path]:
    try:
        listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, text=True).stdout
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no git checkout")
    return [ROOT / name for name in listed.split("\0") if name]


def test_no_two_python_files_have_one_name() -> None:
    names = Counter(path.name for path in tracked() if path.suffix == ".py" and path.exists())
    for usual in ("__init__.py", "conftest.py", "_check.py"):  # _check: of the report, and of the ops' arguments
        names.pop(usual, None)
    assert [name for name, count in names.items() if count > 1] == []
