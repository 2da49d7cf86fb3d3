"""A folder of class folders of image files, as torchvision's ImageFolder reads it."""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ..._files import atomic_path, link_or_copy
from ...errors import InputError
from .image_files import EXTENSIONS, EncodedSet, Form

_SPLITS = {"train", "training", "val", "valid", "validation", "dev", "test", "testing"}
_SYSTEM_FILES = ("thumbs.db", "desktop.ini")


class FolderSet(EncodedSet):
    """root/<class name>/**/<image>: classes are the folders in sorted order.

    Hidden files and Thumbs.db are skipped, every other file must be an image. Links to folders and links that leave
    the root are refused.
    """

    def __init__(self, root: Path, form: Form):
        self.path = self._root = root
        self._files: list[Path] = []
        names: list[str] = []
        labels: list[int] = []
        entries = _entries(root)
        if entries and _SPLITS.issuperset(entry.name.lower() for entry in entries):
            raise InputError(
                f"{root} holds the splits {', '.join(entry.name for entry in entries)}, each with the class folders in "
                f"it: name the one to read, as in {entries[0].path}"
            )
        for entry in entries:
            if not entry.is_dir():
                raise InputError(f"{entry.path} is a file beside the class folders; the root may hold folders only")
            files = list(_images(entry, root.resolve()))
            if not files:
                raise InputError(f"class folder {entry.path} holds no images")
            labels += [len(names)] * len(files)
            self._files += files
            names.append(entry.name)
        if not names:
            raise InputError(f"{root} holds no class folders; expected {root}/<class name>/<image>")
        super().__init__(np.array(labels, np.int64), str(root), names, form)

    def describe(self, index: int) -> str:
        return str(self._files[index])

    def file(self, index: int) -> Path:
        return self._files[index]

    def _encoded(self, indices: np.ndarray) -> Iterator[tuple[int, Path]]:
        return ((row, self._files[i]) for row, i in enumerate(indices.tolist()))

    def _write(self, mask: np.ndarray, out: Path) -> Path:
        """A folder of the same structure; files are hard-linked where possible, copied elsewhere."""
        self._refuse_renumbering(mask)
        with atomic_path(out, directory=True) as part:
            for i in np.flatnonzero(mask):
                target = part / self._files[i].relative_to(self._root)
                target.parent.mkdir(parents=True, exist_ok=True)
                link_or_copy(self._files[i].resolve(), target)
        return out


def _entries(folder: str | Path) -> list[os.DirEntry[str]]:
    """What a folder holds, sorted by name, hidden and system files left out; links to folders are refused."""
    with os.scandir(folder) as found:
        entries = [e for e in found if not e.name.startswith(".") and e.name.lower() not in _SYSTEM_FILES]
    for entry in entries:
        if entry.is_symlink() and entry.is_dir():
            raise InputError(f"{entry.path} is a link to a folder; bre does not follow those")
    return sorted(entries, key=lambda e: e.name)


def _images(folder: os.DirEntry[str], root: Path) -> Iterator[Path]:
    for entry in _entries(folder.path):
        path = Path(entry.path)
        if entry.is_dir():
            yield from _images(entry, root)
            continue
        if path.suffix.lower() not in EXTENSIONS:
            raise InputError(f"{path} is no image file; known extensions are {', '.join(EXTENSIONS)}")
        if not entry.is_file():
            raise InputError(f"{path} is not a regular file, or a link that leads nowhere")
        if entry.is_symlink() and not path.resolve().is_relative_to(root):
            raise InputError(f"{path} is a link that leaves the dataset's folder, to {path.resolve()}")
        yield path
