"""open_model: a Classifier from whatever people have."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import torch

from ..._check import first_line
from ...errors import InputError
from ..datasets.image_files import check_size
from .architectures import Architecture, load_architecture, name_of
from .classifier import Classifier, precision_of
from .devices import moved, usable
from .export import describe_program, refuse_training
from .model_files import load_model_file
from .model_folders import file_in, is_model_folder, load_folder
from .modules import plain_module
from .preprocessing import Preprocessing, Resized, normalisation

__all__ = ["Classifier", "open_model"]


@dataclass(frozen=True)
class _Options:
    """What open_model was asked for, checked."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    precision: str
    input_size: tuple[int, int] | None
    device: torch.device | None

    def filled(self, known: Preprocessing) -> _Options:
        """With what a library or a configuration knows, where nothing else was asked for."""
        mean, std = normalisation(self.mean or known.mean or None, self.std or known.std or None)
        return _Options(mean, std, self.precision, known.input_size or self.input_size, self.device)


def open_model(
    model: Any,
    *,
    mean: float | Sequence[float] | None = None,
    std: float | Sequence[float] | None = None,
    precision: str = "float32",
    unsafe: bool = False,
    arch: Architecture | None = None,
    input_size: tuple[int, int] | None = None,
    run_arch: bool = False,
    device: str | torch.device | None = None,
) -> Classifier:
    """A classifier of images, from any of

    - a torch.nn.Module (scripted and compiled ones included): float32 (n, C, H, W) -> (n, K) logits, or an object or
      dict with `logits`, as transformers' networks give;
    - a torch.export.ExportedProgram, or the path of a `.pt2` file; a fixed batch size is met by splitting and
      padding;
    - the path of a TorchScript file, whatever its extension, scripted or traced;
    - the path of a folder that `save_pretrained` of transformers wrote, or that timm saved for its hub;
    - with `arch`, the path of weights alone: safetensors, or a checkpoint with a state dict in it.

    mean, std: one number for all channels or C each, both or neither: the network expects (pixel - mean) / std with
    pixels in [0, 1]. Leave them out when the network normalises its own input or wants pixels in [0, 1].
    precision: what the network computes in: "float32", or "bfloat16", under torch's autocast: quicker on processors
    that have instructions for it, slower on others.
    unsafe: also read files that can run code while loading: pickled modules, and .pt2 files that hold pickles
    or anything else bre does not know. Only for files you would run as a program. A `.pt2` file is checked
    against a list of known, plain contents before torch loads it. TorchScript runs in torch's own
    interpreter, not in Python; it is still a program.

    arch: what weights are loaded into: 'timm:NAME', 'torchvision:NAME', a callable that gives the network, or with
    run_arch=True 'module:callable', which runs that module's code. Mean and std are then the library's own, or those
    of the configuration that was saved beside the weights, unless given; so is the input size, where the network
    takes but one or the weights' own configuration names it.
    input_size: (H, W) that the network is to see images at, whatever the dataset's: they are resized (antialiased
    bilinear) on their way in.
    device: what a model that is read from a file is moved to, "cpu", "cuda" or "cuda:N"; None leaves it where it was
    saved, or on the CPU. Models in memory stay where they are.

    Raises InputError for anything else, and for programs exported in training mode or on a missing device.
    `Classifier.check` then tries the model on the dataset's shape.
    """
    path = isinstance(model, str | os.PathLike)
    means, stds = normalisation(mean, std)
    exact = precision_of(precision) == torch.float32
    _refuse_options_of_files(model, arch=arch, device=device)
    if isinstance(model, Classifier):
        if means or arch is not None or input_size is not None or run_arch or not exact:
            raise InputError(
                "this model is a Classifier already: give its options when opening it",
                argument=("mean", "std", "arch", "input_size", "run_arch", "precision"),
            )
        return model
    options = _Options(
        means,
        stds,
        precision,
        None if input_size is None else check_size(input_size, "input_size"),
        None if device is None else usable(device),
    )
    if path:
        return _open_path(Path(model), options, arch, run_arch=run_arch, unsafe=unsafe)
    return _open_loaded(model, options, source=type(model).__name__)


def _open_path(path: Path, options: _Options, arch: Architecture | None, *, run_arch: bool, unsafe: bool) -> Classifier:
    """A file that holds the network, weights with what to load them into, or a folder that says that itself."""
    source = path.name
    if arch is not None:
        weights = file_in(path)
        network, known = load_architecture(
            weights, arch, input_size=options.input_size, run_arch=run_arch, unsafe=unsafe
        )
        return _open_loaded(network, options.filled(known), source=f"{source} ({name_of(arch)})")
    if is_model_folder(path):
        folder = load_folder(path, options.input_size, unsafe=unsafe)
        return _open_loaded(folder.network, options.filled(folder.known), source=f"{source} ({folder.name})")
    return _open_loaded(load_model_file(path, unsafe=unsafe), options, source=source)


def _open_loaded(model: Any, options: _Options, *, source: str) -> Classifier:
    if isinstance(model, torch.export.ExportedProgram):
        return _open_program(model, options, source)
    if isinstance(model, torch.nn.Module):
        return _open_module(model, options, source)
    _refuse(model)


def _open_program(program: torch.export.ExportedProgram, options: _Options, source: str) -> Classifier:
    image_shape, batch = describe_program(program)
    if options.device is not None:
        program = moved(program, options.device)
    try:
        module: torch.nn.Module = program.module()
    except Exception as e:  # of torch, on a program whose parts do not fit together
        raise InputError(f"{source} is damaged, or no program that can be called: {first_line(e)}") from e
    if options.input_size:
        module, image_shape = Resized(module, options.input_size), None
    return Classifier(
        module,
        mean=options.mean or None,
        std=options.std or None,
        precision=options.precision,
        source=source,
        image_shape=image_shape,
        batch=batch,
    )


def _open_module(module: torch.nn.Module, options: _Options, source: str) -> Classifier:
    module = plain_module(module)
    refuse_training(module)
    if options.device is not None:
        module = moved(module, options.device)
    if options.input_size:
        module = Resized(module, options.input_size)
    return Classifier(
        module, mean=options.mean or None, std=options.std or None, precision=options.precision, source=source
    )


def _refuse_options_of_files(model: Any, **given: Any) -> None:
    """What only makes sense for a file."""
    if isinstance(model, str | os.PathLike):
        return
    if given["device"] is not None:
        raise InputError(
            f"a device goes with the path of a model: move this {type(model).__name__} there yourself",
            argument="device",
        )
    if given["arch"] is not None and not isinstance(model, Classifier):
        raise InputError(
            f"an architecture goes with the path of a file of weights, got {type(model).__name__}", argument="arch"
        )


def _refuse(model: Any) -> NoReturn:
    if isinstance(model, type) and issubclass(model, torch.nn.Module):
        raise InputError(f"a model is needed, got the class {model.__name__}: pass an instance with its weights")
    if isinstance(model, dict):
        raise InputError("a model is needed, got a dict: a state dict holds only weights, load it into its nn.Module")
    raise InputError(
        f"a model must be a torch.nn.Module, a torch.export program or a path of one, got {type(model).__name__}"
    )
