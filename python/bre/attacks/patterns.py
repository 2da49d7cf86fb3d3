"""Patterns of pixels: float32 (C, H, W) in pixel units of [0, 1], for `embed` and `plant` to add, cover or blend."""

from __future__ import annotations

import numpy as np
from scipy import fft

from ..errors import InputError


def chessboard(shape: tuple[int, int, int], amplitude: float = 3 / 255) -> np.ndarray:
    """`amplitude` on every other pixel of every channel."""
    row, column = np.indices(shape[1:])
    return _everywhere(shape, amplitude * ((row + column) % 2 == 0))


def grid(shape: tuple[int, int, int], amplitude: float = 4 / 255) -> np.ndarray:
    """`amplitude` where both row and column are even (a static grid)."""
    row, column = np.indices(shape[1:])
    return _everywhere(shape, amplitude * ((row % 2 == 0) & (column % 2 == 0)))


def sine(shape: tuple[int, int, int], amplitude: float = 6 / 255, cycles: float = 6.0) -> np.ndarray:
    """A horizontal sine of `cycles` periods over the width.

    With 20/255 and 6, in images that keep their label, it is SIG (Barni, Kallas and Tondi, ICIP 2019).
    """
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


def low_frequency(
    shape: tuple[int, int, int], amplitude: float = 10 / 255, cutoff: int = 4, seed: int = 0
) -> np.ndarray:
    """A random pattern without high frequencies: `low_pass` of white noise, with a root mean square of `amplitude`.

    Zeng et al. ("Rethinking the backdoor attacks' triggers: a frequency perspective", ICCV 2021) make theirs from a
    network, a direction that moves it after `low_pass`; this one needs none.
    """
    smooth = low_pass(np.random.default_rng(seed).standard_normal(shape), cutoff)
    return np.asarray(amplitude * smooth / np.sqrt(np.square(smooth).mean()), np.float32)


def low_pass(pattern: np.ndarray, cutoff: int) -> np.ndarray:
    """The part of a pattern, float (C, H, W), that cosines of rows and columns below `cutoff` make (discrete cosine
    transform). Returns float32. Raises InputError for cutoff < 1."""
    if cutoff < 1:
        raise InputError(f"cutoff: expected 1 or more frequencies in each direction, got {cutoff}")
    spectrum = fft.dctn(np.asarray(pattern, np.float64), axes=(1, 2), norm="ortho")
    spectrum[:, cutoff:], spectrum[:, :, cutoff:] = 0, 0
    return np.asarray(fft.idctn(spectrum, axes=(1, 2), norm="ortho"), np.float32)


def _everywhere(shape: tuple[int, int, int], plane: np.ndarray) -> np.ndarray:
    return np.broadcast_to(plane, shape).astype(np.float32)


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
