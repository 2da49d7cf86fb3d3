"""CIFAR-10's own folders: the binary batches, and (unsafe only) the pickled Python batches."""

import io
import pickle
import re
import shutil
from abc import abstractmethod
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np

from ..._files import atomic_path
from ...errors import InputError
from .imageset import ImageSet, as_labels, place_of

_SHAPE = (3, 32, 32)  # values; C, H, W of an image; source: derived, from the format
_PIXELS = 3 * 32 * 32  # bytes; of an image; source: derived, from the format


class Batch(NamedTuple):
    path: Path
    labels: np.ndarray  # (n,) int64
    rows: np.ndarray  # (n, 3072) uint8, planes R, G, B
    extra: dict[str, Any]  # what else the file holds, one entry per image where the length is n


class CifarSet(ImageSet):
    """The training batches data_batch_*, in the order of their numbers; test batches are not read."""

    def __init__(self, root: Path, paths: list[Path], names: list[str] | None):
        self.path = self._root = root
        self._batches = [self._load(path) for path in paths]
        self._starts = np.cumsum([0] + [len(b.labels) for b in self._batches])
        labels = np.concatenate([b.labels for b in self._batches])
        super().__init__(labels, _SHAPE, str(root), names)

    def file(self, index: int) -> Path:
        return self._batches[place_of(self._starts, index)[0]].path

    def describe(self, index: int) -> str:
        part, row = place_of(self._starts, index)
        return f"{self._batches[part].path}, row {row}"

    def _read(self, indices: np.ndarray) -> np.ndarray:
        out = np.empty((len(indices), _PIXELS), np.uint8)
        which = np.searchsorted(self._starts, indices, side="right") - 1
        for b in np.unique(which):
            out[which == b] = self._batches[b].rows[indices[which == b] - self._starts[b]]
        return out.reshape(-1, *_SHAPE)

    def _write(self, mask: np.ndarray, out: Path) -> Path:
        """A folder of the same batch files with fewer rows, and of what lies beside them; no empty batches."""
        with atomic_path(out, directory=True) as part:
            for b, batch in enumerate(self._batches):
                rows = np.flatnonzero(mask[self._starts[b] : self._starts[b + 1]])
                if len(rows):
                    self._save(part / batch.path.name, batch, rows)
            for name in (self._meta, self._test):
                if (self._root / name).is_file():
                    shutil.copyfile(self._root / name, part / name)
        return out

    _meta: str
    _test: str

    @abstractmethod
    def _load(self, path: Path) -> Batch: ...

    @abstractmethod
    def _save(self, path: Path, batch: Batch, rows: np.ndarray) -> None: ...


class CifarBinarySet(CifarSet):
    """data_batch_*.bin: rows of one label byte and 3072 pixel bytes, mapped; names from batches.meta.txt."""

    _meta, _test = "batches.meta.txt", "test_batch.bin"

    def __init__(self, root: Path):
        meta = root / self._meta
        names = meta.read_text(encoding="utf-8", errors="replace").split() if meta.is_file() else None
        super().__init__(root, batch_files(root, binary=True), names)

    def _load(self, path: Path) -> Batch:
        size = path.stat().st_size
        if size == 0 or size % (1 + _PIXELS):
            raise InputError(f"{path} has {size} bytes, expected a positive multiple of {1 + _PIXELS} (truncated?)")
        table = np.memmap(path, np.uint8, "r").reshape(-1, 1 + _PIXELS)
        return Batch(path, table[:, 0].astype(np.int64), table[:, 1:], {})

    def _save(self, path: Path, batch: Batch, rows: np.ndarray) -> None:
        labels = batch.labels[rows, None].astype(np.uint8)
        np.concatenate([labels, batch.rows[rows]], axis=1).tofile(path)


class CifarPythonSet(CifarSet):
    """data_batch_1 ...: pickled dicts, read by an unpickler that knows numpy arrays and plain values only."""

    _meta, _test = "batches.meta", "test_batch"

    def __init__(self, root: Path, *, unsafe: bool):
        if not unsafe:
            raise InputError(
                f"{root} holds CIFAR-10's Python batches, which are pickles and can run code when they are "
                "read: use the binary version of the set (cifar-10-batches-bin), or allow that for a folder you trust",
                argument="unsafe",
            )
        meta = root / self._meta
        names = None
        if meta.is_file():
            names = [n.decode() if isinstance(n, bytes) else str(n) for n in _unpickle(meta).get("label_names", [])]
        super().__init__(root, batch_files(root, binary=False), names)

    def _load(self, path: Path) -> Batch:
        extra = _unpickle(path)
        try:
            labels, rows = extra.pop("labels"), extra.pop("data")
        except KeyError as e:
            raise InputError(f"{path} has no {e}; expected `data` and `labels`, found {sorted(extra)}") from None
        if not isinstance(rows, np.ndarray) or rows.dtype != np.uint8 or rows.shape[1:] != (_PIXELS,):
            raise InputError(f"{path}: data must be uint8 (n, {_PIXELS})")
        return Batch(path, as_labels(labels, len(rows), str(path)), rows, extra)

    def _save(self, path: Path, batch: Batch, rows: np.ndarray) -> None:
        content: dict[bytes, Any] = {b"labels": batch.labels[rows].tolist(), b"data": batch.rows[rows]}
        for key, value in batch.extra.items():
            per_image = isinstance(value, list) and len(value) == len(batch.labels)
            content[key.encode()] = [value[i] for i in rows] if per_image else value
        path.write_bytes(pickle.dumps(content, protocol=2))


def batch_files(root: Path, *, binary: bool) -> list[Path]:
    """The training batches of one of the two kinds, by number; [] when the folder has none."""
    name = re.compile(r"data_batch_(\d+)" + (r"\.bin" if binary else ""))
    found = [(int(m[1]), p) for p in root.iterdir() if (m := name.fullmatch(p.name)) and p.is_file()]
    return [p for _, p in sorted(found)]


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
    try:
        content = _Unpickler(io.BytesIO(path.read_bytes()), encoding="bytes").load()
    except Exception as e:
        raise InputError(f"{path} is no CIFAR-10 batch: {type(e).__name__}: {e}") from e
    if not isinstance(content, dict):
        raise InputError(f"{path} holds {type(content).__name__}, expected a dict")
    return {k.decode() if isinstance(k, bytes) else str(k): v for k, v in content.items()}
