"""What the commands print and write."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from .._files import atomic_path, check_new
from ..report import text
from ..report.tables import skipped_csv
from .exit_status import one_line
from .options import Gate, Showing, Writing
from .signals import tell

if TYPE_CHECKING:
    from ..inputs import ImageSet
    from ..report import Report
    from ..verbs.sweep import SweepResult

STDOUT = "-"


def check_targets(writing: Writing) -> list[Path]:
    """What is to be written. Refuse now what could not be after minutes of work."""
    if writing.sarif == STDOUT and writing.json:
        raise typer.BadParameter("stdout takes one of --json and --sarif -: give --sarif a file.")
    files = [path for path in (writing.out, writing.skipped) if path is not None]
    if writing.sarif not in (None, STDOUT):
        files.append(Path(str(writing.sarif)))
    for path in files:
        check_new(path)
    if len({path.absolute() for path in files}) < len(files):
        raise typer.BadParameter(
            f"--out, --sarif and --skipped: {files[-1]} is named twice: give each a name of its own."
        )
    return files


def answer(report: Report, images: ImageSet, writing: Writing, gate: Gate, showing: Showing) -> None:
    """Write what was asked for, print the verdict, and end with the status that says it."""
    out, content = writing.out, None
    if writing.sarif is not None:
        from ..report.sarif import sarif as as_sarif

        content = as_sarif(report, images)
    try:  # files first: whoever reads stdout may be gone
        if writing.skipped is not None:
            with atomic_path(writing.skipped) as part:
                part.write_bytes(skipped_csv(images))
        if writing.sarif not in (None, STDOUT):
            with atomic_path(str(writing.sarif)) as part:
                part.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", "ascii")
        if out is not None:
            report.save(out, images)
    finally:  # and the verdict also where the disk is full
        if writing.json:
            _print_json(report.to_dict())
        elif writing.sarif == STDOUT:
            _print_json(content)
        elif not showing.quiet:
            _print_text(report, showing.verbose)
        sys.stdout.flush()
    if out is not None and not showing.quiet:
        tell(one_line(f"The report is in {out}: open {out / 'report.html'}"))
    found = report.findings if gate.fail_on == "property" else report.poisoned
    raise typer.Exit(1 if found else 0)


def sweep_line(result: SweepResult) -> str:
    """A row's verdict, for a person who watches."""
    said = ("nothing found", f"poisoned: {', '.join(result.poison)}", f"no answer: {result.error}")[result.status]
    return f"{result.number:>5} {result.name}: {said}"


def _print_json(content: Any) -> None:
    typer.echo(json.dumps(content, allow_nan=False))


def _print_text(report: Report, verbose: bool) -> None:
    """The summary, on a terminal with the verdict and the findings' titles standing out."""
    from rich.console import Console
    from rich.text import Text

    class Piped(Console):
        def on_broken_pipe(self) -> None:  # rich would end the program, with the status of poisoning found
            raise BrokenPipeError

    console = Piped(soft_wrap=True, highlight=False)
    verdict, *lines = report.summary().split("\n")
    console.print(Text(verdict, style="bold red" if report.poisoned else "bold green"))
    for line in lines:
        console.print(Text(line, style="bold" if line.startswith("Finding ") else ""))
    if verbose:
        console.print(Text("\n" + "\n".join(text.table(report))))
