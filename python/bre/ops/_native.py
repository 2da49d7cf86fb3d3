"""The ops on a compiled module: bre._core for host memory, bre._cuda for CUDA devices. Both have the same functions.

Arrays go by their addresses, sizes as numbers. A compiled function calls its arguments as the op calls them, so that
what the op takes and no size is read from goes through by name, unread (`given`).
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from .moments import Moments


class Native:
    """extension: the compiled module, None where it did not load; launch: what says on a device where and how a
    function runs, as further arguments of every function."""

    def __init__(self, extension: ModuleType | None, launch: Callable[[torch.device], dict[str, int]]) -> None:
        self.extension: Any = extension
        self.launch = launch

    def apply_pattern(self, images: Tensor, *, layout: str, out: Tensor, **given: Tensor) -> None:
        T, N = given["index"].shape
        self._run(
            "apply_pattern",
            images=images,
            shape=images.shape[1:],
            T=T,
            N=N,
            layout=layout,
            dtype=_dtype(out),
            out=out,
            **given,
        )

    def loss_head(self, logits: Tensor, *, weight: Tensor, **given: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        T, N = weight.shape
        loss, success = torch.empty_like(weight), torch.empty_like(weight, dtype=torch.bool)
        grad = torch.empty_like(logits)
        self._run(
            "loss_head",
            logits=logits,
            dtype=_dtype(logits),
            weight=weight,
            T=T,
            N=N,
            K=logits.shape[1],
            loss=loss,
            grad=grad,
            success=success,
            **given,
        )
        return loss, grad, success

    def update_pattern(
        self, grad: Tensor, *, images: Tensor, pattern: Tensor, step: float, decay: float, bound: float, **given: Tensor
    ) -> Tensor:
        T, N = given["index"].shape
        gradient, norms = torch.empty_like(pattern), pattern.new_empty(T)
        self._run(
            "update_pattern",
            grad=grad,
            dtype=_dtype(grad),
            layout="nchw" if grad.is_contiguous() else "nhwc",
            images=images,
            shape=images.shape[1:],
            T=T,
            N=N,
            pattern=pattern,
            step=(step, decay, bound),
            gradient=gradient,
            norms=norms,
            **given,
        )
        return norms

    def moments(self, images: Tensor, labels: Tensor, *, classes: int, out: Moments) -> None:
        ordered, order = labels.sort(stable=True)  # each class's images in a row: no atomics, any number of classes
        offsets = torch.searchsorted(ordered, torch.arange(classes + 1, device=labels.device))
        M, D = len(images), images.shape[1:].numel()
        self._run("moments", images=images, M=M, D=D, order=order, offsets=offsets, K=classes, **out._asdict())

    def gram(self, codes: Tensor, *, out: Tensor) -> None:
        n, D = codes.shape
        self._run("gram", codes=codes, n=n, D=D, out=out)

    def project(self, images: Tensor, *, templates: Tensor) -> Tensor:
        (M, P), D = (len(images), len(templates)), images.shape[1:].numel()
        scores = templates.new_empty(M, P)
        self._run("project", images=images, M=M, D=D, templates=templates, P=P, out=scores)
        return scores

    def _run(self, op: str, **arguments: Any) -> None:
        """The compiled function on the device of the arguments, which live until it is done or, on a device, put on
        the stream that torch frees their memory in the order of."""
        device = next(value.device for value in arguments.values() if isinstance(value, Tensor))
        passed = {name: value.data_ptr() if isinstance(value, Tensor) else value for name, value in arguments.items()}
        getattr(self.extension, op)(**passed, **self.launch(device))


def _dtype(tensor: Tensor) -> str:
    return {torch.float32: "f32", torch.bfloat16: "bf16", torch.float16: "f16"}[tensor.dtype]
