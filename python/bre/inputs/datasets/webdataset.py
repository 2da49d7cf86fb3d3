"""Tar shards as WebDataset writes them: members of one name, but for their endings, are one sample."""

from __future__ import annotations

import json
import os
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from ...errors import InputError
from .dataset_options import Options
from .file_list import listed
from .image_files import EXTENSIONS, ImageFileSet
from .imageset import refuse_same_names
from .json_lines import label_text
from .labels import number_labels
from .regular_files import File, FileSlice, parse_json, parts
from .remote_files import all_at_once, same_files
from .remote_path import AnyPath

_BLOCK = tarfile.BLOCKSIZE
_LONGEST_LABEL = 1000  # bytes
_LONGEST_JSON = 1 << 20  # bytes
_LONGEST_HEADER = 1 << 20  # bytes, of long names and the like
_DAMAGE = (tarfile.TarError, UnicodeError, OverflowError, ValueError, EOFError, zlib.error)  # what tarfile is known for


class _Member(NamedTuple):
    header: int  # where its header begins
    start: int  # where its bytes begin
    size: int
    stop: int  # where its last block ends


class _Sample(NamedTuple):
    shard: int
    key: str
    parts: tuple[tuple[int, int], ...]  # (begin, end) in the shard of all that belongs to it
    image: int  # where its image's bytes begin
    size: int
    label: str


class WebDatasetSet(ImageFileSet):
    """Samples of one image (`x.png`, `x.jpg`, ...) and one label (`x.cls`: a number or a name, as text; or a value in
    `x.json`), in any order in their shard.

    The shards' headers are read once, when the set is opened; images are then read where they lie. Other members are
    kept and not read. Compressed tars are refused: nothing in them can be found without reading all before it.
    """

    takes = ImageFileSet.takes | {"columns"}

    def __init__(self, path: AnyPath, shards: Sequence[AnyPath], options: Options):
        """path: what the caller named. columns: the members' endings of the image and of the label; of a label in a
        JSON member, `json:KEY`."""
        self.path, self._shards = path, list(shards)
        self._single = path == self._shards[0]
        self._image_endings: Sequence[str] = [e[1:] for e in EXTENSIONS]
        self._label_endings, self._label_key = ["cls"], ""
        if options.columns:
            image, label = options.columns
            ending, _, self._label_key = label.partition(":")
            self._image_endings, self._label_endings = [image.lower()], [ending.lower()]
        self._files = same_files(self._shards)
        indexed = list(all_at_once(self._index, range(len(self._shards)), self._files[0].ahead))
        self._samples = [sample for samples, _ in indexed for sample in samples]
        others = [member for _, members in indexed for member in members]  # of no sample
        self._offsets = np.array([(s.shard, s.image, s.size) for s in self._samples], np.int64).reshape(-1, 3)
        if others:
            self.notes += (listed(f"{len(others)} members that belong to no sample were left out", others),)
        labels, names = number_labels([s.label for s in self._samples], str(path))
        self._named = names is not None
        super().__init__(labels, str(path), names, options)

    def describe(self, index: int) -> str:
        sample = self._samples[index]
        return f"{self._shards[sample.shard]}, {sample.key}"

    def file(self, index: int) -> AnyPath:
        shard: AnyPath = self._shards[self._samples[index].shard]
        return shard

    def _index(self, shard: int) -> tuple[list[_Sample], list[str]]:
        """The samples of a shard, in the order of what they begin with, and the members of no sample."""
        path, samples = self._shards[shard], []
        others: list[str] = []
        waiting: dict[str, list[dict[str, _Member]]] = {}  # groups of members that are no sample yet
        with self._files[shard].open() as file:
            for key, group in self._groups(shard, file):
                groups = [*waiting.pop(key, []), group]
                members = {ending: member for one in groups for ending, member in one.items()}
                if len(members) < sum(map(len, groups)):
                    raise InputError(f"{path} holds members of {key[:200]!r} twice")
                if all(any(e in members for e in wanted) for wanted in (self._image_endings, self._label_endings)):
                    samples.append(self._sample(shard, file, key, groups))
                else:
                    waiting[key] = groups
            for key, groups in waiting.items():
                endings = [ending for group in groups for ending in group]
                if any(ending in (*self._image_endings, *self._label_endings) for ending in endings):
                    samples.append(self._sample(shard, file, key, groups))  # which says what is missing
                others += [f"{key}.{ending}" for ending in endings]
        return sorted(samples, key=lambda sample: sample.parts), others

    def _groups(self, shard: int, file: BinaryIO) -> Iterator[tuple[str, dict[str, _Member]]]:
        """(key, {ending: member}) of neighbouring members of one key."""
        group: dict[str, _Member] = {}
        key = ""
        for name, member in self._members(shard, file):
            folder, _, last = name.rpartition("/")
            stem, _, ending = last.partition(".")
            if not stem:
                continue  # hidden files
            this = f"{folder}/{stem}" if folder else stem
            if group and this != key:
                yield key, group
                group = {}
            key, ending = this, ending.lower()
            if ending in group:
                raise InputError(f"{self._shards[shard]} holds {name[:200]!r} twice")
            group[ending] = member
        if group:
            yield key, group

    def _members(self, shard: int, file: BinaryIO) -> Iterator[tuple[str, _Member]]:
        """(name, member) of every regular file, in order. Raises InputError for links, devices and damage."""
        path, size, end = self._shards[shard], self._files[shard].size, 0
        tar = _open_tar(FileSlice(file, 0, size), path)
        while (info := _next_member(tar, path)) is not None:
            if info.size < 0 or info.offset < end:
                raise InputError(f"{path} is damaged: {info.name[:200]!r} begins inside what comes before it")
            end = info.offset_data + -(-info.size // _BLOCK) * _BLOCK
            if info.isdir():
                continue
            if not info.isreg() or info.issparse():
                raise InputError(f"{path} holds {info.name[:200]!r}, which is no regular file")
            yield info.name, _Member(info.offset, info.offset_data, info.size, end)
        if end > size:
            raise InputError(f"{path} is truncated: its last member ends behind its end")

    def _sample(self, shard: int, file: BinaryIO, key: str, groups: list[dict[str, _Member]]) -> _Sample:
        members = {ending: member for group in groups for ending, member in group.items()}
        where = f"{self._shards[shard]}, {key[:200]}"
        image, label = self._one_of("image", self._image_endings, members, where), ""
        named = self._one_of("label", self._label_endings, members, where)
        member, limit = members[named], _LONGEST_JSON if self._label_key else _LONGEST_LABEL
        if member.size > limit and named != "json":
            raise InputError(f"{where}: its label is {member.size} bytes long; expected a number or a name")
        data = FileSlice(file, member.start, min(member.size, limit)).read()
        if self._label_key:
            label = label_text(_value_at(parse_json(data, where), self._label_key, where), f"{where}: its label")
        else:
            try:
                label = data.decode().strip()
            except UnicodeDecodeError:
                raise InputError(f"{where}: its label is no UTF-8 text; expected a number or a name") from None
            if named == "json":
                raise InputError(
                    f"{where}: its label is a JSON object: name the value in it, as in {image},{named}:label",
                    argument="columns",
                )
        # What lies between the members of a group (hidden files, folders) goes along.
        spans = [(min(m.header for m in group.values()), max(m.stop for m in group.values())) for group in groups]
        return _Sample(shard, key, tuple(sorted(spans)), members[image].start, members[image].size, label)

    def _one_of(self, what: str, wanted: Sequence[str], members: dict[str, _Member], where: str) -> str:
        """The one ending of those wanted that a sample has."""
        found = [e for e in wanted if e in members]
        if len(found) == 1:
            return found[0]
        hint = ""
        if what == "label":
            hint = (
                ", json:KEY for a value in a JSON member"
                if "json" in members
                else ". Unpack it, if it is of class folders"
            )
        raise InputError(
            f"{where}: expected one {what} ({', '.join('.' + e for e in wanted)}), found members "
            f"{['.' + e[:50] for e in list(members)[:20]]}: name the image's ending and the label's{hint}",
            argument="columns",
        )

    def _encoded(self, indices: np.ndarray) -> Iterator[tuple[int, File]]:
        wanted = self._offsets[indices]
        order = np.lexsort((wanted[:, 1], wanted[:, 0]))
        shards = wanted[order, 0]
        parts_of = ((self._files[shard], wanted[order[shards == shard], 1:]) for shard in np.unique(shards).tolist())
        return zip(order.tolist(), parts(parts_of), strict=True)

    def keeps_folder(self) -> bool:
        return not self._single

    def _write(self, mask: np.ndarray, part: Path) -> None:
        """A tar, or a folder of tars of the same names, of the kept samples, byte by byte; no empty tars."""
        if self._named:
            self._refuse_renumbering(mask)
        refuse_same_names(self._shards)
        kept = [s for s, keep in zip(self._samples, mask.tolist(), strict=True) if keep]
        for shard in sorted({s.shard for s in kept}):
            ranges = sorted(piece for s in kept if s.shard == shard for piece in s.parts)
            target = part if self._single else part / self._shards[shard].name
            with self._files[shard].open() as file, target.open("wb") as out:
                for start, stop in ranges:
                    _copy(FileSlice(file, start, stop - start), out, self._shards[shard])
                out.write(bytes(2 * _BLOCK))
                out.write(bytes(-out.tell() % tarfile.RECORDSIZE))


class _ShortReads:
    """A file of which no header can make tarfile read gigabytes at once."""

    def __init__(self, file: Any, path: AnyPath):
        self._file, self._path = file, path
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int) -> bytes:
        if size > _LONGEST_HEADER:
            raise InputError(f"{self._path} is damaged: it holds a header of {size} bytes")
        data: bytes = self._file.read(size)
        return data


