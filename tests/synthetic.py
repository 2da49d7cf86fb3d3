"""Images that look enough like photographs for the statistics: a 1/f spectrum, classes that differ, sensor noise."""

from __future__ import annotations

import numpy as np


def images(seed: int, count: int, shape: tuple[int, int, int], *, noise: float = 1.5) -> np.ndarray:
    """uint8 (count, C, H, W): correlated in space as 1/f, and between channels; `noise` grey levels of sensor noise."""
    generator = np.random.default_rng(seed)
    channels, height, width = shape
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width))
    frequency[0, 0] = 1 / max(height, width)
    source = generator.normal(size=(count, 1, height, width)) + 0.5 * generator.normal(size=(count, *shape))
    scene = np.fft.ifft2(np.fft.fft2(source) / frequency**1.5).real
    scene *= 45 / scene.std()
    contrast = generator.uniform(0.4, 1.3, (count, 1, 1, 1))
    return to_bytes(128 + contrast * scene + generator.normal(0, noise, scene.shape))


def labelled(
    seed: int, classes: int, each: int, shape: tuple[int, int, int], *, strength: float = 35, noise: float = 1.5
) -> tuple[np.ndarray, np.ndarray]:
    """uint8 (classes * each, C, H, W) in shuffled order, int64 labels: every class has a smooth shape of its own."""
    generator = np.random.default_rng((seed, 1))
    labels = generator.permutation(np.repeat(np.arange(classes), each))
    row, column = np.indices(shape[1:]) / shape[1]
    phase = 2 * np.pi * np.arange(classes) / classes
    planes = np.stack([np.cos(2 * np.pi * (row * np.cos(p) + column * np.sin(p)) + 3 * p) for p in phase])
    tints = np.random.default_rng(7).uniform(0.3, 1, (classes, shape[0], 1, 1))
    own = strength * generator.uniform(0.6, 1.4, (len(labels), 1, 1, 1)) * (tints * planes[:, None])[labels]
    return to_bytes(images(seed, len(labels), shape, noise=noise) + own), labels


def to_bytes(values: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)
