from __future__ import annotations

import torch
from torch import Tensor

from . import _check
from ._backends import implementation


def project(images: Tensor, *, templates: Tensor, backend: str = "auto") -> Tensor:
    """Inner product of every image with every template, in one pass over bytes.

    images:     (M, C, H, W) uint8
    templates:  (P, D) float32, D = C*H*W in the images' order; best for P up to 8
    returns:    (M, P) float32, pixel units of [0, 1] times the templates'

    Equivalent to:
        (images.reshape(M, D) / 255) @ templates.T

    Raises InputError.
    """
    _check.images(images)
    D = images.shape[1:].numel()
    _check.tensor("templates", templates, ("P", D), torch.float32, like=images)
    scores: Tensor = implementation("project", backend, images.device)(images, templates=templates)
    return scores
