"""Several files by one name: globs ("train-*.tar"), and braces as WebDataset's users write them."""

from __future__ import annotations

import glob
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from ...errors import InputError
from .remote_path import AnyPath

_MANY = 100_000  # names that braces may stand for
_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d{1,9})\.\.(\d{1,9})")


def matching_files(path: Path) -> list[Path]:
    """The files that a glob or braces name, sorted; [] where there are none. Raises InputError for braces that name
    files of which some are not there, or too many."""
    names = list(expanded(str(path)))
    found: list[Path] = []
    for name in names:
        files = [Path(p) for p in glob.glob(name)]
        if not files and len(names) > 1:
            raise InputError(f"{path} names {name}, which is not there")
        found += files
    return sorted(set(found))


def one_split(path: AnyPath, files: Sequence[AnyPath]) -> None:
    """Raise InputError for files of several splits, by how their names begin. path: what the caller named."""
    split = {next((s for s in ("test", "val") if p.name.startswith(s)), "train") for p in files}
    if len(split) > 1:
        one = str(files[0]).removesuffix(files[0].name) + "train-*" + files[0].suffix
        raise InputError(
            f"{path} holds several splits ({', '.join(p.name for p in files[:5])}): name the files to read, as in "
            f"{one!r}"
        )


def expanded(name: str) -> Iterator[str]:
    """{000..009} and {a,b}, one after the other, to what they stand for."""
    return _expanded(name, [_MANY])


def _expanded(name: str, left: list[int]) -> Iterator[str]:
    """left: how many more names there may be."""
    match = next((m for m in _BRACES.finditer(name) if "," in m[1] or _RANGE.fullmatch(m[1])), None)
    if match is None:
        left[0] -= 1
        if left[0] < 0:
            raise InputError(f"braces stand for more than {_MANY} names: name a folder instead")
        yield name
        return
    if numbers := _RANGE.fullmatch(match[1]):
        first, last, digits = int(numbers[1]), int(numbers[2]), len(numbers[1])
        if not first <= last < first + _MANY:
            raise InputError(f"{match[0]} must go up, and stand for at most {_MANY} numbers")
        parts = [f"{n:0{digits}}" for n in range(first, last + 1)]
    else:
        parts = match[1].split(",")
    for part in parts:
        yield from _expanded(name[: match.start()] + part + name[match.end() :], left)
