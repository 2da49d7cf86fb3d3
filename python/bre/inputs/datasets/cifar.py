"""CIFAR-10's and CIFAR-100's own folders: the binary batches, and (unsafe only) the pickled Python batches."""

from __future__ import annotations

import io
import pickle
import re
import shutil
from abc import abstractmethod
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np

from ...errors import InputError
from .dataset_options import Options
from .imageset import ImageSet, locate
from .labels import as_labels
from .regular_files import MAX_TEXT, FileRows, SameFile, open_regular, read_text, size_of

_SHAPE = (3, 32, 32)
_PIXELS = 3 * 32 * 32
_HUNDRED = ("fine_labels", "coarse_labels")
FOLDERS = ("cifar-10-batches-bin", "cifar-10-batches-py", "cifar-100-binary", "cifar-100-python")  # as they unpack


class Layout(NamedTuple):
    """How one of the four versions of the sets is stored."""

    what: str
    binary: bool
    batches: re.Pattern[str]  # of the training set, in the order of their numbers
    beside: tuple[str, ...]  # what `keep` takes along
    labels: tuple[str, ...]  # of an image, in the order of the binary rows
    meta: dict[str, str]  # {label: where its class names are}: a text file, or a key in the pickle `meta_file`
    meta_file: str = ""

    @property
    def row(self) -> int:
        return len(self.labels) + _PIXELS


LAYOUTS = (
    Layout("CIFAR-10's binary batches", True, re.compile(r"data_batch_(\d+)\.bin"),
           ("batches.meta.txt", "test_batch.bin"), ("labels",), {"labels": "batches.meta.txt"}),
    Layout("CIFAR-10's Python batches", False, re.compile(r"data_batch_(\d+)"), ("batches.meta", "test_batch"),
           ("labels",), {"labels": "label_names"}, "batches.meta"),
    Layout("CIFAR-100's binary file", True, re.compile(r"train\.bin()"),
           ("fine_label_names.txt", "coarse_label_names.txt", "test.bin"), ("coarse_labels", "fine_labels"),
           {"fine_labels": "fine_label_names.txt", "coarse_labels": "coarse_label_names.txt"}),
    Layout("CIFAR-100's Python file", False, re.compile(r"train()"), ("meta", "test"), _HUNDRED,
           {"fine_labels": "fine_label_names", "coarse_labels": "coarse_label_names"}, "meta"),
)  # fmt: skip


class Batch(NamedTuple):
    path: Path
    labels: np.ndarray  # (n,) int64
    rows: Any  # (n, 3072) uint8, planes R, G, B; of a binary file (n, labels + 3072)
    extra: dict[str, Any]  # what else the file holds, one entry per image where the length is n


class CifarSet(ImageSet):
    """The training batches, in the order of their numbers; test batches are not read."""

    def __init__(self, root: Path, layout: Layout, options: Options):
        self.path = self._root = root
        self._layout = layout
        self._label = _wanted_label(root, layout, options)
        if len(layout.labels) > 1:
            self.takes = frozenset({"columns"})
        self._batches = [self._load(path) for path in batch_files(root, layout)]
        self._starts = np.cumsum([0] + [len(b.labels) for b in self._batches])
        labels = np.concatenate([b.labels for b in self._batches])
        super().__init__(labels, _SHAPE, str(root), self._names())

    def file(self, index: int) -> Path:
        return self._batches[locate(self._starts, index)[0]].path

    def describe(self, index: int) -> str:
        part, row = locate(self._starts, index)
        return f"{self._batches[part].path}, row {row}"

    def _read(self, indices: np.ndarray) -> np.ndarray:
        out = np.empty((len(indices), _PIXELS), np.uint8)
        which = np.searchsorted(self._starts, indices, side="right") - 1
        for b in np.unique(which):
            out[which == b] = self._batches[b].rows[indices[which == b] - self._starts[b]][:, -_PIXELS:]
        return out.reshape(-1, *_SHAPE)

    def keeps_folder(self) -> bool:
        return True

    def _write(self, mask: np.ndarray, part: Path) -> None:
        """A folder of the same batch files with fewer rows, and of what lies beside them; no empty batches."""
        for b, batch in enumerate(self._batches):
            rows = np.flatnonzero(mask[self._starts[b] : self._starts[b + 1]])
            if len(rows):
                self._save(part / batch.path.name, batch, rows)
        for name in self._layout.beside:
            if (self._root / name).is_file():
                with open_regular(self._root / name) as source, (part / name).open("wb") as target:
                    shutil.copyfileobj(source, target, 1 << 20)

    @abstractmethod
    def _load(self, path: Path) -> Batch: ...

    @abstractmethod
    def _names(self) -> list[str] | None: ...

    @abstractmethod
    def _save(self, path: Path, batch: Batch, rows: np.ndarray) -> None: ...


