"""Folders of transformers' `save_pretrained`: an image classifier, and how its images are prepared.

The class is transformers' own, found by the name of its kind; a configuration that names code, or files or networks
elsewhere, is refused. Nothing is looked for on a network.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch

from ..._check import first_line
from ...errors import InputError
from .._extras import need
from ..datasets.image_files import check_size
from .architectures import outline_of, read_json
from .checkpoints import State
from .preprocessing import Preprocessing

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
_TOLD = {"missing": "missing", "unknown": "unexpected", "of another shape": "mismatched"}
_HOW_IT_IS_RUN = ("attn_implementation", "experts_implementation", "use_kernels", "torch_dtype", "dtype")
# times the elements of the weights; what a configuration's network may have; source: chosen, tied layers are saved once
MAX_ELEMENTS_RATIO = 4


class Folder(NamedTuple):
    """name: of the network's kind, for messages and reports."""

    network: torch.nn.Module
    known: Preprocessing
    name: str


def load_transformers(
    path: Path, config: Mapping[str, Any], state: State, input_size: tuple[int, int] | None
) -> Folder:
    """The network of a folder's config.json with these weights, and its preprocessing.

    input_size: (H, W) that it is to see, whatever the folder says. Raises InputError for a configuration of no image
    classifier, or that names code or anything elsewhere; and for weights that do not fit it.
    """
    transformers = need("transformers", "transformers", f"the model folder {path}")
    configuration, network = _configured(transformers, path, config)
    complaint = f"{path} does not fit its own config.json ({network.__name__})"
    _check_elements(outline_of(lambda: network(configuration), network.__name__), state, complaint)
    with _quiet(transformers):
        try:
            loaded, told = network.from_pretrained(
                None, config=configuration, state_dict=state, dtype=torch.float32, output_loading_info=True
            )
        except Exception as e:
            raise InputError(f"{complaint}: {first_line(e)}") from e
    _check_told(told, complaint)
    channels = config.get("num_channels", 3)
    known = _preprocessing(read_json(path / "preprocessor_config.json"), channels if isinstance(channels, int) else 3)
    built_for = _square(config.get("image_size")) if _of_one_size(loaded) else None
    return Folder(loaded, known._replace(input_size=input_size or built_for or known.input_size), network.__name__)


def _configured(transformers: Any, path: Path, config: Mapping[str, Any]) -> tuple[Any, Any]:
    """What transformers makes of a configuration, and the class of the network."""
    where, kind = path / "config.json", str(config["model_type"])
    elsewhere = sorted({key for key, value in _pairs(config) if key in _ELSEWHERE and value})
    if elsewhere:
        raise InputError(f"{where} names code, or something that is not in the folder: {elsewhere}")
    _check_layers(where, config)
    networks = transformers.models.auto.modeling_auto.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES
    if kind not in networks or kind == "timm_wrapper":
        raise InputError(
            f"{path} is a {kind} network ({config.get('architectures')}), of which transformers "
            f"{transformers.__version__} has no image classifier"
        )
    names = networks[kind]
    names = [names] if isinstance(names, str) else list(names)
    asked = config.get("architectures")
    names = [n for n in (asked if isinstance(asked, list) else []) if n in names] or names
    try:
        classes = transformers.models.auto.configuration_auto.CONFIG_MAPPING
        return classes[kind].from_dict(_passed_on(config), attn_implementation="eager"), getattr(transformers, names[0])
    except Exception as e:  # of values that its classes refuse
        raise InputError(f"{where} is no configuration of a {kind} network: {first_line(e)}") from e


def _pairs(config: Any, depth: int = 10) -> Iterator[tuple[str, Any]]:
    """Every key of a configuration and of those in it, with its value."""
    for key, value in config.items() if isinstance(config, dict) and depth else ():
        yield key, value
        yield from _pairs(value, depth - 1)


def _passed_on(config: Any) -> Any:
    """Without what says how a network is run: which kernels, in which precision, where it came from."""
    if not isinstance(config, dict):
        return config
    return {k: _passed_on(v) for k, v in config.items() if not k.startswith("_") and k not in _HOW_IT_IS_RUN}


def _check_layers(where: Path, config: Mapping[str, Any]) -> None:
    for key, value in _pairs(config):
        if any(word in key for word in ("layer", "depth", "block", "stage")):
            counts = value if isinstance(value, list) else [value]
            if any(isinstance(n, int) and n > MAX_LAYERS for n in counts):
                raise InputError(f"{where}: {key} is {value!r:.100}; at most {MAX_LAYERS} are built")


def _check_elements(outline: torch.nn.Module, state: State, complaint: str) -> None:
    """Before any memory is taken."""
    wanted, there = (sum(t.numel() for t in tensors) for tensors in (outline.parameters(), state.values()))
    if wanted > MAX_ELEMENTS_RATIO * there:
        raise InputError(f"{complaint}: that has {wanted} numbers, and in the folder are {there}")


def _check_told(told: Mapping[str, Any], complaint: str) -> None:
    found = {what: sorted(map(str, told.get(f"{key}_keys") or ())) for what, key in _TOLD.items()}
    parts = [f"{len(n)} {what} ({', '.join(n[:3])}{', ...' * (len(n) > 3)})" for what, n in found.items() if n]
    if parts or told.get("error_msgs"):
        raise InputError(f"{complaint}: {'; '.join(parts) or str(told['error_msgs'])[:300]}")


@contextlib.contextmanager
def _quiet(transformers: Any) -> Iterator[None]:
    """Without its bars and tables on stderr; the random state stays as it was."""
    log = transformers.utils.logging
    level, bars = log.get_verbosity(), log.is_progress_bar_enabled()
    log.set_verbosity(log.CRITICAL)
    log.disable_progress_bar()
    try:
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.set_verbosity(level)
        if bars:
            log.enable_progress_bar()


def _preprocessing(config: Mapping[str, Any], channels: int) -> Preprocessing:
    """What an image processor's configuration says, for pixels in [0, 1]."""
    mean: Any = config.get("image_mean")
    std: Any = config.get("image_std")
    size = _square(config.get("crop_size")) if config.get("do_center_crop") else None
    size = size or (_square(config.get("size")) if config.get("do_resize", True) else None)
    if not config.get("do_normalize", True) or not (_numbers(mean, channels) and _numbers(std, channels)):
        mean, std = [0.0] * channels, [1.0] * channels
    factor = config.get("rescale_factor", 1 / 255) if config.get("do_rescale", True) else 1.0
    scale = 255.0 * factor if isinstance(factor, int | float) and factor > 0 else 1.0
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
