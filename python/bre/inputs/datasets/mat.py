"""MATLAB's .mat, as the SVHN set comes: X (H, W, C, M) and y (M, 1).

Files are written by scipy, and read here: scipy's reader trusts them, and crashes on some that are damaged. Of the
format (MATLAB's "MAT-File Level 5 File Format") only arrays of real numbers are read, packed or not.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from ...errors import InputError
from .arrays import ArraySet
from .dataset_options import Options
from .labels import check_label_shape
from .npy import unpacked_limit
from .regular_files import FileSlice, SameFile, refuse_pointer

_HEADER = 128  # bytes; the last two tell the order of bytes
_MATRIX, _PACKED = 14, 15  # types of elements
_TYPES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}  # of numbers
_NUMBERS = range(6, 16)  # classes of arrays: double, single, int8, ..., uint64
_COMPLEX = 0x0800  # flag
_LONGEST = 4096  # bytes of the flags, the sizes or the name of an array


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


class _Array(NamedTuple):
    """An array of a file, of which only the header was read. where: (begin, bytes, packed) of its element."""

    shape: tuple[int, ...]
    dtype: np.dtype[np.generic]
    where: tuple[int, int, bool]

    @property
    def size(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


class MatSet(ArraySet):
    """X: images, the last axis counting them; y: labels. In SVHN's files label 10 is the digit 0, and becomes 0."""

    takes = ArraySet.takes | {"columns"}

    def __init__(self, path: Path, options: Options):
        self.path, self._file = path, SameFile(path)
        names = options.columns or ("X", "y")
        found = self._found()
        for name in names:
            if name not in found:
                raise InputError(
                    f"{path} has no array of numbers {name!r}; X and y are needed, found {sorted(found)[:20]}: name "
                    "the images' and the labels'",
                    argument="columns",
                )
        of_images, of_labels = (found[name] for name in names)
        vector = of_labels.shape[::-1] if of_labels.shape[:1] == (1,) else of_labels.shape  # MATLAB's lie down or stand
        check_label_shape(vector, of_images.shape[-1], str(path))
        size = of_images.size + of_labels.size
        if size > unpacked_limit():
            raise InputError(f"{path} would unpack to {size} bytes, the limit here is {unpacked_limit()}")
        images, labels = self._read_array(of_images), self._read_array(of_labels)
        self._arrays, self._columns = (images, labels), names
        if labels.dtype.kind == "f" and (labels == np.rint(labels)).all() and (np.abs(labels) < 2**53).all():
            labels = labels.astype(np.int64)  # MATLAB's numbers are doubles
        labels = labels.reshape(vector)
        digits = None
        if labels.size and images.shape[:3] == (32, 32, 3) and labels.min() == 1 and labels.max() == 10:
            labels = np.where(labels == 10, 0, labels)
            digits = [str(i) for i in range(10)]
            self.notes += ("label 10 was read as 0, the digit that it stands for in SVHN's files",)
        super().__init__(np.moveaxis(images, -1, 0), labels, options, source=path.name, names=digits)

    def _found(self) -> dict[str, _Array]:
        """The arrays of numbers in the file, by their names."""
        with self._file.open() as file:
            head = file.read(_HEADER)
            refuse_pointer(head, self._file.path)
            if head.startswith(b"MATLAB 7.3"):
                raise InputError(f"{self._file.path} is a MATLAB v7.3 file (HDF5): save it again with -v7")
            if not head.startswith(b"MATLAB ") or head[-2:] not in (b"IM", b"MI"):
                raise InputError(f"{self._file.path} is damaged, or no .mat file of MATLAB 5 or later")
            self._order = "<" if head[-2:] == b"IM" else ">"
            found: dict[str, _Array] = {}
            for where in self._elements(FileSlice(file, 0, self._file.size)):
                name, array = self._array(_body(FileSlice(file, *where[:2]), where[2], self._file.path), where)
                if array is not None:
                    found.setdefault(name, array)
        return found

    def _elements(self, file: FileSlice) -> Iterator[tuple[int, int, bool]]:
        """(begin, bytes, whether packed) of every array."""
        at = _HEADER
        while at < self._file.size:
            file.seek(at)
            kind, size = self._numbers(file.read(8), 2)
            at += 8
            if kind not in (_MATRIX, _PACKED) or at + size > self._file.size:
                raise self._damaged(f"an element of type {kind} and {size} bytes")
            yield at, size, kind == _PACKED
            at += size

    def _array(self, body: _Readable, where: tuple[int, int, bool]) -> tuple[str, _Array | None]:
        """The name and the header of an array; None for what holds no real numbers."""
        if where[2] and self._numbers(body.read(8), 2)[0] != _MATRIX:
            raise self._damaged("a packed element that is no array")
        flags, sizes, name = (self._part(body) for _ in range(3))
        text = name.decode("ascii", "replace")
        flag, dims = self._numbers(flags, 2)[0], self._numbers(sizes, len(sizes) // 4)
        if flag & 0xFF not in _NUMBERS or flag & _COMPLEX:
            return text, None
        kind, size, _ = self._tag(body)
        if kind not in _TYPES:
            raise self._damaged(f"numbers of type {kind}")
        array = _Array(tuple(dims), np.dtype(self._order + _TYPES[kind]), where)
        if not dims or array.size != size:
            raise self._damaged(f"an array of {array.shape} in {size} bytes")
        return text, array

    def _read_array(self, array: _Array) -> np.ndarray:
        with self._file.open() as file:
            body = _body(FileSlice(file, *array.where[:2]), array.where[2], self._file.path)
            if array.where[2]:
                body.read(8)
            for _ in range(3):
                self._part(body)
            _, size, small = self._tag(body)
            data = small[:size] if small else body.read(size)
        if len(data) != size:
            raise self._damaged(f"an array that ends after {len(data)} of {size} bytes")
        return np.frombuffer(data, array.dtype).reshape(array.shape, order="F").astype(array.dtype.newbyteorder("="))

    def _tag(self, body: _Readable) -> tuple[int, int, bytes]:
        """(type, bytes, the data itself where it is so short that it lies in the tag) of a part of an array."""
        data = body.read(8)
        kind, size = self._numbers(data, 2)
        if kind >> 16:
            kind, size = kind & 0xFFFF, kind >> 16
            if size > 4:
                raise self._damaged(f"a short element of {size} bytes")
            return kind, size, data[4:]
        return kind, size, b""

    def _part(self, body: _Readable) -> bytes:
        """The next part of an array, one that is short: flags, sizes, name."""
        _, size, small = self._tag(body)
        if small:
            return small[:size]
        if size > _LONGEST:
            raise self._damaged(f"a header of {size} bytes")
        return body.read(-(-size // 8) * 8)[:size]

    def _numbers(self, data: bytes, count: int) -> list[int]:
        """Whole numbers of 4 bytes."""
        if len(data) < 4 * count:
            raise self._damaged("an element that ends early")
        return [int(n) for n in np.frombuffer(data, self._order + "u4", count)]

    def _damaged(self, what: str) -> InputError:
        return InputError(f"{self._file.path} is damaged or truncated: it holds {what}")

    def _write(self, mask: np.ndarray, part: Path) -> None:
        """A .mat of the two arrays, the labels as they were in the file."""
        images, labels = self._arrays
        axis = int(np.argmax(np.array(labels.shape) == len(mask)))
        kept = {self._columns[0]: images[..., mask], self._columns[1]: np.compress(mask, labels, axis=axis)}
        from scipy import io  # half a second, which other sets do not need

        with part.open("wb") as file:
            io.savemat(file, kept, do_compression=True)


class _Unpacked:
    """A packed element as it is unpacked, never more of it than is asked for."""

    def __init__(self, file: FileSlice, path: Path):
        self._file, self._path, self._unpack = file, path, zlib.decompressobj()

    def read(self, size: int) -> bytes:
        parts, left = [], size
        while left:
            data = self._unpack.unconsumed_tail or self._file.read(1 << 16)
            try:
                part = self._unpack.decompress(data, left)
            except zlib.error as e:
                raise InputError(f"{self._path} is damaged or truncated: {e}") from e
            if not part and not self._unpack.unconsumed_tail and (self._unpack.eof or not data):
                break
            parts.append(part)
            left -= len(part)
        return b"".join(parts)


def _body(file: FileSlice, packed: bool, path: Path) -> _Readable:
    return _Unpacked(file, path) if packed else file
