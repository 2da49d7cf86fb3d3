"""Folders that say themselves what their weights are of: of transformers' `save_pretrained`, and of timm's hub.

Only JSON and weights are read. Classes are transformers' own, found by the name of their kind; a configuration that
names code, or files or networks elsewhere, is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch

from ...errors import InputError
from .._extras import need
from ..datasets.image_files import check_size
from .architectures import fitted, load_timm, outline_of, read_json, saved_config
from .checkpoints import Weights, fitting, read_weights
from .preprocessing import Preprocessing

WEIGHTS = ("model.safetensors", "pytorch_model.bin", "diffusion_pytorch_model.safetensors")
INDEX = "model.safetensors.index.json"
# layers; of one kind in a configuration, of which more are not built; source: chosen, deep networks have hundreds
MAX_LAYERS = 1000
# What names code, or files or networks elsewhere.
_ELSEWHERE = (
    "auto_map",
    "quantization_config",
    "backbone",
    "use_timm_backbone",
    "use_pretrained_backbone",
    "custom_pipelines",
)
_NOT_PASSED_ON = ("attn_implementation", "_attn_implementation", "_name_or_path", "torch_dtype", "dtype")


class Folder(NamedTuple):
    """name: of the network's kind, for messages and reports."""

    network: torch.nn.Module
    known: Preprocessing
    name: str


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
        return _of_transformers(path, config, input_size, unsafe)
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


def _of_transformers(path: Path, config: Mapping[str, Any], input_size: tuple[int, int] | None, unsafe: bool) -> Folder:
    transformers = need("transformers", "transformers", f"the model folder {path}")
    make, name = _maker(transformers, path, config, input_size)
    weights = _sharded(path, unsafe)
    state = fitting(weights, set(outline_of(make, name).state_dict()), path)
    network = fitted(make, state, name, f"{path} does not fit its own config.json ({name})")
    channels = config.get("num_channels", 3)
    known = _preprocessing(read_json(path / "preprocessor_config.json"), channels if isinstance(channels, int) else 3)
    built_for = _square(config.get("image_size")) if _of_one_size(network) else None
    return Folder(network, known._replace(input_size=input_size or built_for or known.input_size), name)


def _maker(
    transformers: Any, path: Path, config: Mapping[str, Any], input_size: tuple[int, int] | None
) -> tuple[Callable[[], torch.nn.Module], str]:
    """What builds the network of a configuration, and its name."""
    kind = str(config["model_type"])
    elsewhere = [key for key in _ELSEWHERE if config.get(key)]
    if elsewhere:
        raise InputError(f"{path / 'config.json'} names code, or something that is not in the folder: {elsewhere}")
    _check_layers(path, config)
    networks = transformers.models.auto.modeling_auto.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES
    if kind not in networks or kind == "timm_wrapper":
        architectures = config.get("architectures")
        raise InputError(
            f"{path} is a {kind} network ({architectures}), of which transformers {transformers.__version__} has no "
            "image classifier"
        )
    try:
        configuration = transformers.models.auto.configuration_auto.CONFIG_MAPPING[kind]
        given = {k: v for k, v in config.items() if k not in _NOT_PASSED_ON}
        built = configuration.from_dict(given, attn_implementation="eager")
        names = networks[kind]
        names = (names,) if isinstance(names, str) else names
        asked = [n for n in config.get("architectures") or () if n in names]
        network = getattr(transformers, (asked or list(names))[0])
    except Exception as e:  # of values that its classes refuse
        raise InputError(f"{path / 'config.json'} is no configuration of a {kind} network: {e}") from e
    return (lambda: network(built)), network.__name__


def _check_layers(path: Path, config: Mapping[str, Any]) -> None:
    for key, value in config.items():
        if any(word in key for word in ("layer", "depth", "block", "stage")):
            counts = value if isinstance(value, list) else [value]
            if any(isinstance(n, int) and n > MAX_LAYERS for n in counts):
                raise InputError(f"{path / 'config.json'}: {key} is {value!r:.100}; at most {MAX_LAYERS} are built")


def _sharded(path: Path, unsafe: bool) -> list[Weights]:
    """The weights in one file, or in those that an index names."""
    if not (path / INDEX).is_file():
        return read_weights(file_in(path), unsafe=unsafe)
    places = read_json(path / INDEX).get("weight_map")
    names = sorted(set(map(str, places.values()))) if isinstance(places, dict) else []
    if not names or any(Path(n).name != n or not (path / n).is_file() for n in names):
        raise InputError(f"{path / INDEX} names files that are not in its folder: {names[:5]}")
    parts = [read_weights(path / n, unsafe=unsafe)[0].tensors for n in names]
    return [Weights((), {name: tensor for part in parts for name, tensor in part.items()})]


def _preprocessing(config: Mapping[str, Any], channels: int) -> Preprocessing:
    """What an image processor's configuration says, for pixels in [0, 1]."""
    mean: Any = config.get("image_mean")
    std: Any = config.get("image_std")
    size = _square(config.get("crop_size")) if config.get("do_center_crop") else None
    size = size or (_square(config.get("size")) if config.get("do_resize", True) else None)
    if not config.get("do_normalize", True) or not (_numbers(mean, channels) and _numbers(std, channels)):
        mean, std = [0.0] * channels, [1.0] * channels
    scale = config.get("rescale_factor", 1 / 255) if config.get("do_rescale", True) else 1.0
    scale = 255.0 * scale if isinstance(scale, int | float) and scale > 0 else 1.0
    shift = 1.0 if config.get("rescale_offset") else 0.0
    means, stds = tuple((m + shift) / scale for m in mean), tuple(s / scale for s in std)  # ((255 f p - shift) - m) / s
    if (set(means), set(stds)) == ({0.0}, {1.0}):
        return Preprocessing(input_size=size)
    return Preprocessing(means, stds, size)


def _numbers(values: Any, count: int) -> bool:
    return isinstance(values, list) and len(values) == count and all(isinstance(v, int | float) for v in values)


def _square(size: Any) -> tuple[int, int] | None:
    """224, [224, 224], {"height": 224, "width": 224} or {"shortest_edge": 224} -> (224, 224)."""
    if isinstance(size, dict):
        size = [size.get("height"), size.get("width")] if "height" in size else size.get("shortest_edge")
    if isinstance(size, int) and not isinstance(size, bool):
        size = [size, size]
    return check_size(size, "the configured input size") if isinstance(size, list) and None not in size else None


def _of_one_size(network: torch.nn.Module) -> bool:
    """Whether it looks positions up in a table made for one size of image."""
    return any("position_embedding" in n or "pos_embed" in n for n in network.state_dict())
