# Made by csrc/make_stubs.py; do not edit.
"""
bre's CUDA kernels; call them through bre.ops, which checks what it passes
"""

from __future__ import annotations

__all__: list[str] = [
    "apply_pattern",
    "architectures",
    "capability",
    "device_count",
    "gram",
    "loss_head",
    "moments",
    "project",
    "update_pattern",
]

def apply_pattern(
    *,
    images: int,
    shape: tuple[int, int, int],
    index: int,
    sign: int,
    T: int,
    N: int,
    pattern: int,
    mean: int,
    std: int,
    layout: str,
    dtype: str,
    out: int,
    stream: int,
    device: int,
) -> None: ...
def capability(device: int) -> int: ...
def device_count() -> int: ...
def gram(*, codes: int, n: int, D: int, out: int, stream: int, device: int) -> None: ...
def loss_head(
    *,
    logits: int,
    dtype: str,
    target: int,
    sign: int,
    weight: int,
    T: int,
    N: int,
    K: int,
    loss: int,
    grad: int,
    success: int,
    stream: int,
    device: int,
) -> None: ...
def moments(
    *,
    images: int,
    M: int,
    D: int,
    order: int,
    offsets: int,
    K: int,
    count: int,
    sum: int,
    second: int,
    stream: int,
    device: int,
) -> None: ...
def project(*, images: int, M: int, D: int, templates: int, P: int, out: int, stream: int, device: int) -> None: ...
def update_pattern(
    *,
    grad: int,
    dtype: str,
    layout: str,
    images: int,
    shape: tuple[int, int, int],
    index: int,
    sign: int,
    T: int,
    N: int,
    pattern: int,
    momentum: int,
    active: int,
    std: int,
    step: tuple[float, float, float],
    gradient: int,
    norms: int,
    stream: int,
    device: int,
) -> None: ...

architectures: str
