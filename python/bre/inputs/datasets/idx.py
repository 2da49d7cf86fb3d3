"""MNIST's idx files: one of images, one of labels beside it, packed by gzip or not."""

from __future__ import annotations

import gzip
import math
import re
import zlib
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from ...errors import InputError
from .arrays import ArraySet
from .dataset_options import Options
from .npy import NpyHeader, unpack
from .regular_files import FileRows, SameFile

# train-images-idx3-ubyte, train-images.idx3-ubyte, emnist-balanced-train-images-idx3-ubyte.gz
_NAME = re.compile(r"(?P<set>.*)(?P<what>images|labels)[-.]idx(?P<axes>\d)-ubyte(?P<packed>\.gz)?", re.IGNORECASE)
_BYTE = 8  # the type code of unsigned bytes; the others are not used for images


class _Idx(NamedTuple):
    array: Any  # np.ndarray or FileRows, uint8
    head: bytes


class IdxSet(ArraySet):
    """Images (M, H, W), or (M, H, W, C), and labels (M,), bytes both. Of a folder the training files are read."""

    def __init__(self, path: Path, images: Path, options: Options):
        """path: what the caller named."""
        self.path = path
        labels = _labels_of(images)
        self._files, self.beside = (images, labels), (labels,)
        pixels, numbers = _read(images), _read(labels)
        if len(numbers.array.shape) != 1:
            raise InputError(
                f"{labels} holds an array of shape {numbers.array.shape}, expected one label for each image"
            )
        super().__init__(pixels.array, np.asarray(numbers.array[:]), options, source=str(path))

    def keeps_folder(self) -> bool:
        return True

    def _write(self, mask: np.ndarray, part: Path) -> None:
        """A folder of two files of the same names, packed as these are."""
        rows = np.flatnonzero(mask)
        for file, array in zip(self._files, (self._images, self._given_labels), strict=True):
            head = bytes([0, 0, _BYTE, len(array.shape)])
            head += b"".join(n.to_bytes(4, "big") for n in (len(rows), *array.shape[1:]))
            data = head + np.ascontiguousarray(array[rows]).tobytes()
            (part / file.name).write_bytes(gzip.compress(data, mtime=0) if file.suffix.lower() == ".gz" else data)


def find_images(path: Path) -> Path | None:
    """The file of images that a path means: itself, or of a folder that of the training set. None where there is
    none."""
    if path.is_file():
        match = _NAME.fullmatch(path.name)
        if match and match["what"].lower() == "labels":
            raise InputError(f"{path} holds labels: name the file of images beside it")
        return path if match else None
    found = sorted(p for p in path.iterdir() if (m := _NAME.fullmatch(p.name)) and m["what"].lower() == "images")
    train = [p for p in found if "train" in p.name.lower()] or found
    plain = [p for p in train if p.suffix.lower() != ".gz"] or train  # torchvision leaves both
    if len(plain) > 1:
        raise InputError(f"{path} holds {', '.join(p.name for p in plain[:5])}: name the file of images to read")
    return plain[0] if plain else None


def _labels_of(images: Path) -> Path:
    match = _NAME.fullmatch(images.name)
    assert match is not None  # or it was not taken for one
    for file in sorted(images.parent.iterdir()):
        other = _NAME.fullmatch(file.name)
        same = other and other["set"] == match["set"] and bool(other["packed"]) == bool(match["packed"])
        if same and other and other["what"].lower() == "labels" and other["axes"] == "1":
            return file
    raise InputError(f"{images} has no file of labels beside it, as in {match['set']}labels-idx1-ubyte")


def _read(path: Path) -> _Idx:
    same = SameFile(path)
    file = same.open()
    try:
        if path.suffix.lower() == ".gz":
            with file, gzip.GzipFile(fileobj=file) as unpacked:
                reader = _Unpacked(unpacked, path)
                head, header = _header(reader, path)
                array = unpack(reader, header, str(path))
                if reader.read(1):
                    raise InputError(f"{path} holds more than the {header.shape} bytes that it declares")
                return _Idx(array, head)
        head, header = _header(file, path)
        if header.start + header.size != same.size:
            raise InputError(
                f"{path} declares {header.shape}, {header.start + header.size} bytes with its header, but it holds "
                f"{same.size}"
            )
        return _Idx(FileRows(file, header.start, header.shape, header.dtype, str(path)), head)
    except BaseException:
        file.close()
        raise


def _header(file: BinaryIO | _Unpacked, path: Path) -> tuple[bytes, NpyHeader]:
    head = file.read(4)
    if len(head) != 4 or head[:2] != b"\0\0" or head[2] != _BYTE or not 1 <= head[3] <= 4:
        raise InputError(f"{path} is damaged, or no idx file of bytes: it begins with {head!r}")
    sizes = file.read(4 * head[3])
    if len(sizes) != 4 * head[3]:
        raise InputError(f"{path} is truncated")
    shape = tuple(int.from_bytes(sizes[i : i + 4], "big") for i in range(0, len(sizes), 4))
    if math.prod(shape) > 1 << 62:
        raise InputError(f"{path} declares an array of {shape}")
    return head + sizes, NpyHeader(shape, False, np.dtype(np.uint8), 4 + len(sizes))


class _Unpacked:
    """What gzip raises for bad files becomes an InputError."""

    def __init__(self, file: gzip.GzipFile, path: Path):
        self._file, self._path = file, path

    def read(self, size: int) -> bytes:
        try:
            return self._file.read(size)
        except (gzip.BadGzipFile, zlib.error, EOFError) as e:
            raise InputError(f"{self._path} is damaged or truncated, or not packed by gzip: {e}") from e
