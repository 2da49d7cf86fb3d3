"""Networks given as weights and the name of what to load them into."""

import argparse
import importlib
import json
import pickle
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import torch

from ..._check import first_line
from ...errors import InputError
from .._extras import need
from ..datasets.image_files import check_size

Architecture: TypeAlias = str | Callable[[], torch.nn.Module]

_NESTED = ("state_dict", "model_state_dict", "model")  # where training scripts keep the weights in a checkpoint
_PREFIXES = ("module.", "_orig_mod.")  # of DataParallel and of torch.compile
_KINDS = "'timm:NAME', 'torchvision:NAME' or 'module:callable'"


class Preprocessing(NamedTuple):
    """How a network wants its images, as far as its library or its checkpoint says; None and () for no word."""

    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    input_size: tuple[int, int] | None = None  # (H, W)


class Resized(torch.nn.Module):
    """A network that sees every image at one size: antialiased bilinear, and differentiable."""

    def __init__(self, network: torch.nn.Module, size: tuple[int, int]):
        super().__init__()
        self.network, self.size = network, size

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.nn.functional.interpolate(x, self.size, mode="bilinear", align_corners=False, antialias=True)
        out: torch.Tensor = self.network(x)
        return out


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
    state = load_weights(path, unsafe=unsafe)
    if callable(arch):
        network, known = _built(arch, name_of(arch)), Preprocessing()
    elif not isinstance(arch, str) or not all(arch.partition(":")):
        raise InputError(f"arch must be {_KINDS}, or a callable that gives the network; got {arch!r}", argument="arch")
    elif arch.startswith("timm:"):
        network, known = _timm(arch.removeprefix("timm:"), path, state, input_size)
    elif arch.startswith("torchvision:"):
        network, known = _torchvision(arch.removeprefix("torchvision:"), state, input_size)
    elif not run_arch:
        raise InputError(f"{arch!r} runs the code of a module: allow that if you trust it", argument="run_arch")
    else:
        network, known = _built(_imported(arch), arch), Preprocessing()
    _load(network, state, f"{path} does not fit {name_of(arch)}")
    return network, known


def name_of(arch: Architecture) -> str:
    """What messages and reports call it."""
    return arch if isinstance(arch, str) else getattr(arch, "__name__", type(arch).__name__)


def load_weights(path: Path, *, unsafe: bool = False) -> dict[str, torch.Tensor]:
    """The named tensors of a safetensors file or a checkpoint. Raises InputError for anything else."""
    if not path.is_file():
        raise InputError(f"no such model file: {path}")
    if is_safetensors(path):
        from safetensors import safe_open

        try:
            with safe_open(path, "pt", device="cpu") as f:
                return {name: f.get_tensor(name) for name in f.keys()}  # noqa: SIM118  # it is no mapping
        except Exception as e:  # it raises classes of its own, and torch's
            raise InputError(f"{path} is damaged or truncated: {first_line(e)}") from e
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals([argparse.Namespace]):  # timm's; plain values
            warnings.simplefilter("ignore")
            content = torch.load(path, map_location="cpu", weights_only=not unsafe)
    except pickle.UnpicklingError as e:
        raise InputError(
            f"{path} is damaged, or holds more than weights, which could run code when it is read: save only the "
            f"state dict, as safetensors, or allow that for a file you trust ({_reason(e)})",
            argument="unsafe",
        ) from e
    except Exception as e:
        raise InputError(f"{path} is no checkpoint of weights, or damaged: {first_line(e)}") from e
    return _tensors(content, path)


def is_safetensors(path: Path) -> bool:
    """Whether a file begins as one does: the length of its header, and a JSON object."""
    with path.open("rb") as f:
        head = f.read(9)
    return len(head) == 9 and head[8:] == b"{" and int.from_bytes(head[:8], "little") <= path.stat().st_size - 8


def _tensors(content: Any, path: Path) -> dict[str, torch.Tensor]:
    for key in _NESTED:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if isinstance(content, torch.nn.Module):
        content = content.state_dict()
    if not isinstance(content, Mapping) or not content:
        raise InputError(f"{path} holds {type(content).__name__}, expected a state dict: names and their tensors")
    odd = [name for name, value in content.items() if not (isinstance(name, str) and isinstance(value, torch.Tensor))]
    if odd:
        raise InputError(
            f"{path}: expected names and their tensors, found {odd[:5]!r} that are not; the weights may stand under "
            f"{' or '.join(_NESTED)}"
        )
    state = dict(content)
    for prefix in _PREFIXES:
        if all(name.startswith(prefix) for name in state):
            state = {name.removeprefix(prefix): value for name, value in state.items()}
    return state


