"""Parquet files with a column of encoded images and a column of labels."""

from __future__ import annotations

import io
import threading
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ...errors import InputError
from .arrow import Roles, arrow_errors, find_roles, image_bytes, is_text, kept_rows, one_image, pyarrow, read_labels
from .dataset_options import Options
from .image_files import ImageFileSet
from .imageset import locate, refuse_same_names
from .regular_files import File, Reopened, refuse_pointer
from .remote_files import all_at_once, same_files
from .remote_path import AnyPath
from .unreadable import NoFile, UnreadableImage

_BATCH = 64  # images held in memory while a row group is read
_LABELS = 1 << 16  # labels read at a time
_COPIED = 1024  # rows copied at a time when a part is written
# Equal rows pack into nothing: 700 KiB can hold twenty million rows of one image. The smallest PNG has 67 bytes.
_MANY_ROWS = 100_000
_BYTES_PER_ROW = 16
# The bytes of one row group, unpacked: encoded images do not pack much further.
_LARGE_GROUP = 256 << 20
_LARGEST_RATIO = 100


class ParquetSet(ImageFileSet):
    """One file, or several of one schema, in the order given.

    A row group is read from its beginning, a batch at a time, and on from there while the wanted rows go up: reading
    in order decompresses every page once, whatever the size of the row groups. Each thread has a place of its own.
    """

    takes = ImageFileSet.takes | {"columns"}

    def __init__(self, path: AnyPath, files: Sequence[AnyPath], options: Options):
        """path: what the caller named."""
        self.path, self._paths = path, list(files)
        self._single = path == self._paths[0]
        self._files = same_files(self._paths)
        self._metadata = list(all_at_once(self._footer, self._files, self._files[0].ahead))
        schemas = [metadata.schema.to_arrow_schema() for metadata in self._metadata]
        for name, schema in zip(self._paths, schemas, strict=True):
            if not schema.equals(schemas[0]):
                raise InputError(f"{name} has other columns than {self._paths[0]}; all files need one schema")
        self._schema = schemas[0]
        self._roles = find_roles(self._schema, str(self._paths[0]), options.columns)
        for file, metadata in zip(self._files, self._metadata, strict=True):
            _refuse_bomb(file, metadata)
        groups = [(i, g) for i, metadata in enumerate(self._metadata) for g in range(metadata.num_row_groups)]
        rows = [self._metadata[i].row_group(g).num_rows for i, g in groups]
        self._groups, self._starts = groups, np.cumsum([0, *rows])
        self._file_starts = np.cumsum([0, *(metadata.num_rows for metadata in self._metadata)])
        self._places = threading.local()
        labels, names = self._read_labels()
        if not len(labels) == self._starts[-1] == self._file_starts[-1]:
            raise InputError(f"{path} is damaged: {len(labels)} labels for {self._starts[-1]} rows")
        self._named = names is not None and self._roles.names is None
        super().__init__(labels, str(path), names, options)

    def file(self, index: int) -> AnyPath:
        return self._paths[locate(self._file_starts, index)[0]]

    def describe(self, index: int) -> str:
        part, row = locate(self._file_starts, index)
        return f"{self._paths[part]}, row {row}"

    def _footer(self, file: Reopened) -> Any:
        with file.open() as opened:
            refuse_pointer(opened.read(64), file.path)
            with arrow_errors(str(file.path)), pyarrow("pyarrow.parquet").ParquetFile(opened) as parquet:
                parquet.schema_arrow.names  # noqa: B018  # text that is no UTF-8 shows here
                metadata = parquet.metadata
        if metadata.num_rows > max(_MANY_ROWS, file.size // _BYTES_PER_ROW):
            raise InputError(
                f"{file.path} declares {metadata.num_rows} rows in {file.size} bytes: nearly all must be copies of one "
                "another"
            )
        return metadata

    def _open(self, i: int, file: BinaryIO, **options: Any) -> Any:
        """Pages are read when they are needed, not all at once."""
        options |= {"metadata": self._metadata[i], "buffer_size": 1 << 20, "pre_buffer": False}
        return pyarrow("pyarrow.parquet").ParquetFile(file, **options)

    def _read_labels(self) -> tuple[np.ndarray, list[str] | None]:
        label, parts = self._roles.label, []
        kind = self._schema.field(label).type
        packed = [label] if is_text(kind) else []  # a name that stands in every row is kept once
        for i, same in enumerate(self._files):
            with (
                same.open() as file,
                arrow_errors(str(same.path)),
                self._open(i, file, read_dictionary=packed) as opened,
            ):
                for batch in opened.iter_batches(_LABELS, columns=[label], use_threads=False):
                    batch.validate(full=True)
                    parts.append(batch.column(0))
        where = f"{self.path}, column {label!r}"
        with arrow_errors(where):
            column = pyarrow().chunked_array(parts, None if parts else kind)
        return read_labels(column, self._roles.names, where)

    def _encoded(self, indices: np.ndarray) -> Iterator[tuple[int, File]]:
        for row in np.argsort(indices, kind="stable").tolist():
            try:
                file: File = io.BytesIO(self._image(int(indices[row])))
            except UnreadableImage as e:  # a row without an image
                file = NoFile(e.message)
            yield row, file

    def _image(self, index: int) -> bytes:
        where = self.describe(index)
        group, _ = locate(self._starts, index)
        cursor = getattr(self._places, "cursor", None)
        with arrow_errors(where):
            if cursor is None or cursor.group != group or index < cursor.start:
                if cursor is not None:
                    cursor.close()
                i, number = self._groups[group]
                file = self._files[i].open()
                opened = self._open(i, file)
                cursor = self._places.cursor = _Cursor(
                    file, opened, number, group, int(self._starts[group]), self._roles
                )
            return one_image(cursor.at(index), index - cursor.start, where)

    def keeps_folder(self) -> bool:
        return not self._single

    def _write(self, mask: np.ndarray, part: Path) -> None:
        """A file, or a folder of files of the same names, with all columns of the kept rows; no empty files."""
        if self._named:
            self._refuse_renumbering(mask)
        refuse_same_names(self._paths)
        for i, path in enumerate(self._paths):
            kept = mask[self._file_starts[i] : self._file_starts[i + 1]]
            if kept.any():
                with arrow_errors(str(path)):
                    self._copy(i, kept, part if self._single else part / path.name)

    def _copy(self, i: int, kept: np.ndarray, target: Path) -> None:
        schema, group = self._metadata[i].schema, self._metadata[i].row_group(0)
        leaves = [schema.column(c).path for c in range(group.num_columns)]
        compression = group.column(leaves.index(self._roles.leaf)).compression.lower()  # of a column that was read
        options = {"compression": "none" if compression == "uncompressed" else compression}
        with (
            self._files[i].open() as file,
            self._open(i, file) as opened,
            target.open("wb") as out,
            pyarrow("pyarrow.parquet").ParquetWriter(out, opened.schema_arrow, **options) as writer,
        ):
            start = 0
            for batch in opened.iter_batches(_COPIED, use_threads=False):
                rows = kept_rows(batch, kept[start : start + len(batch)])
                start += len(batch)
                if len(rows):
                    writer.write_table(rows)


def _refuse_bomb(file: Reopened, metadata: Any) -> None:
    """Raise InputError for a file that would unpack to far more than it takes. Row groups say how much; their columns
    would say more, but Arrow ends the process where what they say of themselves is damaged."""
    for g in range(metadata.num_row_groups):
        unpacked = metadata.row_group(g).total_byte_size
        if unpacked > max(_LARGE_GROUP, _LARGEST_RATIO * file.size):
            raise InputError(
                f"{file.path} would unpack from {file.size} bytes to {unpacked} in one row group (a bomb?)"
            )


class _Cursor:
    """A place in one row group, which moves forwards only. start: the set's row that the current batch begins with."""

    def __init__(self, file: BinaryIO, opened: Any, number: int, group: int, start: int, roles: Roles):
        self.close = weakref.finalize(self, file.close)
        self._roles = roles
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
