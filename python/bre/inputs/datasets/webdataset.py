"""Tar shards as WebDataset writes them: neighbouring members of one name are one sample."""

import os
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from ..._files import atomic_path
from ...errors import InputError
from .csv_file import Columns
from .image_files import EXTENSIONS, EncodedSet, Form
from .imageset import number_labels, refuse_same_names

_BLOCK = tarfile.BLOCKSIZE
_LONGEST_LABEL = 1000  # bytes; of a label's file; source: chosen, labels are numbers or names
_DAMAGE = (tarfile.TarError, OSError, ValueError, ArithmeticError, LookupError, RuntimeError)


class _Sample(NamedTuple):
    shard: int
    key: str
    start: int  # where its first header begins
    stop: int  # where its last block ends
    image: int  # where its image's bytes begin
    size: int
    label: str


class ShardSet(EncodedSet):
    """Samples of one image (`x.png`, `x.jpg`, ...) and one label (`x.cls`: a number or a name, as text).

    The shards' headers are read once, when the set is opened; images are then read where they lie. Other members are
    kept and not read. Compressed tars are refused: nothing in them can be found without reading all before it.
    """

    def __init__(self, path: Path, shards: Sequence[Path], form: Form, columns: Columns | None = None):
        """path: what the caller named. columns: the members' endings of the image and of the label."""
        self.path, self._shards = path, list(shards)
        self._single = path == self._shards[0]
        self._columns = columns
        self._samples = [sample for i in range(len(self._shards)) for sample in self._index(i)]
        self._offsets = np.array([(s.shard, s.image, s.size) for s in self._samples], np.int64).reshape(-1, 3)
        labels, names = number_labels([s.label for s in self._samples], str(path))
        self._named = names is not None
        super().__init__(labels, str(path), names, form)

    def describe(self, index: int) -> str:
        sample = self._samples[index]
        return f"{self._shards[sample.shard]}, {sample.key}"

    def _index(self, shard: int) -> Iterator[_Sample]:
        path = self._shards[shard]
        try:
            with path.open("rb") as f, tarfile.open(fileobj=f, mode="r:") as tar, path.open("rb") as reader:
                group: dict[str, tarfile.TarInfo] = {}
                key, end = "", 0
                for member in tar:
                    tar.members.clear()  # type: ignore[attr-defined]  # or a million of them stay in memory
                    if member.size < 0 or member.offset < end:
                        raise InputError(f"{path} is damaged: {member.name!r} begins inside what comes before it")
                    end = member.offset_data + -(-member.size // _BLOCK) * _BLOCK
                    if member.isdir():
                        continue
                    if not member.isreg() or member.issparse():
                        raise InputError(f"{path} holds {member.name!r}, which is no regular file")
                    folder, _, name = member.name.rpartition("/")
                    stem, _, ending = name.partition(".")
                    if not stem:
                        continue  # hidden files
                    this = f"{folder}/{stem}" if folder else stem
                    if group and this != key:
                        yield self._sample(shard, reader, key, group)
                        group = {}
                    key = this
                    if ending.lower() in group:
                        raise InputError(f"{path} holds {member.name!r} twice")
                    group[ending.lower()] = member
                if group:
                    yield self._sample(shard, reader, key, group)
                if end > path.stat().st_size:
                    raise InputError(f"{path} is truncated: its last member ends behind its end")
        except InputError:
            raise
        except _DAMAGE as e:
            raise InputError(f"{path} is damaged or truncated, or no plain tar file: {e}") from e

    def _sample(self, shard: int, reader: BinaryIO, key: str, group: dict[str, tarfile.TarInfo]) -> _Sample:
        first, last = (list(group.values())[i] for i in (0, -1))
        where = f"{self._shards[shard]}, {key}"
        endings: tuple[Sequence[str], Sequence[str]] = ([e[1:] for e in EXTENSIONS], ["cls"])
        if self._columns:
            endings = [self._columns[0].lower()], [self._columns[1].lower()]
        found = [[e for e in wanted if e in group] for wanted in endings]
        for what, wanted, these in zip(("image", "label"), endings, found, strict=True):
            if len(these) != 1:
                raise InputError(
                    f"{where}: expected one {what} ({', '.join('.' + e for e in wanted)}), found members "
                    f"{['.' + e for e in group]}: name the image's ending and the label's",
                    argument="columns",
                )
        image, label = group[found[0][0]], group[found[1][0]]
        if label.size > _LONGEST_LABEL:
            raise InputError(f"{where}: its label is {label.size} bytes long; expected a number or a name")
        reader.seek(label.offset_data)
        try:
            text = reader.read(label.size).decode().strip()
        except UnicodeDecodeError:
            raise InputError(f"{where}: its label is no UTF-8 text; expected a number or a name") from None
        stop = last.offset_data + -(-last.size // _BLOCK) * _BLOCK
        return _Sample(shard, key, first.offset, stop, image.offset_data, image.size, text)

    def file(self, index: int) -> Path:
        return self._shards[self._samples[index].shard]

    def _encoded(self, indices: np.ndarray) -> Iterator[tuple[int, bytes]]:
        wanted = self._offsets[indices]
        order = np.lexsort((wanted[:, 1], wanted[:, 0]))
        for shard in np.unique(wanted[:, 0]).tolist():
            with self._open(shard) as f:
                for row in order[wanted[order, 0] == shard].tolist():
                    f.seek(int(wanted[row, 1]))
                    yield row, f.read(int(wanted[row, 2]))

    def _open(self, shard: int) -> BinaryIO:
        try:
            return self._shards[shard].open("rb")
        except OSError as e:
            raise InputError(f"{self._shards[shard]} cannot be read: {e}") from e

    def _write(self, mask: np.ndarray, out: Path) -> Path:
        """A tar, or a folder of tars of the same names, of the kept samples, byte by byte; no empty tars."""
        if self._named:
            self._refuse_renumbering(mask)
        refuse_same_names(self._shards)
        with atomic_path(out, directory=not self._single) as part:
            kept = [s for s, keep in zip(self._samples, mask.tolist(), strict=True) if keep]
            for shard in sorted({s.shard for s in kept}):
                target = part if self._single else part / self._shards[shard].name
                with self._open(shard) as f, target.open("wb") as g:
                    for sample in (s for s in kept if s.shard == shard):
                        f.seek(sample.start)
                        _copy(f, g, sample.stop - sample.start)
                    g.write(bytes(2 * _BLOCK))
                    g.write(bytes(-g.tell() % tarfile.RECORDSIZE))
        return out


def _copy(source: BinaryIO, target: BinaryIO, size: int) -> None:
    while size:
        data = source.read(min(size, 1 << 20))
        if not data:
            raise InputError(f"{os.fspath(source.name)} ended while it was being copied; it has changed")
        target.write(data)
        size -= len(data)
