"""Plant a known pattern in a known place, to measure a defence against the truth.

Patterns are float32 (C, H, W) in pixel units of [0, 1]; `plant` does what the attacker of Xiang, Miller,
Kesidis (arXiv 2010.07489, section III) does: add, round to grey levels, clip, relabel.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .errors import InputError


def chessboard(shape: tuple[int, int, int], amplitude: float = 3 / 255) -> np.ndarray:
    """`amplitude` on every other pixel of every channel."""
    row, column = np.indices(shape[1:])
    return _everywhere(shape, amplitude * ((row + column) % 2 == 0))


def grid(shape: tuple[int, int, int], amplitude: float = 4 / 255) -> np.ndarray:
    """`amplitude` where both row and column are even (a static grid)."""
    row, column = np.indices(shape[1:])
    return _everywhere(shape, amplitude * ((row % 2 == 0) & (column % 2 == 0)))


def sine(shape: tuple[int, int, int], amplitude: float = 6 / 255, cycles: float = 6.0) -> np.ndarray:
    """A horizontal sine of `cycles` periods over the width."""
    wave = np.sin(2 * np.pi * cycles * np.arange(shape[2]) / shape[2])
    return _everywhere(shape, amplitude * np.broadcast_to(wave, shape[1:]))


def random_sign(shape: tuple[int, int, int], amplitude: float = 3 / 255, seed: int = 0) -> np.ndarray:
    """`amplitude` with an independent random sign at every pixel and channel."""
    signs = np.random.default_rng(seed).choice([-1.0, 1.0], size=shape)
    return (amplitude * signs).astype(np.float32)


_SHAPES = {
    "pixel": [(0, 0)],
    "four": [(0, 0), (0, 2), (2, 0), (2, 2)],
    "cross": [(-1, 0), (1, 0), (0, 0), (0, -1), (0, 1)],
    "x": [(-1, -1), (-1, 1), (0, 0), (1, -1), (1, 1)],
    "square": [(0, 0), (0, 1), (1, 0), (1, 1)],
    "l": [(0, 0), (1, 0), (2, 0), (2, 1)],
}


def local(
    shape: tuple[int, int, int], kind: str = "cross", amplitude: float = 60 / 255, at: tuple[int, int] | None = None
) -> np.ndarray:
    """A few pixels around `at` (row, column; the default is right of and below the centre).

    `kind` is one of pixel, four, cross, x, square, l. Raises InputError if it does not fit into the image.
    """
    if kind not in _SHAPES:
        raise InputError(f"kind must be one of {', '.join(_SHAPES)}; got {kind!r}")
    height, width = shape[1:]
    row, column = at if at is not None else (2 * height // 3, 2 * width // 3)
    mask = np.zeros((height, width), bool)
    for r, c in _SHAPES[kind]:
        if not (0 <= row + r < height and 0 <= column + c < width):
            raise InputError(f"a {kind} at {(row, column)} does not fit into {height} x {width} pixels")
        mask[row + r, column + c] = True
    return _everywhere(shape, amplitude * mask)


def _everywhere(shape: tuple[int, int, int], plane: np.ndarray) -> np.ndarray:
    return np.broadcast_to(plane, shape).astype(np.float32)


def embed(images: np.ndarray, pattern: np.ndarray) -> np.ndarray:
    """[x + v] rounded to grey levels. images: uint8 (m, C, H, W); pattern: float (C, H, W); returns uint8."""
    return np.clip(np.rint(images + np.float32(255) * pattern), 0, 255).astype(np.uint8)


@dataclass(frozen=True, eq=False)
class Poisoned:
    """A poisoned copy of a set, with the truth. images: uint8 (M, C, H, W); labels, poisoned: (M,)."""

    images: np.ndarray
    labels: np.ndarray
    poisoned: np.ndarray


def plant(
    images: np.ndarray,
    labels: np.ndarray,
    pattern: np.ndarray,
    *,
    target: int,
    sources: tuple[int, ...] | None = None,
    count: int,
    seed: int = 0,
) -> Poisoned:
    """Relabel `count` images of the source classes to `target`, with `pattern` added.

    images: uint8 (M, C, H, W); labels: int64 (M,); sources: every other class when None.
    The images are spread evenly over the sources. Raises InputError if there are too few source images.
    """
    sources = tuple(k for k in np.unique(labels).tolist() if k != target) if sources is None else sources
    if target in sources or not sources:
        raise InputError(f"sources must be classes other than the target {target}; got {sources}")
    generator = np.random.default_rng(seed)
    chosen = []
    for place, source in enumerate(sources):
        share = count // len(sources) + (place < count % len(sources))
        members = np.flatnonzero(labels == source)
        if len(members) < share:
            raise InputError(f"class {source} has {len(members)} images, {share} are wanted")
        chosen.append(generator.choice(members, share, replace=False))
    chosen = np.sort(np.concatenate(chosen))
    planted = Poisoned(images.copy(), labels.copy(), np.zeros(len(labels), bool))
    planted.images[chosen] = embed(images[chosen], pattern)
    planted.labels[chosen] = target
    planted.poisoned[chosen] = True
    return planted
