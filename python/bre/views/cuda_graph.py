"""The same work on a device again and again: plainly at first, then, where that goes, as one captured CUDA graph.

A graph is replayed on the addresses it was captured with, and can hold nothing that waits for the device. So the work
reads and writes the same tensors every time, and leaves looking at them to its caller.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Literal

import torch

from .._check import first_line

WARM_UP = 2  # runs; before a capture; source: chosen, kernels are loaded, plans and workspaces made on first use


class Stream:
    """How work gets to a device. This one is the host's own: work is done when it was called, and nothing is captured.

    captures: whether capturing is (still) worth trying. failure: why it no longer is. done: whether work is done when
    it was called, so that looking at results waits for nothing. Tests put a recording double in its place.
    """

    captures = False
    failure: str | None = None
    done = True

    @contextlib.contextmanager
    def side_stream(self) -> Iterator[None]:
        """Within, work goes to a stream that can be captured, after all that is queued and ahead of all that comes."""
        yield

    def capture(self, work: Callable[[], None]) -> Callable[[], None]:
        """Call `work` without doing it; what is returned does it. RuntimeError where it cannot be captured."""
        raise NotImplementedError

    def release(self) -> None:
        """Give memory that no tensor uses back to the device."""


class CudaStream(Stream):
    """A CUDA device's. Its graphs share one pool of memory: they never run side by side, and leave nothing in it."""

    captures = True
    done = False

    def __init__(self, device: torch.device):
        self._device = device
        self._stream: torch.cuda.Stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._pool = torch.cuda.graph_pool_handle()

    @contextlib.contextmanager
    def side_stream(self) -> Iterator[None]:
        here = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(here)
        try:
            with torch.cuda.stream(self._stream):
                yield
        finally:
            here.wait_stream(self._stream)

    def capture(self, work: Callable[[], None]) -> Callable[[], None]:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.device(self._device), torch.cuda.graph(graph, pool=self._pool, stream=self._stream):
            work()

        def replay() -> None:
            with torch.cuda.device(self._device):  # a graph goes to the current device's current stream
                graph.replay()

        return replay

    def release(self) -> None:
        torch.cuda.empty_cache()


def stream_of(device: torch.device) -> Stream:
    return CudaStream(device) if device.type == "cuda" else Stream()


class GraphedStep:
    """Calls `work` plainly WARM_UP times, then replays what was captured; plainly for good where capture fails."""

    def __init__(self, work: Callable[[], None], stream: Stream):
        self._work, self._stream = work, stream
        self._plain_runs = 0
        self._replay: Callable[[], None] | None = None

    def __call__(self) -> Literal["plain", "replayed"]:
        if self._replay is None and self._stream.captures and self._plain_runs >= WARM_UP:
            try:
                self._replay = self._stream.capture(self._work)
            except RuntimeError as error:  # mostly of the model's doing, so that no other work of its need be tried
                self._stream.captures, self._stream.failure = False, _cause(error)
        if self._replay is not None:
            self._replay()
            return "replayed"
        with self._stream.side_stream() if self._stream.captures else contextlib.nullcontext():
            self._work()
        self._plain_runs += 1
        return "plain"


def out_of_memory(error: Exception) -> bool:
    """Whether a device or the host had too little memory left; cuBLAS and the host's allocator only say so in words."""
    words = ("out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "can't allocate memory")
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or any(word in str(error) for word in words)


def _cause(error: BaseException) -> str:
    """In one line, what went wrong first: an error inside a capture makes ending it one, too."""
    while isinstance(error.__context__, RuntimeError):
        error = error.__context__
    return first_line(error)
