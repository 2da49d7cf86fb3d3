"""A folder that holds what a run has done: one file for each finished task, and what all of them were made from."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import InputError
from . import packing

IDENTITY = "run.json"
_ENDING, _PARTIAL = ".safetensors", ".partial"
OLD_SECONDS = 3600  # seconds; after which a file that is not finished is a killed run's; source: chosen
MAX_IDENTITY = 2**20  # bytes; of a folder's `run.json`; source: chosen, a few hundred are usual


class RunFolder:
    """path: of the folder. Two runs may use one at a time: they do some tasks twice, with one result.

    A file has its name only when all of it is on the disk: it is written beside, flushed, and renamed."""

    def __init__(self, path: str | os.PathLike[str], identity: Mapping[str, Any]):
        """path: a new folder, or one that a run of the same identity made. Raises InputError for a folder that holds
        something else, or a run on other data, with other options or versions."""
        self.path = Path(path)
        known = dict(identity)
        if self.path.exists() and not self.path.is_dir():
            raise InputError(f"{self.path} is no folder", argument="workdir")
        try:
            self.path.mkdir(exist_ok=True)
            if not (self.path / IDENTITY).exists():
                if others := [p.name for p in self.path.iterdir() if not p.name.endswith(_PARTIAL)]:
                    raise InputError(
                        f"{self.path} holds {others[0]!r} and is no run's folder: give a new one", argument="workdir"
                    )
                write_durably(self.path / IDENTITY, (json.dumps(known, indent=1) + "\n").encode())
        except OSError as e:
            raise InputError(f"{self.path} cannot be used: {e.strerror or e}", argument="workdir") from e
        self._compare(known)
        self._remove_left_behind()

    def load(self, work: str, name: str, kinds: Sequence[type] = ()) -> tuple[bool, Any]:
        """Whether a task is done, and its result. Raises InputError for a damaged file."""
        path = self._file(work, name)
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return False, None
        except OSError as e:
            raise InputError(f"{path} cannot be read: {e.strerror or e}") from e
        return True, packing.from_bytes(data, path, kinds)

    def save(self, work: str, name: str, result: Any, kinds: Sequence[type] = ()) -> None:
        path = self._file(work, name)
        path.parent.mkdir(exist_ok=True)
        write_durably(path, packing.to_bytes(result, kinds))

    def _file(self, work: str, name: str) -> Path:
        return self.path / work / (name + _ENDING)

    def _compare(self, known: dict[str, Any]) -> None:
        path = self.path / IDENTITY
        try:
            if path.stat().st_size > MAX_IDENTITY:
                raise ValueError("it is too large")
            found = json.loads(path.read_bytes())
            if not isinstance(found, dict):
                raise ValueError("it holds no object")
        except (ValueError, OSError, RecursionError) as e:
            raise InputError(f"{path} is damaged, or no run's ({e}): give a new folder", argument="workdir") from e
        for name in sorted({*known, *found}):
            if found.get(name) != known.get(name):
                raise InputError(
                    f"{self.path} was made with another {name} ({found.get(name)!r}, here {known.get(name)!r}): give "
                    "a new folder",
                    argument="workdir",
                )

    def _remove_left_behind(self) -> None:
        for path in self.path.glob(f"**/*{_PARTIAL}"):
            with contextlib.suppress(OSError):
                if time.time() - path.lstat().st_mtime > OLD_SECONDS:
                    path.unlink()


def write_durably(path: Path, data: bytes) -> None:
    """A file that is whole and on the disk, or not there."""
    part = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}{_PARTIAL}")
    try:
        with part.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    if os.name == "posix":
        handle = os.open(path.parent, os.O_RDONLY)
        try:
            with contextlib.suppress(OSError):  # a file system that cannot flush folders
                os.fsync(handle)
        finally:
            os.close(handle)
