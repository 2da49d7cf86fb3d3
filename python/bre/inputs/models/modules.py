"""Networks in memory as people have them: compiled, copied in inference mode, not yet run, in half precision."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch.nn.parameter import is_lazy

from ..._check import first_line
from ...errors import InputError


def plain_module(module: torch.nn.Module) -> torch.nn.Module:
    """The module as it can be frozen and differentiated: without torch.compile's wrapper, whose code would be compiled
    again for every kind of batch; copied where its tensors were made in inference mode, which gradients refuse.

    Raises InputError for a lazy module that has not been run.
    """
    inner = getattr(module, "_orig_mod", None)
    if type(module).__name__ == "OptimizedModule" and isinstance(inner, torch.nn.Module):
        module = inner  # told by its name: torch._dynamo, which defines it, takes seconds to import
    tensors = [*module.parameters(), *module.buffers()]
    if any(is_lazy(t) for t in tensors):
        lazy = sorted({type(m).__name__ for m in module.modules() if any(map(is_lazy, m.parameters(recurse=False)))})
        raise InputError(
            f"the model's {', '.join(lazy) or 'lazy layers'} have no weights yet: run it once on a batch, with weights "
            "that were trained"
        )
    if not torch.is_inference_mode_enabled() and any(t.is_inference() for t in tensors):
        try:
            return copy.deepcopy(module)
        except Exception as e:  # of the module's own parts
            raise InputError(
                f"the model's weights were made in torch.inference_mode(), which allows no gradients, and it cannot be "
                f"copied: {first_line(e)}"
            ) from e
    return module


def is_compiled(module: torch.nn.Module) -> bool:
    """Whether some part of it runs through torch.compile."""
    return any(
        type(m).__name__ == "OptimizedModule" or getattr(m, "_compiled_call_impl", None) is not None
        for m in module.modules()
    )


def is_quantised(module: torch.nn.Module) -> bool:
    """Whether some layer computes with integers."""
    return any(".quantized" in type(m).__module__ or "Quantized" in type(m).__name__ for m in module.modules()) or any(
        t.is_quantized for t in (*module.parameters(), *module.buffers())
    )


def failure(module: torch.nn.Module, x: torch.Tensor, error: Exception) -> tuple[str, tuple[str, ...]]:
    """Why a module failed on a batch, to be said after its name, and the arguments that would help."""
    kinds = {p.dtype for p in module.parameters() if p.is_floating_point()} - {torch.float32}
    if kinds:
        names = ", ".join(sorted(str(k).removeprefix("torch.") for k in kinds))
        return (
            f"has weights in {names}, and bre gives it float32: convert it first, as with model.float(); precision is "
            "what it then computes in",
            ("precision",),
        )
    text = f"cannot take a batch of {tuple(x.shape)} float32 images: {first_line(error)}"
    size = _built_for(module)
    if size is None:
        return f"{text}; if it was built for another size, say which", ("input_size",)
    return f"{text}; it seems to be built for {size[0]} x {size[1]}: say so", ("input_size",)


def _built_for(module: torch.nn.Module) -> tuple[int, int] | None:
    """The (H, W) that timm's, transformers' and torchvision's networks name."""
    for part in module.modules():
        config: Any = getattr(part, "pretrained_cfg", None)
        size = config.get("input_size", ())[1:] if isinstance(config, dict) else None
        size = size or getattr(getattr(part, "config", None), "image_size", None) or getattr(part, "image_size", None)
        if isinstance(size, int):
            size = (size, size)
        if isinstance(size, list | tuple) and len(size) == 2 and all(isinstance(n, int) for n in size):
            return size[0], size[1]
    return None
