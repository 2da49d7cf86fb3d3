"""Classifier: any network as images -> logits, frozen and in evaluation mode while it is used."""

import contextlib
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ..._check import first_line
from ...errors import InputError
from ..datasets.image_files import check_size
from .architectures import Architecture, Resized, load_architecture, name_of
from .batchnorm_folding import folded
from .devices import moved, usable
from .export import BatchRange, describe_program, refuse_training
from .freezing import holder_of
from .model_files import load_model_file

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}
# of the largest logit; what folding batch norms may change and still be used; source: chosen, a hundred times the
# rounding of a network of a few layers in single precision
FOLDED_TOLERANCE = 1e-4


class Classifier:
    """A network with frozen parameters, called through `logits` and nowhere else.

        with classifier:
            logits = classifier.logits(x)

    Inside, batch norms that can be are folded into convolutions (`fold.folded`), if that leaves the first two images'
    logits what they were. The module itself is never changed, and is left in the modes it was found in.

    mean, std: (C) floats that pixels in [0, 1] must be normalised with before `logits`; () until `check` when
    the caller gave none, then zeros and ones. num_classes: None until the first call. device: where x must
    be. precision: torch.float32, or torch.bfloat16, which the network then runs in under autocast.
    forward_images counts images through the network (check's two and those that try its folded copy included,
    padding not); backward_images is the caller's to add to.
    """

    def __init__(
        self,
        module: torch.nn.Module,
        *,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        precision: str = "float32",
        source: str = "model",
        image_shape: tuple[int, int, int] | None = None,
        batch: BatchRange = (1, None),
    ):
        """image_shape, batch: what an exported program was fixed to, (1, None) where any batch goes."""
        self.mean, self.std = _normalisation(mean, std)
        self.precision = _precision(precision)
        self.module, self.source = module, source
        self.device = _device(module)
        self.num_classes: int | None = None
        self.forward_images = self.backward_images = 0
        self._image_shape, self._batch = image_shape, batch
        self._holder, self._depth = holder_of(module), 0
        self._network: torch.nn.Module | None = None  # the module or its folded copy, once an image was through

    def __repr__(self) -> str:
        k = "?" if self.num_classes is None else self.num_classes
        return f"<Classifier {self.source}: {k} classes on {self.device}>"

    def __enter__(self) -> "Classifier":
        self._holder.hold(self.module)
        self._depth += 1
        return self

    def __exit__(self, *_exc: object) -> None:
        self._depth -= 1
        if self._depth == 0:
            self._network = None
        self._holder.let_go()

    def logits(self, x: torch.Tensor, *, look: bool = True) -> torch.Tensor:
        """x: (n, C, H, W) float32 or of `precision`, on `device`, n >= 1 -> (n, K) float logits, differentiable in x.

        look: whether to look for NaN and infinities, which waits for an accelerator; False leaves that to the caller.

        Call inside `with classifier:`. Raises InputError for an output that is not a finite (n, K) float
        tensor.
        """
        if self._depth == 0:
            raise InputError("call logits inside `with classifier:`, which freezes the model and restores it after")
        low, high = self._batch
        size = len(x) if high is None else high
        network = self._network or self.module
        with self._autocast():
            parts = [_valid(self._padded(network, part, low), len(part), look) for part in torch.split(x, max(size, 1))]
        out = parts[0] if len(parts) == 1 else torch.cat(parts)
        if self.num_classes is None:
            self.num_classes = out.shape[1]
        elif out.shape[1] != self.num_classes:
            raise InputError(f"the model gave {out.shape[1]} logits now and {self.num_classes} before")
        self.forward_images += len(x)
        if self._network is None:
            few = min(2, max(size, 1))
            self._network = self._folded(x[:few].detach(), out[:few].detach()) or self.module
        return out

    def _folded(self, x: torch.Tensor, expected: torch.Tensor) -> torch.nn.Module | None:
        """The module with batch norms folded; None where that fails, or gives x other logits than expected."""
        network = folded(self.module)
        if network is None:
            return None
        rounded = self.precision != torch.float32
        self.forward_images += len(x) * (1 + rounded)
        try:
            with torch.no_grad():
                x = x.float()
                if rounded:
                    expected = _valid(self._padded(self.module, x, self._batch[0]), len(x))
                out = _valid(self._padded(network, x, self._batch[0]), len(x))
        except Exception:  # a traced copy of an unusual module may fail where the module does not
            return None
        tolerance = FOLDED_TOLERANCE * max(1.0, float(expected.abs().max()))
        same = out.shape == expected.shape and torch.allclose(out, expected, rtol=0, atol=tolerance)
        return network if same else None

    def _autocast(self) -> contextlib.AbstractContextManager[object]:
        if self.precision == torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, self.precision, cache_enabled=False)

    @staticmethod
    def _padded(network: torch.nn.Module, x: torch.Tensor, low: int) -> Any:
        """The network on x, filled up to `low` images by repeating the last one, then cut back."""
        short = low - len(x)
        if short <= 0:
            return network(x)
        out = network(torch.cat([x, x[-1:].expand(short, *x.shape[1:])]))
        return out[: len(x)] if isinstance(out, torch.Tensor) and out.ndim else out

    def check(self, image_shape: Sequence[int], num_labels: int) -> None:
        """One forward and backward of two mid-grey images, so that an unusable model fails at the door.

        image_shape: (C, H, W) of the dataset. num_labels: K, the largest label + 1. Fills in mean and std.
        Raises InputError, saying what was expected, when the model cannot take such a batch, does not give
        finite float (n, K) logits for at least num_labels classes, is random, gives probabilities, or has no
        gradient.
        """
        c, h, w = (int(n) for n in image_shape)
        if self._image_shape not in (None, (c, h, w)):
            raise InputError(f"{self.source} was exported for images {self._image_shape}, the dataset has {(c, h, w)}")
        mean, std = self.mean or (0.0,) * c, self.std or (1.0,) * c
        if len(mean) != c:
            raise InputError(f"mean and std have {len(mean)} values, the images have {c} channels")
        grey = torch.full((2, c, h, w), 128 / 255, dtype=torch.float32, device=self.device)
        shape = (1, c, 1, 1)
        x = (grey - grey.new_tensor(mean).view(shape)) / grey.new_tensor(std).view(shape)
        with self, torch.enable_grad():
            try:
                out = self.logits(x.requires_grad_())
            except InputError:
                raise
            except Exception as e:
                raise InputError(
                    f"{self.source} cannot take a batch of {tuple(x.shape)} float32 images: {first_line(e)}"
                ) from e
            self._check_answer(out.detach(), num_labels)
            if not out.requires_grad:
                raise InputError(
                    f"{self.source}: the logits do not depend on the input through gradients (torch.no_grad "
                    "or detach inside the model?); bre needs the gradient with respect to the images"
                )
            (grad,) = torch.autograd.grad(out.sum(), x, allow_unused=True)
            if grad is None or not torch.isfinite(grad).all():
                raise InputError(f"{self.source}: the gradient with respect to the images is missing or not finite")
            self.backward_images += len(x)
        self.mean, self.std = mean, std

    def _check_answer(self, out: torch.Tensor, num_labels: int) -> None:
        k = out.shape[1]
        if k < num_labels:
            raise InputError(f"{self.source} gives {k} logits but the labels go up to {num_labels - 1}")
        if not torch.allclose(out[0], out[1], rtol=1e-2, atol=1e-3):
            raise InputError(
                f"{self.source} answers the same image in two ways in one batch: a layer is random in evaluation mode"
            )
        if (out >= 0).all() and (out.sum(1) - 1).abs().max() < 1e-3:
            raise InputError(
                f"{self.source} gives probabilities (rows are >= 0 and sum to 1); bre needs logits, before softmax"
            )


