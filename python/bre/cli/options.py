"""What the commands take: every option once, with its type, its help, its parser and its completion."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from .._check import MIN_ALPHA
from .config_file import read_config
from .declare import declared, option


def numbers(count: int | None, kind: Callable[[str], Any], form: str) -> Callable[[Any], tuple[Any, ...]]:
    """A parser of values with commas between them, or of a configuration's list."""

    def parse(given: Any) -> tuple[Any, ...]:
        parts = given.split(",") if isinstance(given, str) else given
        try:
            values = tuple(kind(part.strip() if isinstance(part, str) else part) for part in parts)
        except ValueError:
            values = ()
        if not values or count not in (None, len(values)):
            raise typer.BadParameter(f"expected {form}, got {given!r}")
        return values

    return parse


def _column(text: str) -> str:
    if not text:
        raise ValueError
    return text


def _device(name: str | None) -> str | None:
    if name is not None and not re.fullmatch(r"cpu|cuda(:\d{1,3})?", name):
        raise typer.BadParameter(f"expected cpu, cuda or cuda:N, got {name!r}")
    return name


def _backends() -> list[str]:
    from ..ops import _backends

    return ["auto", *_backends.NAMES]


Data = Annotated[
    str,
    typer.Argument(
        metavar="DATA",
        show_default=False,
        help="A folder of class folders, a .csv or .jsonl of path and label, a list of paths, .npz, .npy, .mat, idx "
        "files, Parquet, WebDataset's tars (globs and braces; also by URI, as s3://bucket/train-{000..009}.tar), "
        "a folder that Hugging Face's datasets saved or a clone "
        "of a set on its hub, CIFAR's folder, or a folder of images with --boxes. Quote a pattern of several files.",
    ),
]


@dataclass(frozen=True)
class Seeded:
    seed: int = option("The same seed gives the same report.", default=0, min=0, config=True)


@dataclass(frozen=True)
class Judging(Seeded):
    """How the verdict is found."""

    alpha: float = option(
        f"Accepted chance of a false alarm on a clean set, from {MIN_ALPHA:g} to below 1.",
        default=0.05,
        min=MIN_ALPHA,
        max=1,
        config=True,
    )
    backend: str = option(
        "auto, or one of those that `bre info` says work here.",
        default="auto",
        autocompletion=_backends,
        config=True,
    )


def _memory(text: str) -> int:
    """Bytes, of 512M or 16G."""
    found = re.fullmatch(r"(\d{1,6})([MG])", text)
    if found is None:
        raise typer.BadParameter(f"expected a number of M or G bytes, as in 16G, got {text!r}")
    return int(found[1]) << {"M": 20, "G": 30}[found[2]]


@dataclass(frozen=True)
class Bounding:
    """How much of a device is taken."""

    device_memory: int | None = option(
        "How much of the GPU's memory may be taken; work that does not fit is split, or done in host memory.",
        parser=_memory,
        metavar="16G|512M",
        config=True,
    )


@dataclass(frozen=True)
class Placing(Bounding):
    """Where the images' part is computed: what `bre.screen` takes."""

    device: str | None = option(
        "Where images are compared; left out, on the CPU, which decodes them in any case.",
        callback=_device,
        metavar="cpu|cuda|cuda:N",
        config=True,
    )

    @property
    def chosen(self) -> dict[str, Any]:
        return {"device": self.device or "cpu", "device_memory": self.device_memory}


@dataclass(frozen=True)
class Sharing:
    """Who does the work."""

    jobs: int = option("Processes that share the work, on this machine.", default=1, min=1, config=True)
    ray: str | None = option(
        "Do the work on the Ray cluster at this address; auto is the one that this machine belongs to.",
        metavar="ADDRESS|auto",
    )

    @property
    def chosen(self) -> dict[str, Any]:
        """As the verbs take them."""
        return {"executor": "local" if self.ray is None else "ray", "jobs": self.jobs, "ray_address": self.ray}


@dataclass(frozen=True)
class Running(Sharing):
    """Who does the work, and what of it is kept."""

    workdir: Path | None = option(
        "Keep what is done in this folder, so that the same command goes on where an earlier one ended.", metavar="DIR"
    )

    @property
    def chosen(self) -> dict[str, Any]:
        """As `bre.screen` takes them."""
        return super().chosen | {"workdir": self.workdir}


@dataclass(frozen=True)
class Reading:
    """How the images are read: what `bre.open_dataset` takes."""

    resize: tuple[int, int] | None = option(
        "Bring all images to this size first.", parser=numbers(2, int, "HEIGHT,WIDTH"), metavar="H,W", config=True
    )
    crop: tuple[int, int] | None = option(
        "Cut this much from the middle of every image, instead of resizing.",
        parser=numbers(2, int, "HEIGHT,WIDTH"),
        metavar="H,W",
        config=True,
    )
    pad: bool = option(
        "Add black below and on the right, up to the largest image, instead of resizing.", default=False, config=True
    )
    convert: str | None = option("Bring all images to colour or to grey first.", metavar="RGB|L", config=True)
    columns: tuple[str, str] | None = option(
        "The columns of a table, where their names do not tell; a tar's members by their endings (json:KEY for a "
        "value in a JSON member); a .npz's arrays.",
        parser=numbers(2, _column, "IMAGE,LABEL"),
        metavar="IMAGE,LABEL",
        config=True,
    )
    layout: Literal["NCHW", "NHWC"] | None = option(
        "Which axis of a .npz's images is the channels, where their shape does not tell.", config=True
    )
    root: Path | None = option(
        "The folder that the paths in a list are relative to, if it is not the list's own.", metavar="DIR"
    )
    boxes: Path | None = option(
        "Boxes in the images of the folder DATA: a COCO JSON file, or a folder of YOLO's text files. Each box is an "
        "image; needs --resize.",
        metavar="PATH",
    )
    follow_links: bool = option("Read what links and paths out of the dataset's folder lead to.", default=False)
    on_error: Literal["fail", "skip"] = option(
        "What to do about images that are damaged or not there: fail names them all, skip leaves them out and lists "
        "them (see --skipped).",
        default="fail",
        config=True,
    )
    max_skipped: int | None = option(
        "How many images --on-error skip may leave out; left out, 20 or one in a hundred.", min=0, config=True
    )
    unsafe: bool = option(
        "Open pickled files too (CIFAR-10's Python batches, pickled models). Whoever made such a file "
        "can run any program on this machine when it is opened: only for files you trust.",
        "--unsafe-pickle",
        default=False,
    )


