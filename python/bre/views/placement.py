"""Where the images' view computes: which device, and how much of its memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch

from ..errors import InputError
from ..method.uploads import in_host_memory
from ..method.whitening import HOST

MIN_DEVICE_MEMORY = 2**28  # bytes; of a device, that may be asked for at least; source: chosen, less holds no class


@dataclass(frozen=True, eq=False)
class Placement:
    """device: where images are whitened, compared and scored; memory: bytes of it that this process may take, None for
    all of it; spilled: what did not fit it, for the notes."""

    device: torch.device = HOST
    memory: int | None = None
    spilled: list[str] = field(default_factory=list)

    @contextmanager
    def bounded(self) -> Iterator[None]:
        """Within, the device's allocator refuses what is beyond `memory`. Raises InputError for more than it has."""
        if self.memory is None:
            yield
            return
        total = torch.cuda.get_device_properties(self.device).total_memory
        if self.memory > total:
            raise InputError(
                f"device_memory: {self.device} has {total} bytes, got {self.memory}", argument="device_memory"
            )
        torch.cuda.set_per_process_memory_fraction(self.memory / total, self.device)
        try:
            yield
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0, self.device)

    @property
    def notes(self) -> tuple[str, ...]:
        """For the report: that it was not the CPU, and what was done on it all the same."""
        if in_host_memory(self.device):
            return ()
        where = f"the images' part was computed on {self.device}; images were decoded on the CPU"
        if not self.spilled:
            return (where,)
        named = ", ".join(self.spilled[:10]) + (", ..." if len(self.spilled) > 10 else "")
        return (where, f"{self.device} ran out of memory: {len(self.spilled)} times work was split ({named})")


def check_memory(memory: int | None, device: torch.device) -> int | None:
    """Raises InputError unless it is None, or bytes of a device that is not the CPU, MIN_DEVICE_MEMORY at least."""
    if memory is None:
        return None
    if in_host_memory(device):
        raise InputError(
            "device_memory: expected with a CUDA device, but images are compared on the CPU here: leave it out",
            argument="device_memory",
        )
    if isinstance(memory, bool) or not isinstance(memory, int) or memory < MIN_DEVICE_MEMORY:
        raise InputError(
            f"device_memory: expected bytes, {MIN_DEVICE_MEMORY} at least, got {memory!r}", argument="device_memory"
        )
    return memory
