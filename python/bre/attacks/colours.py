"""Triggers in colour: fewer grey levels, another tint, cosines in the chroma."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import fft

from ..errors import InputError
from .planting import check_images, grey_levels

# share of red, green and blue in luma Y, and in the two chroma channels U and V, as FTrojan's code has them; source:
# ITU-R BT.601
_YUV = np.array([[0.299, 0.587, 0.114], [-0.147, -0.289, 0.436], [0.615, -0.515, -0.100]])


@dataclass(frozen=True)
class Quantised:
    """Fewer grey levels in each channel (BppAttack, Wang, Zhai and Ma, CVPR 2022).

    levels: 2 to 256 for each channel, at equal distances from 0 to 255 (8 is their setting on CIFAR-10); dither: spread
    each pixel's rounding error over its neighbours (Floyd and Steinberg 1976), as they do. The same in every image for
    the same pixels. Raises InputError for other numbers of levels.
    """

    levels: int = 8
    dither: bool = True

    def __call__(self, images: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """images: uint8 (n, C, H, W). Returns uint8 of the same shape."""
        check_images(images)
        if not 2 <= self.levels <= 256:
            raise InputError(f"levels: expected 2 to 256, got {self.levels}")
        step = 255 / (self.levels - 1)
        pixels = images.astype(np.float32)
        if self.dither:
            _diffuse(pixels, step)
        return grey_levels(np.rint(pixels / step) * step)


def _diffuse(pixels: np.ndarray, step: float) -> None:
    """Round (n, C, H, W) to multiples of a step in place, row by row, errors to the right and to the row below."""
    height, width = pixels.shape[2:]
    for row in range(height):
        for column in range(width):
            old = pixels[:, :, row, column]
            new = np.clip(np.rint(old / step) * step, 0, 255)
            error = old - new
            pixels[:, :, row, column] = new
            for down, right, share in ((0, 1, 7 / 16), (1, -1, 3 / 16), (1, 0, 5 / 16), (1, 1, 1 / 16)):
                if row + down < height and 0 <= column + right < width:
                    pixels[:, :, row + down, column + right] += share * error


@dataclass(frozen=True)
class Tint:
    """Every channel scaled and shifted, as a colour filter does (the filter triggers of ABS, Liu et al., CCS 2019, and
    of TrojAI's rounds).

    scale: a factor for each channel; shift: in units of [0, 1], for each. Raises InputError unless both have one number
    for each of the images' channels.
    """

    scale: tuple[float, ...] = (1.1, 1.0, 0.8)
    shift: tuple[float, ...] = (0.06, 0.0, 0.0)

    def __call__(self, images: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """images: uint8 (n, C, H, W). Returns uint8 of the same shape."""
        check_images(images)
        for name, value in (("scale", self.scale), ("shift", self.shift)):
            if len(value) != images.shape[1]:
                raise InputError(f"{name}: expected one number for each of {images.shape[1]} channels, got {value}")
        scale, shift = (np.asarray(value, np.float32).reshape(-1, 1, 1) for value in (self.scale, self.shift))
        return grey_levels(scale * images + np.float32(255) * shift)


@dataclass(frozen=True)
class ChromaCosines:
    """Cosines of a few frequencies added to the chroma, which the eye hardly sees (FTrojan, Wang et al., "An invisible
    black-box backdoor attack through frequency domain", ECCV 2022).

    Channels become Y, U, V; in every block of `block` x `block` pixels of U and V the orthonormal cosine transform gets
    `magnitude` (grey levels) at each of `frequencies` (row, column). Theirs on CIFAR-10: one block of 32, (15, 15) and
    (31, 31), 30. Raises InputError for images that have not three channels or are not whole blocks, and for frequencies
    outside a block.
    """

    magnitude: float = 30.0
    frequencies: tuple[tuple[int, int], ...] = ((15, 15), (31, 31))
    block: int = 32

    def __call__(self, images: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """images: uint8 (n, 3, H, W). Returns uint8 of the same shape."""
        check_images(images, channels=3)
        height, width = images.shape[2:]
        if height % self.block or width % self.block:
            raise InputError(f"block: expected a divisor of {height} and {width}, got {self.block}")
        if wrong := [f for f in self.frequencies if not (0 <= f[0] < self.block and 0 <= f[1] < self.block)]:
            raise InputError(f"frequencies: expected rows and columns from 0 to {self.block - 1}, got {wrong}")
        spectrum = np.zeros((self.block, self.block))
        for frequency in self.frequencies:
            spectrum[frequency] = self.magnitude
        plane = np.tile(fft.idctn(spectrum, norm="ortho"), (height // self.block, width // self.block))
        # both transforms are linear: what is added to U and V is added to red, green and blue
        added = np.einsum("ck,khw->chw", np.linalg.inv(_YUV), np.stack([np.zeros_like(plane), plane, plane]))
        return grey_levels(images + added.astype(np.float32))
