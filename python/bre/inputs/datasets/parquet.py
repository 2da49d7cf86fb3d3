"""Parquet files with a column of encoded images and a column of labels."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..._files import atomic_path
from ...errors import InputError
from .arrow import Roles, find_roles, guarded, image_bytes, one_image, pyarrow, read_labels
from .csv_file import Columns
from .image_files import EncodedSet, Form
from .imageset import place_of, refuse_same_names

_BATCH = 64  # images; in memory while a row group is read; source: chosen
_COPIED = 1024  # rows; copied at a time when a part is written; source: chosen, few enough for the memory


class ParquetSet(EncodedSet):
    """One file, or several of one schema, in the order given.

    A row group is read from its beginning, a batch at a time, and on from there while the wanted rows go up: reading
    in order decompresses every page once, whatever the size of the row groups.
    """

    def __init__(self, path: Path, files: Sequence[Path], form: Form, columns: Columns | None = None):
        """path: what the caller named."""
        self.path, self._files = path, list(files)
        self._single = path == self._files[0]
        self._metadata = [self._footer(file) for file in self._files]
        schemas = [metadata.schema.to_arrow_schema() for metadata in self._metadata]
        for file, schema in zip(self._files, schemas, strict=True):
            if not schema.equals(schemas[0]):
                raise InputError(f"{file} has other columns than {self._files[0]}; all files need one schema")
        self._roles = find_roles(schemas[0], self._files[0], columns)
        groups = [(i, g) for i, metadata in enumerate(self._metadata) for g in range(metadata.num_row_groups)]
        rows = [self._metadata[i].row_group(g).num_rows for i, g in groups]
        self._groups, self._starts = groups, np.cumsum([0, *rows])
        self._file_starts = np.cumsum([0, *(metadata.num_rows for metadata in self._metadata)])
        self._cursor: _Cursor | None = None
        labels, names = self._read_labels()
        if not len(labels) == self._starts[-1] == self._file_starts[-1]:
            raise InputError(f"{path} is damaged: {len(labels)} labels for {self._starts[-1]} rows")
        self._named = names is not None and self._roles.names is None
        super().__init__(labels, str(path), names, form)

    def file(self, index: int) -> Path:
        return self._files[place_of(self._file_starts, index)[0]]

    def describe(self, index: int) -> str:
        part, row = place_of(self._file_starts, index)
        return f"{self._files[part]}, row {row}"

    def _footer(self, file: Path) -> Any:
        with guarded(file), pyarrow("pyarrow.parquet").ParquetFile(file) as opened:
            opened.schema_arrow.names  # noqa: B018  # text that is no UTF-8 shows here
            return opened.metadata

    def _open(self, i: int) -> Any:
        options = {"metadata": self._metadata[i], "buffer_size": 1 << 20, "pre_buffer": False}  # pages, not all at once
        return pyarrow("pyarrow.parquet").ParquetFile(self._files[i], **options)

    def _read_labels(self) -> tuple[np.ndarray, list[str] | None]:
        parts = []
        for i, file in enumerate(self._files):
            with guarded(file), self._open(i) as opened:
                column = opened.read(columns=[self._roles.label], use_threads=False).column(self._roles.label)
                column.validate(full=True)
                parts += column.chunks
        where = f"{self.path}, column {self._roles.label!r}"
        with guarded(where):
            kind = self._metadata[0].schema.to_arrow_schema().field(self._roles.label).type
            return read_labels(pyarrow().chunked_array(parts, None if parts else kind), self._roles.names, where)

    def _encoded(self, indices: np.ndarray) -> Iterator[tuple[int, bytes]]:
        for row in np.argsort(indices, kind="stable").tolist():
            index = int(indices[row])
            with guarded(self.describe(index)):
                item = self._image(index)
            yield row, item

    def _image(self, index: int) -> bytes:
        group, _ = place_of(self._starts, index)
        cursor = self._cursor
        if cursor is None or cursor.group != group or index < cursor.start:
            if cursor is not None:
                cursor.close()
            file, number = self._groups[group]
            cursor = self._cursor = _Cursor(self._open(file), number, group, int(self._starts[group]), self._roles)
        return one_image(cursor.at(index), index - cursor.start, self.describe(index))

    def _write(self, mask: np.ndarray, out: Path) -> Path:
        """A file, or a folder of files of the same names, with all columns of the kept rows; no empty files."""
        if self._named:
            self._refuse_renumbering(mask)
        refuse_same_names(self._files)
        with atomic_path(out, directory=not self._single) as part:
            for i, file in enumerate(self._files):
                kept = mask[self._file_starts[i] : self._file_starts[i + 1]]
                if kept.any():
                    with guarded(file):
                        self._copy(i, kept, part if self._single else part / file.name)
        return out

    def _copy(self, i: int, kept: np.ndarray, target: Path) -> None:
        pa = pyarrow()
        compression = self._metadata[i].row_group(0).column(0).compression.lower()
        with self._open(i) as opened:
            options = {"compression": "none" if compression == "uncompressed" else compression}
            with pyarrow("pyarrow.parquet").ParquetWriter(target, opened.schema_arrow, **options) as writer:
                start = 0
                for batch in opened.iter_batches(_COPIED, use_threads=False):
                    rows = batch.filter(pa.array(kept[start : start + len(batch)]))
                    start += len(batch)
                    if len(rows):
                        writer.write_batch(rows)


class _Cursor:
    """A place in one row group, which moves forwards only. start: the set's row that the current batch begins with."""

    def __init__(self, opened: Any, number: int, group: int, start: int, roles: Roles):
        self._opened, self._roles = opened, roles
        self._batches = opened.iter_batches(_BATCH, row_groups=[number], columns=[roles.leaf], use_threads=False)
        self.group, self.start, self._array = group, start, ()

    def at(self, index: int) -> Any:
        """The batch of images that holds `index`, which must not lie before `start`."""
        while index >= self.start + len(self._array):
            self.start += len(self._array)
            batch = next(self._batches, None)
            if batch is None or not len(batch):
                raise InputError("the row group holds fewer rows than it declares")
            batch.validate(full=True)
            self._array = image_bytes(batch.column(self._roles.image), self._roles.struct)
        return self._array

    def close(self) -> None:
        self._opened.close()
