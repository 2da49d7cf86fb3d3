"""MATLAB's .mat, as the SVHN set comes: X (H, W, C, M) and y (M, 1), read by scipy."""

from __future__ import annotations

import math
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io

from ...errors import InputError
from .arrays import ArraySet
from .dataset_options import Options
from .labels import check_label_shape
from .npy import unpacked_limit
from .regular_files import SameFile, refuse_pointer

_BYTES = {"int8": 1, "uint8": 1, "logical": 1, "int16": 2, "uint16": 2, "int32": 4, "uint32": 4, "single": 4}  # or 8
_ERRORS = (
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    OverflowError,
    EOFError,
    zlib.error,
    scipy.io.matlab.MatReadError,
)


class MatSet(ArraySet):
    """X: images, the last axis counting them; y: labels. In SVHN's files label 10 is the digit 0, and becomes 0."""

    takes = ArraySet.takes | {"columns"}

    def __init__(self, path: Path, options: Options):
        self.path, self._file = path, SameFile(path)
        with self._file.open() as file:
            if not (head := file.read(64)).startswith(b"MATLAB "):
                refuse_pointer(head, path)
                raise InputError(f"{path} is damaged, or no .mat file of MATLAB 5 or later")
        names = options.columns or ("X", "y")
        shapes = self._shapes()
        for name in names:
            if name not in shapes:
                raise InputError(
                    f"{path} has no array {name!r}; X and y are needed, found {sorted(shapes)[:20]}: name the "
                    "images' and the labels'",
                    argument="columns",
                )
        count, of_labels = (shapes[names[0]][0] or (0,))[-1], shapes[names[1]][0]
        if of_labels[:1] == (1,):  # MATLAB's vectors are rows as often as columns
            of_labels = of_labels[::-1]
        check_label_shape(of_labels, count, str(path))
        size = sum(math.prod(shapes[name][0]) * shapes[name][1] for name in names)
        if size > unpacked_limit():
            raise InputError(f"{path} would unpack to {size} bytes, the limit here is {unpacked_limit()}")
        content = self._load(list(names))
        images, labels = (content[name] for name in names)
        for name, array in zip(names, (images, labels), strict=True):
            if not isinstance(array, np.ndarray) or array.dtype.kind not in "iuf" or array.ndim < 2:
                raise InputError(f"{path}: {name} must be an array of numbers")
        self._arrays, self._columns = (images, labels), names
        if labels.dtype.kind == "f" and (labels == np.rint(labels)).all() and (np.abs(labels) < 2**53).all():
            labels = labels.astype(np.int64)  # MATLAB's numbers are doubles
        labels = labels.reshape(-1)
        digits = None
        if labels.size and images.shape[:3] == (32, 32, 3) and labels.min() == 1 and labels.max() == 10:
            labels = np.where(labels == 10, 0, labels)
            digits = [str(i) for i in range(10)]
            self.notes += ("label 10 was read as 0, the digit that it stands for in SVHN's files",)
        super().__init__(np.moveaxis(images, -1, 0), labels, options, source=path.name, names=digits)

    def _shapes(self) -> dict[str, tuple[tuple[int, ...], int]]:
        """{name: (shape, bytes of a number)}, from the headers."""
        with self._file.open() as file:
            try:
                found = scipy.io.whosmat(file, appendmat=False)
            except NotImplementedError as e:
                raise InputError(f"{self._file.path} is a MATLAB v7.3 file (HDF5): save it again with -v7") from e
            except _ERRORS as e:
                raise InputError(f"{self._file.path} is damaged, or no .mat file: {str(e)[:200]}") from e
        return {name: (tuple(map(int, shape)), _BYTES.get(kind, 8)) for name, shape, kind in found}

    def _load(self, names: list[str]) -> dict[str, Any]:
        with self._file.open() as file:
            try:
                found = scipy.io.loadmat(file, appendmat=False, variable_names=names)
            except (*_ERRORS, NotImplementedError) as e:
                raise InputError(f"{self._file.path} is damaged, or no .mat file: {str(e)[:200]}") from e
        if any(name not in found for name in names):
            raise InputError(f"{self._file.path} is damaged: its arrays cannot be read")
        return dict(found)

    def _write(self, mask: np.ndarray, part: Path) -> None:
        """A .mat of the two arrays, the labels as they were in the file."""
        images, labels = self._arrays
        axis = int(np.argmax(np.array(labels.shape) == len(mask)))
        kept = {self._columns[0]: images[..., mask], self._columns[1]: np.compress(mask, labels, axis=axis)}
        with part.open("wb") as file:
            scipy.io.savemat(file, kept, do_compression=True)
