"""Weights out of the files that training scripts leave behind, without running anything of them."""

from __future__ import annotations

import _compat_pickle
import io
import pickle
import pickletools
import warnings
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import torch

from ..._check import first_line
from ...errors import InputError
from ..datasets.npz import is_zip
from .file_kinds import check_unpacked_size, is_safetensors, refuse_other_kinds

State: TypeAlias = dict[str, torch.Tensor]

# mappings; in which a checkpoint's weights may lie; source: chosen, as in {"ema": {"module": {"state_dict": weights}}}
MAX_NESTED = 3
# What is put aside unread, of modules that only hold plain values. Nothing of them is imported or called.
_PLAIN = (
    *("argparse", "pathlib", "collections", "datetime", "decimal", "fractions", "uuid", "types", "typing", "numpy"),
    *("omegaconf", "easydict", "yacs", "ml_collections", "addict"),
)
_PLAIN_NAMES = (
    "pytorch_lightning.utilities.parsing.AttributeDict",
    "lightning.fabric.utilities.data.AttributeDict",
    *(f"builtins.{name}" for name in ("list", "dict", "set", "frozenset", "complex", "bytearray", "slice", "range")),
)
_BESIDE = (
    "loss",
    "criterion",
    "metric",
)  # in the first word of a name: what training keeps beside the network's tensors
_SECOND_CHOICE = ("ema", "teacher", "target", "momentum", "shadow", "averaged", "best")  # of two copies of a network


class Weights(NamedTuple):
    """Some named tensors of a file. where: the keys that lead to them."""

    where: tuple[str, ...]
    tensors: State


class _PutAside(dict[Any, Any]):
    """Stands for any object that is not read; it takes what a pickle does to one."""

    def __init__(self, *_values: Any):
        super().__init__()

    def __setstate__(self, _state: Any) -> None:
        pass


class _Mapping:
    """Stands for mappings of other kinds, which the reader fills item by item."""

    def __new__(cls, *_values: Any) -> Any:
        return OrderedDict()


class _Sequence:
    """Likewise for lists of other kinds."""

    def __new__(cls, *_values: Any) -> Any:
        return []


def read_weights(path: Path, *, unsafe: bool = False) -> list[Weights]:
    """All mappings from names to tensors in a safetensors file or a checkpoint, outer ones first.

    Checkpoints are read by torch.load(weights_only=True), which calls nothing but what makes tensors; numpy's scalars
    and arrays, paths, namespaces and dates are put aside. unsafe: unpickle any other.

    Raises InputError for files that hold more than that, or no tensors.
    """
    refuse_other_kinds(path)
    content = _safetensors(path) if is_safetensors(path) else _unpickled(path, unsafe)
    found = list(_mappings(content, (), MAX_NESTED))
    if not found:
        keys = f" of {list(map(str, content))[:5]}" if isinstance(content, Mapping) and content else ""
        raise InputError(f"{path} holds {type(content).__name__}{keys}, expected a state dict: names and their tensors")
    return found


def fitting(weights: list[Weights], names: set[str], path: Path) -> State:
    """Those of the tensors that are a network's own, under its names.

    names: of the network's parameters and buffers. Prefixes are taken away, whatever they are ("module.", "model.",
    "_orig_mod.", ...), with the tensors beside them, which are a loss's or an optimiser's; without a prefix only those
    that are called a loss or a metric. Where nothing fits, the tensors that fit best are returned as they are, for the
    caller's complaint.

    Raises InputError where a file holds several networks that fit, none of which is the obvious one.
    """
    fits: list[_Fit] = []
    best: tuple[int, State] = (-1, {})
    for where, tensors in weights:
        for state in _renamed(tensors):
            for prefix in _prefixes(state, names):
                mine = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
                mine = {k: v for k, v in mine.items() if k in names or not _is_beside(k)}
                covered = len(names & mine.keys())
                if all(n in mine or n.endswith("num_batches_tracked") for n in names):
                    fits.append(_Fit((*where, *filter(None, prefix.split("."))), mine, len(mine) - covered))
                elif covered > best[0]:
                    best = covered, mine
    return _obvious(fits, names, path) if fits else best[1]


def _is_beside(name: str) -> bool:
    return any(word in name.partition(".")[0].lower() for word in _BESIDE)


class _Fit(NamedTuple):
    """where: the keys and prefixes that lead to a network's tensors; unknown: how many more lie there."""

    where: tuple[str, ...]
    state: State
    unknown: int


