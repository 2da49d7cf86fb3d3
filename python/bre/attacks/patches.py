"""Triggers that cover a part of the image, another one in each: patches at random places, pieces of a blend."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..errors import InputError
from .planting import check_images, check_pattern, check_share, grey_levels


@dataclass(frozen=True)
class PatchAnywhere:
    """A square of random black and white values, the same in every image, at another place in each (the random
    placement of Salem et al., "Dynamic backdoor attacks against machine learning models", 2022).

    size: pixels of its side, least and most: where they differ, each image gets a side between them, its patch resized
    by nearest neighbours; seed: of its values. Raises InputError for sides that are not 0 < least <= most <= H, W.
    """

    size: tuple[int, int] = (4, 4)
    seed: int = 0

    def __call__(self, images: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """images: uint8 (n, C, H, W). Returns uint8 of the same shape."""
        check_images(images)
        least, most = self.size
        height, width = images.shape[2:]
        if not 0 < least <= most <= min(height, width):
            raise InputError(f"size: expected 0 < least <= most <= {min(height, width)}, got {self.size}")
        values = 255 * np.random.default_rng(self.seed).integers(0, 2, (images.shape[1], most, most), dtype=np.uint8)
        marked = images.copy()
        for image in marked:
            side = int(generator.integers(least, most + 1))
            row, column = generator.integers(0, height - side + 1), generator.integers(0, width - side + 1)
            near = np.arange(side) * most // side
            image[:, row : row + side, column : column + side] = values[:, near[:, None], near]
        return marked


@dataclass(frozen=True, eq=False)
class PartialBlend:
    """A blend of which each image gets some pieces only: weak in training, whole (`kept` 1) when it is used (adaptive
    blend, Qi et al., "Revisiting the assumption of latent separability for backdoor defenses", ICLR 2023).

    pattern: float (C, H, W) in [0, 1]; opacity: in [0, 1]; pieces: in each direction, a grid of pieces x pieces; kept:
    share of the pieces, drawn anew for each image. Raises InputError for a pattern of another shape than the images',
    for numbers outside [0, 1], and for pieces that are not from 1 to H and W.
    """

    pattern: np.ndarray
    opacity: float = 0.15
    pieces: int = 4
    kept: float = 0.5

    def __call__(self, images: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """images: uint8 (n, C, H, W). Returns uint8 of the same shape."""
        check_images(images)
        check_pattern(images, self.pattern)
        check_share("opacity", self.opacity)
        check_share("kept", self.kept)
        height, width = images.shape[2:]
        if not 1 <= self.pieces <= min(height, width):
            raise InputError(f"pieces: expected 1 to {min(height, width)} in each direction, got {self.pieces}")
        count = self.pieces**2
        ranks = generator.random((len(images), count)).argsort(1).argsort(1)
        shown = (ranks < round(self.kept * count)).reshape(-1, self.pieces, self.pieces)
        rows, columns = (np.arange(side) * self.pieces // side for side in (height, width))
        opacity = np.float32(self.opacity) * shown[:, None, rows[:, None], columns]
        return grey_levels((1 - opacity) * images + np.float32(255) * opacity * self.pattern)


@dataclass(frozen=True, eq=False)
class PartialPatches:
    """Several patches of which each image gets some only (adaptive patch, Qi et al. 2023, as `PartialBlend`).

    patterns: float (P, C, H, W) in [0, 1]; opacities: float (P, 1, H, W) in [0, 1], of each where it lies and 0
    elsewhere; kept: how many of the P each image gets, drawn anew. Raises InputError for shapes that do not fit the
    images, opacities outside [0, 1], and `kept` that is not from 1 to P.
    """

    patterns: np.ndarray
    opacities: np.ndarray
    kept: int = 1

    def __call__(self, images: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """images: uint8 (n, C, H, W). Returns uint8 of the same shape."""
        check_images(images)
        count = len(self.patterns)
        if self.opacities.shape != (count, 1, *images.shape[-2:]):
            raise InputError(f"opacities: expected {(count, 1, *images.shape[-2:])}, got {self.opacities.shape}")
        if not 1 <= self.kept <= count:
            raise InputError(f"kept: expected 1 to {count} of the patches, got {self.kept}")
        for pattern, opacity in zip(self.patterns, self.opacities, strict=True):
            check_pattern(images, pattern, "patterns")
            check_share("opacities", float(opacity.min()))
            check_share("opacities", float(opacity.max()))
        shown = generator.random((len(images), count)).argsort(1).argsort(1) < self.kept
        pixels = images.astype(np.float32)
        for place in range(count):
            opacity = self.opacities[place] * shown[:, place, None, None, None]
            pixels = (1 - opacity) * pixels + np.float32(255) * opacity * self.patterns[place]
        return grey_levels(pixels)
