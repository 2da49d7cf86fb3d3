"""A pair of arrays or tensors in memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from ...errors import InputError
from .dataset_options import Options
from .imageset import ImageSet
from .labels import named_labels
from .pixels import PixelScale, find_layout, shape_chw, to_nchw
from .regular_files import FileRows

_WITH_ALPHA = (1, 3, 4)


class ArraySet(ImageSet):
    """(images, labels) as numpy arrays or torch tensors; the images are referred to, not copied.

    images: uint8, or float in [0, 1] (rounded to the nearest grey level when read), or whole numbers 0 to 255 of any
    type; (M, C, H, W), (M, H, W, C) or (M, H, W). labels: (M,) or (M, 1) whole numbers, (M, K) one-hot rows, or (M,)
    names.
    """

    takes = frozenset({"layout"})

    def __init__(
        self, images: Any, labels: Any, options: Options, *, source: str = "arrays", names: list[str] | None = None
    ):
        if not isinstance(images, (np.ndarray, torch.Tensor, FileRows)):
            hint = ""
            if isinstance(images, list | tuple):
                hint = ": join images with numpy.stack; of several splits, ((x, y), (x, y)), pass one"
            raise InputError(
                f"{source}: images must be a numpy array or a torch tensor, got {type(images).__name__}{hint}"
            )
        if isinstance(images, torch.Tensor) and images.layout != torch.strided:
            raise InputError(f"{source}: images must be a dense tensor, got layout {images.layout}")
        self._images, self._given_labels = images, labels
        channels = _WITH_ALPHA if options.form.convert else (1, 3)
        self._layout = find_layout(tuple(images.shape), options.layout, source, channels)
        numbers, found = named_labels(labels, len(images), source)
        super().__init__(numbers, shape_chw(tuple(images.shape), self._layout), source, names or found)
        self._scale = PixelScale()
        self._check_pixels()
        self.notes += self._scale.notes

    def _rows(self, rows: Any) -> np.ndarray:
        """The images at `rows` (a slice or (m,) int64) as numpy, in the layout and dtype given."""
        if not isinstance(self._images, torch.Tensor):
            return np.asarray(self._images[rows])
        rows = rows if isinstance(rows, slice) else torch.from_numpy(rows).to(self._images.device)
        block = self._images.detach()[rows].cpu()
        return np.asarray((block.float() if block.is_floating_point() and block.itemsize < 4 else block).numpy())

    def _check_pixels(self) -> None:
        """One pass over what is not bytes, which are valid as they are."""
        if self._rows(slice(0, 1)).dtype == np.uint8:
            return
        for start in range(0, len(self), 1024):
            stop = min(start + 1024, len(self))
            self._scale.add(self._rows(slice(start, stop)), f"{self.source}, images {start} to {stop - 1}")

    def _read(self, indices: np.ndarray) -> np.ndarray:
        return to_nchw(self._scale.to_bytes(self._rows(indices), self.source), self._layout)

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
