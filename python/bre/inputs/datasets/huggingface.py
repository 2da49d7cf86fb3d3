"""A folder that Hugging Face's `Dataset.save_to_disk` wrote: Arrow streams and two JSON files."""

import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ..._files import atomic_path
from ...errors import InputError
from .arrow import find_roles, guarded, image_bytes, one_image, pyarrow, read_labels
from .csv_file import Columns
from .image_files import EncodedSet, Form
from .imageset import place_of

STATE, SPLITS = "state.json", "dataset_dict.json"
_INFO = "dataset_info.json"


class HuggingFaceSet(EncodedSet):
    """Its Arrow streams are mapped, and checked in full before anything is read from them.

    `datasets` itself is not needed: it trusts its files, and bre does not.
    """

    def __init__(self, root: Path, form: Form, columns: Columns | None = None):
        self.path = self._root = root
        self._state = _json(root / STATE)
        self._files = [root / name for name in self._names()]
        schemas, batches, rows = [], [], []
        for file in self._files:
            with guarded(file), _stream(file) as reader:
                found = list(_checked(reader))
                schemas.append(reader.schema)
            batches += found
            rows.append(sum(len(batch) for batch in found))
        for file, schema in zip(self._files, schemas, strict=True):
            if not schema.equals(schemas[0]):
                raise InputError(f"{file} has other columns than {self._files[0]}; all files need one schema")
        roles = find_roles(schemas[0], self._files[0], columns)
        self._file_starts = np.cumsum([0, *rows])
        self._starts = np.cumsum([0, *(len(batch) for batch in batches)])
        where = f"{root}, column {roles.label!r}"
        with guarded(where):
            self._arrays = [image_bytes(batch.column(roles.image), roles.struct) for batch in batches]
            columns_found = [batch.column(roles.label) for batch in batches]
            column = pyarrow().chunked_array(columns_found, schemas[0].field(roles.label).type)
            labels, names = read_labels(column, roles.names, where)
        self._named = names is not None and roles.names is None
        super().__init__(labels, str(root), names, form)

    def _names(self) -> list[str]:
        """The data files that the state names. Raises InputError unless they are plain names of files in the folder."""
        if self._state.get("_indices_data_files"):
            raise InputError(f"{self._root} selects rows by an index file: save it again with a newer `datasets`")
        listed = self._state.get("_data_files")
        names = [f.get("filename") if isinstance(f, dict) else None for f in listed] if isinstance(listed, list) else []
        for name in names or [None]:
            plain = isinstance(name, str) and name.endswith(".arrow") and Path(name).name == name and "\0" not in name
            if not plain or not (self._root / str(name)).is_file() or (self._root / str(name)).is_symlink():
                raise InputError(f"{self._root / STATE} must name data files (.arrow) in its folder, got {name!r}")
        return [str(name) for name in names]

    def file(self, index: int) -> Path:
        return self._files[place_of(self._file_starts, index)[0]]

    def describe(self, index: int) -> str:
        part, row = place_of(self._file_starts, index)
        return f"{self._files[part]}, row {row}"

    def _encoded(self, indices: np.ndarray) -> Iterator[tuple[int, bytes]]:
        batch = np.searchsorted(self._starts, indices, side="right") - 1
        for row in np.argsort(indices, kind="stable").tolist():
            index, b = int(indices[row]), int(batch[row])
            yield row, one_image(self._arrays[b], index - int(self._starts[b]), self.describe(index))

    def _write(self, mask: np.ndarray, out: Path) -> Path:
        """A folder that `datasets.load_from_disk` takes, with all columns of the kept rows; no empty files."""
        if self._named:
            self._refuse_renumbering(mask)
        kept = [mask[self._file_starts[i] : self._file_starts[i + 1]] for i in range(len(self._files))]
        with atomic_path(out, directory=True) as part:
            files = [(file, rows) for file, rows in zip(self._files, kept, strict=True) if rows.any()]
            for file, rows in files:
                with guarded(file):
                    _copy(file, rows, part / file.name)
            if (self._root / _INFO).is_file():
                shutil.copyfile(self._root / _INFO, part / _INFO)
            was = hashlib.sha256(str(self._state.get("_fingerprint")).encode() + mask.tobytes())
            new = {"_data_files": [{"filename": file.name} for file, _ in files], "_fingerprint": was.hexdigest()[:16]}
            (part / STATE).write_text(json.dumps(self._state | new, indent=2, sort_keys=True), encoding="utf-8")
        return out


def splits(root: Path) -> list[str]:
    """The names of the splits that a saved DatasetDict holds."""
    names = _json(root / SPLITS).get("splits")
    return [str(name) for name in names] if isinstance(names, list) else []


def _copy(file: Path, kept: np.ndarray, target: Path) -> None:
    """The kept rows of one Arrow stream, batch by batch."""
    pa = pyarrow()
    with _stream(file) as reader, pyarrow("pyarrow.ipc").new_stream(target, reader.schema) as writer:
        start = 0
        for batch in _checked(reader):
            writer.write_batch(batch.filter(pa.array(kept[start : start + len(batch)])))
            start += len(batch)


def _stream(file: Path) -> Any:
    """An Arrow stream of a mapped file: batches refer to the file and hold no copy of it."""
    return pyarrow("pyarrow.ipc").open_stream(pyarrow().memory_map(str(file)))


def _checked(reader: Any) -> Iterator[Any]:
    """Its batches, none of whose offsets lead outside of the file."""
    for batch in reader:
        batch.validate(full=True)
        yield batch


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as e:
        raise InputError(f"{path} is damaged or missing: {e}") from e
    if not isinstance(content, dict):
        raise InputError(f"{path} holds {type(content).__name__}, expected an object")
    return content
