"""Lists of image path and label as text: CSV, TSV, and plain lists of "path label" without a first row of names."""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ...errors import InputError
from .column_names import find_columns
from .dataset_options import Columns, Options
from .file_list import PathListSet
from .image_files import EXTENSIONS
from .regular_files import open_regular, read_text

_SEPARATORS = ",;\t|"
_PIXELS = 64  # columns, of which more are no list of files


class _Table(NamedTuple):
    separator: str  # " " for any white space, of plain lists
    header: list[str] | None
    rows: list[tuple[int, list[str]]]  # (line it ends on, cells)
    image: int
    label: int


class CsvSet(PathListSet):
    """One image per row: its file, relative to the CSV's folder and inside of it, and its label, a number or a name.

    The first row names the columns, or is the first image of a plain list. Absolute paths into the folder will do.
    Other columns are kept and not read. What separates the columns is what makes sense of the first row.
    """

    def __init__(self, path: Path, options: Options):
        with open_regular(path) as file:
            text = read_text(file, path)
        if not text.strip():
            raise InputError(f"{path} is empty; expected a first row that names the columns, then one row per image")
        self._table = table = _table(path, text, options.columns)
        rows = []
        width = max(table.image, table.label) + 1 if table.header is None else len(table.header)
        for line, cells in table.rows:
            where = f"{path}, line {line}"
            if len(cells) != width and not (table.header is None and len(cells) > width):
                raise InputError(f"{where} has {len(cells)} columns, the first row has {width}")
            rows.append((where, cells[table.image].strip(), cells[table.label].strip()))
        super().__init__(path, rows, options)

    def _write(self, mask: np.ndarray, part: Path) -> None:
        """A CSV beside this one, of the kept rows; it names the same files, which stay where they are."""
        table, kept = self._table, self._rows_to_keep(mask)
        with part.open("w", encoding="utf-8", newline="") as f:
            if table.separator == " ":
                header = [table.header] if table.header is not None else []
                f.writelines(" ".join(row) + "\n" for row in [*header, *(table.rows[i][1] for i in kept)])
                return
            writer = csv.writer(f, delimiter=table.separator, lineterminator="\n")
            if table.header is not None:
                writer.writerow(table.header)
            writer.writerows(table.rows[i][1] for i in kept)


def _table(path: Path, text: str, columns: Columns | None) -> _Table:
    """The rows, by the separator under which the first one names the columns, or is an image and a label."""
    first = next(line for line in re.split("[\r\n]", text) if line.strip())
    separators = ("\t" if path.suffix.lower() == ".tsv" else "") + _SEPARATORS + " "
    errors = []
    for separator in separators:
        names = [name for _, row in _cells(path, first, separator) for name in row]
        try:
            image, label = find_columns(names, columns, path)
        except InputError as e:
            errors.append((len(names), e))
            continue
        (_, header), *rows = _cells(path, text, separator)
        return _Table(separator, header, rows, image, label)
    plain = _plain_list(path, text, columns)
    if plain is not None:
        return plain
    width, error = max(errors, key=lambda found: found[0])  # of the separator that parts the first row most
    if width > _PIXELS:
        raise InputError(
            f"{path} has {width} columns, as of pixels: read it as arrays and give a pair (images, labels)"
        ) from error
    if first.startswith("#") or any(
        os.path.splitext(cell.strip())[1].lower() in EXTENSIONS for cell in re.split(r"[,;\t| ]", first)
    ):
        raise InputError(
            f"{path} does not name its columns, {first[:100]!r}: say by numbers where image and label stand, as in 0,1",
            argument="columns",
        ) from error
    raise error


def _plain_list(path: Path, text: str, columns: Columns | None) -> _Table | None:
    """Rows of a path and a label, without a first row that names them: `path label`, or with a separator. With columns,
    which are numbers then, rows of more than that; None for what is no such list."""
    image, label = 0, 1
    if columns is not None:
        if not all(name.isascii() and name.isdigit() and len(name) < 4 for name in columns):
            return None
        image, label = int(columns[0]), int(columns[1])
    for separator in _SEPARATORS + " ":
        rows = _cells(path, text, separator, paths=columns is None)
        cells = rows[0][1] if rows else []
        if columns is None and len(cells) == 2 and os.path.splitext(cells[0])[1].lower() in EXTENSIONS:
            return _Table(separator, None, rows, image, label)
        if columns is not None and len(cells) > max(image, label):
            return _Table(separator, None, rows, image, label)
    return None


def _cells(path: Path, text: str, separator: str, *, paths: bool = False) -> list[tuple[int, list[str]]]:
    """(line it ends on, cells) of every row that is not blank. separator: " " stands for any white space, and then
    lines that begin with # are comments. paths: of such lines only the last word is parted off, as paths may hold
    spaces."""
    if separator == " ":
        lines = [(i, line.strip()) for i, line in enumerate(text.splitlines(), 1)]
        words = [(i, line.rsplit(None, 1) if paths else line.split()) for i, line in lines if line]
        return [(i, row) for i, row in words if not row[0].startswith("#")]
    table = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True, skipinitialspace=True)
    try:
        return [(table.line_num, row) for row in table if row and not _blank(row)]
    except csv.Error as e:
        raise InputError(f"{path} is damaged, or no UTF-8 CSV: {e}") from e


def _blank(row: Sequence[str]) -> bool:
    return len(row) == 1 and not row[0].strip()
