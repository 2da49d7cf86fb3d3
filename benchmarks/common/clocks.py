"""How long a call takes."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

Answer = TypeVar("Answer")


def clocked(run: Callable[[], Answer]) -> tuple[Answer, dict[str, float]]:
    """The answer, and wall and processor seconds (of all threads)."""
    wall, cpu = time.perf_counter(), time.process_time()
    answer = run()
    return answer, {"seconds": time.perf_counter() - wall, "cpu_seconds": time.process_time() - cpu}
