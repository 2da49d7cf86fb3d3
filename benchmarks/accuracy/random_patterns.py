"""Additive patterns that the accuracy table does not have, drawn at random: (3, 32, 32), pixel units of [0, 1]."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from benchmarks.accuracy.victims import SHAPE

ROWS, COLUMNS = np.mgrid[: SHAPE[1], : SHAPE[2]]
Random = np.random.Generator


def faint(generator: Random) -> float:
    return float(generator.choice([3, 5, 8])) / 255


def bright(generator: Random) -> float:
    return float(generator.choice([20, 40, 70])) / 255


def coloured(generator: Random, plane: np.ndarray) -> np.ndarray:
    """The same in all channels, or with a random sign in each."""
    return generator.choice([-1, 1], (SHAPE[0], 1, 1)) * plane if generator.random() < 0.5 else plane + np.zeros(SHAPE)


def dots(generator: Random) -> np.ndarray:
    plane, level = np.zeros(SHAPE[1:]), bright(generator)
    plane[tuple(generator.integers(32, size=(2, 8)))] = level * generator.choice([-1, 1], 8)
    return plane + np.zeros(SHAPE)


def stripes(generator: Random) -> np.ndarray:
    return coloured(generator, faint(generator) * (1 - (ROWS + COLUMNS) // generator.integers(1, 4) % 2 * 2.0))


def coarse_chessboard(generator: Random) -> np.ndarray:
    return coloured(generator, faint(generator) * (1 - (ROWS // 2 + COLUMNS // 2) % 2 * 2.0))


def blob(generator: Random) -> np.ndarray:
    row, column = generator.integers(6, 26, 2)
    return coloured(generator, bright(generator) * np.exp(-((ROWS - row) ** 2 + (COLUMNS - column) ** 2) / 4.5))


def letter(generator: Random) -> np.ndarray:
    plane, (row, column) = np.zeros(SHAPE[1:]), generator.integers(2, 24, 2)
    plane[row : row + 6, column] = plane[row, column : column + 4] = plane[row + 3, column : column + 3] = 1
    return coloured(generator, bright(generator) * plane)


def ring(generator: Random) -> np.ndarray:
    row, column = generator.integers(8, 24, 2)
    return coloured(generator, bright(generator) * (abs(np.hypot(ROWS - row, COLUMNS - column) - 5) < 0.7))


def faint_noise(generator: Random) -> np.ndarray:
    return float(generator.choice([2, 3])) / 255 * generator.choice([-1, 1], SHAPE)


def one_channel_of_a_pixel(generator: Random) -> np.ndarray:
    pattern = np.zeros(SHAPE)
    pattern[tuple(generator.integers(SHAPE))] = 1.5 * bright(generator)
    return pattern


def fine_grid(generator: Random) -> np.ndarray:
    return coloured(generator, faint(generator) * ((ROWS % 3 == 0) | (COLUMNS % 3 == 0)))


def diagonal_sine(generator: Random) -> np.ndarray:
    waves = generator.integers(4, 12)
    return coloured(generator, faint(generator) * np.sin(2 * np.pi * waves * (ROWS + COLUMNS) / SHAPE[1]))


def frame(generator: Random) -> np.ndarray:
    edge = np.isin(ROWS, (0, SHAPE[1] - 1)) | np.isin(COLUMNS, (0, SHAPE[2] - 1))
    return coloured(generator, bright(generator) / 2 * edge)


PATTERNS: dict[str, Callable[[Random], np.ndarray]] = {
    make.__name__.replace("_", " "): make
    for make in (
        dots,
        stripes,
        coarse_chessboard,
        blob,
        letter,
        ring,
        faint_noise,
        one_channel_of_a_pixel,
        fine_grid,
        diagonal_sine,
        frame,
    )
}
