"""Model files, told apart by their contents and never by their extension."""

import os
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch

from ..._check import first_line
from ...errors import InputError
from ..datasets.npz import is_zip
from .architectures import is_safetensors
from .vet_pt2 import vet_pt2
from .vet_torchscript import vet_script

WEIGHTS = "name what to load them into: 'timm:NAME', 'torchvision:NAME' or 'module:callable'"
_ADVICE = (
    "save the model with torch.export.save(torch.export.export(model.eval(), (x,), "
    "dynamic_shapes=({0: torch.export.Dim('batch')},)), 'model.pt2') instead, or allow unpickling for a "
    "file you trust"
)


def load_model_file(path: str | os.PathLike[str], *, unsafe: bool = False) -> Any:
    """An ExportedProgram, a ScriptModule, or (unsafe only) whatever was pickled.

    Raises InputError for a missing, damaged or unknown file, and for pickles without unsafe.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"no such model file: {path}")
    kind = _kind(path)
    if kind == "pickle":
        if not unsafe:
            raise InputError(
                f"{path} is a pickle, which can run any code when it is read. If it holds only weights, {WEIGHTS}. "
                f"Otherwise {_ADVICE}",
                argument=("arch", "unsafe"),
            )
        return _unpickled(path)
    if kind == "old export" and not unsafe:
        raise InputError(
            f"{path} was exported by an old torch, and its weights are pickles: {_ADVICE}", argument="unsafe"
        )
    if "export" in kind and unsafe:
        return _loaded(torch.export.load, path, "torch.export.load")
    if kind == "export":
        vet_pt2(path)
        return _loaded(_load_program, path, "torch.export.load")
    if not unsafe:
        vet_script(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of TorchScript, which is the user's choice here
        return _loaded(torch.jit.load, path, "torch.jit.load", map_location="cpu")


def _kind(path: Path) -> str:
    """One of "export", "old export", "script", "pickle"."""
    with path.open("rb") as f:
        head = f.read(2)
    if is_zip(path):
        try:
            with zipfile.ZipFile(path) as z:
                names = ["/" + name for name in z.namelist()]
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as e:
            raise InputError(f"{path} is a truncated or damaged zip file: {e}") from e
        if any(n.endswith("/archive_format") for n in names):
            return "export"
        if any(n.endswith("/serialized_exported_program.json") for n in names):
            return "old export"
        if any("/code/" in n for n in names) and any(n.endswith("/constants.pkl") for n in names):
            return "script"
        if any(n.endswith(".pkl") for n in names):
            return "pickle"
        raise InputError(f"{path} is a zip file but no model: expected .pt2 or TorchScript")
    if head == b"PK":
        raise InputError(f"{path} is a truncated or damaged zip file")
    if is_safetensors(path):
        raise InputError(f"{path} holds only weights: {WEIGHTS}", argument="arch")
    if head[:1] == b"\x80":
        return "pickle"
    if path.suffix.lower() == ".onnx":
        raise InputError(
            f"{path} is ONNX, which is made to be run and not differentiated, and bre needs gradients: export the "
            f"network that it was made from with torch.export, or save its weights and {WEIGHTS}",
            argument="arch",
        )
    raise InputError(
        f"{path} is no model file that bre knows; expected .pt2, TorchScript, or weights with their architecture",
        argument="arch",
    )


def _loaded(load: Any, path: Path, name: str, **options: Any) -> Any:
    try:
        return load(str(path), **options)
    except Exception as e:
        raise InputError(f"{path} cannot be loaded by {name}: {first_line(e)}") from e


def _load_program(path: str) -> torch.export.ExportedProgram:
    """torch.export.load without its second try, which would unpickle a file of the old format."""
    from torch.export.pt2_archive._package import load_pt2

    return load_pt2(path).exported_programs["model"]


def _unpickled(path: Path) -> torch.nn.Module:
    model = _loaded(torch.load, path, "torch.load", weights_only=False, map_location="cpu")
    if not isinstance(model, torch.nn.Module):
        raise InputError(
            f"{path} holds {type(model).__name__}, not a model: if these are only weights, {WEIGHTS}", argument="arch"
        )
    return model
