"""How a dataset is to be opened: the options of `open_dataset`, checked."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from ... import _check as check
from ...errors import InputError
from .image_form import ImageForm

Columns = tuple[str, str]  # the names of what holds the image and of what holds the label

_FOR = {  # what an option is for, in the message about one that a format has no use for
    "layout": "arrays, torch datasets, .npz and .npy",
    "columns": "CSV, JSON Lines, tar, Parquet, Hugging Face datasets, .npz, .mat, CIFAR-100 and items that are dicts",
    "root": "CSV, JSON Lines and lists of paths",
    "boxes": "a folder of images",
    "follow_links": "folders, CSV, JSON Lines and lists of paths",
    "on_error": "images that are encoded files",
    "max_skipped": "images that are encoded files",
}


@dataclass(frozen=True)
class Options:
    """See `open_dataset`; None or False where nothing was said. form: of resize, crop, pad and convert."""

    form: ImageForm = field(default_factory=ImageForm)
    unsafe: bool = False
    layout: str | None = None
    columns: Columns | None = None
    root: Path | None = None
    boxes: Path | None = None
    follow_links: bool = False
    on_error: str = "fail"
    max_skipped: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "columns", _columns(self.columns))
        for name in ("root", "boxes"):
            value = getattr(self, name)
            if value is not None and not (isinstance(value, (str, os.PathLike)) and "\0" not in os.fspath(value)):
                raise InputError(f"{name} must be a path, got {value!r}", argument=name)
            object.__setattr__(self, name, None if value is None else Path(value))
        for name in ("unsafe", "follow_links"):
            if not isinstance(getattr(self, name), bool):
                raise InputError(f"{name} must be True or False, got {getattr(self, name)!r}")

        if self.on_error not in ("fail", "skip"):
            raise InputError(f"on_error must be 'fail' or 'skip', got {self.on_error!r}")
        if self.max_skipped is not None:
            check.integer(self.max_skipped, "max_skipped")
            if self.on_error == "fail":
                raise InputError("without leaving images out there is no limit on how many", argument="on_error")

    def given(self) -> list[str]:
        """The names of those that were said, `unsafe` left out: a user may allow what then is not needed."""
        default = Options()
        names = [f.name for f in fields(self) if f.name != "unsafe"]
        return [name for name in names if getattr(self, name) != getattr(default, name)]

    def refuse_unused(self, taken: frozenset[str], source: str) -> None:
        """Raise InputError for an option that the format did not use. taken: the names of those that it knows."""
        for name in self.given():
            if name in _FOR and name not in taken:
                raise InputError(f"this is for {_FOR[name]}; {source} has no use for it", argument=name)


def _columns(columns: Any) -> Columns | None:
    if columns is None:
        return None
    given = list(columns) if isinstance(columns, Iterable) and not isinstance(columns, (str, bytes)) else []
    if len(given) != 2 or not all(isinstance(name, str) and name for name in given):
        raise InputError(f"columns must be two names, (image, label), got {columns!r}")
    return given[0], given[1]
