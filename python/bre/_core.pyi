# Made by csrc/make_stubs.py; do not edit.
"""
bre's compiled CPU kernels; call them through bre.ops, which checks what it passes
"""

from __future__ import annotations

__all__: list[str] = [
    "apply_pattern",
    "centre_moments",
    "channel_sums",
    "cross_gram",
    "cut_tiles",
    "gram",
    "halve",
    "isa",
    "isas",
    "loss_head",
    "moments",
    "project",
    "sum_grams",
    "update_pattern",
    "use_isa",
    "whiten",
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
    threads: int,
) -> None: ...
def centre_moments(
    *, exact: int, with_sum: int, with_mean: int, channel: int, d: int, C: int, out: int, threads: int
) -> None: ...
def channel_sums(*, images: int, M: int, size: tuple[int, int, int], out: int, threads: int) -> None: ...
def cross_gram(*, left: int, r: int, right: int, n: int, D: int, out: int, threads: int) -> None: ...
def cut_tiles(
    *,
    images: int,
    M: int,
    size: tuple[int, int, int],
    grid: tuple[int, ...],
    chosen: int,
    Q: int,
    out: int,
    threads: int,
) -> None: ...
def gram(*, codes: int, n: int, D: int, out: int, threads: int) -> None: ...
def halve(*, images: int, M: int, size: tuple[int, int, int], out: int, threads: int) -> None: ...
def isa() -> str: ...
def isas() -> list[str]: ...
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
    threads: int,
) -> None: ...
def moments(
    *, images: int, M: int, D: int, order: int, offsets: int, K: int, count: int, sum: int, second: int, threads: int
) -> None: ...
def project(*, images: int, M: int, D: int, templates: int, P: int, out: int, threads: int) -> None: ...
def sum_grams(
    *, parts: list[int], rows: int, r: int, n: int, floor: int, out: int, excess: int, above: int, threads: int
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
    threads: int,
) -> None: ...
def use_isa(name: str) -> None: ...
def whiten(
    *,
    images: int,
    M: int,
    size: tuple[int, int, int],
    grid: tuple[int, ...],
    sums: int,
    rows: int,
    scale: int,
    channel: int,
    offset: int,
    values: int,
    kept: int,
    total: int,
    first: int,
    threads: int,
) -> None: ...