def open_model(
    model: Any,
    *,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    precision: str = "float32",
    unsafe: bool = False,
    arch: Architecture | None = None,
    input_size: tuple[int, int] | None = None,
    run_arch: bool = False,
    device: str | torch.device | None = None,
) -> Classifier:
    """A classifier of images, from any of

    - a torch.nn.Module (scripted ones included): float32 (n, C, H, W) -> (n, K) logits;
    - a torch.export.ExportedProgram, or the path of a `.pt2` file; a fixed batch size is met by splitting and
      padding;
    - the path of a TorchScript file, whatever its extension;
    - with `arch`, the path of weights alone: safetensors, or a checkpoint of a state dict.

    mean, std: C floats each, both or neither: the network expects (pixel - mean) / std with pixels in [0, 1].
    Leave them out when the network normalises its own input or wants pixels in [0, 1].
    precision: what the network computes in: "float32", or "bfloat16", under torch's autocast: quicker on processors
    that have instructions for it, slower on others.
    unsafe: also read files that can run code while loading: pickled modules, and .pt2 files that hold pickles
    or anything else bre does not know. Only for files you would run as a program. A `.pt2` file is checked
    against a list of known, plain contents before torch loads it. TorchScript runs in torch's own
    interpreter, not in Python; it is still a program.

    arch: what weights are loaded into: 'timm:NAME', 'torchvision:NAME', a callable that gives the network, or with
    run_arch=True 'module:callable', which runs that module's code. Mean and std are then the library's own, or those
    of the configuration that timm saved beside the weights, unless given; so is the input size, where the network
    takes but one or the weights' own configuration names it.
    input_size: (H, W) that the network is to see images at, whatever the dataset's: they are resized (antialiased
    bilinear) on their way in.
    device: what a model that is read from a file is moved to, "cpu", "cuda" or "cuda:N"; None leaves it where it was
    saved, or on the CPU. Models in memory stay where they are.

    Raises InputError for anything else, and for programs exported in training mode or on a missing device.
    `Classifier.check` then tries the model on the dataset's shape.
    """
    mean, std = _normalisation(mean, std)
    exact = _precision(precision) == torch.float32
    if device is not None:
        if not isinstance(model, (str, os.PathLike)):
            raise InputError(
                f"a device goes with the path of a model: move this {type(model).__name__} there yourself",
                argument="device",
            )
        device = usable(device)
    if isinstance(model, Classifier):
        if mean or arch is not None or input_size is not None or run_arch or not exact:
            raise InputError(
                "this model is a Classifier already: give its options when opening it",
                argument=("mean", "std", "arch", "input_size", "run_arch", "precision"),
            )
        return model
    source = type(model).__name__
    input_size = None if input_size is None else check_size(input_size, "input_size")
    if arch is not None and not isinstance(model, (str, os.PathLike)):
        raise InputError(
            f"an architecture goes with the path of a file of weights, got {type(model).__name__}", argument="arch"
        )
    if isinstance(model, (str, os.PathLike)):
        source = os.path.basename(os.fspath(model))
        if arch is None:
            model = load_model_file(model, unsafe=unsafe)
        else:
            options: Any = {"input_size": input_size, "run_arch": run_arch, "unsafe": unsafe}
            model, known = load_architecture(Path(model), arch, **options)
            mean, std = _normalisation(mean or known.mean or None, std or known.std or None)
            input_size = known.input_size or input_size
            source += f" ({name_of(arch)})"
    if isinstance(model, torch.export.ExportedProgram):
        image_shape, batch = describe_program(model)
        module: torch.nn.Module = (model if device is None else moved(model, device)).module()
        if input_size:
            module, image_shape = Resized(module, input_size), None
        return Classifier(
            module, mean=mean, std=std, precision=precision, source=source, image_shape=image_shape, batch=batch
        )
    if isinstance(model, torch.nn.Module):
        refuse_training(model)
        model = model if device is None else moved(model, device)
        model = Resized(model, input_size) if input_size else model
        return Classifier(model, mean=mean, std=std, precision=precision, source=source)
    if isinstance(model, type) and issubclass(model, torch.nn.Module):
        raise InputError(f"a model is needed, got the class {model.__name__}: pass an instance with its weights")
    if isinstance(model, dict):
        raise InputError("a model is needed, got a dict: a state dict holds only weights, load it into its nn.Module")
    raise InputError(
        f"a model must be a torch.nn.Module, a torch.export program or a path of one, got {type(model).__name__}"
    )


