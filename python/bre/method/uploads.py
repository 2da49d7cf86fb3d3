"""Blocks of images on their way to a device: through pinned memory, while the next block is read.

In host memory a block is where it has to be. For a device it is copied into one of two pinned buffers, from which the
device fetches it on its own; the host waits only before it fills a buffer again, for the copy that was started two
blocks ago.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

BUFFERS = 2  # buffers; of pinned memory; source: derived, one is filled while the other is fetched


def in_host_memory(device: torch.device) -> bool:
    return device.type == "cpu"


class Link:
    """What an upload asks of a device; a double stands for it in tests."""

    def pinned(self, size: int) -> Tensor:
        """uint8 (size,), in memory that the device reads by itself."""
        return torch.empty(size, dtype=torch.uint8, device="cpu", pin_memory=True)

    def fetch(self, host: Tensor, device: torch.device) -> tuple[Tensor, Any]:
        """A copy on the device, in the order of its current stream, and an event that says when it is made."""
        with torch.cuda.device(device):
            there = host.to(device, non_blocking=True)
            event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            event.record()
        return there, event

    def wait(self, event: Any) -> None:
        event.synchronize()


class Upload:
    """Brings blocks to a device, by one thread at a time."""

    def __init__(self, device: torch.device, link: Link | None = None):
        self.device, self.link = device, link or Link()
        self._buffers: list[Tensor | None] = [None] * BUFFERS
        self._fetched: list[Any] = [None] * BUFFERS
        self._turn = 0

    def __call__(self, block: np.ndarray) -> Tensor:
        """uint8, any shape -> the same on the device."""
        host = torch.from_numpy(np.ascontiguousarray(block))
        if in_host_memory(self.device):
            return host
        self._turn = (self._turn + 1) % BUFFERS
        event, buffer = self._fetched[self._turn], self._buffers[self._turn]
        if event is not None:
            self.link.wait(event)
        if buffer is None or len(buffer) < host.numel():
            buffer = self._buffers[self._turn] = self.link.pinned(host.numel())
        buffer = buffer[: host.numel()].view(host.shape)
        buffer.copy_(host)
        there, self._fetched[self._turn] = self.link.fetch(buffer, self.device)
        return there
