"""What the commands print and write."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from .._files import atomic_path, check_new
from ..errors import InputError
from ..report import text
from ..report.tables import skipped_csv
from .exit_status import one_line
from .options import Gate, Showing, Writing
from .signals import tell

if TYPE_CHECKING:
    from ..inputs import ImageSet
    from ..inputs.datasets.digests import Digest
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
    if writing.attest is not None:
        files += [writing.attest, materials_path(writing.attest)]
    for path in files:
        check_new(path)
    names = [path.absolute() for path in files]
    if same := next((path for path, name in zip(files, names, strict=True) if names.count(name) > 1), None):
        raise typer.BadParameter(
            f"{same} is named twice, by --out, --sarif, --skipped or --attest: give each a name of its own."
        )
    return files


def materials_path(attest: Path) -> Path:
    """Where the entry for a bill of materials goes, beside the statement."""
    return attest.with_name(attest.name + ".cdx.json")


class Judged:
    """What a verdict is about, for `--attest`: its digests, taken before and after, and the options."""

    def __init__(self, images: ImageSet, *groups: Any, model: Path | None = None):
        self._images, self._model = images, model
        self.options = {name: _plain(value) for group in groups for name, value in sorted(vars(group).items())}
        self.subjects = self._digests()

    def _digests(self) -> list[Digest]:
        from ..inputs.datasets.digests import digests, of_path

        return digests(self._images) + ([] if self._model is None else [of_path(self._model)])

    def write(self, report: Report, attest: Path, gate: Gate) -> None:
        """Raises InputError where a file is not what it was before the verdict."""
        from ..report.attestation import bill_of_materials, statement

        if self._digests() != self.subjects:
            raise InputError(
                f"{self._images.source} changed while it was judged: nothing can be said of it as it is now"
            )
        signed = statement(report, self.subjects, self.options, fail_on=gate.fail_on)
        materials = bill_of_materials(report, self.subjects, models=int(self._model is not None))
        with atomic_path(attest, beside={materials_path(attest): _json_bytes(materials)}) as part:
            part.write_bytes(_json_bytes(signed))


def _plain(value: Any) -> Any:
    """An option as JSON has it."""
    if isinstance(value, tuple | list):
        return [_plain(one) for one in value]
    return str(value) if isinstance(value, Path) else value


def _json_bytes(content: Any) -> bytes:
    return (json.dumps(content, indent=1, allow_nan=False) + "\n").encode("ascii")


def answer(
    report: Report, images: ImageSet, writing: Writing, gate: Gate, showing: Showing, judged: Judged | None = None
) -> None:
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
                part.write_bytes(_json_bytes(content))
        if writing.attest is not None and judged is not None:
            judged.write(report, writing.attest, gate)
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
