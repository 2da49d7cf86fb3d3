"""A folder that Hugging Face's `Dataset.save_to_disk` wrote: Arrow streams and two JSON files."""

from __future__ import annotations

import hashlib
import json
import shutil
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from ...errors import InputError
from .arrow import Roles, arrow_errors, find_roles, kept_rows, no_bytes, pyarrow, read_labels
from .dataset_options import Options
from .image_files import ImageFileSet
from .imageset import locate
from .regular_files import File, Folder, SameFile, parts, read_json_object
from .unreadable import NoFile

STATE, SPLITS = "state.json", "dataset_dict.json"
_INFO = "dataset_info.json"


class _Indexed(NamedTuple):
    """What is kept of an Arrow stream."""

    schema: Any
    ranges: np.ndarray  # (m, 2) int64, where in the file each image begins and its length
    labels: list[Any]  # Arrow arrays


class HuggingFaceSet(ImageFileSet):
    """Its Arrow streams are read once and checked in full; images are then read where they lie.

    Nothing is mapped: a mapped file that another program cuts ends the process. `datasets` itself is not needed: it
    trusts its files, and bre does not.
    """

    takes = ImageFileSet.takes | {"columns"}

    def __init__(self, root: Path, options: Options):
        self.path = self._root = root
        self._folder = Folder(root)
        self._state = read_json_object(root / STATE)
        self._files = [SameFile(root / name, self._folder) for name in self._names()]
        indexed: list[_Indexed] = []
        roles = None
        for file in self._files:
            with file.open() as opened:
                schema, messages = _stream(opened, file.path)
                if indexed and not schema.equals(indexed[0].schema):
                    raise InputError(
                        f"{file.path} has other columns than {self._files[0].path}; all files need one schema"
                    )
                roles = roles or find_roles(schema, file.path, options.columns)
                indexed.append(_index(schema, messages, roles, file.path))
        assert roles is not None  # there is a file
        self._file_starts = np.cumsum([0, *(len(one.ranges) for one in indexed)])
        self._ranges = np.concatenate([one.ranges for one in indexed])
        where = f"{root}, column {roles.label!r}"
        with arrow_errors(where):
            parts = [part for one in indexed for part in one.labels]
            column = pyarrow().chunked_array(parts, indexed[0].schema.field(roles.label).type)
        labels, names = read_labels(column, roles.names, where)
        self._named = names is not None and roles.names is None
        super().__init__(labels, str(root), names, options)

    def _names(self) -> list[str]:
        """The data files that the state names. Raises InputError unless they are plain names of files in the folder."""
        if self._state.get("_indices_data_files"):
            raise InputError(f"{self._root} selects rows by an index file: save it again with a newer `datasets`")
        listed = self._state.get("_data_files")
        names = [f.get("filename") if isinstance(f, dict) else None for f in listed] if isinstance(listed, list) else []
        for name in names or [None]:
            plain = isinstance(name, str) and name.endswith(".arrow") and Path(name).name == name and "\0" not in name
            if not plain or (self._root / str(name)).is_symlink() or not (self._root / str(name)).is_file():
                raise InputError(f"{self._root / STATE} must name data files (.arrow) in its folder, got {name!r}")
        return [str(name) for name in names]

    def file(self, index: int) -> Path:
        return self._files[locate(self._file_starts, index)[0]].path

    def describe(self, index: int) -> str:
        part, row = locate(self._file_starts, index)
        return f"{self._files[part].path}, row {row}"

    def _encoded(self, indices: np.ndarray) -> Iterator[tuple[int, File]]:
        file = np.searchsorted(self._file_starts, indices, side="right") - 1
        order = np.argsort(file, kind="stable")
        wanted = ((self._files[i], self._ranges[indices[file == i]]) for i in np.unique(file).tolist())
        for row, image in zip(order.tolist(), parts(wanted), strict=True):
            index = int(indices[row])
            yield row, image if self._ranges[index, 1] else NoFile(no_bytes(self.describe(index)).message)

    def keeps_folder(self) -> bool:
        return True

    def _write(self, mask: np.ndarray, part: Path) -> None:
        """A folder that `datasets.load_from_disk` takes, with all columns of the kept rows; no empty files."""
        if self._named:
            self._refuse_renumbering(mask)
        kept = [mask[self._file_starts[i] : self._file_starts[i + 1]] for i in range(len(self._files))]
        files = [(file, rows) for file, rows in zip(self._files, kept, strict=True) if rows.any()]
        for file, rows in files:
            _copy(file, rows, part / file.path.name)
        if (self._root / _INFO).is_file():
            with self._folder.open(_INFO) as source, (part / _INFO).open("wb") as target:
                shutil.copyfileobj(source, target)
        was = hashlib.sha256(str(self._state.get("_fingerprint")).encode() + mask.tobytes())
        new = {"_data_files": [{"filename": file.path.name} for file, _ in files], "_fingerprint": was.hexdigest()[:16]}
        (part / STATE).write_text(json.dumps(self._state | new, indent=2, sort_keys=True), encoding="utf-8")


