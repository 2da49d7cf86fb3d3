"""Classifier: any network as images -> logits, frozen and in evaluation mode while it is used."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from ...errors import InputError
from .activations import Layer, find_layers, means_inside
from .batchnorm_folding import folded
from .export import BatchRange
from .file_kinds import QUANTISED
from .freezing import frozen
from .modules import failure, is_compiled, is_quantised
from .preprocessing import for_channels, normalisation

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}
# of the largest logit; what folding batch norms may change and still be used; source: chosen, a hundred times the
# rounding of a network of a few layers in single precision
FOLDED_TOLERANCE = 1e-4
# probability; spread of a sigmoid's answers over all contrasts; source: chosen, an untrained last layer's are constant
MIN_RANGE = 1e-3
# normalised units; standard deviations of noise; source: chosen, from faint to saturating
CONTRASTS = torch.tensor([0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 1000.0])


class Classifier:
    """A network with frozen parameters, called through `logits` and nowhere else.

        with classifier:
            logits = classifier.logits(x)

    Inside, batch norms that can be are folded into convolutions (`fold.folded`), if that leaves the first two images'
    logits what they were. The module itself is never changed, and is left in the modes it was found in.

    mean, std: floats that pixels in [0, 1] must be normalised with before `logits`; C of them once `check` has seen
    the images' shape: until then as given, one for all channels, or () for none. num_classes: None until the first
    call. device: where x must be. precision: torch.float32, or torch.bfloat16, which the network then runs in under
    autocast. forward_images counts images through the network (check's two and those that try its folded copy
    included, padding not); backward_images is the caller's to add to.
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
        self.mean, self.std = normalisation(mean, std)
        self.precision = precision_of(precision)
        self.module, self.source = module, source
        self.device = _device(module)
        self.num_classes: int | None = None
        self.forward_images = self.backward_images = 0
        self._image_shape, self._batch = image_shape, batch
        self._compiled = is_compiled(module)
        self._entered: list[contextlib.AbstractContextManager[None]] = []
        self._network: torch.nn.Module | None = None  # the module or its folded copy, once an image was through

    def __repr__(self) -> str:
        k = "?" if self.num_classes is None else self.num_classes
        return f"<Classifier {self.source}: {k} classes on {self.device}>"

    @property
    def fewest(self) -> int:
        """Images that a call costs at least: fewer are filled up to as many, where a program was fixed to them."""
        return max(self._batch[0], 1)

    def __enter__(self) -> Classifier:
        context = frozen(self.module)
        context.__enter__()
        self._entered.append(context)
        return self

    def __exit__(self, *_exc: object) -> None:
        context = self._entered.pop()
        if not self._entered:
            self._network = None
        context.__exit__(None, None, None)

    def logits(self, x: torch.Tensor, *, look: bool = True) -> torch.Tensor:
        """x: (n, C, H, W) float32 or of `precision`, on `device`, n >= 1 -> (n, K) float logits, differentiable in x.

        look: whether to look for NaN and infinities, which waits for an accelerator; False leaves that to the caller.

        Call inside `with classifier:`. Raises InputError for an output that is not a finite (n, K) float
        tensor.
        """
        if not self._entered:
            raise InputError("call logits inside `with classifier:`, which freezes the model and restores it after")
        low, high = self._batch
        size = len(x) if high is None else high
        network = self.module if self._network is None else self._network
        with self._autocast(), self._uncompiled():
            parts = [_valid(self._padded(network, part, low), len(part), look) for part in torch.split(x, max(size, 1))]
        out = parts[0] if len(parts) == 1 else torch.cat(parts)
        if self.num_classes is None:
            self.num_classes = out.shape[1]
        elif out.shape[1] != self.num_classes:
            raise InputError(f"the model gave {out.shape[1]} logits now and {self.num_classes} before")
        self.forward_images += len(x)
        if self._network is None:
            few = min(2, max(size, 1))
            copy = self._folded(x[:few].detach(), out[:few].detach())
            self._network = self.module if copy is None else copy
        return out

    def layers(self, x: torch.Tensor) -> tuple[Layer, ...]:
        """The layers inside that `inside` looks at, from one pass of x, as `logits` takes it; none where the network
        shows none."""
        x = self._whole_pass(x[: self._batch[1]])
        return find_layers(lambda: self.logits(x), len(x))

    def inside(self, x: torch.Tensor, layers: Sequence[Layer]) -> tuple[list[torch.Tensor], torch.Tensor]:
        """One forward pass without gradients: of each of the layers its activations' means over positions, float32
        (n, channels); and the logits. x: as for `logits`. Raises InputError where a pass shows other layers."""
        parts = []
        for part in torch.split(x, self._batch[1] or len(x)):
            whole = self._whole_pass(part)
            means, logits = means_inside(lambda whole=whole: self.logits(whole), len(whole), layers)  # type: ignore[misc]
            if [each.shape[1] for each in means] != [layer.channels for layer in layers]:
                raise InputError(
                    f"{self.source} computes other layers for other images, so that it cannot be seen inside"
                )
            parts.append([each[: len(part)] for each in (*means, logits)])
        *means, logits = (torch.cat(pieces) for pieces in zip(*parts, strict=True))
        return means, logits

    def _whole_pass(self, x: torch.Tensor) -> torch.Tensor:
        """x, filled up to the fewest images of a pass by repeating the last one."""
        short = self.fewest - len(x)
        return x if short <= 0 else torch.cat([x, x[-1:].expand(short, *x.shape[1:])])

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

    def _uncompiled(self) -> contextlib.AbstractContextManager[object]:
        """Parts that torch.compile made run as they are: else each kind of batch would be compiled anew."""
        if not self._compiled:
            return contextlib.nullcontext()
        stance: contextlib.AbstractContextManager[object] = torch.compiler.set_stance("force_eager")
        return stance

    @staticmethod
    def _padded(network: torch.nn.Module, x: torch.Tensor, low: int) -> Any:
        """The network on x, filled up to `low` images by repeating the last one, then cut back."""
        short = low - len(x)
        if short <= 0:
            return logits_of(network(x))
        out = logits_of(network(torch.cat([x, x[-1:].expand(short, *x.shape[1:])])))
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
            raise InputError(
                f"{self.source} was exported for images {self._image_shape}, the dataset has {(c, h, w)}",
                argument="input_size" if self._image_shape[0] == c else (),
            )
        if torch.is_inference_mode_enabled():
            raise InputError("bre needs gradients, which torch.inference_mode() forbids: call it outside of that")
        if is_quantised(self.module):
            raise InputError(f"{self.source} {QUANTISED}")
        self.mean, self.std = for_channels(self.mean, c, 0.0), for_channels(self.std, c, 1.0)
        with self, torch.enable_grad():
            x = self._normalised(torch.full((2, c, h, w), 128 / 255, dtype=torch.float32, device=self.device))
            out = self._first_logits(x.requires_grad_())
            self._check_answer(out.detach(), num_labels)
            self._check_gradient(out, x)
            if _between_0_and_1(out):
                self._check_range(x.detach())

    def _normalised(self, pixels: torch.Tensor) -> torch.Tensor:
        """pixels: (n, C, H, W) in [0, 1] -> what the network takes."""
        mean, std = (pixels.new_tensor(values).view(1, -1, 1, 1) for values in (self.mean, self.std))
        return (pixels - mean) / std

    def _first_logits(self, x: torch.Tensor) -> torch.Tensor:
        try:
            return self.logits(x)
        except InputError:
            raise
        except Exception as e:
            why, argument = failure(self.module, x, e)
            raise InputError(f"{self.source} {why}", argument=argument) from e

    def _check_gradient(self, out: torch.Tensor, x: torch.Tensor) -> None:
        if not out.requires_grad:
            why = "(torch.no_grad or detach inside the model?); bre needs the gradient with respect to the images"
            raise InputError(f"{self.source}: the logits do not depend on the input through gradients {why}")
        (grad,) = torch.autograd.grad(out.sum(), x, allow_unused=True)
        if grad is None or not torch.isfinite(grad).all():
            raise InputError(f"{self.source}: the gradient with respect to the images is missing or not finite")
        self.backward_images += len(x)

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

    def _check_range(self, x: torch.Tensor) -> None:
        """Raises InputError where noise of any contrast, too, gives numbers from 0 to 1 only, as a sigmoid does."""
        generator = torch.Generator().manual_seed(0)
        noise = torch.randn(CONTRASTS.numel(), *x.shape[1:], generator=generator) * CONTRASTS.view(-1, 1, 1, 1)
        with torch.no_grad():
            out = self.logits(x[:1] + noise.to(x.device), look=False)
        if _between_0_and_1(out) and out.max() - out.min() > MIN_RANGE:
            raise InputError(
                f"{self.source} gives numbers between 0 and 1 only, as after a sigmoid; bre needs logits, before it"
            )