def _normalisation(mean: Any, std: Any) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """mean, std as given -> tuples of floats of one length, both () when neither was given."""
    if mean is None or std is None:
        if mean is not None or std is not None:
            raise InputError("give both the mean and the std, or neither", argument=("mean", "std"))
        return (), ()
    values = []
    for name, given in (("mean", mean), ("std", std)):
        try:
            values.append(tuple(float(v) for v in given))
        except (TypeError, ValueError):
            raise InputError(f"{name} must be a sequence of one number per channel, got {given!r}") from None
    mean, std = values
    if len(mean) != len(std):
        raise InputError(f"mean has {len(mean)} values and std has {len(std)}; both need one per channel")
    if not all(map(math.isfinite, mean + std)):
        raise InputError(f"mean and std must be finite, got {mean} and {std}")
    if any(abs(m) > 1 for m in mean):
        raise InputError(f"mean and std must be in units of pixels in [0, 1], got mean {mean}: divide both by 255")
    if any(s <= 0 for s in std):
        raise InputError(f"std must be > 0, got {std}")
    return mean, std


def _precision(name: Any) -> torch.dtype:
    if not isinstance(name, str) or name not in PRECISIONS:
        raise InputError(f"precision: expected {' or '.join(map(repr, PRECISIONS))}, got {name!r}")
    return PRECISIONS[name]


def _device(module: torch.nn.Module) -> torch.device:
    devices = {t.device for t in (*module.parameters(), *module.buffers())}
    if len(devices) > 1:
        raise InputError(f"the model's tensors lie on several devices: {sorted(map(str, devices))}; move it to one")
    device = devices.pop() if devices else torch.device("cpu")
    if device.type == "meta":
        raise InputError("the model's weights are on the meta device: it has shapes but no values")
    return device


def _valid(out: Any, n: int, look: bool = True) -> torch.Tensor:
    """The module's answer for n images -> itself, when it is a float (n, K) tensor, and finite if we may `look`."""
    if not isinstance(out, torch.Tensor):
        raise InputError(
            f"the model must give one (n, K) tensor of logits, got {type(out).__name__}: wrap it in a module "
            "that returns the logits only"
        )
    if out.ndim != 2 or out.shape[0] != n:
        raise InputError(f"the model must give ({n}, K) logits for {n} images, got shape {tuple(out.shape)}")
    if not out.is_floating_point():
        raise InputError(f"the model must give float logits, got {out.dtype}")
    if look and not torch.isfinite(out).all():
        bad = int((~torch.isfinite(out)).any(1).sum())
        raise InputError(f"the model gave NaN or infinite logits for {bad} of {n} images")
    return out
