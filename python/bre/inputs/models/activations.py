"""What a network computes inside: each layer's activations, averaged over positions, from one forward pass.

Layers are found where the operators are called, so that modules, exported programs and TorchScript are seen alike: the
outputs of nonlinearities, and of layer norms where a network has them (transformers).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

_aten = torch.ops.aten
_NONLINEAR = {
    getattr(_aten, name).default
    for name in (
        *("relu", "relu_", "gelu", "gelu_", "silu", "silu_", "hardswish", "hardswish_", "leaky_relu", "leaky_relu_"),
        *("elu", "elu_", "hardtanh", "hardtanh_", "tanh", "tanh_", "mish", "mish_", "softplus", "clamp_min"),
        *("clamp_min_", "_prelu_kernel", "celu", "celu_"),
    )
}
_LAYER_NORMS = {_aten.native_layer_norm.default, _aten.layer_norm.default}
# layers; whose activations are kept, at most, spread evenly over a network's depth; source: chosen, a dozen tells where
# in a network something happens, and each costs an eigenvalue problem a class
LAYERS_KEPT = 12
# layer norms; from so many on they are the layers of a network, and its nonlinearities are not; source: chosen, a
# single one is a head's
MIN_LAYER_NORMS = 3


@dataclass(frozen=True)
class Layer:
    """number: of the candidate among all that a pass calls; kind: the operator's name; channels; depth: in (0, 1], its
    place among the layers of its network."""

    number: int
    kind: str
    channels: int
    depth: float


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Calls `seen` with (operator, output, axis of the channels) of every candidate, in order."""

    def __init__(self, rows: int, seen: Callable[[Any, Tensor, int], None]):
        super().__init__()  # type: ignore[no-untyped-call]
        self.rows, self.seen = rows, seen

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Nothing is compiled here: to keep torch's compiler out, torch would import it, which takes seconds."""
        return False

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        if func in _NONLINEAR or func in _LAYER_NORMS:
            first = out[0] if isinstance(out, tuple | list) else out
            if first.ndim >= 2 and first.shape[0] == self.rows:
                convolutional = first.ndim == 4 and func in _NONLINEAR
                self.seen(func, first, 1 if convolutional else first.ndim - 1)
        return out


def find_layers(forward: Callable[[], Any], rows: int) -> tuple[Layer, ...]:
    """The layers of a network that are looked at. forward: one pass of `rows` images."""
    found: list[tuple[Any, int]] = []
    with _Recorder(rows, lambda func, out, axis: found.append((func, out.shape[axis]))), torch.no_grad():
        forward()
    norms = sum(func in _LAYER_NORMS for func, _ in found)
    wanted = _LAYER_NORMS if norms >= MIN_LAYER_NORMS else _NONLINEAR
    numbers = [number for number, (func, channels) in enumerate(found) if func in wanted and channels > 1]
    kept = np.unique(np.linspace(0, len(numbers) - 1, min(LAYERS_KEPT, len(numbers))).round().astype(int)).tolist()
    return tuple(
        Layer(numbers[k], found[numbers[k]][0].overloadpacket.__name__, found[numbers[k]][1], (k + 1) / len(numbers))
        for k in kept
    )


def means_inside(forward: Callable[[], Tensor], rows: int, layers: Sequence[Layer]) -> tuple[list[Tensor], Tensor]:
    """One pass: of each layer, means over positions, float32 (rows, channels); and what `forward` returns."""
    means: list[Tensor] = []
    wanted, calls = {layer.number for layer in layers}, 0

    def seen(_func: Any, out: Tensor, axis: int) -> None:
        nonlocal calls
        if calls in wanted:
            positions = [d for d in range(1, out.ndim) if d != axis]
            means.append(out.float().mean(positions) if positions else out.float().clone())
        calls += 1

    with _Recorder(rows, seen), torch.no_grad():
        logits = forward()
    return means, logits
