from __future__ import annotations

from torch import Tensor

from . import _check
from ._backends import implementation


def halve(images: Tensor, *, backend: str = "auto") -> Tensor:
    """Images at half resolution: means of 2 x 2 pixels, halves rounded up.

    images:   (M, C, H, W) uint8
    returns:  (M, C, ceil(H / 2), ceil(W / 2)) uint8; at the edge of an odd image the mean of the two pixels there, at
              its corner the pixel

    Equivalent to, where H and W are even:
        x = images.reshape(M, C, H // 2, 2, W // 2, 2).int()
        ((x.sum((3, 5)) + 2) // 4).byte()

    Raises InputError.
    """
    _check.images(images)
    M, C, H, W = images.shape
    out = images.new_empty(M, C, (H + 1) // 2, (W + 1) // 2)
    implementation("halve", backend, images.device)(images, out=out)
    return out
