"""Writing a file or folder whole or not at all."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from .errors import InputError


def check_new(out: str | os.PathLike[str], *, outside: Path | None = None) -> Path:
    """`out` as a path. Raises InputError when it exists, its parent does not exist or may not be written to, or it lies
    in the folder `outside`."""
    out = Path(out)
    if os.path.lexists(out):
        raise InputError(f"{out} exists already; bre never overwrites, give a new name")
    if not out.parent.is_dir():
        raise InputError(f"cannot write {out}: the folder {out.parent} does not exist")
    if not os.access(out.parent, os.W_OK | os.X_OK):
        raise InputError(f"cannot write {out}: no permission to write in {out.parent}")
    if outside is not None and out.resolve().is_relative_to(outside.resolve()):
        raise InputError(f"{out} lies inside the dataset {outside}: give a path outside of it")
    return out


@contextlib.contextmanager
def atomic_path(out: str | os.PathLike[str], *, directory: bool = False) -> Iterator[Path]:
    """Yield a fresh path beside `out`: renamed to `out` on success, removed on any exception, Ctrl-C too.

    out: must not exist, its parent must. directory: the yielded path is an empty folder (else an empty file).
    Raises InputError when `out` exists or its parent does not.
    """
    out = check_new(out)
    with tempfile.TemporaryDirectory(prefix=".bre.", suffix=".partial", dir=out.parent) as box:
        part = Path(box) / out.name
        part.mkdir() if directory else part.touch()
        yield part
        if os.path.lexists(out):
            raise InputError(f"{out} appeared while bre was writing it; nothing was overwritten")
        part.rename(out)


def link_or_copy(source: Path, target: Path) -> None:
    """Hard-link `source` at `target`, or copy it where the file system cannot link (another device, FAT)."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
