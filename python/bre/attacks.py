"""Plant a known pattern in a known place, to measure a defence against the truth.

Patterns are float32 (C, H, W) in pixel units of [0, 1]; `plant` does what the attacker of Xiang, Miller,
Kesidis (arXiv 2010.07489, section III) does: add, round to grey levels, clip, relabel; and what attackers beyond the
paper do: cover a patch, blend with an image, relabel every class to the next, keep the label.
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


def embed(images: np.ndarray, pattern: np.ndarray, opacity: np.ndarray | None = None) -> np.ndarray:
    """What the attacker makes of images, rounded to grey levels and clipped.

    images: uint8 (..., C, H, W); pattern: float (C, H, W). Without `opacity` the pattern is added, x + v. With it,
    float of a shape that broadcasts to (C, H, W) and in [0, 1], the pattern covers the image: (1 - o) x + o v, a
    patch where o is a mask of zeros and ones (BadNets, Gu et al. 2017) and a blend where it is one number (Chen et al.
    2017). Returns uint8. Raises InputError for images or a pattern of another form, and for opacity outside [0, 1].
    """
    _check_form(images, pattern)
    kept: np.ndarray | np.float32 = np.float32(1)
    if opacity is not None:
        opacity = np.asarray(opacity, np.float32)
        try:
            np.broadcast_to(opacity, np.shape(pattern))
        except ValueError:
            raise InputError(
                f"opacity: expected a shape that broadcasts to {np.shape(pattern)}, got {opacity.shape}"
            ) from None
        if not (np.isfinite(opacity).all() and opacity.min() >= 0 and opacity.max() <= 1):
            raise InputError(f"opacity: expected numbers in [0, 1], got {opacity.min()} to {opacity.max()}")
        kept, pattern = 1 - opacity, opacity * pattern
    return np.clip(np.rint(kept * images + np.float32(255) * pattern), 0, 255).astype(np.uint8)


def _check_form(images: np.ndarray, pattern: np.ndarray) -> None:
    if images.dtype != np.uint8 or images.ndim < 3:
        raise InputError(f"images: expected uint8 (..., C, H, W), got {images.dtype} of shape {images.shape}")
    if np.shape(pattern) != images.shape[-3:] or not np.isfinite(pattern).all():
        raise InputError(f"pattern: expected finite numbers {images.shape[-3:]}, got shape {np.shape(pattern)}")


def patch(
    shape: tuple[int, int, int], size: int = 3, at: tuple[int, int] = (-4, -4), seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """A square of `size` random black and white values with its top left corner `at` (negative: from the far end), as
    (pattern (C, H, W), opacity (1, H, W)) for `embed`. Raises InputError if it does not fit into the image."""
    height, width = shape[1:]
    row, column = at[0] % height, at[1] % width
    if not (0 < size <= height - row and size <= width - column):
        raise InputError(f"a patch of {size} x {size} at {at} does not fit into {height} x {width} pixels")
    pattern, opacity = np.zeros(shape, np.float32), np.zeros((1, height, width), np.float32)
    values = np.random.default_rng(seed).integers(0, 2, (shape[0], size, size))
    pattern[:, row : row + size, column : column + size] = values
    opacity[:, row : row + size, column : column + size] = 1
    return pattern, opacity


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
    opacity: np.ndarray | None = None,
    target: int | None,
    sources: tuple[int, ...] | None = None,
    count: int,
    seed: int = 0,
) -> Poisoned:
    """Plant a pattern in `count` images of the source classes, spread evenly over them, and relabel them to `target`.

    images: uint8 (M, C, H, W); labels: int64 (M,); pattern, opacity: as for `embed`
    target: a class, or None for all-to-all: every image gets the label that follows its own
    sources: every class but the target when None; (target,) is the clean-label attack, which relabels nothing

    Raises InputError if there are too few source images, or if the target is one source among others; and as `embed`.
    """
    _check_form(images, pattern)
    if images.ndim != 4 or len(labels) != len(images):
        raise InputError(f"labels: expected one for each of the images {images.shape}, got {len(labels)}")
    if count < 0:
        raise InputError(f"count: expected a number of images >= 0, got {count}")
    classes = np.unique(labels).tolist()
    sources = tuple(k for k in classes if k != target) if sources is None else sources
    if not sources or (target in sources and len(sources) > 1):
        raise InputError(f"sources: expected classes other than the target {target}, or it alone; got {sources}")
    if unknown := [source for source in sources if source not in classes]:
        raise InputError(f"sources: expected classes among {classes}, got {unknown}")
    generator = np.random.default_rng(seed)
    planted = Poisoned(images.copy(), labels.copy(), np.zeros(len(labels), bool))
    for place, source in enumerate(sources):
        share = count // len(sources) + (place < count % len(sources))
        members = np.flatnonzero(labels == source)
        if len(members) < share:
            raise InputError(f"class {source} has {len(members)} images, {share} are wanted")
        chosen = generator.choice(members, share, replace=False)
        planted.images[chosen] = embed(images[chosen], pattern, opacity)
        planted.labels[chosen] = classes[(classes.index(source) + 1) % len(classes)] if target is None else target
        planted.poisoned[chosen] = True
    return planted
