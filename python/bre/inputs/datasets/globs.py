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
_RANGE = re.compile(r"(\d{1,9})\.\.(\d{1,9})(?:\.\.(\d{1,9}))?")
_LETTERS = re.compile(r"([a-zA-Z])\.\.([a-zA-Z])")


def matching_files(path: Path) -> list[Path]:
    """The files that a glob or braces name, in the order of the braces, else sorted; [] where there are none.

    Raises InputError for braces that name files of which some are not there, or too many."""
    names = list(expanded(str(path)))
    found: list[Path] = []
    for name in names:
        files = [Path(p) for p in glob.glob(name)]
        if not files and len(names) > 1:
            raise InputError(f"{path} names {name}, which is not there")
        found += sorted(files)
    return list(dict.fromkeys(found))


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
    """{000..009}, {0..8..2}, {a..c} and {a,b}, one after the other, to what they stand for. left: how many more names
    there may be."""
    match = next((m for m in _BRACES.finditer(name) if _parts(m)), None)
    if match is None:
        left[0] -= 1
        if left[0] < 0:
            raise InputError(f"braces stand for more than {_MANY} names: name a folder instead")
        yield name
        return
    for part in _parts(match):
        yield from _expanded(name[: match.start()] + part + name[match.end() :], left)


def _parts(braces: re.Match[str]) -> list[str]:
    """What one pair of braces stands for; [] where it is part of a name."""
    if numbers := _RANGE.fullmatch(braces[1]):
        first, last, digits = int(numbers[1]), int(numbers[2]), len(numbers[1])
        step = int(numbers[3] or 1)
        if not first <= last < first + _MANY or not step:
            raise InputError(f"{braces[0]} must go up, and stand for at most {_MANY} numbers")
        return [f"{n:0{digits}}" for n in range(first, last + 1, step)]
    if letters := _LETTERS.fullmatch(braces[1]):
        return [chr(n) for n in range(ord(letters[1]), ord(letters[2]) + 1)]
    return braces[1].split(",") if "," in braces[1] else []
