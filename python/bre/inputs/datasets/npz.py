"""A .npz file of images and labels."""

from __future__ import annotations

import contextlib
import lzma
import re
import shutil
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from ...errors import InputError
from .arrays import ArraySet
from .dataset_options import Columns, Options
from .labels import check_label_shape
from .npy import NpyHeader, by_shape, parse_header, read_header, unpack, write_rows
from .regular_files import FileRows, SameFile, refuse_pointer

# Names as MedMNIST, Keras, numpy and people give them; capitals and underscores do not matter. Where they do not tell,
# the shapes may: one array of images, and one with a label for each.
_USUAL = (("images", "labels"), ("image", "label"), ("trainimages", "trainlabels"), ("xtrain", "ytrain"),
          ("trainx", "trainy"), ("traindata", "trainlabels"), ("x", "y"), ("data", "labels"), ("data", "label"),
          ("data", "targets"), ("images", "targets"), ("imgs", "labels"), ("features", "labels"),
          ("arr0", "arr1"))  # fmt: skip
_MANY = 100  # arrays; of more, no shapes are looked at
_OTHER_SPLIT = re.compile(r"(^|_)(val|valid|validation|test|dev)(_|$)")
_IMAGE_ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".ppm", ".tif", ".tiff", ".gif")


class NpzSet(ArraySet):
    """images and labels as `ArraySet` takes them, from a file that may not be trusted.

    Images that np.savez stored are read on demand; those of np.savez_compressed are unpacked into memory, after the
    declared sizes were checked. Object arrays (pickles) are refused. `keep` takes further members along: of arrays
    with a row for each image the rows that are kept, others, and those of other splits, as they are.
    """

    takes = ArraySet.takes | {"columns"}

    def __init__(self, path: Path, options: Options):
        self.path, self._file = path, SameFile(path)
        with self._file.open() as file, _opened(file, path) as z:
            infos = {info.filename: info for info in z.infolist()}
            _refuse_images(path, list(infos))
            self._members = _members(path, z, infos, options.columns)
            chosen = [infos[name] for name in self._members]
            headers = [_header(path, z, info) for info in chosen]
            check_label_shape(headers[1].shape, headers[0].shape[0] if headers[0].shape else 0, str(path))
            labels = _unpacked(path, z, chosen[1])
            stored = chosen[0].compress_type == zipfile.ZIP_STORED and not chosen[0].flag_bits & 1
            in_place = stored and headers[0].size and not headers[0].fortran
            images = self._rows_of(path, chosen[0], headers[0]) if in_place else _unpacked(path, z, chosen[0])
        self._compression = chosen[0].compress_type
        super().__init__(images, labels, options, source=path.name)
        others = [name.removesuffix(".npy") for name in infos if name not in self._members]
        if any(_OTHER_SPLIT.search(name) for name in others):
            read = " and ".join(name.removesuffix(".npy") for name in self._members)
            self.notes += (f"{read} were read, the other arrays were not: {', '.join(others[:10])}",)

    def _rows_of(self, path: Path, info: zipfile.ZipInfo, header: NpyHeader) -> FileRows:
        file = self._file.open()
        start = _data_offset(file, info) + header.start
        return FileRows(file, start, header.shape, header.dtype, str(path))

    def _write(self, mask: np.ndarray, part: Path) -> None:
        """A .npz of the same members in the same dtypes, layout and compression, written in blocks."""
        rows = np.flatnonzero(mask)
        held = dict(zip(self._members, (self._images, self._given_labels), strict=True))
        with (
            self._file.open() as file,
            _opened(file, self._file.path) as old,
            zipfile.ZipFile(part, "w", self._compression) as new,
        ):
            for name, member in {info.filename: info for info in old.infolist()}.items():
                array = held.get(name)
                if array is None and not _OTHER_SPLIT.search(name.removesuffix(".npy").lower()):
                    array = self._per_image(old, member, len(mask))
                info = zipfile.ZipInfo(name)
                info.compress_type = self._compression
                with new.open(info, "w", force_zip64=True) as f:
                    if array is not None:
                        write_rows(f, array, rows)
                        continue
                    with contextlib.closing(_Member(self._file.path, old, member)) as whole:
                        shutil.copyfileobj(whole, f)

    def _per_image(self, z: zipfile.ZipFile, member: zipfile.ZipInfo, count: int) -> np.ndarray | None:
        """An array with a row for each image; None for anything else. Raises InputError for such a one of objects, of
        which no rows can be taken."""
        path = self._file.path
        if not member.filename.endswith(".npy"):
            return None
        with contextlib.closing(_Member(path, z, member)) as file:
            shape = parse_header(file, f"{path}: {member.filename}").shape
        return _unpacked(path, z, member) if shape and shape[0] == count else None


