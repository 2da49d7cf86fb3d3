"""Folders that say themselves what their weights are of: of transformers' `save_pretrained`, and of timm's hub.

Only JSON and weights are read; what they name is built by these libraries' own classes.
"""

from __future__ import annotations

from pathlib import Path

from ...errors import InputError
from .architectures import load_timm, read_json, saved_config
from .checkpoints import State, read_weights
from .transformers_folder import Folder, load_transformers

WEIGHTS = ("model.safetensors", "pytorch_model.bin")
INDEX = "model.safetensors.index.json"


def is_model_folder(path: Path) -> bool:
    return (_snapshot(path) / "config.json").is_file()


def file_in(path: Path) -> Path:
    """The file of weights in such a folder; a file itself."""
    if not path.is_dir():
        return path
    path = _snapshot(path)
    for name in WEIGHTS:
        if (path / name).is_file():
            return path / name
    if (path / INDEX).is_file():
        raise InputError(
            f"{path} holds its weights in several files; without an architecture bre reads them: leave it out"
        )
    raise InputError(f"{path} is a folder without weights: none of {', '.join(WEIGHTS)} is in it")


def load_folder(path: Path, input_size: tuple[int, int] | None, *, unsafe: bool = False) -> Folder:
    """The network in a folder with a config.json, as transformers or timm wrote it, with its preprocessing.

    input_size: (H, W) for networks built for one size. Raises InputError for a configuration that is of neither, of no
    image classifier, or that names code or anything elsewhere; and for weights that do not fit it.
    """
    path = _snapshot(path)
    config = read_json(path / "config.json")
    if (of_timm := saved_config(path)) is not None:
        name = str(of_timm["architecture"])
        weights = file_in(path)
        return Folder(*load_timm(name, weights, read_weights(weights, unsafe=unsafe), input_size), f"timm:{name}")
    if isinstance(config.get("model_type"), str):
        return load_transformers(path, config, read_parts(path, unsafe=unsafe), input_size)
    raise InputError(
        f"{path / 'config.json'} is neither of transformers (model_type) nor of timm (architecture, pretrained_cfg): "
        "name the file of weights, and what to load it into",
        argument="arch",
    )


def _snapshot(path: Path) -> Path:
    """The folder itself; or the one that is current in a folder of the hub's cache (models--OWNER--NAME)."""
    snapshots = path / "snapshots"
    if not snapshots.is_dir():
        return path
    try:
        current = (path / "refs" / "main").read_text("ascii").strip()
    except (OSError, ValueError):
        current = ""
    found = sorted(p for p in snapshots.iterdir() if p.is_dir())
    if len(found) > 1 and current:
        found = [p for p in found if p.name == current] or found
    if len(found) != 1:
        raise InputError(f"{path} holds {len(found)} snapshots of a model: name one, as in {snapshots / 'NAME'}")
    return found[0]


def read_parts(path: Path, *, unsafe: bool) -> State:
    """The tensors of a folder, in one file or in those that an index names."""
    if not (path / INDEX).is_file():
        return read_weights(file_in(path), unsafe=unsafe)[0].tensors
    places = read_json(path / INDEX).get("weight_map")
    names = sorted(set(map(str, places.values()))) if isinstance(places, dict) else []
    if not names or any(Path(n).name != n or not (path / n).is_file() for n in names):
        raise InputError(f"{path / INDEX} names files that are not in its folder: {names[:5]}")
    parts = [read_weights(path / n, unsafe=unsafe)[0].tensors for n in names]
    return {name: tensor for part in parts for name, tensor in part.items()}
