"""Datasets by the URI of where they lie: which files it stands for, and which format they have."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ...errors import InputError
from .dataset_options import Options
from .globs import expanded, one_split
from .imageset import ImageSet
from .parquet import ParquetSet
from .remote_files import all_at_once
from .remote_folder import RemoteFolderSet
from .remote_path import RemotePath
from .webdataset import WebDatasetSet

SHARDS = {".parquet": ParquetSet, ".tar": WebDatasetSet}
MAX_FILES_LISTED = 10_000_000  # files; of a folder elsewhere; source: chosen, their names take some gigabytes
_MAGIC = re.compile(r"[*?\[]")


def open_uri(uri: str, options: Options) -> ImageSet:
    """A tar or a Parquet file, several by braces or a glob, a folder of them, or one of class folders of images.

    Raises InputError for what is not there, may not be read, or is none of these.
    """
    path = RemotePath(uri)
    names = list(expanded(uri))
    web = not path.lists  # where a question mark is no glob, and nothing can be listed
    if len(names) > 1 or (not web and _MAGIC.search(path.key)):
        return _open_shards(path, _matching(path, names), options)
    if web and "*" in uri:
        raise _not_listed(path)
    if path.suffix.lower() in SHARDS:
        return _open_shards(path, [path], options)
    if web:
        raise InputError(f"{path} is neither .tar nor .parquet; {_not_listed(path).message}")
    if not path.ask(lambda: path.files.isdir(path.key)):
        there = path.ask(lambda: path.files.exists(path.key))
        raise InputError(
            f"{path} is neither a folder nor .tar nor .parquet: fetch it first"
            if there
            else f"{path} is not there: no such bucket, folder or file"
        )
    listed = path.ask(lambda: path.files.ls(path.key, detail=True))
    found = [path.beside(entry["name"]) for entry in listed if entry["type"] == "file"]
    if shards := sorted((p for p in found if p.suffix.lower() in SHARDS), key=str):
        return _open_shards(path, shards, options)
    return RemoteFolderSet(path, options)


def _matching(path: RemotePath, names: Sequence[str]) -> list[RemotePath]:
    """The files that braces and globs stand for, sorted, each once. A file that braces name must be there."""
    exact = [RemotePath(name) for name in names]
    found: list[RemotePath] = []
    for one, keys in zip(exact, all_at_once(_glob, exact), strict=True):
        if not keys:
            raise InputError(f"{path} names {one}, which is not there" if len(names) > 1 else f"no such files: {path}")
        found += [one] if keys == [one.key] else [one.beside(key) for key in keys]
    return sorted(set(found), key=str)


def _glob(path: RemotePath) -> list[str]:
    if not path.lists or not _MAGIC.search(path.key):
        return [path.key]  # whether it is there shows when it is opened
    keys: list[str] = path.ask(lambda: path.files.glob(path.key))
    return keys


def _not_listed(path: RemotePath) -> InputError:
    return InputError(
        f"nothing can be listed over {path.protocol}: name each file, with braces for several, as in "
        f"{path.protocol}://HOST/train-{{000..099}}.tar"
    )


def _open_shards(path: RemotePath, files: Sequence[RemotePath], options: Options) -> ImageSet:
    kinds = {file.suffix.lower() for file in files}
    if len(kinds) != 1 or not kinds <= SHARDS.keys():
        found = [file.name for file in files[:5]]
        raise InputError(f"{path}: expected .parquet files only, or .tar files only, found {found}")
    one_split(path, files)
    return SHARDS[kinds.pop()](path, files, options)
