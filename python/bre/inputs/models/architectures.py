"""Networks given as weights and the name of what to load them into."""

from __future__ import annotations

import importlib
import json
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import torch

from ..._check import first_line
from ...errors import InputError
from .._extras import need
from .checkpoints import State, Weights, fitting, read_weights
from .preprocessing import Preprocessing, configured_channels, configured_size

Architecture: TypeAlias = str | Callable[[], torch.nn.Module]

_KINDS = "'timm:NAME', 'torchvision:NAME' or 'module:callable'"
_PLAIN_ARGUMENTS = (int, float, bool, type(None))  # that a folder's configuration may hand to timm.create_model
_OTHER_ARGUMENTS = ("pretrained", "checkpoint_path", "cache_dir", "scriptable", "exportable")


def load_architecture(
    path: Path,
    arch: Architecture,
    *,
    input_size: tuple[int, int] | None = None,
    run_arch: bool = False,
    unsafe: bool = False,
) -> tuple[torch.nn.Module, Preprocessing]:
    """A network with the weights of a file, and the preprocessing that is known of it.

    path: safetensors, or a checkpoint that torch.load(weights_only=True) reads; unsafe: unpickle any other. arch: what
    to load them into, as `open_model` says. input_size: (H, W) for networks built for one size. run_arch: allow
    'module:callable', which imports and runs that module.

    Raises InputError when the file holds more than weights, or other weights than the network's.
    """
    weights = read_weights(path, unsafe=unsafe)
    if callable(arch):
        network, known = built(arch, name_of(arch)), Preprocessing()
    elif not isinstance(arch, str) or not all(arch.partition(":")):
        raise InputError(f"arch must be {_KINDS}, or a callable that gives the network; got {arch!r}", argument="arch")
    elif arch.startswith("timm:"):
        return load_timm(arch.removeprefix("timm:"), path, weights, input_size)
    elif arch.startswith("torchvision:"):
        return _torchvision(arch.removeprefix("torchvision:"), path, weights, input_size)
    elif not run_arch:
        raise InputError(f"{arch!r} runs the code of a module: allow that if you trust it", argument="run_arch")
    else:
        network, known = built(_imported(arch), arch), Preprocessing()
    load_state(network, fitting(weights, set(network.state_dict()), path), f"{path} does not fit {name_of(arch)}")
    return network, known


def name_of(arch: Architecture) -> str:
    """What messages and reports call it."""
    return arch if isinstance(arch, str) else getattr(arch, "__name__", type(arch).__name__)


def load_timm(
    name: str, path: Path, weights: list[Weights], input_size: tuple[int, int] | None
) -> tuple[torch.nn.Module, Preprocessing]:
    """A timm network with the weights of a file; its configuration is the one that timm saved beside them, or else its
    default. Raises InputError as `load_architecture` does."""
    timm = need("timm", "timm", f"the architecture 'timm:{name}'")
    if not timm.is_model(name.partition(".")[0]):  # which also keeps names that timm would download from out
        raise InputError(f"timm {timm.__version__} has no network named {name!r}; timm.list_models() lists them")
    saved = saved_config(path.parent, name)
    config = timm.models.get_pretrained_cfg(name, allow_unregistered=True) if saved is None else None
    facts: Mapping[str, Any] = saved["pretrained_cfg"] if saved else (config.to_dict() if config else {})
    options = _arguments(saved)
    outline = outline_of(lambda: timm.create_model(name, pretrained=False, **options), f"timm:{name}")
    state = fitting(weights, set(outline.state_dict()), path)
    for key, layer, axis in (("num_classes", "classifier", 0), ("in_chans", "first_conv", 1)):
        weight = state.get(f"{facts.get(layer)}.weight")
        if weight is not None and weight.ndim > axis:
            options[key] = weight.shape[axis]
    fixed = bool(facts.get("fixed_input_size"))
    if fixed and input_size:
        options["img_size"] = input_size
    network = fitted(
        lambda: timm.create_model(name, pretrained=False, **options),
        state,
        f"timm:{name}",
        f"{path} does not fit timm:{name}",
    )
    size = configured_size(facts.get("input_size")) if saved or fixed else None
    return network, Preprocessing(*configured_channels(facts, options.get("in_chans", 3)), input_size or size)


