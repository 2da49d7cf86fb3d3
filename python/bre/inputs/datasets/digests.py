"""What a data set on disk consists of, as digests that others can compute too."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from ...errors import InputError
from .imageset import ImageSet
from .regular_files import open_regular

DIGEST_BYTES = 1 << 20  # bytes; that are read at once for a digest; source: chosen, larger ones are no quicker


class Digest(NamedTuple):
    """algorithm: of in-toto's digest sets, "sha256" of one file, or "dirHash" of a folder's files. value: in
    hexadecimal."""

    name: str
    algorithm: str
    value: str


def digests(images: ImageSet) -> list[Digest]:
    """Of everything that the set was read from: its file or its folder, the files that a list names, those beside it.

    A dirHash is what this prints in the folder, files that links lead to left out unless they are images of the set:
    `find . -type f | cut -c3- | LC_ALL=C sort | xargs sha256sum | sha256sum`.
    Raises InputError for a set in memory.
    """
    path = images.disk_path
    if path is None:
        where = "in memory" if images.path is None else "not on this machine"
        raise InputError(f"{images.source} is {where}: save it here, so that there is something to take a digest of")
    files = (images.file(index) for index in range(len(images)))
    named = {file for file in files if isinstance(file, Path) and file != path}
    found = []
    if path.is_dir():
        found.append(_of_folder(path, named))
    elif path.exists():
        found.append(of_file(path))
        if named:
            folder = Path(os.path.commonpath([file.absolute().parent for file in named]))
            found.append(Digest(f"{path.name}: images", "dirHash", _dir_hash(folder, named)))
    else:  # a glob or braces
        found += [of_file(file) for file in sorted(named)]
    for beside in images.beside:
        inside = path.is_dir() and beside.absolute().is_relative_to(path.absolute())
        if not inside:
            found.append(of_path(beside))
    return found


def of_path(path: Path) -> Digest:
    """Of a file, or of all files in a folder."""
    return _of_folder(path, ()) if path.is_dir() else of_file(path)


def of_file(path: Path) -> Digest:
    return Digest(path.name, "sha256", _sha256(path))


def _of_folder(folder: Path, named: Iterable[Path]) -> Digest:
    return Digest(folder.absolute().name, "dirHash", _dir_hash(folder, {*_files(folder), *named}))


def _files(folder: Path) -> Iterator[Path]:
    for parent, _, names in os.walk(folder):
        for name in names:
            path = Path(parent, name)
            if path.is_file() and not path.is_symlink():
                yield path


def _dir_hash(folder: Path, files: Iterable[Path]) -> str:
    lines = {os.fsencode(os.path.relpath(path, folder)): path for path in files}
    total = hashlib.sha256()
    for name in sorted(lines):
        total.update(_sha256(lines[name]).encode() + b"  " + name + b"\n")
    return total.hexdigest()


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open_regular(path) as file:
        while block := file.read(DIGEST_BYTES):
            digest.update(block)
    return digest.hexdigest()
