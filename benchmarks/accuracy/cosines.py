"""How alike an estimated and a true pattern are. Channel means, which a detector cannot know, are removed."""

from __future__ import annotations

import numpy as np
from scipy.linalg import solve_triangular


def whitening(clean: np.ndarray) -> np.ndarray:
    """Cholesky factor (D, D) of the second moment of uint8 images (n, C, H, W), those that are not poisoned."""
    centred = without_means(clean.astype(np.float32)).reshape(len(clean), -1)
    return np.linalg.cholesky((centred.T @ centred).astype(np.float64) / len(clean) + np.eye(centred.shape[1]) / 12)


def cosines(estimate: np.ndarray, true: np.ndarray, factor: np.ndarray) -> tuple[float, float]:
    """(plain, in the metric of the inverse second moment) between two patterns (C, H, W); `factor` by `whitening`."""
    pair = [without_means(pattern[None]).ravel().astype(np.float64) for pattern in (estimate, true)]
    return cosine(*pair), cosine(*(solve_triangular(factor, pattern, lower=True) for pattern in pair))


def without_means(images: np.ndarray) -> np.ndarray:
    return images - images.mean((2, 3), keepdims=True)


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return round(float((a * b).sum() / max(np.linalg.norm(a) * np.linalg.norm(b), 1e-12)), 4)
