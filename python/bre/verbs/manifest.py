"""A sweep's list: a table of data sets and models, a row each, with how they are to be opened and judged."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import _check as check
from ..errors import InputError
from ..inputs._extras import need
from ..inputs.datasets.regular_files import open_regular, parse_json, read_text
from ..inputs.datasets.remote_path import is_uri

# rows; of a list; source: chosen, more than anybody has models, and their results fit into memory
MAX_LIST_ROWS = 1_000_000
_KEY = 20  # hexadecimal digits


def _whole(text: str) -> int:
    return int(text)


def _truth(text: str) -> bool:
    known = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    if text.lower() not in known:
        raise ValueError
    return known[text.lower()]


def _several(kind: Callable[[str], Any]) -> Callable[[str], tuple[Any, ...]]:
    return lambda text: tuple(kind(part.strip()) for part in text.split(","))


_DATA: dict[str, Callable[[str], Any]] = {  # options of open_dataset, from text
    "resize": _several(int),
    "crop": _several(int),
    "pad": _truth,
    "convert": str,
    "columns": _several(str),
    "layout": str,
    "root": str,
    "boxes": str,
    "on_error": str,
    "max_skipped": _whole,
}
_MODEL: dict[str, Callable[[str], Any]] = {  # of open_model
    "arch": str,
    "input_size": _several(int),
    "mean": _several(float),
    "std": _several(float),
    "precision": str,
    "device": str,
}
_JUDGING: dict[str, Callable[[str], Any]] = {"seed": _whole, "alpha": float, "backend": str}  # of the verbs
COLUMNS = ("data", "model", "name", "note", *_DATA, *_MODEL, *_JUDGING)
_PATHS = ("data", "model", "root", "boxes")


@dataclass(frozen=True)
class Row:
    """One row. number: from 1. data, model: what open_dataset and open_model take; no model: the images alone are
    looked at. options: of the three. wrong: why it cannot be done, or nothing. note: whatever the list says, passed on.
    """

    number: int
    name: str
    data: Any
    model: Any
    reading: dict[str, Any]
    network: dict[str, Any]
    judging: dict[str, Any]
    note: str = ""
    wrong: str = ""

    def key(self) -> str:
        """What its results are kept under: of all that it says but its place, and of the files' sizes and times."""
        facts = [_facts(self.data), _facts(self.model), self.reading, self.network, self.judging]
        return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()[:_KEY]

    def on_disk(self) -> bool:
        return all(isinstance(it, str | os.PathLike) or it is None for it in (self.data, self.model))


def read_rows(rows: Any, judging: Mapping[str, Any]) -> list[Row]:
    """rows: the path of a CSV, of JSON Lines or of Parquet, or mappings. judging: where a row does not say.

    Raises InputError for what is no such list, and for columns that mean nothing. What is wrong with a single row is
    an error in that row.
    """
    folder = None
    if isinstance(rows, str | os.PathLike):
        path = Path(rows)
        folder, rows = path.absolute().parent, _table(path)
    if isinstance(rows, Mapping) or not isinstance(rows, Iterable):
        raise InputError(f"rows must be the path of a list, or mappings; got {type(rows).__name__}")
    found = []
    for number, row in enumerate(rows, 1):
        if not isinstance(row, Mapping):
            raise InputError(f"row {number} must be a mapping of {', '.join(COLUMNS)}; got {check.short(row)}")
        if number > MAX_LIST_ROWS:
            raise InputError(f"a list of more than {MAX_LIST_ROWS} rows: sweep it in parts")
        found.append(_row(number, row, folder, judging))
    if not found:
        raise InputError("the list has no rows; expected one for each data set, or model and data set")
    return found


