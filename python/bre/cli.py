"""The command line: reads options, calls the verbs, prints what they answer. It computes nothing.

Exit status: 0 nothing found, 1 poisoning found, 2 could not answer, 130 interrupted. Torch is imported by
the verbs only, so that --help is quick.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import traceback as tracebacks
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ._progress import progress_bar
from .errors import BreError, InputError

if TYPE_CHECKING:
    from .report import Report

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Data = Annotated[
    Path,
    typer.Argument(
        metavar="DATA",
        show_default=False,
        help="A folder of class folders, a .npz with `images` and `labels`, or CIFAR-10's batches.",
    ),
]
Seed = Annotated[int, typer.Option(min=0, help="The same seed gives the same report.")]
Alpha = Annotated[float, typer.Option(min=0, max=1, help="Accepted chance of a false alarm on a clean set.")]
Backend = Annotated[str, typer.Option(help="auto, reference or cpu; `bre info` says which work here.")]
SaveTo = Annotated[
    Path | None, typer.Option("--out", metavar="DIR", help="Save the report as this new folder.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout, and nothing else there.")]
Unsafe = Annotated[
    bool,
    typer.Option(
        "--unsafe",
        help="Open pickled files too (CIFAR-10's Python batches, pickled models). Whoever made such a file "
        "can run any program on this machine when it is opened: only for files you trust.",
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Only the exit status, --json, --out and errors.")]
Traceback = Annotated[bool, typer.Option("--traceback", help="Show Python's traceback of an error.")]
Numbers = Annotated[
    str | None,
    typer.Option(metavar="R,G,B", help="What the model wants its input, pixels in [0, 1], normalised with."),
]


def main() -> None:
    """The `bre` command."""
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")  # a class name must not break an ASCII terminal
    app(prog_name="bre")


@app.callback()
def bre(
    version: Annotated[
        bool,
        typer.Option("--version", is_eager=True, callback=lambda on: _version(on), help="Print the version."),
    ] = False,
) -> None:
    """Find backdoor poisoning in an image training set, and in the classifier trained on it.

    \b
    bre demo                                   see it work, on images it brings along
    bre screen train.npz                       look for a planted pattern in the images
    bre detect train.npz --model model.pt2     look in the images and in the model
    bre cleanse train.npz report --out clean.npz

    Exit status: 0 nothing found, 1 poisoning found, 2 could not answer.
    """


@app.command()
def screen(
    data: Data,
    seed: Seed = 0,
    alpha: Alpha = 0.05,
    backend: Backend = "auto",
    out: SaveTo = None,
    as_json: Json = False,
    unsafe: Unsafe = False,
    quiet: Quiet = False,
    traceback: Traceback = False,
) -> None:
    """Look for a planted pattern in the images.

    Needs the images and their labels only, no classifier.

    \b
    Example: bre screen train.npz --out report

    Exit status: 0 nothing found, 1 poisoning found, 2 could not answer.
    """
    with _answering(traceback):
        _check_new(out, data)
        with progress_bar("opening the images", wanted=not quiet) as progress:
            import bre

            report = bre.screen(
                data, seed=seed, alpha=alpha, backend=backend, unsafe=unsafe, progress=progress
            )
        _answer(report, out=out, as_json=as_json, quiet=quiet)


@app.command()
def detect(
    data: Data,
    model: Annotated[
        Path,
        typer.Option(show_default=False, help="The classifier: torch.export's .pt2, or TorchScript."),
    ],
    mean: Numbers = None,
    std: Numbers = None,
    seed: Seed = 0,
    alpha: Alpha = 0.05,
    backend: Backend = "auto",
    out: SaveTo = None,
    as_json: Json = False,
    unsafe: Unsafe = False,
    quiet: Quiet = False,
    traceback: Traceback = False,
) -> None:
    """Look for a backdoor, with the classifier.

    Finds the pattern that the classifier answers to, and the images that taught it.

    \b
    Example: bre detect train.npz --model model.pt2 --mean 0.49,0.48,0.45 --std 0.25,0.24,0.26

    Exit status: 0 nothing found, 1 poisoning found, 2 could not answer.
    """
    channels = {"mean": _numbers(mean, "--mean"), "std": _numbers(std, "--std")}
    with _answering(traceback):
        _check_new(out, data)
        with progress_bar("opening the images and the model", wanted=not quiet) as progress:
            import bre

            report = bre.detect(
                model,
                data,
                seed=seed,
                alpha=alpha,
                backend=backend,
                unsafe=unsafe,
                progress=progress,
                **channels,
            )
        _answer(report, out=out, as_json=as_json, quiet=quiet)


@app.command()
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
    as_json: Json = False,
    unsafe: Unsafe = False,
    quiet: Quiet = False,
    traceback: Traceback = False,
) -> None:
    """Write the dataset without flagged images.

    Those that the report flags. DATA itself stays as it is; beside the new dataset goes CLEAN.removed.csv,
    which lists every removed image and why it went.

    \b
    Example: bre cleanse train.npz report --out clean.npz

    Exit status: 0 done, 2 could not.
    """
    with _answering(traceback):
        from .report import Report

        _check_new(out, data)
        known = Report.load(report)
        with progress_bar("writing the clean set", wanted=not quiet):
            from .cleanse import cleanse, removed_path

            cleanse(data, known, out=out, unsafe=unsafe)
        gone, listed = len(known.indices), removed_path(out)
        kept = known.dataset["count"] - gone
        if as_json:
            answer = {"removed": gone, "kept": kept, "out": str(out), "list": str(listed)}
            typer.echo(json.dumps(answer))
        elif not quiet:
            typer.echo(_safe(f"{kept} images kept in {out}, {gone} removed and listed in {listed}"))


@app.command()
def demo(seed: Seed = 0, traceback: Traceback = False) -> None:
    """See it work on real images, in two minutes.

    Plants a backdoor, trains on it, finds it, removes it and trains again; needs no network.

    \b
    Example: bre demo
    """
    with _answering(traceback):
        from .demo import run

        status = run(seed=seed, echo=lambda line: typer.echo(line))
        if isinstance(status, int):
            raise typer.Exit(status)


@app.command()
def info(as_json: Json = False, traceback: Traceback = False) -> None:
    """Say what is installed and what works here.

    Names the versions, and every backend with the reason if it cannot be used.

    \b
    Example: bre info
    """
    with _answering(traceback):
        facts = _facts()
        if as_json:
            typer.echo(json.dumps(facts))
            return
        for name, version in facts["versions"].items():
            typer.echo(f"{name:<10} {version}")
        typer.echo(f"{'threads':<10} {facts['threads']}")
        typer.echo(f"{'compiled':<10} {facts['compiled']}")
        typer.echo("\nbackends")
        for name, reason in facts["backends"].items():
            typer.echo(f"  {name:<10} {'available' if reason is None else f'not available: {reason}'}")


def _facts() -> dict[str, Any]:
    """What `bre info` tells; backends maps each name to None or to why it cannot be used."""
    import torch

    from .ops import _backends
    from .report import versions

    devices = ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",)
    reasons = {name: [_backends.unavailable(name, device) for device in devices] for name in _backends.NAMES}
    try:
        from . import _core

        compiled = f"{_core.isa()} (can use {', '.join(_core.isas())})"
    except ImportError as e:
        compiled = f"not loaded: {e}"
    return {
        "versions": versions(),
        "threads": torch.get_num_threads(),
        "compiled": compiled,
        "backends": {name: None if None in why else why[0] for name, why in reasons.items()},
    }


def _answer(report: Report, *, out: Path | None, as_json: bool, quiet: bool) -> None:
    """Print the verdict, save the report, and end with the status that says it."""
    if as_json:
        typer.echo(json.dumps(report.to_dict(), allow_nan=False))
    elif not quiet:
        verdict, _, rest = report.summary().partition("\n")
        _print_verdict(verdict, bad=report.poisoned)
        typer.echo(rest)
    sys.stdout.flush()
    if out is not None:
        report.save(out)
        if not quiet:
            typer.echo(_safe(f"The report is in {out}"), err=True)
    raise typer.Exit(1 if report.poisoned else 0)


def _print_verdict(line: str, *, bad: bool) -> None:
    from rich.console import Console
    from rich.text import Text

    Console(soft_wrap=True, highlight=False).print(Text(line, style="bold red" if bad else "bold green"))


@contextlib.contextmanager
def _answering(traceback: bool) -> Iterator[None]:
    """Turn every way to fail into one line on stderr and its exit status."""
    try:
        yield
        sys.stdout.flush()
    except (typer.Exit, typer.BadParameter):
        raise
    except KeyboardInterrupt:
        typer.echo("bre: interrupted, nothing was left half-written", err=True)
        raise typer.Exit(130) from None
    except BrokenPipeError:  # whoever read stdout is gone; let the flush at exit go nowhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(2) from None
    except Exception as e:
        if traceback:
            tracebacks.print_exc()
        message = str(e) or type(e).__name__
        if not isinstance(e, (BreError, OSError)):
            message = f"{type(e).__name__}: {e} (unexpected; --traceback shows where)"
        typer.echo(f"bre: error: {_safe(message)}", err=True)
        raise typer.Exit(2) from None


def _safe(text: str) -> str:
    from .report import printable

    return printable(" ".join(text.split()), 2000)


def _check_new(out: Path | None, data: Path) -> None:
    """Refuse now what could not be written after minutes of work."""
    if out is None:
        return
    if os.path.lexists(out):
        raise InputError(f"{out} exists already; bre never overwrites, give a new name")
    if not out.parent.is_dir():
        raise InputError(f"cannot write {out}: the folder {out.parent} does not exist")
    if out.resolve().is_relative_to(data.resolve()):
        raise InputError(f"{out} lies inside the dataset {data}: give a path outside of it")


def _numbers(text: str | None, option: str) -> tuple[float, ...] | None:
    if text is None:
        return None
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise typer.BadParameter(
            f"expected numbers with commas between them, got {text!r}", param_hint=option
        ) from None


def _version(wanted: bool) -> None:
    if wanted:
        from .report import versions

        typer.echo(f"bre {versions()['bre']}")
        raise typer.Exit
