"""Files that hold a whole network: exported programs, TorchScript, and pickled modules where those are allowed."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import torch

from ..._check import first_line
from ...errors import InputError
from .file_kinds import ADVICE, WEIGHTS, kind_of
from .vet_pt2 import vet_pt2
from .vet_torchscript import vet_script


def load_model_file(path: str | os.PathLike[str], *, unsafe: bool = False) -> Any:
    """An ExportedProgram, a ScriptModule, or (unsafe only) whatever was pickled.

    Raises InputError for a missing, damaged or unknown file, and for pickles without unsafe.
    """
    path = Path(path)
    kind = kind_of(path)
    if kind == "safetensors":
        raise InputError(f"{path} holds only weights: {WEIGHTS}", argument="arch")
    if kind == "pickle":
        return _unpickled(path, unsafe)
    if kind == "script":
        return _script(path, unsafe)
    return _program(path, kind, unsafe)


def _program(path: Path, kind: str, unsafe: bool) -> torch.export.ExportedProgram:
    if unsafe:
        program: torch.export.ExportedProgram = _loaded(torch.export.load, path, "torch.export.load")
        return program
    if kind == "old export":
        raise InputError(
            f"{path} was exported by an old torch, and its weights are pickles: {ADVICE}", argument="unsafe"
        )
    vet_pt2(path)
    program = _loaded(_load_program, path, "torch.export.load")
    return program


def _script(path: Path, unsafe: bool) -> torch.nn.Module:
    if not unsafe:
        vet_script(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of TorchScript, which is the user's choice here
        module: torch.nn.Module = _loaded(torch.jit.load, path, "torch.jit.load", map_location="cpu")
    return module


def _unpickled(path: Path, unsafe: bool) -> torch.nn.Module:
    if not unsafe:
        raise InputError(
            f"{path} is a pickle, which can run any code when it is read. If it holds only weights, {WEIGHTS}. "
            f"Otherwise {ADVICE}",
            argument=("arch", "unsafe"),
        )
    model = _loaded(torch.load, path, "torch.load", weights_only=False, map_location="cpu")
    if isinstance(model, dict):  # as in {"model": network, "epoch": 3}
        networks = [value for value in model.values() if isinstance(value, torch.nn.Module)]
        model = networks[0] if len(networks) == 1 else model
    if not isinstance(model, torch.nn.Module):
        raise InputError(
            f"{path} holds {type(model).__name__}, not a model: if these are only weights, {WEIGHTS}", argument="arch"
        )
    return model


def _loaded(load: Any, path: Path, name: str, **options: Any) -> Any:
    try:
        return load(str(path), **options)
    except Exception as e:
        raise InputError(f"{path} cannot be loaded by {name}: {first_line(e)}") from e


def _load_program(path: str) -> torch.export.ExportedProgram:
    """torch.export.load without its second try, which would unpickle a file of the old format."""
    from torch.export.pt2_archive._package import load_pt2

    return load_pt2(path).exported_programs["model"]