def _open_tar(file: File, path: AnyPath) -> tarfile.TarFile | None:
    """None for an empty archive."""
    try:
        short: Any = _ShortReads(file, path)
        tar: tarfile.TarFile = tarfile.open(fileobj=short, mode="r:")  # noqa: SIM115  # the file is closed by its owner
        return tar
    except InputError:
        raise
    except _DAMAGE as e:
        raise InputError(f"{path} is damaged or truncated, or no plain tar file: {e}") from e


def _next_member(tar: tarfile.TarFile | None, path: AnyPath) -> tarfile.TarInfo | None:
    if tar is None:
        return None
    try:
        info = tar.next()
    except InputError:
        raise
    except _DAMAGE as e:
        raise InputError(f"{path} is damaged or truncated, or no plain tar file: {e}") from e
    tar.members.clear()  # type: ignore[attr-defined]  # or a million of them stay in memory
    return info


def _value_at(content: object, key: str, where: str) -> object:
    """The value of a key in a JSON object; a.b is b in a. Raises InputError where there is none."""
    for part in key.split("."):
        if not isinstance(content, dict) or part not in content:
            raise InputError(f"{where}: its JSON has no {key!r}: {json.dumps(content)[:100]}")
        content = content[part]
    return content


def _copy(source: File, target: BinaryIO, path: AnyPath) -> None:
    size = source.seek(0, os.SEEK_END)
    source.seek(0)
    while size:
        data = source.read(min(size, 1 << 20))
        if not data:
            raise InputError(f"{path} ended while it was being copied; it has changed")
        target.write(data)
        size -= len(data)
