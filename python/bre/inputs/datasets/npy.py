"""numpy's .npy: headers read without trust, and a pair of files, images and labels."""

from __future__ import annotations

import io
import math
import tokenize
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple, Protocol

import numpy as np

from ..._memory import memory_limit
from ...errors import InputError
from .arrays import ArraySet
from .dataset_options import Options
from .labels import check_label_shape
from .regular_files import FileRows, SameFile, open_regular

# bytes; that a compressed member may declare; source: chosen, half of the machine's memory where that is less
MAX_UNPACKED = 16 << 30
_LONGEST_HEADER = 10_000  # bytes; numpy itself reads no longer ones
_KEPT_AT_ONCE = 1024  # rows


class Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


class NpyHeader(NamedTuple):
    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype[Any]
    start: int  # where the array's bytes begin

    @property
    def size(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


def read_header(file: Readable, size: int, where: str) -> NpyHeader:
    """The header of a .npy of `size` bytes, checked against that. Raises InputError for damage, for what is no .npy,
    and for arrays of objects, which are pickles."""
    header = parse_header(file, where)
    if header.dtype.hasobject:
        raise InputError(
            f"{where} is an object array, which numpy stores as a pickle; pickles are refused, save arrays of numbers"
        )
    if header.start + header.size != size:
        raise InputError(
            f"{where} declares {header.dtype} {header.shape}, {header.start + header.size} bytes with its header, but "
            f"the file holds {size}"
        )
    return header


def parse_header(file: Readable, where: str) -> NpyHeader:
    """What a .npy declares. Raises InputError for damage, and for what is no .npy."""
    magic = file.read(8)
    if magic[:6] != b"\x93NUMPY" or magic[6:] not in (b"\x01\x00", b"\x02\x00"):
        raise InputError(f"{where} is damaged or truncated, or no .npy of version 1 or 2: it begins with {magic!r}")
    length = file.read(2 if magic[6] == 1 else 4)
    count = int.from_bytes(length, "little")
    if count > _LONGEST_HEADER:
        raise InputError(f"{where} is damaged: it declares a header of {count} bytes, the limit is {_LONGEST_HEADER}")
    read = np.lib.format.read_array_header_1_0 if magic[6] == 1 else np.lib.format.read_array_header_2_0
    try:
        shape, fortran, dtype = read(io.BytesIO(length + file.read(count)))
    except (ValueError, TypeError, SyntaxError, tokenize.TokenError, OverflowError, RecursionError) as e:
        raise InputError(f"{where} is damaged or truncated: {str(e)[:200]}") from e
    return NpyHeader(tuple(shape), fortran, dtype, 8 + len(length) + count)


def unpack(file: Readable, header: NpyHeader, where: str) -> np.ndarray:
    """The array behind a header that was just read from `file`. Raises InputError for one that takes too much memory,
    or ends early."""
    limit = unpacked_limit()
    if header.size > limit:
        raise InputError(
            f"{where} would unpack to {header.size} bytes, the limit here is {limit}; save it with np.savez (not "
            "compressed) and C-contiguous, which is read from disk in blocks"
        )
    out: np.ndarray = np.empty(header.shape, header.dtype, "F" if header.fortran else "C")
    flat = (out.T if header.fortran else out).reshape(-1).view(np.uint8)
    for begin in range(0, len(flat), 1 << 20):
        data = file.read(min(1 << 20, len(flat) - begin))
        if len(data) != min(1 << 20, len(flat) - begin):
            raise InputError(f"{where} is truncated")
        flat[begin : begin + len(data)] = np.frombuffer(data, np.uint8)
    return out


def unpacked_limit() -> int:
    return min(MAX_UNPACKED, (memory_limit() or 2 * MAX_UNPACKED) // 2)


def write_rows(file: IO[bytes], array: Any, rows: np.ndarray) -> None:
    """Rows of an array as a .npy, in blocks."""
    header = {"descr": array.dtype.str, "fortran_order": False, "shape": (len(rows), *array.shape[1:])}
    np.lib.format.write_array_header_1_0(file, header)
    for start in range(0, len(rows), _KEPT_AT_ONCE):
        file.write(np.ascontiguousarray(array[rows[start : start + _KEPT_AT_ONCE]]).data)


class NpySet(ArraySet):
    """Two .npy files, of images and of labels, as `ArraySet` takes them. Images are read from their file on demand."""

    takes = ArraySet.takes | {"columns"}

    def __init__(self, path: Path, images: Path, labels: Path, options: Options):
        """path: what the caller named, the images or a folder that holds both."""
        self.path, self._names = path, (images.name, labels.name)
        self.beside = (labels,)
        found = [_open(file) for file in (images, labels)]
        check_label_shape(found[1].shape, found[0].shape[0] if found[0].shape else 0, str(labels))
        super().__init__(found[0], np.asarray(found[1][:]), options, source=str(path))

    def keeps_folder(self) -> bool:
        return True

    def _write(self, mask: np.ndarray, part: Path) -> None:
        """A folder of two files of the same names."""
        rows = np.flatnonzero(mask)
        for name, array in zip(self._names, (self._images, self._given_labels), strict=True):
            with (part / name).open("wb") as f:
                write_rows(f, array, rows)


def _open(path: Path) -> Any:
    """An array in a file: read when it is needed, or whole where it is small or lies in Fortran's order."""
    same = SameFile(path)
    file = same.open()
    try:
        header = read_header(file, same.size, str(path))
        if (header.fortran and len(header.shape) > 1) or not header.shape:
            with file:
                return unpack(file, header, str(path))
        return FileRows(file, header.start, header.shape, header.dtype, str(path))
    except BaseException:
        file.close()
        raise


def find_pair(path: Path, options: Options) -> tuple[Path, Path] | None:
    """(images, labels): of a folder the two files with usual names or those named by columns; of a file of images the
    file of labels beside it. None where there are none."""
    folder = path if path.is_dir() else path.parent
    if options.columns:
        named = [folder / name for name in options.columns]
        return (named[0], named[1]) if all(p.suffix == ".npy" and p.is_file() for p in named) else None
    pairs = [(folder / f"{image}.npy", folder / f"{label}.npy") for image, label in _usual_pairs(path)]
    found = list({pair for pair in pairs if all(p.is_file() for p in pair)})
    if len(found) == 1:
        return found[0]
    if path.is_file():
        with open_regular(path) as file:
            read_header(file, path.stat().st_size, str(path))  # says what is wrong with the file itself first
    arrays = sorted(folder.glob("*.npy")) if path.is_dir() and not found else []
    if len(arrays) != 2:
        return None
    names = by_shape({file.name: _open_header(file).shape for file in arrays})
    return (folder / names[0], folder / names[1]) if names else None


def by_shape(shapes: Mapping[str, tuple[int, ...]]) -> tuple[str, str] | None:
    """(images, labels): the only array of images, and the only one with a label for each; None where there are more."""
    images = [name for name, shape in shapes.items() if len(shape) in (3, 4)]
    if len(images) != 1:
        return None
    count = shapes[images[0]][0]
    labels = [name for name, shape in shapes.items() if len(shape) in (1, 2) and shape[0] == count]
    return (images[0], labels[0]) if len(labels) == 1 else None


def _open_header(file: Path) -> NpyHeader:
    with open_regular(file) as opened:
        return parse_header(opened, str(file))


_USUAL = (("images", "labels"), ("x_train", "y_train"), ("X_train", "y_train"), ("train_images", "train_labels"),
          ("X", "y"), ("x", "y"), ("data", "labels"), ("images", "targets"), ("data", "targets"))  # fmt: skip


def _usual_pairs(path: Path) -> Iterator[tuple[str, str]]:
    if path.is_dir():
        yield from _USUAL
        return
    words = (("images", "labels"), ("image", "label"), ("data", "labels"), ("data", "targets"), ("imgs", "labels"))
    for image, label in (*words, ("x", "y"), ("X", "y"), ("X", "Y")):
        if image in path.stem:
            yield path.stem, path.stem.replace(image, label)
