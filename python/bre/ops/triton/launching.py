"""What every launcher of the Triton backend needs: one way to start a kernel, and sizes of its tiles."""

from __future__ import annotations

from typing import Any

import torch


def launch(kernel: Any, grid: tuple[int, ...], *args: Any, enable_fp_fusion: bool = True, **options: Any) -> None:
    if all(grid):
        with torch.cuda.device(args[0].get_device()):  # triton launches on torch's current device; -1 changes nothing
            kernel[grid](*args, enable_fp_fusion=enable_fp_fusion, **options)


def ceil_div(a: int, b: int) -> int:
    return -(-a // b)


def power_of_2(n: int) -> int:
    """The smallest that is at least n, and 1 at least."""
    return 1 << max(n - 1, 0).bit_length()
