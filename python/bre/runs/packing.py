"""Results as files without pickle: plain values as JSON, arrays beside them, in the format safetensors.

A file holds a digest of its contents, so that a damaged one is noticed. Whoever can write to the folder can write a
result, as a saved report can be written; but none of it is run, and only classes that the reader names are made.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
import safetensors.numpy
import torch

from ..errors import InputError

_PLAIN = (type(None), bool, int, float, str)
_FORMAT = "1"


def to_bytes(value: Any, kinds: Sequence[type] = ()) -> bytes:
    """A file's content. value: plain values, arrays, tensors in host memory, tuples, lists, dicts, and dataclasses
    among `kinds`."""
    arrays: list[np.ndarray] = []
    tree = json.dumps(_packed(value, arrays, kinds))
    metadata = {"bre": tree, "format": _FORMAT, "digest": _digest(tree, arrays)}
    data: bytes = safetensors.numpy.save({str(i): array for i, array in enumerate(arrays)}, metadata)
    return data


def from_bytes(data: bytes, where: object, kinds: Sequence[type] = ()) -> Any:
    """What `to_bytes` was given. Raises InputError for anything that it does not write."""
    try:
        size = int.from_bytes(data[:8], "little")
        if size > len(data) - 8:
            raise ValueError("it is cut off")
        metadata = json.loads(data[8 : 8 + size])["__metadata__"]
        named = safetensors.numpy.load(data)
        arrays = [named[str(i)] for i in range(len(named))]
        if metadata["format"] != _FORMAT or metadata["digest"] != _digest(metadata["bre"], arrays):
            raise ValueError("its contents have changed")
        return _unpacked(json.loads(metadata["bre"]), arrays, {kind.__name__: kind for kind in kinds})
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError, safetensors.SafetensorError) as e:
        raise InputError(f"{where} is damaged, or no task's result ({e}): remove it, and it is made again") from e


def digest_of(value: Any, kinds: Sequence[type] = ()) -> str:
    """Hex, 24 digits: the same for equal values."""
    arrays: list[np.ndarray] = []
    return _digest(json.dumps(_packed(value, arrays, kinds)), arrays)[:24]


def _digest(tree: str, arrays: Sequence[np.ndarray]) -> str:
    digest = hashlib.blake2b(tree.encode(), digest_size=32)
    for array in arrays:
        digest.update(repr((str(array.dtype), array.shape)).encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _packed(value: Any, arrays: list[np.ndarray], kinds: Sequence[type]) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, _PLAIN):
        return value
    if isinstance(value, np.ndarray | torch.Tensor):
        name = "array" if isinstance(value, np.ndarray) else "tensor"
        arrays.append(np.ascontiguousarray(value if isinstance(value, np.ndarray) else value.detach().numpy()))
        return {name: len(arrays) - 1}
    if isinstance(value, tuple | list):
        return {type(value).__name__: [_packed(each, arrays, kinds) for each in value]}
    if isinstance(value, dict):
        return {"dict": [[_packed(k, arrays, kinds), _packed(v, arrays, kinds)] for k, v in value.items()]}
    if is_dataclass(value) and type(value) in kinds:
        held = {field.name: _packed(getattr(value, field.name), arrays, kinds) for field in fields(value)}
        return {"class": type(value).__name__, "fields": held}
    raise TypeError(f"a task's result or argument cannot hold {type(value).__name__}")


def _unpacked(tree: Any, arrays: Sequence[np.ndarray], kinds: dict[str, type]) -> Any:
    if isinstance(tree, _PLAIN):
        return tree
    if "class" in tree:
        kind = kinds[tree["class"]]
        return kind(**{name: _unpacked(each, arrays, kinds) for name, each in tree["fields"].items()})
    ((name, held),) = tree.items()
    if name == "array":
        return arrays[held]
    if name == "tensor":
        return torch.from_numpy(arrays[held].copy())
    if name == "dict":
        return {_unpacked(k, arrays, kinds): _unpacked(v, arrays, kinds) for k, v in held}
    values = [_unpacked(each, arrays, kinds) for each in held]
    return {"tuple": tuple, "list": list}[name](values)