def _members(
    path: Path, z: zipfile.ZipFile, infos: dict[str, zipfile.ZipInfo], columns: Columns | None
) -> tuple[str, str]:
    """The members that hold the images and the labels: those named, those with usual names, or the only two that have
    the shapes."""
    names = sorted(name.removesuffix(".npy") for name in infos if name.endswith(".npy"))
    advice = f"images and labels are needed, found {names[:20]}: name the images' and the labels'"
    if columns:
        for name in columns:
            if f"{name}.npy" not in infos:
                raise InputError(f"{path} has no array {name!r}; {advice}", argument="columns")
        return f"{columns[0]}.npy", f"{columns[1]}.npy"
    known: dict[str, list[str]] = {}
    for name in names:
        known.setdefault(re.sub(r"[\s_-]", "", name).lower(), []).append(name)
    found = [pair for pair in _USUAL if all(len(known.get(name, [])) == 1 for name in pair)]
    if _USUAL[0] in found:
        found = [_USUAL[0]]
    untold = not found or found[0] == _USUAL[-1]
    if (
        untold
        and len(names) <= _MANY
        and (pair := by_shape({name: _shape(path, z, infos[f"{name}.npy"]) for name in names}))
    ):
        return f"{pair[0]}.npy", f"{pair[1]}.npy"
    if len(found) != 1:
        missing = next((name for name in _USUAL[0] if name not in known), "images")
        why = f"has no array {missing!r}" if not found else f"could mean {' or '.join(map(str, found[:3]))}"
        raise InputError(f"{path} {why}; {advice}", argument="columns")
    image, label = (known[name][0] for name in found[0])
    return f"{image}.npy", f"{label}.npy"


def _shape(path: Path, z: zipfile.ZipFile, info: zipfile.ZipInfo) -> tuple[int, ...]:
    with contextlib.closing(_Member(path, z, info)) as file:
        return parse_header(file, f"{path}: {info.filename}").shape


def _refuse_images(path: Path, names: list[str]) -> None:
    """Raise InputError for a zip of anything but arrays: a folder of images, a list, what torch.save writes."""
    if any(name.endswith(".npy") for name in names):
        return
    if images := [name for name in names if name.lower().endswith(_IMAGE_ENDINGS)]:
        raise InputError(
            f"{path} is a zip of {len(images)} image files: unpack it, and name the folder of class folders"
        )
    if any(name.endswith("/data.pkl") for name in names):
        raise InputError(
            f"{path} is what torch.save writes, a pickle: load it in Python, with weights_only=True, and give a pair "
            "(images, labels)"
        )
    if names:
        raise InputError(
            f"{path} is a zip without arrays, of {names[0][:100]!r}, ...: unpack it, and name what was in it"
        )


@contextlib.contextmanager
def zip_errors(path: Path) -> Iterator[None]:
    """Around calls of zipfile: what it and the unpackers raise for bad files becomes an InputError."""
    try:
        yield
    except (InputError, MemoryError):
        raise
    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, EOFError, ValueError, RuntimeError) as e:
        raise InputError(f"{path} is damaged or truncated, or no .npz file: {e}") from e
    except OSError as e:
        if e.errno:
            raise
        raise InputError(f"{path} is damaged or truncated, or no .npz file: {e}") from e


def _opened(file: BinaryIO, path: Path) -> zipfile.ZipFile:
    refuse_pointer(file.read(64), path)
    with zip_errors(path):
        return zipfile.ZipFile(file)


def is_zip(path: Path) -> bool:
    """Whether a file is a zip, a damaged one included."""
    try:
        return zipfile.is_zipfile(path)
    except zipfile.BadZipFile:  # it reads a little more than its answer takes, and trips over that
        return True


class _Member:
    """A member that is read; what the unpacker raises becomes an InputError."""

    def __init__(self, path: Path, z: zipfile.ZipFile, info: zipfile.ZipInfo):
        self._path = path
        with zip_errors(path):
            self._file = z.open(info)

    def read(self, size: int = -1) -> bytes:
        with zip_errors(self._path):
            return self._file.read(size)

    def close(self) -> None:
        self._file.close()


def _header(path: Path, z: zipfile.ZipFile, info: zipfile.ZipInfo) -> NpyHeader:
    """Of one member, checked against its size, before anything is unpacked."""
    with contextlib.closing(_Member(path, z, info)) as file:
        return read_header(file, info.file_size, f"{path}: {info.filename}")


def _unpacked(path: Path, z: zipfile.ZipFile, info: zipfile.ZipInfo) -> np.ndarray:
    where = f"{path}: {info.filename}"
    with contextlib.closing(_Member(path, z, info)) as file:
        return unpack(file, read_header(file, info.file_size, where), where)


def _data_offset(file: BinaryIO, info: zipfile.ZipInfo) -> int:
    """Where a member's bytes begin: behind its local header of 30 bytes, its name and its extra field."""
    file.seek(info.header_offset + 26)
    name, extra = (int.from_bytes(file.read(2), "little") for _ in range(2))
    return info.header_offset + 30 + name + extra
