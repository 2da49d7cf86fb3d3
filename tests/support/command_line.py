"""The command line, run in this process and as a program of its own."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from bre.cli.commands import app


def run(*args: object) -> Result:
    return CliRunner().invoke(app, [str(a) for a in args])


PROGRAM = "from bre.cli import main; main()"


def program(*args: object, code: str = PROGRAM, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-c", code, *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, timeout=180, **options)


def stub(report: Path, body: str = "return Report.load(REPORT)") -> str:
    """The program, with bre.screen replaced by `body`; REPORT is the path of a saved report."""
    lines = ["import os, signal, time, bre", "from bre.report import Report", f"REPORT = {str(report)!r}"]
    return "\n".join([*lines, "def screen(*args, **options):", f"    {body}", "bre.screen = screen", PROGRAM])


posix = pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals, limits and terminals")
