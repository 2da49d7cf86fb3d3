from __future__ import annotations

import torch
from torch import Tensor

from . import _check
from ._backends import implementation


def channel_sums(images: Tensor, *, backend: str = "auto") -> Tensor:
    """The sum of every channel's bytes, (M, C) int64, of images (M, C, H, W) uint8: images.long().sum((2, 3)).

    Raises InputError.
    """
    _check.images(images)
    out = images.new_empty(images.shape[:2], dtype=torch.int64)
    implementation("channel_sums", backend, images.device)(images, out=out)
    return out
