"""The commands: each reads its options, calls a verb, and prints what that answers. Nothing is computed here."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .._files import check_new
from .._progress import shown_progress
from .declare import with_options
from .exit_status import Commands, answering, one_line
from .options import (
    Bounding,
    Configured,
    Data,
    Failing,
    Gate,
    Judging,
    Network,
    Placing,
    Printing,
    Quiet,
    Reading,
    Removing,
    Running,
    Saving,
    Seeded,
    Sharing,
    Showing,
    Trusting,
    Writing,
)
from .output import Judged, answer, check_targets, sweep_line

if TYPE_CHECKING:
    from ..inputs import ImageSet

app = typer.Typer(
    cls=Commands,
    invoke_without_command=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def run() -> int:
    """Does what the command line says; the exit status."""
    try:
        app(prog_name="bre")
    except SystemExit as e:
        return e.code if isinstance(e.code, int) else 2
    return 2  # typer ends with SystemExit whatever it did


@app.callback()
def bre(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option("--version", is_eager=True, callback=lambda on: _version(on), help="Print the version."),
    ] = False,
) -> None:
    """Find backdoor poisoning in an image training set, and in the classifier trained on it.

    \b
    bre demo --out report                      see it work, on images it brings along
    bre screen train.npz                       look for a planted pattern in the images
    bre detect train.npz --model model.pt2     look in the images and in the model
    bre cleanse train.npz report --out clean.npz
    bre sweep nightly.csv --out sweep          screen or detect, row by row of a list

    Exit status: 0 nothing found, 1 poisoning found, 2 could not answer.
    """
    if context.invoked_subcommand is None:
        typer.echo(context.get_help(), err=True)
        raise typer.Exit(2)


@app.command()
@with_options
def screen(
    data: Data,
    writing: Writing,
    judging: Judging,
    running: Running,
    gate: Gate,
    placing: Placing,
    reading: Reading,
    configured: Configured,
    showing: Showing,
) -> None:
    """Look for a planted pattern in the images.

    Needs the images and their labels only, no classifier.

    \b
    Example: bre screen train.npz --out report
    Example: bre screen photos --resize 32,32 --convert RGB
    Example: bre screen photos --quiet --sarif findings.sarif
    Example: bre screen "train-*.tar" --jobs 2 --workdir run

    Exit status: 0 nothing found, 1 poisoning found (or with --fail-on property, a property of a class), 2 could
    not answer.
    """
    with answering(showing.traceback):
        new = check_targets(writing)
        with shown_progress("opening the images", bar=not showing.quiet, lines=showing.verbose) as progress:
            import bre

            images = _opened(data, new, reading)
            judged = Judged(images, judging, placing, reading) if writing.attest else None
            where = {**running.chosen, **placing.chosen}
            report = bre.screen(images, **vars(judging), **where, progress=progress)
        answer(report, images, writing, gate, showing, judged)


@app.command()
@with_options
def detect(
    data: Data,
    model: Annotated[
        Path,
        typer.Option(
            show_default=False,
            help="The classifier: torch.export's .pt2, TorchScript, or with --arch safetensors or a checkpoint.",
        ),
    ],
    network: Network,
    writing: Writing,
    judging: Judging,
    running: Running,
    gate: Gate,
    bounding: Bounding,
    reading: Reading,
    configured: Configured,
    showing: Showing,
) -> None:
    """Look for a backdoor, with the classifier.

    Finds the pattern that the classifier answers to, and the images that taught it.

    \b
    Example: bre detect train.npz --model model.pt2 --mean 0.49,0.48,0.45 --std 0.25,0.24,0.26
    Example: bre detect photos --model resnet.safetensors --arch timm:resnet18 --out report
    Example: bre detect train.npz --model model.pt2 --device cuda
    Example: bre detect train.npz --model model.pt2 --config bre.toml --quiet

    Exit status: 0 nothing found, 1 poisoning found (or with --fail-on property, a property of a class), 2 could
    not answer.
    """
    with answering(showing.traceback):
        new = check_targets(writing)
        first = "opening the images and the model"
        with shown_progress(first, bar=not showing.quiet, lines=showing.verbose) as progress:
            import bre

            from ..inputs import open_model

            images = _opened(data, new, reading)
            classifier = open_model(model, **vars(network), unsafe=reading.unsafe)
            judged = Judged(images, judging, bounding, reading, network, model=model) if writing.attest else None
            where = {**running.chosen, **vars(bounding)}
            report = bre.detect(classifier, images, **vars(judging), **where, progress=progress)
        answer(report, images, writing, gate, showing, judged)


@app.command()
@with_options
def cleanse(
    data: Data,
    report: Annotated[
        Path,
        typer.Argument(metavar="REPORT", show_default=False, help="A report on DATA that --out saved."),
    ],
    out: Annotated[
        Path,
        typer.Option(
            metavar="CLEAN",
            show_default=False,
            help="The new dataset, of the same kind as DATA; must not exist.",
        ),
    ],
    removing: Removing,
    printing: Printing,
    reading: Reading,
    configured: Configured,
    showing: Quiet,
) -> None:
    """Write the dataset without flagged images.

    Those that the report flags as poisoned. DATA itself stays as it is; beside the new dataset goes CLEAN.removed.csv,
    which lists every removed image and why it went. Give --resize, --convert, --columns and the like as they were
    given for the report; the files kept are neither resized nor converted.

    \b
    Example: bre cleanse train.npz report --out clean.npz

    Exit status: 0 done, 2 could not.
    """
    with answering(showing.traceback):
        from ..report import Report

        check_new(out)
        known = Report.load(report)
        with shown_progress("writing the clean set", bar=not showing.quiet):
            from ..verbs.cleanse import cleanse, removed_images, removed_path

            images = _opened(data, [out], reading)
            cleanse(images, known, out=out, **dataclasses.asdict(removing))
        gone, listed = len(removed_images(known, removing.properties)), removed_path(out)
        kept = known.dataset.count - gone
        if printing.json:
            typer.echo(json.dumps({"removed": gone, "kept": kept, "out": str(out), "list": str(listed)}))
        elif not showing.quiet:
            typer.echo(one_line(f"{kept} images kept in {out}, {gone} removed and listed in {listed}"))


@app.command()
@with_options
def sweep(
    manifest: Annotated[
        Path,
        typer.Argument(
            metavar="MANIFEST",
            show_default=False,
            help="A .csv, .jsonl or .parquet with a row for each data set, or model and data set: columns data, model, "
            "name, note, and options of these as screen and detect have them (resize, columns, arch, mean, seed, ...).",
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            metavar="DIR", show_default=False, help="The sweep's folder, new or of an earlier run, which goes on."
        ),
    ],
    sharing: Sharing,
    judging: Judging,
    gate: Gate,
    trusting: Trusting,
    printing: Printing,
    showing: Quiet,
) -> None:
    """Screen or detect, row by row of a list, to one table of verdicts.

    DIR gets verdicts.csv, verdicts.jsonl, index.html and a report for each row. The same command goes on where an
    earlier one ended, however it did; rows with a verdict are not done again, rows that failed are.

    \b
    Example: bre sweep nightly.csv --out sweep --jobs 2

    Exit status: 0 nothing found in any row, 1 poisoning found in some, 2 no answer for some and nothing found in the
    others.
    """
    with answering(showing.traceback):
        import bre

        results = []
        more = {**vars(judging), **vars(trusting), **sharing.chosen}
        for result in bre.sweep(manifest, out=out, **more):
            results.append(result)
            if printing.json:
                typer.echo(json.dumps(dataclasses.asdict(result), allow_nan=False))
            elif not showing.quiet:
                typer.echo(one_line(sweep_line(result)))
        found = {1 if gate.fail_on == "property" and result.properties else result.status for result in results}
        raise typer.Exit(next((status for status in (1, 2) if status in found), 0))


@app.command()
@with_options
def demo(seeded: Seeded, saving: Saving, failing: Failing) -> None:
    """See it work on real images, in two minutes.

    Plants a backdoor, trains on it, finds it, removes it and trains again; needs no internet connection.

    \b
    Example: bre demo --out report
    """
    with answering(failing.traceback):
        if saving.out is not None:
            check_new(saving.out)
        from ..demo import run

        run(seed=seeded.seed, out=saving.out, echo=lambda line: typer.echo(line))


@app.command()
@with_options
def info(printing: Printing, failing: Failing) -> None:
    """Say what is installed and what works here.

    Names the versions, and every backend with the reason if it cannot be used.

    \b
    Example: bre info
    """
    with answering(failing.traceback):
        facts = _facts()
        if printing.json:
            typer.echo(json.dumps(facts))
            return
        for name, version in facts["versions"].items():
            typer.echo(f"{name:<15} {version}")
        typer.echo(f"{'threads':<15} {facts['threads']}")
        typer.echo(f"{'compiled':<15} {facts['compiled']}")
        if facts["cuda"] is not None:
            typer.echo(f"{'for CUDA':<15} {facts['cuda']}")
        typer.echo("\nbackends")
        for name, reason in facts["backends"].items():
            typer.echo(f"  {name:<10} {'available' if reason is None else f'not available: {reason}'}")


def _opened(data: str, new: Iterable[Path], reading: Reading) -> ImageSet:
    """The dataset, which nothing new lies in."""
    from ..inputs import open_dataset

    images = open_dataset(data, **vars(reading))
    for path in new:
        check_new(path, outside=images.disk_path)
    return images


def _facts() -> dict[str, Any]:
    """What `bre info` tells; backends maps each name to None or to why it cannot be used on the devices it is for.

    compiled: the CPU kernels' instruction sets; cuda: what the CUDA kernels were compiled for, None without them.
    """
    import torch

    from ..ops import _backends, cuda
    from ..verbs.versions import versions

    reasons = {name: [_backends.unavailable(name, device) for device in ("cpu", "cuda")] for name in _backends.NAMES}
    try:
        from .. import _core

        compiled = f"{_core.isa()} (can use {', '.join(_core.isas())})"
    except ImportError as e:
        compiled = f"not loaded: {e}"
    return {
        "versions": versions(),
        "threads": torch.get_num_threads(),
        "compiled": compiled,
        "cuda": " ".join(f"sm_{name.split('-')[0]}" for name in (cuda.architectures() or "").split()) or None,
        "backends": {name: None if None in why else why[name in ("triton", "cuda")] for name, why in reasons.items()},
    }


def _version(wanted: bool) -> None:
    if wanted:
        from ..verbs.versions import packages

        typer.echo(f"bre {packages()['bre']}")
        raise typer.Exit
