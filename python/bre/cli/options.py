"""What the commands take: every option once, with its help, its parser and its completion."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import typer


def numbers(count: int | None, kind: Callable[[str], Any], form: str) -> Callable[[str], tuple[Any, ...]]:
    """A parser of values with commas between them."""

    def parse(text: str) -> tuple[Any, ...]:
        try:
            values = tuple(kind(part.strip()) for part in text.split(","))
        except ValueError:
            values = ()
        if not values or count not in (None, len(values)):
            raise typer.BadParameter(f"expected {form}, got {text!r}")
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


def configure(context: typer.Context, path: Path | None) -> Path | None:
    """Options that a TOML file gives, as the defaults of this command: what the command line says still wins."""
    if path is not None and not context.resilient_parsing:
        given = read_config(path)
        context.default_map = {**(context.default_map or {}), **given}
    return path


def read_config(path: Path) -> dict[str, Any]:
    """{option: value} as the command line would have it. Raises BadParameter, naming the file, for other content."""
    import pydantic

    class Config(pydantic.BaseModel):
        """The keys of a configuration file; ranges are checked by the options themselves."""

        model_config = pydantic.ConfigDict(extra="forbid", strict=True)
        seed: int = 0
        alpha: float = 0.05
        backend: str = "auto"
        device: str = "cpu"
        precision: str = "float32"
        arch: str = ""
        input_size: list[int] = []
        mean: list[float] = []
        std: list[float] = []
        resize: list[int] = []
        convert: str = ""
        layout: str = ""
        columns: list[str] = []

    try:
        with path.open("rb") as f:
            config = Config(**tomllib.load(f))
    except OSError as e:
        raise typer.BadParameter(f"cannot read {path}: {e.strerror}") from None
    except pydantic.ValidationError as e:
        first = e.errors()[0]
        key = ".".join(map(str, first["loc"]))
        if first["type"] == "extra_forbidden":
            known = ", ".join(Config.model_fields)
            raise typer.BadParameter(f"{path}: unknown key {key!r}, known are {known}") from None
        raise typer.BadParameter(f"{path}: {key}: {first['msg']}") from None
    except ValueError as e:  # no TOML, or no UTF-8
        raise typer.BadParameter(f"{path} is no TOML: {e}") from None
    given = config.model_dump(exclude_unset=True)
    return {k: ",".join(map(str, v)) if isinstance(v, list) else v for k, v in given.items()}


Data = Annotated[
    Path,
    typer.Argument(
        metavar="DATA",
        show_default=False,
        help="A folder of class folders, a .csv of path and label, .npz, Parquet, WebDataset's tars, a folder that "
        "Hugging Face's datasets saved, or CIFAR-10's batches. Quote a pattern of several files.",
    ),
]
# Any: typer would make several values of a tuple, and parsers do their own typing.
Resize = Annotated[
    Any,
    typer.Option(parser=numbers(2, int, "HEIGHT,WIDTH"), metavar="H,W", help="Bring all images to this size first."),
]
Convert = Annotated[str | None, typer.Option(metavar="RGB|L", help="Bring all images to colour or to grey first.")]
Columns = Annotated[
    Any,
    typer.Option(
        parser=numbers(2, _column, "IMAGE,LABEL"),
        metavar="IMAGE,LABEL",
        help="The columns of a table, where their names do not tell; a tar's members by their endings.",
    ),
]
Layout = Annotated[
    Literal["NCHW", "NHWC"] | None,
    typer.Option(help="Which axis of a .npz's images is the channels, where their shape does not tell."),
]
Unsafe = Annotated[
    bool,
    typer.Option(
        "--unsafe-pickle",
        help="Open pickled files too (CIFAR-10's Python batches, pickled models). Whoever made such a file "
        "can run any program on this machine when it is opened: only for files you trust.",
    ),
]
Arch = Annotated[
    str | None,
    typer.Option(
        metavar="KIND:NAME",
        help="What MODEL's weights are of, where they are alone: timm:NAME, torchvision:NAME, or with --run-arch "
        "MODULE:CALLABLE. Normalisation and input size are then the library's own, unless given.",
    ),
]
RunArch = Annotated[
    bool, typer.Option("--run-arch", help="Let --arch import MODULE and call CALLABLE: runs that module's code.")
]
InputSize = Annotated[
    Any,
    typer.Option(
        parser=numbers(2, int, "HEIGHT,WIDTH"), metavar="H,W", help="The size at which the model sees the images."
    ),
]
Normalise = Annotated[
    Any,
    typer.Option(
        parser=numbers(None, float, "numbers with commas between them"),
        metavar="R,G,B",
        help="What the model wants pixels in [0, 1] normalised with: less the mean, over std; both or neither.",
    ),
]
Seed = Annotated[int, typer.Option(min=0, help="The same seed gives the same report.")]
Alpha = Annotated[
    float, typer.Option(min=0, max=1, help="Accepted chance of a false alarm on a clean set, above 0 and below 1.")
]
Backend = Annotated[
    str,
    typer.Option(autocompletion=_backends, help="auto, or one of those that `bre info` says work here."),
]
Device = Annotated[
    str | None,
    typer.Option(
        callback=_device,
        metavar="cpu|cuda|cuda:N",
        help="Where the model runs; left out, where it was saved from, or on the CPU. The images' part is the CPU's.",
    ),
]
Precision = Annotated[
    Literal["float32", "bfloat16"],
    typer.Option(help="What the model computes in. bfloat16 is quicker where the processor has instructions for it."),
]
ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        is_eager=True,
        callback=configure,
        help="A TOML file with any of seed, alpha, backend, device, precision, arch, input_size, mean, std, resize, "
        "convert, layout, columns. What the command line says wins.",
    ),
]
SaveTo = Annotated[
    Path | None,
    typer.Option("--out", metavar="DIR", help="Save the report as this new folder, report.html in it for people."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout, and nothing else there.")]
Sarif = Annotated[
    str | None,
    typer.Option("--sarif", metavar="FILE", help="Write findings for code-scanning dashboards; - for stdout."),
]
Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", help="Only the exit status, what was asked to be written, and errors.")
]
Verbose = Annotated[
    bool, typer.Option("--verbose", "-v", help="Also the numbers of every class, and the stages in a log.")
]
Traceback = Annotated[bool, typer.Option("--traceback", help="Show Python's traceback of an error.")]
