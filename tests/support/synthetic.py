"""Images that look enough like photographs for the statistics: a steep spectrum, classes that differ, sensor noise."""

from __future__ import annotations

import numpy as np


def images(seed: int, count: int, shape: tuple[int, int, int], *, noise: float = 1.0, steep: float = 2.0) -> np.ndarray:
    """uint8 (count, C, H, W): smooth in space, alike between channels; `noise` grey levels of sensor noise."""
    generator = np.random.default_rng(seed)
    _, height, width = shape
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width))
    frequency[0, 0] = 1 / max(height, width)
    source = generator.normal(size=(count, 1, height, width)) + 0.5 * generator.normal(size=(count, *shape))
    scene = np.fft.ifft2(np.fft.fft2(source) / frequency**steep).real
    scene *= 45 / scene.std()
    contrast = generator.uniform(0.4, 1.3, (count, 1, 1, 1))
    return to_bytes(128 + contrast * scene + generator.normal(0, noise, scene.shape))


def labelled(
    seed: int, classes: int, each: int, shape: tuple[int, int, int], *, strength: float = 14, noise: float = 1.0
) -> tuple[np.ndarray, np.ndarray]:
    """uint8 (classes * each, C, H, W) in shuffled order, int64 labels: a class is the direction of broad stripes.

    Their width, phase, colour and strength differ from image to image, so that a class shares no fixed component.
    """
    generator = np.random.default_rng((seed, 1))
    labels = generator.permutation(np.repeat(np.arange(classes), each))
    one = (len(labels), 1, 1, 1)
    angle = np.pi * labels.reshape(one) / classes + generator.normal(0, 0.1, one)
    cycles, phase = generator.uniform(0.7, 1.6, one), generator.uniform(0, 2 * np.pi, one)
    row, column = np.indices(shape[1:]) / shape[1]
    stripes = np.cos(2 * np.pi * cycles * (row * np.cos(angle) + column * np.sin(angle)) + phase)
    tint = generator.uniform(0.7, 1, (len(labels), shape[0], 1, 1))
    own = strength * generator.uniform(0.6, 1.4, one) * tint * stripes
    return to_bytes(images(seed, len(labels), shape, noise=noise) + own), labels


def plant(images: np.ndarray, pattern: np.ndarray, count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Images with a pattern (grey levels) added to some, and which, (n,) bool."""
    chosen = np.random.default_rng(seed).permutation(len(images))[:count]
    out, carries = images.copy(), np.zeros(len(images), bool)
    out[chosen] = to_bytes(images[chosen] + pattern)
    carries[chosen] = True
    return out, carries


def to_bytes(values: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)
