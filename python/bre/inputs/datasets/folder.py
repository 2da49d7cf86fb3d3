"""A folder of class folders of image files, as torchvision's ImageFolder reads it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ...errors import InputError
from .dataset_options import Options
from .file_list import FileListSet, ImageFiles, listed
from .image_files import EXTENSIONS
from .imageset import LISTS
from .regular_files import unreadable

SPLIT_NAMES = {"train", "training", "val", "valid", "validation", "dev", "test", "testing"}
_ANNOTATIONS = {"labels", "annotations"}  # folders of detection sets
SYSTEM_FILES = ("thumbs.db", "desktop.ini", "__macosx")
ARCHIVES = (".zip", ".7z", ".rar", ".gz", ".tgz", ".bz2", ".xz", ".zst")
_MAX_DEPTH = 64  # of folders in a class folder


class FolderSet(FileListSet):
    """root/<class name>/**/<image>: classes are the folders in sorted order.

    Files without the ending of an image file are left out, as ImageFolder does, and counted in the notes; hidden files
    and what systems leave (Thumbs.db, __MACOSX) without a word. Links to folders and links that leave the root are
    refused, unless they are to be followed.
    """

    def __init__(self, root: Path, options: Options):
        self.path = self._root = root
        self._files = ImageFiles(root, follow_links=options.follow_links)
        self._others: list[str] = []  # files that are no images
        names: list[str] = []
        counts: list[int] = []
        beside = _entries(root)
        folders = [entry for entry in beside if entry.is_dir()]
        _refuse_splits(root, folders)
        self._others += [entry.name for entry in beside if not entry.is_dir()]
        for entry in folders:
            before = len(self._files)
            self._add_images(entry)
            if len(self._files) == before:
                raise InputError(_no_images(root, entry, folders))
            names.append(entry.name)
            counts.append(len(self._files) - before)
        if len(names) < 2:
            self._explain_archives(folders)
            self._explain_levels(folders)
        if self._others:
            count = len(self._others)
            what = f"{count} file{'s' if count > 1 else ''} that {'are' if count > 1 else 'is'} in no class folder or "
            self.notes += (listed(f"{what}no image file {'were' if count > 1 else 'was'} left out", self._others),)
        labels = np.repeat(np.arange(len(names)), counts)
        super().__init__(self._files, labels, str(root), names, options)

    def _add_images(self, folder: os.DirEntry[str]) -> None:
        """The image files below a class folder, in sorted order."""
        start = self._real(folder, os.path.join(self._files.root, folder.name))
        ways = [start]  # without links: the folders from the class folder to the one that is looked at
        levels: list[Iterator[os.DirEntry[str]]] = [iter(_entries(folder.path))]
        while levels:
            entry = next(levels[-1], None)
            if entry is None:
                levels.pop()
                ways.pop()
                continue
            if not entry.is_dir() and os.path.splitext(entry.name)[1].lower() not in EXTENSIONS:
                self._others.append(entry.name)
                continue
            real = self._real(entry, os.path.join(ways[-1], entry.name))
            if entry.is_dir():
                if real in ways:
                    raise InputError(f"{entry.path} is a link to a folder that it lies in itself")
                if len(levels) >= _MAX_DEPTH:
                    raise InputError(f"{folder.path} holds folders in folders, more than {_MAX_DEPTH} deep")
                levels.append(iter(_entries(entry.path)))
                ways.append(real)
            elif not entry.is_file():
                raise InputError(f"{entry.path} is not a regular file, or a link that leads nowhere")
            else:
                self._files.add(Path(entry.path), real)

    def _real(self, entry: os.DirEntry[str], path: str) -> str:
        """A path without links; `path` is the same if the entry itself is none. Raises InputError for a link that may
        not be followed."""
        if not entry.is_symlink():
            return path
        real = os.path.realpath(entry.path)
        if entry.is_dir() and not self._files.follow_links:
            raise InputError(f"{entry.path} is a link to a folder, {real}", argument="follow_links")
        if not self._files.lies_inside(real):
            raise InputError(
                f"{entry.path} is a link that leaves the dataset's folder, to {real}", argument="follow_links"
            )
        return real

    def _explain_archives(self, folders: list[os.DirEntry[str]]) -> None:
        archives = [name for name in self._others if os.path.splitext(name)[1].lower() in ARCHIVES]
        if archives and not folders:
            raise InputError(f"{self._root} holds no class folders, but {archives[0]}: unpack it, and name its folder")

    def _explain_levels(self, folders: list[os.DirEntry[str]]) -> None:
        """Raise InputError that says what to give instead, where the root looks a level too high or too low."""
        root, images = self._root, [name for name in self._others if os.path.splitext(name)[1].lower() in EXTENSIONS]
        if len(folders) == 1:
            self._explain_one_folder(folders[0].path)
        elif not folders and images:
            lists, arguments = _lists_of(root), ("boxes",)
            hint = "else name a .csv of path and label, or the boxes in them"
            if lists:
                hint, arguments = f"else name the list of their labels, as {lists[0]}, and this folder", ("root",)
            raise InputError(
                f"{root} holds {len(images)} image files and no class folders: name the folder above it, "
                f"{os.path.dirname(self._files.root)}, if it is one class of several; {hint}",
                argument=arguments,
            )
        elif not folders:
            raise InputError(f"{root} holds no class folders; expected {root}/<class name>/<image>")

    def _explain_one_folder(self, folder: str) -> None:
        below = [entry for entry in _entries(folder) if entry.is_dir()]
        while len(below) == 1:
            folder = below[0].path
            below = [entry for entry in _entries(folder) if entry.is_dir()]
        if below:
            raise InputError(
                f"{self._root} holds one folder, and {folder} the folders "
                f"{', '.join(entry.name for entry in below[:3])}, ...: if these are the classes, name {folder}"
            )
        if lists := _lists_of(Path(folder)):
            raise InputError(
                f"{self._root} holds one folder, and so one class: name the list of the images' labels, as {lists[0]}, "
                f"and the folder {folder}",
                argument="root",
            )

    def keeps_folder(self) -> bool:
        return True

    def _write(self, mask: np.ndarray, part: Path) -> None:
        """A folder of the same structure; files are hard-linked where possible, copied elsewhere."""
        self._refuse_renumbering(mask)
        for i in np.flatnonzero(mask).tolist():
            target = part / self._files.paths[i].relative_to(self._root)
            target.parent.mkdir(parents=True, exist_ok=True)
            self._files.link_or_copy(i, target)


def _entries(folder: str | Path) -> list[os.DirEntry[str]]:
    """What a folder holds, sorted by name, hidden and system files left out."""
    try:
        with os.scandir(folder) as found:
            entries = [e for e in found if not e.name.startswith(".") and e.name.lower() not in SYSTEM_FILES]
    except OSError as e:
        raise unreadable(folder, e) from e
    return sorted(entries, key=lambda e: e.name)


def _lists_of(folder: Path) -> list[Path]:
    """Lists in a folder of images and beside it."""
    found = [Path(entry.path) for place in (folder, folder.absolute().parent) for entry in _entries(place)]
    return [path for path in found if path.suffix.lower() in LISTS and path.is_file()]


def _refuse_splits(root: Path, folders: list[os.DirEntry[str]]) -> None:
    if folders and SPLIT_NAMES.issuperset(entry.name.lower() for entry in folders):
        first = next((entry for entry in folders if entry.name.lower().startswith("train")), folders[0])
        raise InputError(
            f"{root} holds the splits {', '.join(entry.name for entry in folders)}, each with the class folders in "
            f"it: name the one to read, as in {first.path}"
        )


def _no_images(root: Path, folder: os.DirEntry[str], folders: list[os.DirEntry[str]]) -> str:
    names = {entry.name.lower() for entry in folders}
    images = next((entry.path for entry in folders if entry.name.lower() not in _ANNOTATIONS), "")
    if names & _ANNOTATIONS and images:
        return (
            f"{root} looks like a detection set: name its folder of images, as {images}, and the boxes, a COCO JSON "
            "file or a folder of YOLO's text files"
        )
    deeper = [f for f in folders if sum(entry.is_dir() for entry in _entries(f.path)) > 1]
    if len(deeper) == 1 and len(folders) > 1:
        return (
            f"class folder {folder.path} holds no images; if the folders in {deeper[0].path} are the classes, name that"
        )
    inside = [entry.name for entry in _entries(folder.path)]
    held = f", but {', '.join(inside[:3])}" if inside else ""
    return (
        f"class folder {folder.path} holds no images{held}; known endings are {', '.join(EXTENSIONS)}: move it away if "
        "it is no class"
    )
