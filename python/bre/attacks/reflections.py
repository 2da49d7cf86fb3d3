"""A trigger that is natural: the reflection of another photograph, as in a window pane."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from ..errors import InputError
from .planting import check_images, check_share, grey_levels


@dataclass(frozen=True, eq=False)
class Reflection:
    """Each image behind a pane that reflects one of some photographs (Refool, Liu et al., ECCV 2020).

    photographs: uint8 (P, C, H, W), of which each image gets any; strength: of the reflection against its photograph,
    in [0, 1], the image is dimmed by half as much; blur: standard deviation in pixels of what is out of focus, 0 for
    in focus; ghost: pixels by which a second, weaker reflection is shifted (a thick pane), 0 for none. Raises
    InputError for photographs that are not like the images, and for strength outside [0, 1].
    """

    photographs: np.ndarray
    strength: float = 0.4
    blur: float = 1.0
    ghost: int = 0

    def __call__(self, images: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """images: uint8 (n, C, H, W). Returns uint8 of the same shape."""
        check_images(images)
        check_share("strength", self.strength)
        if self.photographs.dtype != np.uint8 or self.photographs.shape[1:] != images.shape[1:]:
            raise InputError(
                f"photographs: expected uint8 (P, {', '.join(map(str, images.shape[1:]))}), got "
                f"{self.photographs.dtype} of shape {self.photographs.shape}"
            )
        panes = self.photographs.astype(np.float32)
        if self.blur > 0:
            panes = ndimage.gaussian_filter(panes, (0, 0, self.blur, self.blur))
        if self.ghost:
            panes = 0.7 * panes + 0.3 * np.roll(panes, (self.ghost, self.ghost), (2, 3))
        chosen = panes[generator.integers(0, len(panes), len(images))]
        return grey_levels((1 - self.strength / 2) * images + self.strength * chosen)
