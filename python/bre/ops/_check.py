"""Checks that the public ops share. Every message names the argument, what was expected and what came."""

from __future__ import annotations

from typing import NoReturn

import torch
from torch import Tensor

from ..errors import InputError

FLOATS = (torch.float32, torch.bfloat16, torch.float16)  # of network inputs, logits and gradients


def refuse(name: str, expected: str, got: object) -> NoReturn:
    raise InputError(f"{name}: expected {expected}, got {got}")


def dtype(name: str, value: Tensor, *allowed: torch.dtype) -> None:
    if not isinstance(value, Tensor):
        refuse(name, "a torch.Tensor", type(value).__name__)
    if value.dtype not in allowed:
        refuse(name, " or ".join(map(_short, allowed)), _short(value.dtype))


def tensor(
    name: str, value: Tensor, shape: tuple[int | str, ...], *dtypes: torch.dtype, like: Tensor | None = None
) -> None:
    """`value` is contiguous, of `shape` (a letter stands for any size), one of `dtypes`, on `like`'s device."""
    dense(name, value, shape, *dtypes, like=like)
    if not value.is_contiguous():
        refuse(name, "a contiguous tensor", f"strides {tuple(value.stride())} for shape {tuple(value.shape)}")


def dense(
    name: str, value: Tensor, shape: tuple[int | str, ...], *dtypes: torch.dtype, like: Tensor | None = None
) -> None:
    """As `tensor`, in any memory layout."""
    dtype(name, value, *dtypes)
    fits = value.dim() == len(shape) and all(
        isinstance(want, str) or want == size for want, size in zip(shape, value.shape, strict=True)
    )
    if not fits:
        refuse(name, f"shape ({', '.join(map(str, shape))})", tuple(value.shape))
    if like is not None and value.device != like.device:
        refuse(name, f"a tensor on {like.device}", f"one on {value.device}")


def images(value: Tensor) -> None:
    """uint8 (M, C, H, W), contiguous, of one channel and one pixel at least."""
    tensor("images", value, ("M", "C", "H", "W"), torch.uint8)
    if not all(value.shape[1:]):
        refuse("images", "at least one channel and one pixel", f"shape {tuple(value.shape)}")


def values(name: str, value: Tensor, low: int, high: int) -> None:
    """Every element lies in [low, high]. Read only in host memory: looking would stop an accelerator's queue."""
    if value.device.type == "cpu" and value.numel():
        least, most = (int(x) for x in torch.aminmax(value))
        if least < low or most > high:
            refuse(name, f"values in [{low}, {high}]", f"values in [{least}, {most}]")


def is_nhwc(name: str, value: Tensor) -> bool:
    """Whether an (n, C, H, W) tensor lies in memory as N,H,W,C rather than N,C,H,W; one of the two it must be."""
    if value.is_contiguous():
        return False
    if value.is_contiguous(memory_format=torch.channels_last):
        return True
    refuse(name, "a contiguous or channels_last tensor", f"strides {tuple(value.stride())}")


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