def saved_config(folder: Path, name: str | None = None) -> dict[str, Any] | None:
    """What timm saved beside the weights (config.json), None unless it is of timm, and about this network."""
    config = read_json(folder / "config.json")
    known = isinstance(config.get("architecture"), str) and isinstance(config.get("pretrained_cfg"), dict)
    return config if known and (name is None or config["architecture"] == name.partition(".")[0]) else None


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file, empty where there is none."""
    try:
        with path.open(encoding="utf-8") as f:
            content = json.load(f)
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _arguments(saved: Mapping[str, Any] | None) -> dict[str, Any]:
    """How the network was built, as far as a configuration says so in numbers."""
    given = (saved or {}).get("model_args")
    return {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in (given.items() if isinstance(given, dict) else ())
        if not key.startswith(_OTHER_ARGUMENTS)
        and all(isinstance(v, _PLAIN_ARGUMENTS) for v in (value if isinstance(value, list) else [value]))
    }


def _torchvision(
    name: str, path: Path, weights: list[Weights], input_size: tuple[int, int] | None
) -> tuple[torch.nn.Module, Preprocessing]:
    models = need("torchvision.models", "torchvision", f"the architecture 'torchvision:{name}'")
    if name not in models.list_models(module=models):
        raise InputError(f"torchvision has no classifier named {name!r}; torchvision.models.list_models() lists them")
    outline = outline_of(lambda: models.get_model(name, weights=None), f"torchvision:{name}")
    state = fitting(weights, set(outline.state_dict()), path)
    heads = [n for n, m in outline.named_modules() if isinstance(m, torch.nn.Linear | torch.nn.Conv2d)]
    head = state.get(f"{heads[-1]}.weight")
    size = getattr(outline, "image_size", None)  # of networks built for one
    options: dict[str, Any] = {"num_classes": head.shape[0]} if head is not None and head.ndim else {}
    if size and input_size:
        if input_size[0] != input_size[1]:
            raise InputError(f"torchvision:{name} takes square images only, got {input_size}", argument="input_size")
        options["image_size"] = input_size[0]
    network = fitted(
        lambda: models.get_model(name, weights=None, **options),
        state,
        f"torchvision:{name}",
        f"{path} does not fit torchvision:{name}",
    )
    transforms = models.get_model_weights(name).DEFAULT.transforms()
    facts = {"mean": getattr(transforms, "mean", None), "std": getattr(transforms, "std", None)}
    return network, Preprocessing(*configured_channels(facts, 3), input_size or ((size, size) if size else None))


def built(make: Callable[[], Any], name: str) -> torch.nn.Module:
    """What a callable gives, a network with weights of its own, which leave the random state as it was."""
    try:
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of old initialisers, whose weights are overwritten
            network = make()
    except Exception as e:
        raise InputError(f"{name} cannot be built: {first_line(e)}") from e
    if not isinstance(network, torch.nn.Module):
        raise InputError(f"{name} gives {type(network).__name__}, expected a torch.nn.Module")
    return network


def _imported(arch: str) -> Callable[[], Any]:
    module, _, names = arch.partition(":")
    try:
        found: Any = importlib.import_module(module)
        for name in names.split("."):
            found = getattr(found, name)
    except Exception as e:  # the module's own code may fail in any way
        hint = "; PYTHONPATH=. finds modules in the current folder" if isinstance(e, ModuleNotFoundError) else ""
        raise InputError(f"{arch!r} cannot be imported: {first_line(e)}{hint}", argument="arch") from e
    if not callable(found):
        raise InputError(
            f"{arch!r} is {type(found).__name__}, expected a callable that gives the network", argument="arch"
        )
    return found  # type: ignore[no-any-return]


def outline_of(make: Callable[[], Any], name: str) -> torch.nn.Module:
    """What a callable gives, without memory for its weights where that can be: for the names and shapes of these."""
    try:
        with torch.device("meta"):
            return built(make, name)
    except InputError:  # some compute with numbers of their own while they are built
        return built(make, name)


def fitted(make: Callable[[], Any], state: State, name: str, complaint: str) -> torch.nn.Module:
    """The network that a callable makes, with these weights; made without memory first, to see that they fit."""
    check_fit(outline_of(make, name), state, complaint)
    network = built(make, name)
    load_state(network, state, complaint)
    return network


def load_state(network: torch.nn.Module, state: State, complaint: str) -> None:
    """Put weights into a network. Raises InputError unless they are its own, every name and every shape."""
    check_fit(network, state, complaint)
    own = network.state_dict()
    try:
        network.load_state_dict({**{n: own[n] for n in own.keys() - state.keys()}, **state})
    except Exception as e:
        raise InputError(f"{complaint}: {first_line(e)}") from e


def check_fit(network: torch.nn.Module, state: State, complaint: str) -> None:
    """Raise InputError unless these are the network's weights; counters of batches, which old files lack, may miss."""
    own = network.state_dict()
    missing = sorted(n for n in own.keys() - state.keys() if not n.endswith("num_batches_tracked"))
    extra = sorted(state.keys() - own.keys())
    other = [n for n in sorted(own.keys() & state.keys()) if own[n].shape != state[n].shape]
    if missing or extra or other:
        shapes = [f"{n} {tuple(state[n].shape)} for {tuple(own[n].shape)}" for n in other]
        told = {"missing": missing, "unknown": extra, "of another shape": shapes}
        parts = [f"{len(n)} {what} ({', '.join(n[:3])}{', ...' * (len(n) > 3)})" for what, n in told.items() if n]
        raise InputError(f"{complaint}: it has {len(own)} tensors; {'; '.join(parts)}")
