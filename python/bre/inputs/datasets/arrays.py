"""A pair of arrays or tensors in memory."""

from typing import Any

import numpy as np
import torch

from ...errors import InputError
from .imageset import ImageSet, as_labels
from .pixels import find_layout, shape_chw, to_bytes, to_nchw


class ArraySet(ImageSet):
    """(images, labels) as numpy arrays or torch tensors; the images are referred to, not copied.

    images: uint8, or float in [0, 1] (rounded to the nearest grey level when read); (M, C, H, W), (M, H, W,
    C) or (M, H, W). labels: (M,) integers.
    """

    def __init__(self, images: Any, labels: Any, *, layout: str | None = None, source: str = "arrays"):
        if not isinstance(images, (np.ndarray, torch.Tensor)):
            raise InputError(f"{source}: images must be a numpy array or a torch tensor, got {type(images).__name__}")
        if isinstance(images, torch.Tensor) and images.layout != torch.strided:
            raise InputError(f"{source}: images must be a dense tensor, got layout {images.layout}")
        self._images, self._given_labels = images, labels
        self._layout = find_layout(tuple(images.shape), layout, source)
        labels = as_labels(labels, len(images), source)
        super().__init__(labels, shape_chw(tuple(images.shape), self._layout), source)
        self._check_pixels()

    def _rows(self, rows: Any) -> np.ndarray:
        """The images at `rows` (a slice or (m,) int64) as numpy, in the layout and dtype given."""
        if isinstance(self._images, np.ndarray):
            return np.asarray(self._images[rows])
        rows = rows if isinstance(rows, slice) else torch.from_numpy(rows).to(self._images.device)
        block = self._images.detach()[rows].cpu()
        return np.asarray((block.float() if block.is_floating_point() and block.itemsize < 4 else block).numpy())

    def _check_pixels(self) -> None:
        """One pass over float images; bytes are valid as they are."""
        if self._rows(slice(0, 1)).dtype == np.uint8:
            return
        for start in range(0, len(self), 1024):
            stop = min(start + 1024, len(self))
            to_bytes(self._rows(slice(start, stop)), f"{self.source}, images {start} to {stop - 1}")

    def _read(self, indices: np.ndarray) -> np.ndarray:
        return to_nchw(to_bytes(self._rows(indices), self.source), self._layout)

    def _keep(self, mask: np.ndarray) -> tuple[Any, Any]:
        """A pair of the given types: arrays, tensors, or a list of labels."""
        return _select(self._images, mask), _select(self._given_labels, mask)


def _select(values: Any, mask: np.ndarray) -> Any:
    if isinstance(values, torch.Tensor):
        return values[torch.from_numpy(mask).to(values.device)]
    if isinstance(values, np.ndarray):
        return values[mask]
    kept = [value for value, keep in zip(values, mask, strict=True) if keep]
    return tuple(kept) if isinstance(values, tuple) else kept