def precision_of(name: Any) -> torch.dtype:
    """The type that a name stands for. Raises InputError for another name."""
    if not isinstance(name, str) or name not in PRECISIONS:
        raise InputError(f"precision: expected {' or '.join(map(repr, PRECISIONS))}, got {name!r}")
    return PRECISIONS[name]


def logits_of(out: Any) -> Any:
    """What a network answers -> the logits in it: those of transformers' outputs and of dicts stand under that name."""
    if isinstance(out, torch.Tensor):
        return out
    found = out.get("logits") if isinstance(out, Mapping) else getattr(out, "logits", None)
    if found is None and isinstance(out, tuple | list) and len(out) == 1:
        found = out[0]
    return found if isinstance(found, torch.Tensor) else out


def _between_0_and_1(out: torch.Tensor) -> bool:
    return bool(((out >= 0) & (out <= 1)).all())


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
            f"the model must give one (n, K) tensor of logits, alone or as `logits`, got {type(out).__name__}: wrap it "
            "in a module that returns the logits only"
        )
    if out.ndim != 2 or out.shape[0] != n:
        raise InputError(f"the model must give ({n}, K) logits for {n} images, got shape {tuple(out.shape)}")
    if not out.is_floating_point():
        raise InputError(f"the model must give float logits, got {out.dtype}")
    if look and not torch.isfinite(out).all():
        bad = int((~torch.isfinite(out)).any(1).sum())
        raise InputError(f"the model gave NaN or infinite logits for {bad} of {n} images")
    return out