class CifarBinarySet(CifarSet):
    """Rows of label bytes (CIFAR-100: the coarse one, then the fine one) and 3072 pixel bytes, read on demand."""

    def _names(self) -> list[str] | None:
        meta = self._root / self._layout.meta[self._label]
        if not meta.is_file():
            return None
        with open_regular(meta) as file:
            return read_text(file, meta).split()

    def _load(self, path: Path) -> Batch:
        same, row = SameFile(path), self._layout.row
        if same.size == 0 or same.size % row:
            raise InputError(f"{path} has {same.size} bytes, expected a positive multiple of {row} (truncated?)")
        rows = FileRows(same.open(), 0, (same.size // row, row), np.dtype(np.uint8), str(path))
        column = self._layout.labels.index(self._label)
        blocks = [rows[start : start + 1024][:, column] for start in range(0, len(rows), 1024)]
        return Batch(path, np.concatenate(blocks).astype(np.int64), rows, {})

    def _save(self, path: Path, batch: Batch, rows: np.ndarray) -> None:
        path.write_bytes(batch.rows[rows].tobytes())


class CifarPythonSet(CifarSet):
    """Pickled dicts, read by an unpickler that knows numpy arrays and plain values only."""

    def __init__(self, root: Path, layout: Layout, options: Options):
        if not options.unsafe:
            raise InputError(
                f"{root} holds {layout.what}: pickles, which can run code when they are read. Use the binary version "
                "of the set, or allow that for a folder you trust",
                argument="unsafe",
            )
        super().__init__(root, layout, options)

    def _names(self) -> list[str] | None:
        meta = self._root / self._layout.meta_file
        if not meta.is_file():
            return None
        names = _unpickle(meta).get(self._layout.meta[self._label])
        if not isinstance(names, (list, tuple)):
            return None
        return [n.decode(errors="replace") if isinstance(n, bytes) else str(n) for n in names] or None

    def _load(self, path: Path) -> Batch:
        extra = _unpickle(path)
        for name in (self._label, "data"):
            if name not in extra:
                raise InputError(f"{path} has no {name!r}; expected `data` and `{self._label}`, found {sorted(extra)}")
        rows, labels = extra.pop("data"), extra[self._label]
        if not isinstance(rows, np.ndarray) or rows.dtype != np.uint8 or rows.shape[1:] != (_PIXELS,):
            raise InputError(f"{path}: data must be uint8 (n, {_PIXELS})")
        return Batch(path, as_labels(labels, len(rows), str(path)), rows, extra)

    def _save(self, path: Path, batch: Batch, rows: np.ndarray) -> None:
        content: dict[bytes, Any] = {b"data": batch.rows[rows]}
        for key, value in batch.extra.items():
            per_image = isinstance(value, list) and len(value) == len(batch.labels)
            content[key.encode()] = [value[i] for i in rows] if per_image else value
        content[self._label.encode()] = batch.labels[rows].tolist()
        path.write_bytes(pickle.dumps(content, protocol=2))


def open_cifar(root: Path, options: Options) -> CifarSet | None:
    """The set in a folder, or in the one of its folders that is one of these sets; None where there is none.

    Raises InputError for a folder that holds several.
    """
    for layout in LAYOUTS:
        if batch_files(root, layout):
            return (CifarBinarySet if layout.binary else CifarPythonSet)(root, layout, options)
    below = [root / name for name in FOLDERS if (root / name).is_dir()]
    if len(below) > 1:
        raise InputError(f"{root} holds {', '.join(p.name for p in below)}: name the one to read, as in {below[0]}")
    return open_cifar(below[0], options) if below else None


def batch_files(root: Path, layout: Layout) -> list[Path]:
    """The training batches of one of the versions, by number; [] when the folder has none."""
    found = [(m[1], p) for p in root.iterdir() if (m := layout.batches.fullmatch(p.name)) and p.is_file()]
    if layout.labels[0] in _HUNDRED:  # its names are common ones
        beside = any((root / name).is_file() for name in layout.beside if "test" not in name)
        found = [entry for entry in found if beside]
    return [p for _, p in sorted(found, key=lambda entry: int(entry[0] or 0))]


def _wanted_label(root: Path, layout: Layout, options: Options) -> str:
    if len(layout.labels) == 1:
        return layout.labels[0]
    label = options.columns[1] if options.columns else _HUNDRED[0]
    if label not in _HUNDRED:
        raise InputError(
            f"{root}: CIFAR-100 has the labels {' and '.join(_HUNDRED)}: say data,coarse_labels for the second",
            argument="columns",
        )
    return label


def _dtype(spec: Any, align: Any = False, copy: Any = False) -> Any:
    return np.dtype(spec, bool(align), bool(copy))  # old pickles say 0 and 1, which numpy no longer likes


class _Unpickler(pickle.Unpickler):
    _reconstruct = np.empty(0).__reduce__()[0]
    _known: ClassVar = {
        ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
        ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): _dtype,
        ("_codecs", "encode"): lambda text, encoding: text.encode(encoding),
    }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self._known:
            raise pickle.UnpicklingError(f"{module}.{name} is not allowed in a batch file")
        return self._known[module, name]


def _unpickle(path: Path) -> dict[str, Any]:
    with open_regular(path) as file:
        if size_of(file) > 4 * MAX_TEXT:
            raise InputError(f"{path} is larger than {4 * MAX_TEXT >> 20} MiB, which no batch is")
        data = file.read()
    try:
        content = _Unpickler(io.BytesIO(data), encoding="bytes").load()
    except Exception as e:  # a pickle is a program: it can raise anything
        raise InputError(f"{path} is no CIFAR batch: {type(e).__name__}: {e}") from e
    if not isinstance(content, dict):
        raise InputError(f"{path} holds {type(content).__name__}, expected a dict")
    return {_text(k): v for k, v in content.items()}


def _text(key: Any) -> str:
    return key.decode(errors="replace") if isinstance(key, bytes) else str(key)
