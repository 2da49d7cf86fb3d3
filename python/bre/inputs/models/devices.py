"""Models that were read from a file, put on the device that they are to run on."""

from typing import TypeVar

import torch
from torch.export.passes import move_to_device_pass

from ..._check import short
from ...errors import InputError

Model = TypeVar("Model", torch.nn.Module, torch.export.ExportedProgram)


def usable(device: str | torch.device) -> torch.device:
    """The device. Raises InputError, with the reason, unless it is the CPU or a CUDA device of this machine."""
    try:
        found = torch.device(device)
    except (RuntimeError, TypeError):
        found = torch.device("meta")
    if found.type not in ("cpu", "cuda"):
        raise InputError(f"device must be 'cpu', 'cuda' or 'cuda:N', got {short(device)}")
    if found.type == "cuda":
        if torch.version.cuda is None:
            raise InputError(f"there is no {found} here: this torch ({torch.__version__}) is built without CUDA")
        if (found.index or 0) >= (count := torch.cuda.device_count()):
            raise InputError(f"there is no {found} here: torch sees {count} CUDA devices (nvidia-smi shows all)")
    return found


def moved(model: Model, device: torch.device) -> Model:
    """The model itself, with its weights, and the devices an exported program names, changed to `device`.

    Raises InputError where a program cannot be.
    """
    if isinstance(model, torch.nn.Module):
        return model.to(device)
    try:
        return move_to_device_pass(model, device)
    except Exception as e:  # of the pass, on a program unlike those it knows
        raise InputError(f"the exported program cannot be moved to {device} ({e}): export it there") from e
