"""What a model file is, told by its first bytes and its list of members, never by its extension."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import NoReturn

import torch

from ..._check import first_line
from ...errors import InputError
from ..datasets.npz import is_zip

# times the file's size; what its members may unpack to; source: chosen, torch packs texts only
MAX_UNPACKED_RATIO = 8
PACKED_TEXT = 1 << 26  # bytes; what a file of any size may unpack to; source: chosen, a program's text takes less

WEIGHTS = "name what to load them into: 'timm:NAME', 'torchvision:NAME' or 'module:callable'"
ADVICE = (
    "save the model with torch.export.save(torch.export.export(model.eval(), (x,), "
    "dynamic_shapes=({0: torch.export.Dim('batch')},)), 'model.pt2') instead, or allow unpickling for a file you trust"
)
_FLOAT = "bre needs gradients with respect to the images: give the network in float32 that it was made from"
QUANTISED = f"is quantised, and quantised layers have no gradient; {_FLOAT}"

# Files that people have instead: how they begin (offset, bytes), what they are, and what helps.
_OTHERS = (
    (0, b"version https://git-lfs", "is a pointer file of git-lfs, not the model itself: fetch it with `git lfs pull`"),
    (0, b"\x89HDF\r\n\x1a\n", "is HDF5, as Keras saves it; bre reads networks of PyTorch"),
    (4, b"TFL3", "is TensorFlow Lite, which has no gradients; bre reads networks of PyTorch"),
    (0, b"GGUF", "is GGUF, which bre does not read: give safetensors"),
    (0, b"\x93NUMPY", "is one numpy array, not a model"),
    (0, b"\x1f\x8b", "is compressed with gzip: unpack it"),
    (0, b"<", "is a web page or other markup, not a model: was a download page saved in its place?"),
)


def refuse_other_kinds(path: Path) -> None:
    """Raise InputError for a file that is no model of PyTorch, saying what it is; none is advised to be unpickled."""
    if path.is_dir():
        inside = sorted(p.parent for p in path.glob("*/config.json"))
        hint = f", or the folder that has one, as {inside[-1]}" if inside else ""
        raise InputError(
            f"{path} is a folder, and no config.json in it says what its weights are of: name the file of weights{hint}"
        )
    if not path.is_file():
        raise InputError(f"no such model file: {path}")
    with path.open("rb") as f:
        head = f.read(512)
    if not head:
        raise InputError(f"{path} is empty: damaged, or not yet downloaded")
    for offset, begin, what in _OTHERS:
        if head[offset:].startswith(begin):
            raise InputError(f"{path} {what}")
    if _is_onnx(path, head):
        raise InputError(
            f"{path} is ONNX, which is made to be run and not differentiated, and bre needs gradients: export the "
            f"network that it was made from with torch.export, or save its weights and {WEIGHTS}",
            argument="arch",
        )


def kind_of(path: Path) -> str:
    """One of "export", "old export", "script", "safetensors", "pickle" (a checkpoint, or a whole module).

    Raises InputError for any other file, and for a zip that is damaged or would unpack to far more than its size.
    """
    refuse_other_kinds(path)
    with path.open("rb") as f:
        head = f.read(2)
    if is_zip(path):
        return _kind_of_zip(path)
    if head == b"PK":
        raise InputError(f"{path} is a truncated or damaged zip file")
    if is_safetensors(path):
        return "safetensors"
    if head[:1] == b"\x80":
        return "pickle"
    raise InputError(
        f"{path} is no model file that bre knows; expected .pt2, TorchScript, or weights with their architecture",
        argument="arch",
    )


def is_safetensors(path: Path) -> bool:
    """Whether a file begins as one does: the length of its header, and a JSON object."""
    with path.open("rb") as f:
        head = f.read(9)
    return len(head) == 9 and head[8:] == b"{" and int.from_bytes(head[:8], "little") <= path.stat().st_size - 8


def check_unpacked_size(path: Path, reader: torch._C.PyTorchFileReader | None = None) -> None:
    """Raise InputError for a zip of torch whose members would take far more memory than the file is large.

    The sizes are those in the headers that torch's own reader goes by; before torch 2.13 it did not tell them.
    """
    try:
        reader = reader or torch._C.PyTorchFileReader(str(path))
        if hasattr(reader, "get_record_size"):
            unpacked = sum(reader.get_record_size(name) for name in reader.get_all_records())
        else:
            with zipfile.ZipFile(path) as z:
                unpacked = sum(info.file_size for info in z.infolist())
    except Exception as e:
        raise InputError(f"{path} is a truncated or damaged zip file: {first_line(e)}") from e
    limit = max(PACKED_TEXT, MAX_UNPACKED_RATIO * path.stat().st_size)
    if unpacked > limit:
        raise InputError(
            f"{path} would unpack to {unpacked / 2**30:.1f} GiB, {unpacked // max(path.stat().st_size, 1)} times its "
            "size: torch does not write such files (a decompression bomb?)"
        )


def refuse_quantised(path: Path) -> NoReturn:
    raise InputError(f"{path} {QUANTISED}")


def _kind_of_zip(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as z:
            names = ["/" + name for name in z.namelist()]
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as e:
        raise InputError(f"{path} is a truncated or damaged zip file: {e}") from e
    if any(n.endswith("/archive_format") for n in names):
        kind = "export"
    elif any(n.endswith("/serialized_exported_program.json") for n in names):
        kind = "old export"
    elif any("/code/" in n for n in names) and any(n.endswith("/constants.pkl") for n in names):
        kind = "script"
    elif any(n.endswith(".pkl") for n in names):
        kind = "pickle"
    elif any(n.endswith(".npy") for n in names):
        raise InputError(f"{path} holds numpy arrays (.npz), no model")
    elif "/config.json" in names and "/model.weights.h5" in names:
        raise InputError(f"{path} is a model of Keras; bre reads networks of PyTorch")
    else:
        raise InputError(f"{path} is a zip file but no model: expected .pt2 or TorchScript")
    if kind != "old export":  # which torch itself reads by other means
        check_unpacked_size(path)
    return kind


def _is_onnx(path: Path, head: bytes) -> bool:
    """ONNX is protobuf without a mark of its own: field 1, a version number, then field 2, the producer's name."""
    return path.suffix.lower() == ".onnx" or (head[:1] == b"\x08" and head[2:3] in (b"\x12", b"\x3a"))
