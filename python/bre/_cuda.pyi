# Made by csrc/make_stubs.py; do not edit.
"""
bre's CUDA kernels; call them through bre.ops, which checks what it passes
"""

from __future__ import annotations

__all__: list[str] = [
    "add_second_moment",
    "apply_pattern",
    "architectures",
    "capability",
    "channel_sums",
    "cross_gram",
    "cut_tiles",
    "device_count",
    "gram",
    "halve",
    "loss_head",
    "moments",
    "project",
    "sum_grams",
    "update_pattern",
    "whiten",
]

def add_second_moment(*, images: int, M: int, D: int, second: int, stream: int, device: int) -> None: ...
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
def channel_sums(*, images: int, M: int, size: tuple[int, int, int], out: int, stream: int, device: int) -> None: ...
def cross_gram(*, left: int, r: int, right: int, n: int, D: int, out: int, stream: int, device: int) -> None: ...
def cut_tiles(
    *,
    images: int,
    M: int,
    size: tuple[int, int, int],
    grid: tuple[int, ...],
    chosen: int,
    Q: int,
    places: int,
    out: int,
    stream: int,
    device: int,
) -> None: ...
def device_count() -> int: ...
def gram(*, codes: int, n: int, D: int, out: int, stream: int, device: int) -> None: ...
def halve(*, images: int, M: int, size: tuple[int, int, int], out: int, stream: int, device: int) -> None: ...
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
def sum_grams(
    *,
    parts: list[int],
    rows: int,
    r: int,
    n: int,
    floor: int,
    out: int,
    excess: int,
    above: int,
    stream: int,
    device: int,
) -> None: ...
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
def whiten(
    *,
    images: int,
    M: int,
    size: tuple[int, int, int],
    grid: tuple[int, ...],
    places: int,
    sums: int,
    rows: int,
    scale: int,
    channel: int,
    offset: int,
    values: int,
    kept: int,
    total: int,
    first: int,
    stream: int,
    device: int,
) -> None: ...

architectures: str
