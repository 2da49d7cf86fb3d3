"""A CSV (or TSV) of image path and label."""

import csv
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from ..._files import atomic_path
from ...errors import InputError
from .image_files import EncodedSet, Form
from .imageset import number_labels

Columns = tuple[str, str]  # the names of the columns that hold the image and the label

_IMAGE_NAMES = ("path", "image", "file", "filename", "file_name", "filepath", "image_path", "img")
_LABEL_NAMES = ("label", "class", "class_name", "target", "category", "y")


class ListingSet(EncodedSet):
    """One image per row: its file, relative to the CSV's folder and inside of it, and its label, a number or a name.

    The first row must name the columns. Absolute paths into the folder will do. Other columns are kept and not read.
    """

    def __init__(self, path: Path, form: Form, columns: Columns | None = None):
        self.path = self._csv = path
        self._delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
        rows = list(self._rows())
        if not rows:
            raise InputError(f"{path} is empty; expected a first row that names the columns, then one row per image")
        (_, header), self._table = rows[0], rows[1:]
        image, label = _find(path, header, columns)
        root = os.path.realpath(path.parent)
        self._files: list[Path] = []
        values = []
        for line, row in self._table:
            where = f"{path}, line {line}"
            if len(row) != len(header):
                raise InputError(f"{where} has {len(row)} columns, the first row has {len(header)}")
            self._files.append(_file(row[image], root, where))
            values.append(row[label].strip())
        labels, names = number_labels(values, str(path))
        self._named = names is not None
        super().__init__(labels, str(path), names, form)

    def _rows(self) -> Iterator[tuple[int, list[str]]]:
        """(line it ends on, cells) of every row that is not blank."""
        try:
            with self._csv.open(encoding="utf-8-sig", newline="") as f:
                table = csv.reader(f, delimiter=self._delimiter, strict=True)
                yield from ((table.line_num, row) for row in table if row)
        except (UnicodeDecodeError, csv.Error) as e:
            raise InputError(f"{self._csv} is damaged, or no UTF-8 CSV: {e}") from e

    def describe(self, index: int) -> str:
        return str(self._files[index])

    def file(self, index: int) -> Path:
        return self._files[index]

    def _encoded(self, indices: np.ndarray) -> Iterator[tuple[int, Path]]:
        return ((row, self._files[i]) for row, i in enumerate(indices.tolist()))

    def _write(self, mask: np.ndarray, out: Path) -> Path:
        """A CSV beside this one, of the kept rows; it names the same files, which stay where they are."""
        if out.parent.resolve() != self._csv.parent.resolve():
            raise InputError(
                f"the paths in {self._csv} are relative to its folder: give a path in {self._csv.parent}, got {out}",
                argument="out",
            )
        if self._named:
            self._refuse_renumbering(mask)
        with atomic_path(out) as part, part.open("w", encoding="utf-8", newline="") as f:
            table = csv.writer(f, delimiter=self._delimiter, lineterminator="\n")
            table.writerow(next(self._rows())[1])
            table.writerows(self._table[i][1] for i in np.flatnonzero(mask))
        return out


def _find(path: Path, header: Sequence[str], columns: Columns | None) -> tuple[int, int]:
    """Where the image and the label stand: the columns given, or those with a usual name."""
    names = [cell.strip() for cell in header]
    found = []
    for i, (what, usual) in enumerate((("image", _IMAGE_NAMES), ("label", _LABEL_NAMES))):
        wanted = (columns[i],) if columns else usual
        places = [place for place, name in enumerate(names) if (name if columns else name.lower()) in wanted]
        if len(places) != 1:
            raise InputError(
                f"{path}: expected one {what} column named {' or '.join(map(repr, wanted))} in its first row, found "
                f"{names[:20]}: name the image's and the label's",
                argument="columns",
            )
        found.append(places[0])
    return found[0], found[1]


def _file(text: str, root: str, where: str) -> Path:
    """The file that a row names. Raises InputError unless it is a regular one inside the folder."""
    if not text or "\0" in text:
        raise InputError(f"{where} names no file: {text!r}")
    path = os.path.join(root, text)
    try:
        real = os.path.realpath(path)
        if os.path.commonpath([root, real]) != root:
            raise InputError(f"{where} names {text!r}, which lies outside of the CSV's folder {root}")
        if not os.path.isfile(real):
            raise InputError(f"{where} names {text!r}, which is no file in {root}")
    except InputError:
        raise
    except (OSError, ValueError) as e:  # a name that no file can have
        raise InputError(f"{where} names {text!r}: {e}") from None
    return Path(real)
