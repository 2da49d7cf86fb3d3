"""Sets whose images are files of their own, in one folder: what class folders and lists of paths share."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

from ...errors import InputError
from .dataset_options import Options
from .image_files import EXTENSIONS, DamagedImage, ImageFileSet, is_damaged
from .image_form import Header
from .labels import number_labels
from .regular_files import File, Folder

_NAMED = 5  # files that a note names, of those that it counts


class ImageFiles:
    """Image files, each in one folder, which is held open: what they are called, and where they were found to lie.

    With follow_links they may lie anywhere that a link or a path leads to.
    """

    def __init__(self, root: Path, *, follow_links: bool):
        self.root = os.path.realpath(root)
        self.follow_links = follow_links
        self._folder = Folder(os.path.abspath(os.sep) if follow_links else root)
        self._prefix = os.path.join(self._folder.path, "")
        self.paths: list[Path] = []  # as the user knows them
        self._names: list[str] = []  # in the folder, without links

    def __len__(self) -> int:
        return len(self.paths)

    def add(self, path: Path, real: str) -> None:
        """real: the same without links."""
        if not self.lies_inside(real):
            raise InputError(f"{path} leads out of the dataset's folder, to {real}", argument="follow_links")
        self.paths.append(path)
        self._names.append(real.removeprefix(self._prefix).replace(os.sep, "/"))

    def lies_inside(self, real: str) -> bool:
        """Whether a path without links may be read."""
        return self.follow_links or real.startswith(os.path.join(self.root, ""))

    def open(self, index: int) -> BinaryIO:
        return self._folder.open(self._names[index])

    def link_or_copy(self, index: int, target: Path) -> None:
        self._folder.link_or_copy(self._names[index], target)

    def damaged(self) -> np.ndarray:
        """Indices of the images that cannot be decoded: all are, once."""
        found = []
        for i, path in enumerate(self.paths):
            with self.open(i) as file:
                if is_damaged(file, str(path)):
                    found.append(i)
        return np.array(found, np.int64)

    def drop(self, indices: np.ndarray) -> None:
        gone = set(indices.tolist())
        self.paths = [path for i, path in enumerate(self.paths) if i not in gone]
        self._names = [name for i, name in enumerate(self._names) if i not in gone]


class FileListSet(ImageFileSet):
    """What `ImageFiles` hold, with labels. Subclasses say how they are written again."""

    takes = frozenset({"follow_links", "skip_damaged"})

    def __init__(
        self, files: ImageFiles, labels: np.ndarray, source: str, names: Sequence[str] | None, options: Options
    ):
        self._files = files
        self.kept_rows = np.arange(len(files))  # of the images there were, those that are not skipped
        if options.skip_damaged and len(bad := files.damaged()):
            self.notes += (
                listed(f"{len(bad)} images that cannot be decoded were left out", [files.paths[i].name for i in bad]),
            )
            files.drop(bad)
            self.kept_rows = np.delete(self.kept_rows, bad)
            labels = labels[self.kept_rows]
        super().__init__(labels, source, names, options.form)

    def describe(self, index: int) -> str:
        return str(self._files.paths[index])

    def file(self, index: int) -> Path:
        return self._files.paths[index]

    def _headers(self, count: int) -> Iterator[tuple[str, Header]]:
        with _or_skip():
            yield from super()._headers(count)

    def _read(self, indices: np.ndarray) -> np.ndarray:
        with _or_skip():
            return super()._read(indices)

    def _encoded(self, indices: np.ndarray) -> Iterator[tuple[int, File]]:
        return ((row, self._files.open(i)) for row, i in enumerate(indices.tolist()))


@contextlib.contextmanager
def _or_skip() -> Iterator[None]:
    """What is said of a damaged image names the option that leaves it out."""
    try:
        yield
    except DamagedImage as e:
        raise DamagedImage(e.message, argument="skip_damaged") from e


class PathListSet(FileListSet):
    """Images named by the rows of a file, relative to its folder (or to `root`), each with a label: a number or a
    name. `rows` of the constructor are what the file held; subclasses write some of them again."""

    takes = FileListSet.takes | {"columns", "root"}

    def __init__(self, path: Path, rows: Sequence[tuple[str, str, str]], options: Options):
        """rows: (where, path, label) of each image."""
        self.path, self._list, self._root = path, path, options.root
        files = ImageFiles(options.root or path.parent, follow_links=options.follow_links)
        for where, text, _ in rows:
            files.add(*_find_file(files, text, where))
        labels, names = number_labels([label for _, _, label in rows], str(path))
        self._named = names is not None
        super().__init__(files, labels, str(path), names, options)

    def check_out(self, out: Path) -> None:
        if self._root is None and out.parent.resolve() != self._list.parent.resolve():
            raise InputError(
                f"the paths in {self._list} are relative to its folder: give a path in {self._list.parent}, got {out}",
                argument="out",
            )

    def _rows_to_keep(self, mask: np.ndarray) -> list[int]:
        """Which of the rows go into a new list, in order."""
        if self._named:
            self._refuse_renumbering(mask)
        return [int(row) for row in self.kept_rows[mask]]


def _find_file(files: ImageFiles, text: str, where: str) -> tuple[Path, str]:
    """The image that a row names, as (path, the same without links). Raises InputError unless it is a file inside of
    the folder. Paths as Windows writes them will do, and identifiers, if one image file is called that."""
    if not text or "\0" in text:
        raise InputError(f"{where} names no file: {text[:100]!r}")
    candidates = [text, *([text.replace("\\", "/")] if "\\" in text else [])]
    if os.path.splitext(text)[1].lower() not in EXTENSIONS:
        candidates += [text + ending for e in EXTENSIONS for ending in (e, e.upper())]
    outside = None
    for candidate in candidates:
        path = os.path.join(files.root, candidate)
        try:
            real = os.path.realpath(path)
            exists = os.path.isfile(real)
        except (OSError, ValueError) as e:  # a name that no file can have
            raise InputError(f"{where} names {text[:100]!r}: {e}") from None
        if not files.lies_inside(real):
            outside = outside or real
        elif exists:
            return Path(path), real
    if outside:
        raise InputError(
            f"{where} names {text[:100]!r}, which lies outside of the folder {files.root}: name the folder that the "
            "images are in, or follow links and paths out of it",
            argument=("root", "follow_links"),
        )
    raise InputError(
        f"{where} names {text[:100]!r}, which is no file in {files.root}: name the folder that the images are in, if "
        "that is another",
        argument="root",
    )


def listed(what: str, names: Sequence[str]) -> str:
    """A sentence on some files, with the first of their names."""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"{what}: {', '.join(names[:_NAMED])}{more}"
