"""ImageSet: what every dataset looks like to the layers above, and the checks all formats share."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from ..._files import atomic_path
from ...errors import InputError
from .remote_path import AnyPath

LISTS = {".csv", ".tsv", ".txt", ".lst", ".jsonl", ".ndjson"}  # endings that make a file a list of images


class Skipped(NamedTuple):
    """An image that cannot be read, and so was left out. name: as `describe` has it; reason: what is wrong with it."""

    name: str
    label: int
    class_name: str
    reason: str


class ImageSet(ABC):
    """Images of one shape with integer labels, read in blocks and never held as floats.

    labels: (M,) int64, >= 0, read-only, at least two distinct. image_shape: (C, H, W).
    class_names: (K,) str, K = largest label + 1, `str(k)` where the source has no names.
    source: a short description for reports. path: where it lives, None for one in memory. beside: what else it was read
    from, labels in a file of their own. notes: what was left
    out or read otherwise than a user may think, for the report; one sentence each. takes: the options of
    `open_dataset` that the format has a use for, beside those of all formats. skipped: the images that cannot be read
    and were left out; unreadable: those that are still to be, {image: why}.
    """

    labels: np.ndarray
    image_shape: tuple[int, int, int]
    class_names: tuple[str, ...]
    source: str
    path: AnyPath | None = None
    beside: tuple[Path, ...] = ()
    notes: tuple[str, ...] = ()
    takes: frozenset[str] = frozenset()
    skipped: tuple[Skipped, ...] = ()
    unreadable: Mapping[int, str] = MappingProxyType({})
    reopening: Callable[[], ImageSet] | None = None  # opens the same set again, where it was opened by its path

    def __init__(
        self,
        labels: np.ndarray,
        image_shape: Sequence[int],
        source: str,
        class_names: Sequence[str] | None = None,
    ):
        """labels: (M,) int64 from `as_labels`; class_names: at least one per class, or None.

        Raises InputError for an empty set, fewer than two classes, empty images or too few names.
        """
        c, h, w = (int(n) for n in image_shape)
        if min(c, h, w) < 1:
            raise InputError(f"images must have at least one channel and one pixel, got (C, H, W) = {(c, h, w)}")
        if len(labels) == 0:
            raise InputError(f"{source}: the dataset is empty")
        present = np.unique(labels)
        if len(present) < 2:
            raise InputError(
                f"{source}: every image has label {present[0]}; at least two classes are needed, because a "
                "class is judged against the others"
            )
        k = int(present[-1]) + 1
        names = [str(i) for i in range(k)] if class_names is None else list(class_names)
        if len(names) < k:
            raise InputError(f"{source}: {len(names)} class names for labels up to {k - 1}")
        labels = labels.view()
        labels.flags.writeable = False
        self.labels, self.image_shape, self.source = labels, (c, h, w), source
        self.class_names = tuple(str(name) for name in names[:k])

    @property
    def disk_path(self) -> Path | None:
        """`path`, where it is one of this machine."""
        return self.path if isinstance(self.path, Path) else None

    def __len__(self) -> int:
        return len(self.labels)

    def __reduce_ex__(self, protocol: Any) -> Any:
        """A set that was opened by its path is opened again where it is sent to; any other goes as it is."""
        if self.reopening is None:
            return super().__reduce_ex__(protocol)
        return reopened, (self.reopening, self.fingerprint(np.zeros(0, np.int64)), self.source)

    def __repr__(self) -> str:
        c, h, w = self.image_shape
        return (
            f"<{type(self).__name__} {self.source}: {len(self)} images of {c}x{h}x{w}, {len(self.class_names)} classes>"
        )

    def read(self, indices: np.ndarray) -> np.ndarray:
        """indices: (m,) integers in [0, M), any order, repeats allowed -> (m, C, H, W) uint8, C-contiguous.

        Raises InputError for indices out of range and for an image that cannot be read as it was declared.
        """
        indices = np.asarray(indices)
        if indices.ndim != 1 or (indices.size and indices.dtype.kind not in "iu"):
            raise InputError(f"indices must be 1-D integers, got {indices.dtype} of shape {indices.shape}")
        if indices.size == 0:
            return np.empty((0, *self.image_shape), np.uint8)
        indices = indices.astype(np.int64)  # a copy: torch warns of read-only ones
        if indices.min() < 0 or indices.max() >= len(self):
            raise InputError(f"indices must lie in [0, {len(self)}), got {indices.min()} to {indices.max()}")
        block = self._read(indices)
        if block.dtype != np.uint8 or block.shape != (len(indices), *self.image_shape):
            raise InputError(
                f"{self.source}: read {block.dtype} {block.shape}, expected uint8 {(len(indices), *self.image_shape)}"
            )
        return np.ascontiguousarray(block)

    def blocks(self, size: int = 1024, indices: np.ndarray | None = None) -> Iterator[tuple[int, np.ndarray]]:
        """Yield (start, (m, C, H, W) uint8) over the images at the indices, or the whole set, in order, m = size but
        for the last block."""
        indices = np.arange(len(self)) if indices is None else indices
        for start in range(0, len(indices), size):
            yield start, self.read(indices[start : start + size])

    def fingerprint(self, indices: np.ndarray) -> str:
        """sha256 hex over count, image shape, labels, and which images stand at the indices, (m,) integers."""
        digest = hashlib.sha256(repr((len(self), self.image_shape)).encode())
        digest.update(np.ascontiguousarray(self.labels, dtype="<i8").tobytes())
        for _, block in self.blocks(indices=indices):
            digest.update(block.tobytes())
        return digest.hexdigest()

    def describe(self, index: int) -> str:
        """A name for image `index` that a person can look up: its file where it has one."""
        return f"image {index}"

    def file(self, index: int) -> AnyPath | None:
        """The file that image `index` is in; None for a set in memory."""
        return self.path

    def keep(
        self, mask: np.ndarray, out: str | Path | None = None, *, beside: Mapping[Path, bytes] | None = None
    ) -> Any:
        """The images where mask is true, as the kind of dataset that was opened.

        mask: (M,) bool, at least one true. out: a new path for a dataset that lives on disk, None for one in
        memory. beside: further files to appear together with `out`, {path: content}. Returns what `open_dataset` would
        take again: arrays, a torch Subset, or `Path(out)`. Raises InputError for a wrong mask, a missing or needless
        `out`, or an `out` that exists.
        """
        mask = np.asarray(mask)
        if mask.dtype != np.bool_ or mask.shape != (len(self),):
            raise InputError(f"mask must be bool ({len(self)},), got {mask.dtype} {mask.shape}")
        if not mask.any():
            raise InputError("mask keeps no image at all")
        if self.path is not None and out is None:
            raise InputError(f"{self.source} lives on disk: give a new path for the images kept", argument="out")
        if self.path is None and out is not None:
            raise InputError(
                f"{self.source} is in memory and is returned, not written: leave the path out, got {out}",
                argument="out",
            )
        if out is None:
            return self._keep(mask)
        out = Path(out)
        if (path := self.disk_path) is not None and path.is_file() and not self.keeps_folder():
            kinds = {path.suffix.lower(), out.suffix.lower()}
            if len(kinds) > 1 and kinds & LISTS:
                raise InputError(f"{out} would not be read as what {path.name} is: give a name that ends alike")
        self.check_out(out)
        with atomic_path(out, directory=self.keeps_folder(), beside=beside) as part:
            self._write(mask, part)
        return out

    @abstractmethod
    def _read(self, indices: np.ndarray) -> np.ndarray:
        """indices: (m,) int64, valid, m >= 1 -> (m, C, H, W) uint8."""

    def keeps_folder(self) -> bool:
        """Whether `keep` writes a folder, and not one file."""
        return False

    def check_out(self, out: Path) -> None:
        """Raise InputError where what is kept would not be read as the same at the path `out`."""
        return None

    def _keep(self, mask: np.ndarray) -> Any:
        """`keep` after its checks, of a set in memory."""
        raise NotImplementedError

    def _write(self, mask: np.ndarray, part: Path) -> None:
        """`keep` after its checks, of a set on disk: to `part`, an empty file or folder that is there already."""
        raise NotImplementedError

    def _refuse_renumbering(self, mask: np.ndarray) -> None:
        """Raise InputError when a whole class would go, in a set that numbers the classes it meets by name."""
        gone = sorted(set(self.labels.tolist()) - set(self.labels[mask].tolist()))
        if gone:
            raise InputError(
                f"every image of class {self.class_names[gone[0]]!r} would go, and without them the classes after it "
                "would be renumbered; remove that class by hand"
            )


def reopened(reopening: Callable[[], ImageSet], fingerprint: str, source: str) -> ImageSet:
    """Raises InputError where another set lies there: other labels, another shape."""
    images = reopening()
    if images.fingerprint(np.zeros(0, np.int64)) != fingerprint:
        raise InputError(f"{source} is not what it was when the run began, or not the same for a worker as here")
    return images


def locate(starts: np.ndarray, index: int) -> tuple[int, int]:
    """Which part of a set holds an image, and its row there. starts: where each begins, and the end of the last."""
    part = int(np.searchsorted(starts, index, side="right")) - 1
    return part, index - int(starts[part])


def refuse_same_names(files: Sequence[AnyPath]) -> None:
    """Raise InputError for files of several folders that would overwrite each other in one."""
    first: dict[str, AnyPath] = {}
    for file in files:
        if first.setdefault(file.name, file) != file:
            raise InputError(
                f"{first[file.name]} and {file} have one name, and what is kept of them goes into one folder: "
                "rename one"
            )