@dataclass(frozen=True)
class Network:
    """How the model is read and run: what `bre.open_model` takes beside what it shares with the images."""

    arch: str | None = option(
        "What MODEL's weights are of, where they are alone: timm:NAME, torchvision:NAME, or with --run-arch "
        "MODULE:CALLABLE. Normalisation and input size are then the library's own, unless given.",
        metavar="KIND:NAME",
        config=True,
    )
    run_arch: bool = option("Let --arch import MODULE and call CALLABLE: runs that module's code.", default=False)
    input_size: tuple[int, int] | None = option(
        "The size at which the model sees the images.",
        parser=numbers(2, int, "HEIGHT,WIDTH"),
        metavar="H,W",
        config=True,
    )
    mean: tuple[float, ...] | None = option(
        "What the model wants pixels in [0, 1] normalised with: less the mean, over std; both or neither.",
        parser=numbers(None, float, "numbers with commas between them"),
        metavar="R,G,B",
        config=True,
    )
    std: tuple[float, ...] | None = option(
        "See --mean.", parser=numbers(None, float, "numbers with commas between them"), metavar="R,G,B", config=True
    )
    precision: Literal["float32", "bfloat16"] = option(
        "What the model computes in. bfloat16 is quicker where the processor has instructions for it.",
        default="float32",
        config=True,
    )
    device: str | None = option(
        "Where the model runs, and images are compared; left out, where it was saved from, or on the CPU. Images are "
        "decoded on the CPU.",
        callback=_device,
        metavar="cpu|cuda|cuda:N",
        config=True,
    )


@dataclass(frozen=True)
class Removing:
    """Which images `bre cleanse` leaves out: what `bre.cleanse` takes."""

    properties: bool = option("Leave out the images of class properties too, not of poison alone.", default=False)
    allow_empty_class: bool = option("Go on where no image of a class would be left.", default=False)


@dataclass(frozen=True)
class Printing:
    json: bool = option("Print JSON on stdout, and nothing else there.", default=False)


@dataclass(frozen=True)
class Saving:
    out: Path | None = option("Save the report as this new folder, report.html in it for people.", metavar="DIR")


@dataclass(frozen=True)
class Writing(Printing, Saving):
    """Where the report goes."""

    sarif: str | None = option("Write findings for code-scanning dashboards; - for stdout.", metavar="FILE")
    skipped: Path | None = option("Write the images that --on-error skip left out as a CSV.", metavar="FILE")
    attest: Path | None = option(
        "Write an in-toto statement: digests of what was judged, verdict, options, versions; and FILE.cdx.json, an "
        "entry for a CycloneDX bill of materials.",
        metavar="FILE",
    )


@dataclass(frozen=True)
class Gate:
    """What makes the exit status 1."""

    fail_on: Literal["poison", "property"] = option(
        "What ends with exit status 1: poison, or a property of a class as well.", default="poison", config=True
    )


@dataclass(frozen=True)
class Trusting:
    """What may run code, of all rows."""

    unsafe: bool = option(
        "Open pickled files too. Whoever made such a file can run any program on this machine when it is opened.",
        "--unsafe-pickle",
        default=False,
    )
    run_arch: bool = option("Let the column arch name MODULE:CALLABLE, and run that module's code.", default=False)


@dataclass(frozen=True)
class Failing:
    traceback: bool = option("Show Python's traceback of an error.", default=False)


@dataclass(frozen=True)
class Quiet(Failing):
    """How much is printed beside the answer."""

    quiet: bool = option(
        "Only the exit status, what was asked to be written, and errors.", "--quiet", "-q", default=False
    )


@dataclass(frozen=True)
class Showing(Quiet):
    """How much is printed beside the answer, and of it."""

    verbose: bool = option(
        "Also the numbers of every class, and the stages in a log.", "--verbose", "-v", default=False
    )


OPTIONS = {one.name: one for one in declared([Judging, Running, Placing, Reading, Network, Writing, Gate, Showing])}


def configure(context: typer.Context, path: Path | None) -> Path | None:
    """Options that a TOML file gives, as the defaults of this command: what the command line says still wins."""
    if path is not None and not context.resilient_parsing:
        given = read_config(path, OPTIONS.values())
        context.default_map = {**(context.default_map or {}), **given}
    return path


@dataclass(frozen=True)
class Configured:
    """Defaults of the options above."""

    config: Path | None = option(
        f"A TOML file with any of {', '.join(name for name, one in OPTIONS.items() if one.config)}. What the command "
        "line says wins.",
        metavar="FILE",
        is_eager=True,
        callback=configure,
    )


def spelled(argument: str) -> str:
    """What the command line calls an argument of the library, as in "--resize H,W"."""
    argument = {"ray_address": "ray", "executor": "ray"}.get(argument, argument)
    return OPTIONS[argument].spelled if argument in OPTIONS else f"--{argument.replace('_', '-')}"
