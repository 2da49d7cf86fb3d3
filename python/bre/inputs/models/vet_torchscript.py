"""TorchScript files read without loading them, because torch.jit.load trusts what its file says of tensors.

A tensor there is a pickled claim: so many elements in record N, seen with this offset, these sizes and strides. Torch
compares none of these numbers with the record, or with each other, and reads beyond the end where they do not fit. So
the pickles are read here first, with nothing in them called but what is listed below, and every tensor must lie inside
of its record. The program in the file stays a program, in a language of tensors: it can take time and memory without
end, and must be kept from files.
"""

import io
import pickle
import pickletools
import re
from collections import OrderedDict
from collections.abc import Callable
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

import torch

from ..._check import first_line
from ...errors import InputError
from .vet_pt2 import refuse

MAX_DEPTH = 200  # brackets; nested in TorchScript; source: derived, Python's own parser takes no more
_BRACKETS = re.compile(rb"[()\[\]{}]")
_REFUSED = re.compile(  # as words, wherever they stand: a call has many spellings
    rb"\b(?:save|from_file)\b|\bops\b(?!\.(?:aten|prim|prims|torchvision)\.)|\btorch[\s\\]*\.[\s\\]*classes\b"
)
_ATTRIBUTE = re.compile(rb'\bgetattr\([\w.]+, "[^"\\\n]*"\)')  # as torch writes it: the name in plain letters
_ITEM_SIZES = {
    **{"Bool": 1, "Byte": 1, "Char": 1, "Short": 2, "Half": 2, "BFloat16": 2, "Int": 4, "Float": 4, "Long": 8},
    **{"Double": 8, "ComplexFloat": 8, "ComplexDouble": 16},
}
_OPCODES = {  # what torch's pickler writes
    *("PROTO", "STOP", "MARK", "GLOBAL", "NEWOBJ", "REDUCE", "BUILD", "BINPERSID", "BINPUT", "LONG_BINPUT", "BINGET"),
    *("LONG_BINGET", "NONE", "NEWTRUE", "NEWFALSE", "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE"),
    *("BINSTRING", "SHORT_BINSTRING", "EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"),
    *("EMPTY_LIST", "APPEND", "APPENDS", "EMPTY_DICT", "SETITEM", "SETITEMS"),
}
_LISTS = {"build_intlist", "build_doublelist", "build_boollist", "build_tensorlist"}


def vet_script(path: Path) -> None:
    """Raise InputError for a TorchScript file that is damaged, or whose program reads or writes files."""
    try:  # the reader that torch.jit.load itself uses, so that both see the same contents
        archive = torch._C.PyTorchFileReader(str(path))
        names = archive.get_all_records()
        size_of = getattr(archive, "get_record_size", lambda name: len(archive.get_record(name)))  # it came with 2.13
        for name in names:
            if name.endswith(".py"):
                _vet_source(archive.get_record(name), path)
            elif name.endswith("pkl"):  # the tensors of x.pkl are the records x/0, x/1, ...
                _vet_pickle(archive.get_record(name), name.removesuffix("pkl")[:-1] + "/", size_of)
    except InputError:
        raise
    except Exception as e:  # of torch's, of the pickles, or of a name that is no UTF-8
        raise InputError(f"{path} is damaged or no TorchScript file: {first_line(e)}") from e
    if "model.json" in names:
        raise InputError(f"{path} is TorchScript of a form that torch left in 2020: save it again with a newer torch")


def _vet_source(source: bytes, path: Path) -> None:
    if found := _REFUSED.search(source) or re.search(rb"\bgetattr\b.{,40}", _ATTRIBUTE.sub(b"", source)):
        refuse(path, f"{found[0].decode(errors='replace')!r}")
    steps = (1 if mark in b"([{" else -1 for mark in _BRACKETS.findall(source))
    if max(accumulate(steps), default=0) > MAX_DEPTH:
        raise InputError(f"{path}: its code nests brackets deeper than {MAX_DEPTH}, which crashes torch's parser")


def _vet_pickle(data: bytes, folder: str, size_of: Callable[[str], int]) -> None:
    for operation, argument, _ in pickletools.genops(data):
        if operation.name not in _OPCODES:
            raise ValueError(f"its pickle holds {operation.name}, which torch does not write")
        if operation.name == "LONG_BINPUT" and int(argument or 0) >= len(data):  # readers make room for so many
            raise ValueError(f"its pickle numbers a value {argument}")
    _Reader(data, folder, size_of).load()


class _Storage(NamedTuple):
    elements: int


class _ItemSize(NamedTuple):
    size: int  # bytes


class _Part:
    """Stands for any object of the program's own classes."""

    def __init__(self, *_values: Any):
        pass

    def __setstate__(self, _state: Any) -> None:
        pass


class _Reader(pickle.Unpickler):
    """Gives nothing of use, and raises for whatever torch would read amiss."""

    def __init__(self, data: bytes, folder: str, size_of: Callable[[str], int]):
        super().__init__(io.BytesIO(data))
        self.folder, self.size_of = folder, size_of

    def find_class(self, module: str, name: str) -> Any:
        if module.startswith("__torch__.") and not module.startswith("__torch__.torch.classes"):
            return _Part
        if module == "__torch__" and name.isidentifier():
            return _Part
        if module == "torch" and name.removesuffix("Storage") in _ITEM_SIZES:
            return _ItemSize(_ITEM_SIZES[name.removesuffix("Storage")])
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _tensor
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if module == "torch.jit._pickle" and name in _LISTS:
            return _first
        if (module, name) in (("torch.jit._pickle", "restore_type_tag"), ("torch", "device")):
            return _first
        raise ValueError(f"its pickle names {module}.{name}")

    def persistent_load(self, pid: Any) -> _Storage:
        kind, item, key, _device, count = pid
        if kind != "storage" or not isinstance(item, _ItemSize) or not isinstance(key, str) or not _is_count(count):
            raise ValueError(f"its pickle holds {pid!r:.200}, which is no storage")
        record = self.folder + key
        if count and self.size_of(record) < count * item.size:
            raise ValueError(f"the record {record} holds less than the {count} elements that are to be there")
        return _Storage(count)


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1 << 48


def _tensor(storage: Any, offset: Any, sizes: Any, strides: Any, *_rest: Any) -> _Part:
    counts = (offset, *sizes, *strides)
    if not isinstance(storage, _Storage) or not all(map(_is_count, counts)) or len(sizes) != len(strides):
        raise ValueError(f"a tensor of sizes {sizes!r:.100}, strides {strides!r:.100} and offset {offset!r:.100}")
    last = offset + sum((n - 1) * step for n, step in zip(sizes, strides, strict=True))
    if all(sizes) and last >= storage.elements:
        raise ValueError(f"a tensor of sizes {sizes} reaches element {last} of {storage.elements}")
    return _Part()


def _first(value: Any, *_rest: Any) -> Any:
    return value
