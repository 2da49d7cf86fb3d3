"""What happens to an image before a network sees it: normalised, and brought to the network's size."""

from __future__ import annotations

import math
import numbers
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch

from ...errors import InputError
from ..datasets.image_files import check_size


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

    def forward(self, x: torch.Tensor) -> Any:
        x = torch.nn.functional.interpolate(x, self.size, mode="bilinear", align_corners=False, antialias=True)
        return self.network(x)


def normalisation(mean: Any, std: Any) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """mean, std as given, one number for all channels or one for each -> tuples of floats of one length, both () when
    neither was given. Raises InputError for anything else."""
    if mean is None or std is None:
        if mean is not None or std is not None:
            raise InputError("give both the mean and the std, or neither", argument=("mean", "std"))
        return (), ()
    means, stds = _numbers("mean", mean), _numbers("std", std)
    if len(means) != len(stds):
        raise InputError(f"mean has {len(means)} values and std has {len(stds)}; both need one per channel")
    if not all(map(math.isfinite, means + stds)):
        raise InputError(f"mean and std must be finite, got {means} and {stds}")
    if any(abs(m) > 1 for m in means):
        raise InputError(f"mean and std must be in units of pixels in [0, 1], got mean {means}: divide both by 255")
    if any(s <= 0 for s in stds):
        raise InputError(f"std must be > 0, got {stds}")
    return means, stds


def for_channels(values: tuple[float, ...], channels: int, default: float) -> tuple[float, ...]:
    """One number for each channel. Raises InputError for another count of numbers than one, or one for each."""
    values = values or (default,)
    if len(values) not in (1, channels):
        raise InputError(f"mean and std have {len(values)} values, the images have {channels} channels")
    return values * channels if len(values) == 1 else values


def configured_channels(facts: Mapping[str, Any], channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """mean and std as a configuration gives them, both () where it gives none for this many channels."""
    found = []
    for key in ("mean", "std"):
        values = facts.get(key)
        numbers = isinstance(values, list | tuple) and all(isinstance(v, int | float) for v in values)
        found.append(tuple(float(v) for v in values) if values is not None and numbers else ())
    mean, std = found
    return (mean, std) if len(mean) == len(std) == channels else ((), ())


def configured_size(shape: Any) -> tuple[int, int] | None:
    """(C, H, W) as a configuration gives it -> (H, W)."""
    return check_size(shape[1:], "the configured input size") if isinstance(shape, list | tuple) else None


def _numbers(name: str, given: Any) -> tuple[float, ...]:
    if isinstance(given, numbers.Real) and not isinstance(given, bool):
        given = (given,)
    try:
        return tuple(float(v) for v in given)
    except (TypeError, ValueError):
        raise InputError(f"{name} must be a number, or a sequence of one per channel, got {given!r}") from None