def _obvious(fits: list[_Fit], names: set[str], path: Path) -> State:
    def second(fit: _Fit) -> bool:
        return any(word in part.lower() for part in fit.where for word in _SECOND_CHOICE)

    fits = [fit for fit in fits if fit.unknown == min(f.unknown for f in fits)]
    fits = [fit for fit in fits if not second(fit)] or fits
    different = [fit for fit in fits if not _same(fit.state, fits[0].state, names)]
    if different:
        places = [" > ".join(fit.where) or "the top" for fit in (fits[0], *different)]
        raise InputError(
            f"{path} holds several networks of this architecture, with other weights, at {', '.join(places[:5])}: save "
            "the one to judge alone"
        )
    return fits[0].state


def _same(one: State, other: State, names: set[str]) -> bool:
    both = ((one[n], other[n]) for n in names if n in one and n in other)
    return all(a is b or (a.shape == b.shape and torch.equal(a, b)) for a, b in both)


def _renamed(state: State) -> Iterator[State]:
    """Without what torch.compile and DataParallel put into the names of the parts that they wrap."""
    plain = {k.replace("_orig_mod.", ""): v for k, v in state.items()}
    yield plain
    inner = {".".join(p for p in k.split(".") if p != "module"): v for k, v in plain.items()}
    if inner.keys() != plain.keys() and len(inner) == len(plain):
        yield inner


def _prefixes(state: State, names: set[str]) -> list[str]:
    """What stands before one of the network's names in the state's, the shortest first."""
    lasting = [n for n in names if not n.endswith("num_batches_tracked")]  # which old checkpoints lack
    probe = max(lasting, key=lambda n: (n.count("."), len(n)), default="")
    found = {k[: -len(probe)] for k in state if probe and (k == probe or k.endswith("." + probe))}
    if found:
        return sorted(found, key=len)
    first = next(iter(state)).partition(".")[0] + "."
    return [first if all(k.startswith(first) for k in state) else ""]


def _mappings(content: Any, where: tuple[str, ...], depth: int) -> Iterator[Weights]:
    if isinstance(content, torch.nn.Module):  # unsafe only
        content = content.state_dict()
    if not isinstance(content, Mapping):
        return
    tensors = {k: v for k, v in content.items() if isinstance(k, str) and isinstance(v, torch.Tensor)}
    if tensors:
        yield Weights(where, tensors)
    for key, value in content.items() if depth else ():
        yield from _mappings(value, (*where, str(key)), depth - 1)


def _safetensors(path: Path) -> State:
    from safetensors import safe_open

    try:
        with safe_open(path, "pt", device="cpu") as f:
            return {name: f.get_tensor(name) for name in f.keys()}  # noqa: SIM118  # it is no mapping
    except Exception as e:  # it raises classes of its own, and torch's
        raise InputError(f"{path} is damaged or truncated: {first_line(e)}") from e


def _unpickled(path: Path, unsafe: bool) -> Any:
    if is_zip(path):
        check_unpacked_size(path)
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(_stand_ins(path)):
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=not unsafe)
    except pickle.UnpicklingError as e:
        raise InputError(
            f"{path} is damaged, or holds more than weights, which could run code when it is read: save only the "
            f"state dict, as safetensors, or allow that for a file you trust ({_reason(e)})",
            argument="unsafe",
        ) from e
    except Exception as e:
        raise InputError(f"{path} is no checkpoint of weights, or damaged: {first_line(e)}") from e


def _stand_ins(path: Path) -> list[Any]:
    """(what stands for it, name) of the harmless names in a checkpoint."""
    try:
        names = set(_names_in(path))
    except Exception:  # damaged, which torch says better
        return []
    harmless = {n for n in names if n.partition(".")[0] in _PLAIN or n in _PLAIN_NAMES}
    return [(_stand_in(name), name) for name in sorted(harmless)]


def _stand_in(name: str) -> type:
    kind = name.rpartition(".")[2].lower()
    if kind == "deque":
        return _Sequence
    return _Mapping if kind.endswith(("dict", "cfgnode")) else _PutAside


def _names_in(path: Path) -> Iterator[str]:
    """What the pickles of a checkpoint name, as today's Python calls it. Nothing is built."""
    if is_zip(path):
        archive = torch._C.PyTorchFileReader(str(path))
        pickles, count = io.BytesIO(archive.get_record("data.pkl")), 1
    else:  # the form of before 2020: three numbers and tables, then the content
        pickles, count = io.BytesIO(path.read_bytes()), 4
    for _ in range(count):
        for operation, argument, _ in pickletools.genops(pickles):
            if operation.name == "GLOBAL":
                module, name = str(argument).split(" ", 1)
                module, name = _compat_pickle.NAME_MAPPING.get((module, name), (module, name))
                yield f"{_compat_pickle.IMPORT_MAPPING.get(module, module)}.{name}"


def _reason(e: Exception) -> str:
    """The one line of torch's long advice that says what was met."""
    lines = [line.strip() for line in str(e).splitlines() if "WeightsUnpickler error" in line or "Unsupported" in line]
    return (lines or [first_line(e)])[0][:300]
