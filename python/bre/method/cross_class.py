"""Cross-class patterns: planted in many classes at once, they are invisible to a comparison of classes.

With all-to-all labels every class holds poisoned images from another one, so no class is an outlier. The background
that images are whitened against contains the pattern too, and damps it until inner products of pairs show nothing. But
natural images have a smooth spectrum, and a pattern at fixed places, phases or signs is a direction with more variance
than the spectrum around it explains. Along the right one of these directions the images that carry the pattern
form a second mode.

Knows nothing of models and of where images come from. All floats are grey levels (0 to 255), not pixels of [0, 1].
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy import fft, ndimage
from scipy.sparse.linalg import svds
from torch import Tensor

from ..ops import project
from . import stats
from .linalg import single_thread
from .uploads import Upload
from .whitening import Whitening

# robust standard deviations; of the narrowest mode; source: chosen, an image's own noise makes none narrower
CROSS_CLASS_WIDTH = 2.0
# share; of the carriers that one class may have, or they are its own; source: chosen, two classes share in halves
MAX_CLASS_SHARE = 0.75
# robust standard deviations; below which scores tell nothing of a direction; source: chosen, lower than MODE_FLOOR,
# since each half is scored along what the other gave
CROSS_CLASS_FLOOR = 3.0
# directions; of most excess variance that are followed; source: chosen, the bound of a p-value is times their number
MAX_DIRECTIONS = 32
FOLLOW_ROUNDS = 6  # rounds; of following a direction, each with the half that it was not made from; source: chosen
SPECTRUM_WINDOW = 5  # frequencies; on each axis, whose median is the smooth spectrum; source: chosen
STRIP = 256  # images; worked on at a time; source: chosen, by time alone
MIN_CARRIERS = 5  # images; that make a direction; source: derived, as MIN_MODE_VALUES


@dataclass(frozen=True, eq=False)
class CrossClassPattern:
    """What images of any class share: a direction (D,) float32 among whitened images, of unit length; the second mode
    of scores along it (in robust standard deviations from their median), of images that it was not made from; carriers:
    int64 (c,), places of those in the mode."""

    direction: Tensor
    mode: stats.Mode
    carriers: np.ndarray

    @property
    def p_value(self) -> float:
        """Bound on the probability of so large a scan statistic along the best of MAX_DIRECTIONS by chance."""
        return min(1.0, MAX_DIRECTIONS * self.mode.p_value)


def search(whitening: Whitening, images: np.ndarray, labels: np.ndarray, backend: str) -> CrossClassPattern | None:
    """The direction of most evidence, after following all of `excess_directions` for FOLLOW_ROUNDS rounds.

    images: uint8 (n, C, H, W), of all classes, in random order; labels: int64 (n,); backend: of `ops.project`. Returns
    None if no direction is left whose images are of several classes: what one class has is its own. The images of one
    half that are in the second mode (or above CROSS_CLASS_FLOOR, without one) make the direction that the other half is
    scored along, so that no score has a part in its own direction.
    """
    halves = np.ascontiguousarray(images[::2]), np.ascontiguousarray(images[1::2])
    directions = excess_directions(whitening)
    for turn in range(FOLLOW_ROUNDS):
        half = halves[turn % 2]
        scores = standardised(_along(half, whitening, directions, backend))
        if turn == 0:
            scores *= np.where((scores**3).mean(1, keepdims=True) < 0, -1, 1)  # fewer carry a pattern than do not
        modes = [second_mode(row) for row in scores]
        if turn < FOLLOW_ROUNDS - 1:
            chosen = np.stack([carrying(row, mode) for row, mode in zip(scores, modes, strict=True)])
            directions = _sums(half, whitening, chosen[chosen.sum(1) >= MIN_CARRIERS])
        if not directions.shape[1]:
            return None
    last = np.arange(len(images))[(FOLLOW_ROUNDS - 1) % 2 :: 2]
    carriers = [last[carrying(row, mode)] for row, mode in zip(scores, modes, strict=True)]
    spread = [place for place, rows in enumerate(carriers) if _largest_share(labels[rows]) <= MAX_CLASS_SHARE]
    best = max(spread, key=lambda place: modes[place].log_likelihood_ratio, default=None)
    return None if best is None else CrossClassPattern(directions[:, best].clone(), modes[best], carriers[best])


def _largest_share(labels: np.ndarray) -> float:
    """Of the class that most of the labels (n,) are, 1 of none."""
    return float(np.bincount(labels).max() / len(labels)) if len(labels) else 1.0


def standardised(scores: np.ndarray) -> np.ndarray:
    """(..., n): in robust standard deviations from the median. Carriers are few, but they make the plain ones wrong."""
    centred: np.ndarray = scores - np.median(scores, axis=-1, keepdims=True)
    spread: np.ndarray = stats.TO_NORMAL * np.median(np.abs(centred), axis=-1, keepdims=True)
    centred /= np.maximum(spread, 1e-9)
    return centred


def second_mode(scores: np.ndarray) -> stats.Mode:
    """Of scores (n,) that are `standardised`."""
    return stats.second_mode(scores, floor=CROSS_CLASS_FLOOR, width=CROSS_CLASS_WIDTH)


def carrying(scores: np.ndarray, mode: stats.Mode) -> np.ndarray:
    """(n,) bool: the scores in the mode, or all above CROSS_CLASS_FLOOR without a mode."""
    if not mode.log_likelihood_ratio:
        return scores > CROSS_CLASS_FLOOR
    return (scores >= mode.low) & (scores <= mode.high + CROSS_CLASS_WIDTH)


def distance_towards_others(means: np.ndarray, own: int, mean: np.ndarray, count: int) -> float:
    """How far the mean (D,) of whitened images is from the one at place `own` of means (S, D), which is of `count`
    images, towards the other one that it is furthest to; 0 is expected of images of that class."""
    gaps = np.delete(means, own, axis=0) - means[own]
    along = gaps @ (mean - means[own]) - len(mean) / count  # the chance part of the class's mean is in both factors
    return float((along / np.maximum(np.linalg.norm(gaps, axis=1), 1e-9)).max())


def _along(images: np.ndarray, whitening: Whitening, directions: Tensor, backend: str) -> np.ndarray:
    """Scores (k, n) float32 of uint8 images (n, C, H, W) along directions (D, k)."""
    weights = whitening.templates([directions.T.contiguous()[:, None]])
    offset = weights @ whitening.mean
    there = Upload(whitening.device)(images), (255 * weights).contiguous().to(whitening.device)
    scores = project(there[0], templates=there[1], backend=backend).cpu()
    return (scores - offset).T.contiguous().numpy()


def _sums(images: np.ndarray, whitening: Whitening, chosen: np.ndarray) -> Tensor:
    """(D, k) float32: the whitened images that are chosen, (k, n) bool, summed and brought to unit length."""
    weights = torch.from_numpy(chosen.astype(np.float32))
    total = weights.new_zeros(len(chosen), whitening.level.size)
    with single_thread():
        for start in range(0, len(images), STRIP):
            strip = slice(start, start + STRIP)
            total.addmm_(weights[:, strip], torch.from_numpy(images[strip]).flatten(1).float())
        channels, height, width = whitening.level.shape
        planes = total.view(len(total), channels, height * width).double()
        centred = (planes - planes.mean(2, keepdim=True)).flatten(1)
        centred -= weights.sum(1, keepdim=True).double() * whitening.mean.double()
        (whitened,) = whitening.displacements(centred)
    return torch.nn.functional.normalize(whitened[:, 0].T, dim=0).float()


def excess_directions(whitening: Whitening) -> Tensor:
    """(D, k) float32, unit length: directions among whitened images that have more variance than the smooth spectrum
    around them explains, k = MAX_DIRECTIONS or less.

    The spectrum is that of the cosine transform, of the channels' principal axes.
    """
    size, shape, (kind,) = whitening.level.size, whitening.level.shape, whitening.kinds
    in_image = torch.empty(size, size, dtype=torch.float32, device="cpu")
    in_image[torch.from_numpy(kind.places[0])] = kind.factor.float()  # rows in the image's order, columns whitened
    with single_thread():
        columns = in_image.T.reshape(size, shape[0], -1)
        _, axes = torch.linalg.eigh((columns @ columns.transpose(1, 2)).sum(0))
        rotated = (axes.T @ columns).reshape(size, *shape).numpy()
    coefficients = fft.dctn(rotated, axes=(2, 3), norm="ortho").reshape(size, size)
    spectrum = np.square(coefficients).sum(0, dtype=np.float64).reshape(shape)
    logs, around = np.log(np.maximum(spectrum, 1e-12)), (1, SPECTRUM_WINDOW, SPECTRUM_WINDOW)
    smooth = ndimage.median_filter(logs, around, mode="nearest")
    coefficients *= np.exp(-smooth / 2).reshape(1, size).astype(np.float32)
    start = np.ones(size, np.float32)
    with single_thread():
        left, _, _ = svds(coefficients, min(MAX_DIRECTIONS, size - 1), v0=start, return_singular_vectors="u")
    return torch.from_numpy(np.ascontiguousarray(left))
