"""A folder of class folders of image files that lies elsewhere, read as `FolderSet` reads one of this machine."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import InputError
from .dataset_options import Options
from .file_list import listed
from .folder import SPLIT_NAMES, SYSTEM_FILES
from .image_files import EXTENSIONS, ImageFileSet
from .regular_files import File, parts
from .remote_files import SameRemoteFile
from .remote_path import RemotePath


class RemoteFolderSet(ImageFileSet):
    """root/<class name>/**/<image>, all listed when the set is opened; each image is one request. `keep` writes a
    folder of this machine."""

    def __init__(self, root: RemotePath, options: Options):
        self.path = self._root = root
        found: dict[str, Any] = root.ask(lambda: root.files.find(root.key, detail=True))
        start = len(root.key.rstrip("/")) + 1
        names = sorted(_seen(key[start:] for key in found), key=lambda name: name.split("/"))
        images = [n for n in names if "/" in n and os.path.splitext(n)[1].lower() in EXTENSIONS]
        classes = sorted({n.split("/")[0] for n in names if "/" in n})
        self._refuse_others(classes, images)
        self._names = images
        self._sizes = np.array([found[root.key.rstrip("/") + "/" + n]["size"] for n in images], np.int64)
        if others := sorted(set(names) - set(images)):
            what = f"{len(others)} files that are in no class folder or no image files were left out"
            self.notes += (listed(what, [n.rpartition("/")[2] for n in others]),)
        number = {name: label for label, name in enumerate(classes)}
        labels = np.array([number[n.split("/")[0]] for n in images], np.int64)
        super().__init__(labels, str(root), classes, options)

    def _refuse_others(self, classes: list[str], images: list[str]) -> None:
        """Raise InputError for what is no folder of class folders."""
        if not classes:
            raise InputError(f"{self._root} holds no class folders, no .tar and no .parquet")
        if SPLIT_NAMES.issuperset(name.lower() for name in classes):
            raise InputError(f"{self._root} holds the splits {', '.join(classes)}: name the one to read")
        if empty := sorted(set(classes) - {n.split("/")[0] for n in images}):
            raise InputError(
                f"class folder {self._root}/{empty[0]} holds no images; known endings are {', '.join(EXTENSIONS)}"
            )

    def file(self, index: int) -> RemotePath:
        return RemotePath(f"{self._root.uri.rstrip('/')}/{self._names[index]}")

    def describe(self, index: int) -> str:
        return str(self.file(index))

    def _encoded(self, indices: np.ndarray) -> Iterator[tuple[int, File]]:
        wanted = (
            (SameRemoteFile(self.file(i), {"size": int(self._sizes[i])}), np.array([[0, self._sizes[i]]]))
            for i in indices.tolist()
        )
        return enumerate(parts(wanted))

    def keeps_folder(self) -> bool:
        return True

    def _write(self, mask: np.ndarray, part: Path) -> None:
        self._refuse_renumbering(mask)
        kept = np.flatnonzero(mask)
        for row, file in self._encoded(kept):
            target = part.joinpath(*self._names[int(kept[row])].split("/"))
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("xb") as copy:
                shutil.copyfileobj(file, copy, 1 << 20)


def _seen(names: Iterator[str]) -> Iterator[str]:
    """Names relative to a folder, without those that are hidden, of systems, or of folders. Raises InputError for what
    would lead out of the folder that is written for it."""
    for name in names:
        pieces = name.split("/")
        if any(piece in ("", ".", "..") or "\0" in piece or "\\" in piece for piece in pieces[:-1]):
            raise InputError(f"a file elsewhere is called {name[:200]!r}, which no file in a folder can be")
        if pieces[-1] and not any(p.startswith(".") for p in pieces) and pieces[-1].lower() not in SYSTEM_FILES:
            yield name