def is_saved(folder: Path) -> bool:
    """Whether `save_to_disk` wrote it: others too have a state.json."""
    return (folder / STATE).is_file() and ((folder / _INFO).is_file() or any(folder.glob("*.arrow")))


def splits(root: Path) -> list[str]:
    """The names of the splits that a saved DatasetDict holds."""
    names = read_json_object(root / SPLITS).get("splits")
    return [str(name) for name in names] if isinstance(names, list) else []


def _copy(file: SameFile, kept: np.ndarray, target: Path) -> None:
    """The kept rows of one Arrow stream, batch by batch."""
    start = 0
    with file.open() as source, target.open("wb") as out, arrow_errors(file.path):
        schema, batches = _stream(source, file.path)
        with pyarrow("pyarrow.ipc").new_stream(out, schema) as writer:
            for batch, _, _ in batches:
                writer.write_table(kept_rows(batch, kept[start : start + len(batch)]))
                start += len(batch)


def _stream(file: BinaryIO, path: Path) -> tuple[Any, Iterator[tuple[Any, Any, int]]]:
    """The schema of an Arrow stream, and (batch, its body, where the body begins in the file) of each batch. No offset
    in a batch leads out of it. Raises InputError for damage, and for what `datasets` does not write."""
    ipc = pyarrow("pyarrow.ipc")
    with arrow_errors(path):
        messages = ipc.MessageReader.open_stream(file)
        first = next(iter(messages), None)
        if first is None or first.type != "schema":  # Arrow takes any message for one, and crashes
            raise InputError(f"{path} is damaged or truncated: it holds no Arrow stream")
        schema = ipc.read_schema(first)
        schema.names  # noqa: B018  # text that is no UTF-8 shows here

    def batches() -> Iterator[tuple[Any, Any, int]]:
        while True:
            with arrow_errors(path):
                try:
                    message = messages.read_next_message()
                except StopIteration:
                    return
                if message.type != "record batch" or _is_packed(message.metadata.to_pybytes()):
                    raise InputError(
                        f"{path} holds a {message.type} or packed batches, which `datasets` does not write: save it "
                        "again with save_to_disk"
                    )
                batch = ipc.read_record_batch(message, schema)
                batch.validate(full=True)
            yield batch, message.body, file.tell() - message.body.size

    return schema, batches()


def _is_packed(metadata: bytes) -> bool:
    """Whether a record batch's buffers are compressed, and could unpack to anything. Arrow's Python does not tell: the
    message is a flatbuffer, its third field the header, and the fourth field of that the compression."""

    def field(table: int, number: int) -> int:
        fields = table - struct.unpack_from("<i", metadata, table)[0]
        slot = 4 + 2 * number
        there = slot < struct.unpack_from("<H", metadata, fields)[0]
        offset = struct.unpack_from("<H", metadata, fields + slot)[0] if there else 0
        return table + offset if offset else 0

    try:
        root = struct.unpack_from("<I", metadata, 0)[0]
        header = field(root, 2)
        return field(header + struct.unpack_from("<I", metadata, header)[0], 3) != 0
    except struct.error as e:
        raise InputError(f"the header of a batch is damaged: {e}") from e


def _index(schema: Any, batches: Iterator[tuple[Any, Any, int]], roles: Roles, path: Path) -> _Indexed:
    ranges, labels = [np.empty((0, 2), np.int64)], []
    for batch, body, start in batches:
        with arrow_errors(path):
            column = batch.column(roles.image)
            images = column.field("bytes") if roles.struct else column
            found = _ranges(images, body, start, path)
            for nulls in (column, images):
                missing = pyarrow("pyarrow.compute").is_null(nulls).to_numpy(zero_copy_only=False)
                found[missing, 1] = 0
            ranges.append(found)
            order = pyarrow().array(np.arange(len(batch)))
            labels.append(batch.column(roles.label).take(order))  # a copy: the batch goes
    return _Indexed(schema, np.concatenate(ranges), labels)


def _ranges(images: Any, body: Any, start: int, path: Path) -> np.ndarray:
    """images: an Arrow array of bytes that lie in `body`, which begins at `start` of the file -> (m, 2) int64."""
    types = pyarrow("pyarrow.types")
    if not (types.is_binary(images.type) or types.is_large_binary(images.type)):
        raise InputError(f"{path} holds images as {images.type}; save it again with a newer `datasets`")
    if not len(images):
        return np.empty((0, 2), np.int64)
    _, offsets, data = images.buffers()
    kind = np.int32 if types.is_binary(images.type) else np.int64
    limits = np.frombuffer(offsets, kind)[images.offset : images.offset + len(images) + 1].astype(np.int64)
    if data is None:
        return np.stack([np.zeros(len(images), np.int64), np.diff(limits)], 1)
    first = data.address - body.address
    if not 0 <= first <= body.size - int(limits[-1]):
        raise InputError(f"{path} is damaged: images lie outside of their batch")
    return np.stack([start + first + limits[:-1], np.diff(limits)], 1)
