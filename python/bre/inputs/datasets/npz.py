"""A .npz file with `images` and `labels`."""

import contextlib
import math
import os
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

from ..._files import atomic_path
from ...errors import InputError
from .arrays import ArraySet

# bytes; that a compressed member may declare; source: chosen, half of the machine's memory where that is less
MAX_UNPACKED = 16 << 30


class NpzSet(ArraySet):
    """images and labels as `ArraySet` takes them, from a file that may not be trusted.

    Images that np.savez stored are mapped and read on demand; those of np.savez_compressed are unpacked into
    memory, after the declared sizes were checked. Object arrays (pickles) are refused. `keep` takes further members
    along: of arrays with a row for each image the rows that are kept, others as they are.
    """

    def __init__(self, path: Path, *, layout: str | None = None):
        self.path = self._npz = path
        with _reading(path) as z:
            infos = {info.filename: info for info in z.infolist()}
            for key in ("images", "labels"):
                if f"{key}.npy" not in infos:
                    keys = sorted(name.removesuffix(".npy") for name in infos)
                    raise InputError(f"{path} has no array {key!r}; images and labels are needed, found {keys}")
            images, labels = (_array(path, z, infos[f"{key}.npy"]) for key in ("images", "labels"))
        self._compression = infos["images.npy"].compress_type
        super().__init__(images, labels, layout=layout, source=path.name)

    def _write(self, mask: np.ndarray, out: Path) -> Path:
        """A .npz of the same members in the same dtypes, layout and compression, written in blocks."""
        rows, held = np.flatnonzero(mask), {"images.npy": self._images, "labels.npy": self._given_labels}
        with (
            _reading(self._npz) as old,
            atomic_path(out) as part,
            zipfile.ZipFile(part, "w", self._compression) as new,
        ):
            for name, member in {info.filename: info for info in old.infolist()}.items():
                array = held.get(name)
                if array is None and _length(old, member) == len(mask):
                    array = _array(self._npz, old, member)
                info = zipfile.ZipInfo(name)
                info.compress_type = self._compression
                with new.open(info, "w", force_zip64=True) as f:
                    if array is None:
                        with old.open(member) as whole:
                            shutil.copyfileobj(whole, f)
                    else:
                        _write_rows(f, array, rows)
        return out


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[zipfile.ZipFile]:
    """The file opened; InputError for whatever reading it raises."""
    try:
        with zipfile.ZipFile(path) as z:
            yield z
    except (InputError, OSError):
        raise
    except Exception as e:  # zipfile, zlib and numpy's parser of headers share no base class
        raise InputError(f"{path} is damaged or truncated, or no .npz file: {e}") from e


def is_zip(path: Path) -> bool:
    """Whether a file is a zip, a damaged one included."""
    try:
        return zipfile.is_zipfile(path)
    except zipfile.BadZipFile:  # it reads a little more than its answer takes, and trips over that
        return True


def _array(path: Path, z: zipfile.ZipFile, info: zipfile.ZipInfo) -> np.ndarray:
    """One member, its size checked against its own header before anything is unpacked."""
    with z.open(info) as f:
        version = np.lib.format.read_magic(f)
        if version not in ((1, 0), (2, 0)):
            raise InputError(f"{path}: {info.filename} has npy version {version}, expected 1.0 or 2.0")
        shape, fortran, dtype = _read_header(f, version)
        start = f.tell()
    if dtype.hasobject:
        raise InputError(
            f"{path}: {info.filename} is an object array, which numpy stores as a pickle; pickles are "
            "refused, save arrays of numbers"
        )
    size = math.prod(shape) * dtype.itemsize
    if start + size != info.file_size:
        raise InputError(
            f"{path}: {info.filename} declares {dtype} {shape}, {start + size} bytes with its header, but "
            f"the file holds {info.file_size}"
        )
    stored = info.compress_type == zipfile.ZIP_STORED and not info.flag_bits & 1
    if stored and size and info.filename == "images.npy":
        begin = _data_offset(path, info) + start
        return np.memmap(path, dtype, "r", begin, shape, "F" if fortran else "C")
    if size > _unpacked_limit():
        raise InputError(
            f"{path}: {info.filename} would unpack to {size} bytes, the limit here is {_unpacked_limit()}; "
            "save it with np.savez (not compressed), which is read from disk in blocks"
        )
    with z.open(info) as f:
        return np.lib.format.read_array(f, allow_pickle=False)


def _length(z: zipfile.ZipFile, info: zipfile.ZipInfo) -> int | None:
    """Along the first axis of an array; None for a scalar, and for what is no array."""
    with z.open(info) as f:
        try:
            shape, _, _ = _read_header(f, np.lib.format.read_magic(f))
        except ValueError:
            return None
    return shape[0] if shape else None


def _read_header(f: IO[bytes], version: tuple[int, int]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """(shape, whether in Fortran's order, dtype), from behind the magic that tells the version."""
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    header: tuple[tuple[int, ...], bool, np.dtype[Any]] = read(f)
    return header


def _write_rows(f: IO[bytes], array: np.ndarray, rows: np.ndarray) -> None:
    header = {"descr": array.dtype.str, "fortran_order": False, "shape": (len(rows), *array.shape[1:])}
    np.lib.format.write_array_header_1_0(f, header)
    for start in range(0, len(rows), 1024):
        f.write(np.ascontiguousarray(array[rows[start : start + 1024]]).data)


def _data_offset(path: Path, info: zipfile.ZipInfo) -> int:
    """Where a member's bytes begin: behind its local header of 30 bytes, its name and its extra field."""
    with path.open("rb") as f:
        f.seek(info.header_offset + 26)
        name, extra = (int.from_bytes(f.read(2), "little") for _ in range(2))
    return info.header_offset + 30 + name + extra


def _unpacked_limit() -> int:
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # not every platform says
        return MAX_UNPACKED
    return min(MAX_UNPACKED, memory // 2)
