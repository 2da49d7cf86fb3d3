"""Triggers that move pixels: a smooth warp, the same in every image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage
from torch.nn import functional

from ..errors import InputError
from .planting import check_images, grey_levels


def wanet_field(shape: tuple[int, int, int], strength: float = 0.5, control: int = 4, seed: int = 0) -> np.ndarray:
    """Where each pixel comes from, less where it is: float32 (2, H, W), rows and columns, in pixels (WaNet, Nguyen and
    Tran, ICLR 2021).

    `control` x `control` random vectors, of mean absolute value 1, grown to the image by bicubic interpolation and
    scaled to `strength` times half a pixel, which is their s (0.5 in the paper). Raises InputError for control < 2.
    """
    if control < 2:
        raise InputError(f"control: expected 2 or more points in each direction, got {control}")
    points = torch.from_numpy(np.random.default_rng(seed).uniform(-1, 1, (1, 2, control, control)))
    points = points / points.abs().mean()
    grown = functional.interpolate(points, size=shape[1:], mode="bicubic", align_corners=True)[0].numpy()
    # their grid runs from -1 to 1 and moves by s / H: (H - 1) / 2 pixels make a unit
    scale = strength * np.array([(side - 1) / (2 * side) for side in shape[1:]]).reshape(2, 1, 1)
    return np.asarray(scale * grown, np.float32)


def elastic_field(shape: tuple[int, int, int], strength: float = 1.5, smooth: float = 4.0, seed: int = 0) -> np.ndarray:
    """As `wanet_field`: random vectors at every pixel, blurred by a Gaussian of standard deviation `smooth` pixels,
    with a root mean square of `strength` pixels (elastic distortion, Simard, Steinkraus and Platt, ICDAR 2003).
    Raises InputError for smooth <= 0."""
    if smooth <= 0:
        raise InputError(f"smooth: expected pixels > 0, got {smooth}")
    noise = np.random.default_rng(seed).standard_normal((2, *shape[1:]))
    field = np.stack([ndimage.gaussian_filter(plane, smooth, mode="wrap") for plane in noise])
    return np.asarray(strength * field / np.sqrt(np.square(field).mean()), np.float32)


@dataclass(frozen=True, eq=False)
class Warp:
    """Every pixel from elsewhere, by bilinear interpolation; beyond the border, the border's.

    field: float (2, H, W) as `wanet_field` and `elastic_field` return it. Raises InputError for another shape.
    """

    field: np.ndarray

    def __call__(self, images: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """images: uint8 (n, C, H, W). Returns uint8 of the same shape."""
        return _warped(images, self._checked(images)[None])

    def _checked(self, images: np.ndarray) -> np.ndarray:
        check_images(images)
        if self.field.shape != (2, *images.shape[-2:]) or not np.isfinite(self.field).all():
            raise InputError(f"field: expected finite (2, H, W) = {(2, *images.shape[-2:])}, got {self.field.shape}")
        return self.field


@dataclass(frozen=True, eq=False)
class NoisyWarp(Warp):
    """A warp with other noise in each image: what WaNet's noise mode gives to its covers, so that the network learns
    this field and not warping. noise: pixels; every pixel's vector moves by up to so much in each direction (theirs:
    half a pixel, one unit of their grid over H)."""

    noise: float = 0.5

    def __call__(self, images: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """images: uint8 (n, C, H, W). Returns uint8 of the same shape."""
        field = self._checked(images)
        return _warped(images, field + generator.uniform(-self.noise, self.noise, (len(images), *field.shape)))


def _warped(images: np.ndarray, fields: np.ndarray) -> np.ndarray:
    """images: (n, C, H, W); fields: (n or 1, 2, H, W), in pixels."""
    height, width = images.shape[2:]
    sides = np.array([max(height - 1, 1), max(width - 1, 1)]).reshape(2, 1, 1)
    places = 2 * (np.indices((height, width)) + fields) / sides - 1
    grid = torch.from_numpy(np.ascontiguousarray(places[:, ::-1].transpose(0, 2, 3, 1), np.float32))
    pixels = torch.from_numpy(images).float()
    warped = functional.grid_sample(
        pixels, grid.expand(len(images), -1, -1, -1), padding_mode="border", align_corners=True
    )
    return grey_levels(warped.numpy())