def _timm(
    name: str, path: Path, state: dict[str, torch.Tensor], input_size: tuple[int, int] | None
) -> tuple[torch.nn.Module, Preprocessing]:
    """A timm network; its configuration is the one that timm saved beside the weights, or else its default."""
    timm = need("timm", "timm", f"the architecture 'timm:{name}'")
    if not timm.is_model(name.partition(".")[0]):  # which also keeps names that timm would download from out
        raise InputError(f"timm {timm.__version__} has no network named {name!r}; timm.list_models() lists them")
    saved = _saved_config(path, name)
    config = timm.models.get_pretrained_cfg(name, allow_unregistered=True) if saved is None else None
    facts: Mapping[str, Any] = saved["pretrained_cfg"] if saved else (config.to_dict() if config else {})
    options: dict[str, Any] = {}
    for key, layer, axis in (("num_classes", "classifier", 0), ("in_chans", "first_conv", 1)):
        weight = state.get(f"{facts.get(layer)}.weight")
        if weight is not None and weight.ndim > axis:
            options[key] = weight.shape[axis]
    fixed = bool(facts.get("fixed_input_size"))
    if fixed and input_size:
        options["img_size"] = input_size
    network = _built(lambda: timm.create_model(name, pretrained=False, **options), f"timm:{name}")
    size = _pair(facts.get("input_size")) if saved or fixed else None
    return network, Preprocessing(*_channels(facts, options.get("in_chans", 3)), input_size or size)


def _saved_config(path: Path, name: str) -> dict[str, Any] | None:
    """What timm saved beside the weights (config.json), None unless it is about this network."""
    try:
        with (path.parent / "config.json").open(encoding="utf-8") as f:
            config = json.load(f)
    except (OSError, ValueError, RecursionError):
        return None
    known = isinstance(config, dict) and config.get("architecture") == name.partition(".")[0]
    return config if known and isinstance(config.get("pretrained_cfg"), dict) else None


def _torchvision(
    name: str, state: dict[str, torch.Tensor], input_size: tuple[int, int] | None
) -> tuple[torch.nn.Module, Preprocessing]:
    models = need("torchvision.models", "torchvision", f"the architecture 'torchvision:{name}'")
    if name not in models.list_models(module=models):
        raise InputError(f"torchvision has no classifier named {name!r}; torchvision.models.list_models() lists them")
    with torch.device("meta"):  # for the names of its layers alone
        outline = _built(lambda: models.get_model(name, weights=None), f"torchvision:{name}")
    heads = [n for n, m in outline.named_modules() if isinstance(m, torch.nn.Linear | torch.nn.Conv2d)]
    head = state.get(f"{heads[-1]}.weight")
    size = getattr(outline, "image_size", None)  # of networks built for one
    options: dict[str, Any] = {"num_classes": head.shape[0]} if head is not None and head.ndim else {}
    if size and input_size:
        if input_size[0] != input_size[1]:
            raise InputError(f"torchvision:{name} takes square images only, got {input_size}", argument="input_size")
        options["image_size"] = input_size[0]
    network = _built(lambda: models.get_model(name, weights=None, **options), f"torchvision:{name}")
    transforms = models.get_model_weights(name).DEFAULT.transforms()
    facts = {"mean": getattr(transforms, "mean", None), "std": getattr(transforms, "std", None)}
    return network, Preprocessing(*_channels(facts, 3), input_size or ((size, size) if size else None))


def _channels(facts: Mapping[str, Any], channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """mean and std as a configuration gives them, both () where it gives none for this many channels."""
    found = []
    for key in ("mean", "std"):
        values = facts.get(key)
        numbers = isinstance(values, list | tuple) and all(isinstance(v, int | float) for v in values)
        found.append(tuple(float(v) for v in values) if values is not None and numbers else ())
    mean, std = found
    return (mean, std) if len(mean) == len(std) == channels else ((), ())


def _pair(shape: Any) -> tuple[int, int] | None:
    """(C, H, W) as a configuration gives it -> (H, W)."""
    return check_size(shape[1:], "the configured input size") if isinstance(shape, list | tuple) else None


def _built(make: Callable[[], Any], name: str) -> torch.nn.Module:
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


def _load(network: torch.nn.Module, state: dict[str, torch.Tensor], complaint: str) -> None:
    own = network.state_dict()
    missing, extra = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    other = [n for n in sorted(own.keys() & state.keys()) if own[n].shape != state[n].shape]
    if missing or extra or other:
        shapes = [f"{n} {tuple(state[n].shape)} for {tuple(own[n].shape)}" for n in other]
        told = {"missing": missing, "unknown": extra, "of another shape": shapes}
        parts = [f"{len(n)} {what} ({', '.join(n[:3])}{', ...' * (len(n) > 3)})" for what, n in told.items() if n]
        raise InputError(f"{complaint}: it has {len(own)} tensors; {'; '.join(parts)}")
    try:
        network.load_state_dict(state)
    except Exception as e:
        raise InputError(f"{complaint}: {first_line(e)}") from e


def _reason(e: Exception) -> str:
    """The one line of torch's long advice that says what was met."""
    lines = [line.strip() for line in str(e).splitlines() if "WeightsUnpickler error" in line or "Unsupported" in line]
    return (lines or [first_line(e)])[0][:300]