def _table(path: Path) -> list[dict[str, Any]]:
    if path.suffix.lower() == ".parquet":
        parquet = need("pyarrow.parquet", "arrow", "reading a list in Parquet")
        with open_regular(path) as file:
            try:
                table = parquet.ParquetFile(file)
                if table.metadata.num_rows > MAX_LIST_ROWS:
                    raise InputError(
                        f"{path} has {table.metadata.num_rows} rows, {MAX_LIST_ROWS} may be: sweep it in parts"
                    )
                content: list[dict[str, Any]] = table.read().to_pylist()
            except InputError:
                raise
            except Exception as e:  # Arrow's errors are of many kinds
                raise InputError(f"{path} is damaged, or no Parquet: {check.first_line(e)}") from e
        return content
    with open_regular(path) as file:
        text = read_text(file, path)
    if path.suffix.lower() in (".jsonl", ".ndjson"):
        lines = [(i, line) for i, line in enumerate(text.split("\n"), 1) if line.strip()]
        return [parse_json(line, f"{path}, line {i}") for i, line in lines]
    if path.suffix.lower() not in (".csv", ".tsv"):
        raise InputError(f"{path} must end in .csv, .tsv, .jsonl or .parquet, as what it is")
    separator = "\t" if path.suffix.lower() == ".tsv" else ","
    try:
        table = list(csv.DictReader(io.StringIO(text, newline=""), delimiter=separator, strict=True))
    except csv.Error as e:
        raise InputError(f"{path} is damaged, or no CSV: {e}") from e
    for i, row in enumerate(table, 1):
        if None in row or None in row.values():
            raise InputError(f"{path}: row {i} has more or fewer columns than the first row names")
    return table


def _row(number: int, given: Mapping[str, Any], folder: Path | None, judging: Mapping[str, Any]) -> Row:
    row = {name: value for name, value in given.items() if value is not None and value != ""}
    if unknown := [name for name in given if name not in COLUMNS]:
        raise InputError(
            f"row {number} has the columns {check.short(unknown)}, which mean nothing; known are {', '.join(COLUMNS)}"
        )
    wrong, options = "", {}
    if "data" not in row:
        wrong = "it names no data"
    for name, kind in {**_DATA, **_MODEL, **_JUDGING}.items():
        if name in row:
            try:
                options[name] = _value(row[name], kind)
            except ValueError:
                wrong = wrong or f"{name}: {check.short(row[name])} is not what this option takes"
    network = {name: options[name] for name in _MODEL if name in options}
    judged = {name: options[name] for name in _JUDGING if name in options}
    if "model" not in row and "device" in network:
        judged["device"] = network.pop("device")  # where images are compared; with a model, where that is
    if network and "model" not in row:
        wrong = wrong or f"it names no model, for which {', '.join(network)} would be"
    for name in _PATHS:
        holder = row if name in row else options
        if folder is not None and isinstance(value := holder.get(name), str) and not is_uri(value):
            (row if name in ("data", "model") else options)[name] = str(folder / value)
    return Row(
        number,
        check.printable(str(row.get("name") or _named(row, number)), 100),
        row.get("data"),
        row.get("model"),
        {name: options[name] for name in _DATA if name in options},
        network,
        {**judging, **judged},
        check.printable(str(row.get("note", ""))),
        wrong,
    )


def _value(given: Any, kind: Callable[[str], Any]) -> Any:
    if isinstance(given, str):
        return kind(given)
    return tuple(given) if isinstance(given, Sequence) else given


def _named(row: Mapping[str, Any], number: int) -> str:
    """A name for a row that has none: its model's, else its data's."""
    for name in ("model", "data"):
        if isinstance(row.get(name), str | os.PathLike):
            return os.path.basename(os.fspath(row[name]).rstrip("/")) or str(number)
    return f"row {number}"


def _facts(place: Any) -> list[Any]:
    """A path, and when it was written; a URI."""
    if place is None or is_uri(str(place)):
        return [None if place is None else str(place)]
    try:
        info = os.stat(place)
    except (OSError, ValueError):  # a glob, or what is not there
        return [str(place)]
    return [str(place), info.st_size, info.st_mtime_ns]
