"""JSON Lines of image path and label, an object a line, as `metadata.jsonl` of Hugging Face's image folders has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ...errors import InputError
from .column_names import find_columns
from .dataset_options import Options
from .file_list import PathListSet
from .regular_files import open_regular, parse_json, read_text


class JsonLinesSet(PathListSet):
    """One image per line: its file, as in a CSV, and its label, a whole number or a name. Other keys are kept and not
    read. Every object needs the two keys that the first one shows."""

    def __init__(self, path: Path, options: Options):
        with open_regular(path) as file:
            text = read_text(file, path)
        self._lines = [(i, line) for i, line in enumerate(text.split("\n"), 1) if line.strip()]
        if not self._lines:
            raise InputError(f"{path} is empty; expected a JSON object with an image and a label in every line")
        rows = []
        image = label = ""
        for number, line in self._lines:
            where = f"{path}, line {number}"
            content = parse_json(line, where)
            if not isinstance(content, dict):
                raise InputError(f"{where} holds {type(content).__name__}, expected an object")
            if not image:
                keys = list(content)
                image, label = (keys[i] for i in find_columns(keys, options.columns, where))
            file_name = content.get(image)
            if not isinstance(file_name, str):
                raise InputError(f"{where}: {image[:100]!r} must be a path, got {str(file_name)[:100]!r}")
            rows.append((where, file_name, label_text(content.get(label), f"{where}: {label[:100]!r}")))
        super().__init__(path, rows, options)

    def _write(self, mask: np.ndarray, part: Path) -> None:
        """The kept lines, as they are."""
        kept = self._rows_to_keep(mask)
        part.write_bytes("".join(self._lines[i][1].rstrip("\r") + "\n" for i in kept).encode())


def label_text(value: Any, where: str) -> str:
    """A label that JSON holds as the text that `number_labels` takes. Raises InputError for all but whole numbers and
    names."""
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 10**18:
        return str(value)
    raise InputError(f"{where} must be a whole number or a name, got {str(value)[:100]!r}")
