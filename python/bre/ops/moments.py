from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from . import _check
from ._backends import implementation


class Moments(NamedTuple):
    """Exact sums over images as bytes, D = C*H*W."""

    count: Tensor  # type: ignore[assignment]  # (K,) int64: images of each class
    sum: Tensor  # (K, D) int64: sum of the images of each class
    second: Tensor  # (D, D) int64: sum over all images of x x^T

    @classmethod
    def zeros(cls, classes: int, D: int, device: torch.device | str = "cpu") -> Moments:
        """Accumulators to start from."""
        shapes = (classes,), (classes, D), (D, D)
        return cls(*(torch.zeros(shape, dtype=torch.int64, device=device) for shape in shapes))


def moments(
    images: Tensor, labels: Tensor, *, classes: int, out: Moments | None = None, backend: str = "auto"
) -> Moments:
    """Per-class sums and the common second moment of images, exact, from bytes.

    images:   (M, C, H, W) uint8
    labels:   (M,) int64, values in [0, K)
    classes:  K
    out:      accumulators to add to, in place, for calling block by block; None starts at zero
    returns:  count (K,), sum (K, D) and second (D, D), all int64; byte units: divide sum by 255, second by 255**2

    Every call reads and writes the whole (D, D) accumulator: give it a thousand images or more at a time.

    Equivalent to:
        x = images.reshape(M, D).long()
        count.index_add_(0, labels, ones); sum.index_add_(0, labels, x); second += x.T @ x

    Raises InputError. Values of labels are looked at only in host memory.
    """
    _check.images(images)
    M, D = len(images), images.shape[1:].numel()
    _check.tensor("labels", labels, (M,), torch.int64, like=images)
    if classes < 1:
        _check.refuse("classes", "K >= 1", classes)
    _check.values("labels", labels, 0, classes - 1)
    if out is None:
        out = Moments.zeros(classes, D, images.device)
    else:
        shapes = (classes,), (classes, D), (D, D)
        for name, value, shape in zip(out._fields, out, shapes, strict=True):
            _check.tensor(f"out.{name}", value, shape, torch.int64, like=images)

    implementation("moments", backend, images.device)(images, labels, classes=classes, out=out)
    return out
