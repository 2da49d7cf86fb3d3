"""A map-style torch Dataset of (image, label), or a DataLoader over one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from PIL import Image

from ...errors import InputError
from .column_names import IMAGE_NAMES, find_image, find_label
from .dataset_options import Options
from .image_form import SIZES, as_hwc
from .imageset import ImageSet
from .labels import as_label, as_labels
from .pixels import PixelScale, find_layout, shape_chw, to_nchw

_REREAD = 8  # items; read a second time when opening; source: chosen, augmentation that spares all of them is unlikely


class TorchSet(ImageSet):
    """Anything with len() and [i] -> (image, label), read once in full when opened, then on demand.

    image: uint8, float in [0, 1] or whole numbers 0 to 255, (C, H, W), (H, W, C) or (H, W), as tensor, numpy or PIL
    (modes L and RGB), all of one shape; or brought to one by an ImageForm. label: an int, an integer array of one
    element, or a one-hot vector. Items may be longer, or dicts. The same index must give the same item: no
    augmentation.
    """

    takes = frozenset({"layout", "columns"})

    def __init__(self, dataset: Any, options: Options):
        self._dataset, self._options = dataset, options
        source = type(dataset).__name__
        if len(dataset) == 0:
            raise InputError(f"{source}: the dataset is empty")
        self._scale = PixelScale()
        self._form = options.form
        self._layout, shape, given = self._look_through(source)
        labels = as_labels(given, len(dataset), source)
        names = _class_names(dataset, int(labels.max()) + 1)
        super().__init__(labels, shape_chw((1, *shape), self._layout), source, names)
        self.notes += self._scale.notes
        if self._form:
            self.notes += self._form.losses(self._sizes(self._item(0)[0], source))
        first = np.arange(min(_REREAD, len(self)))
        if not np.array_equal(self._read(first), self._read(first)):
            raise InputError(
                f"{source} gives another image when the same index is read again (random augmentation?): "
                "pass the dataset without random transforms"
            )

    def describe(self, index: int) -> str:
        return f"item {index}"

    def _look_through(self, source: str) -> tuple[str, tuple[int, ...], list[int]]:
        """(layout, shape of an image before it is brought to (C, H, W), labels) of all items, read once."""
        if self._form.pad:
            sizes = [self._sizes(self._item(i)[0], f"{source}, item {i}") for i in range(len(self._dataset))]
            self._form = self._form.fitted(sizes)
        labels, first, layout = [], None, ""
        for i in range(len(self._dataset)):
            where = f"{source}, item {i}"
            image, label = self._item(i)
            if not isinstance(image, Image.Image):
                self._scale.add(image, where)
            shape = self._shape(image, where)
            if first is None:
                layout = "NHWC" if self._form else find_layout((1, *shape), self._options.layout, where)
                first = shape
            if shape != first:
                raise InputError(
                    f"{where} has shape {shape}, item 0 has {first}; all images need one shape: bring them to one",
                    argument=(*SIZES, "convert"),
                )
            labels.append(label)
        assert first is not None  # there is an item
        return layout, first, labels

    def _item(self, i: int) -> tuple[Any, int]:
        """Item i as a PIL image, or an array as it is given, and its label."""
        where = f"{type(self._dataset).__name__}, item {i}"
        item = self._dataset[i]
        image, label = self._parts(item, where)
        return (image if isinstance(image, Image.Image) else _as_array(image, where)), as_label(label, where)

    def _parts(self, item: Any, where: str) -> tuple[Any, Any]:
        columns = self._options.columns
        if isinstance(item, Mapping) and item and all(isinstance(key, str) for key in item):
            names = list(item)
            image = find_image(names, columns and columns[0], where, IMAGE_NAMES)
            return item[names[image]], item[names[find_label(names, columns and columns[1], where)]]
        if not isinstance(item, (tuple, list)) or len(item) < 2:
            raise InputError(f"{where}: expected (image, label), got {_describe(item)}")
        places = (0, 1)
        if columns:
            if not all(name.isascii() and name.isdigit() and int(name[:9]) < len(item) for name in columns):
                raise InputError(
                    f"{where} has {len(item)} parts: name two of them by their numbers, got {columns}",
                    argument="columns",
                )
            places = int(columns[0]), int(columns[1])
        elif len(item) > 2:
            note = f"items have {len(item)} parts: the first was taken as the image, the second as the label"
            self.notes = self.notes if note in self.notes else (*self.notes, note)
        return item[places[0]], item[places[1]]

    def _shape(self, image: Any, where: str) -> tuple[int, ...]:
        """Of what `_bytes` makes of an image."""
        if isinstance(image, Image.Image):
            (w, h), mode = self._form.header(image.size, image.mode, where)
            return (h, w, len(mode)) if self._form or len(mode) > 1 else (h, w)
        if not self._form:
            return tuple(image.shape)
        return self._form.shape_of(self._hwc(image, where).shape, where)

    def _sizes(self, image: Any, where: str) -> tuple[int, int]:
        """(W, H)"""
        if isinstance(image, Image.Image):
            return image.size
        h, w, _ = self._hwc(image, where).shape
        return w, h

    def _hwc(self, image: np.ndarray, where: str) -> np.ndarray:
        channels = (1, 3, 4) if self._form.convert else (1, 3)
        layout = find_layout((1, *image.shape), self._options.layout, where, channels)
        hwc: np.ndarray = to_nchw(image[None], layout)[0].transpose(1, 2, 0)
        return hwc

    def _bytes(self, image: Any, where: str) -> np.ndarray:
        if isinstance(image, Image.Image):
            self._form.header(image.size, image.mode, where)
            return as_hwc(self._form.apply(image)) if self._form else np.asarray(image)
        array = self._scale.to_bytes(image, where)
        return self._form.of_array(np.ascontiguousarray(self._hwc(array, where))) if self._form else array

    def _read(self, indices: np.ndarray) -> np.ndarray:
        c, h, w = self.image_shape
        shape = {"NHW": (h, w), "NHWC": (h, w, c), "NCHW": (c, h, w)}[self._layout]
        raw = np.empty((len(indices), *shape), np.uint8)
        for row, i in enumerate(indices.tolist()):
            where = f"{self.source}, item {i}"
            image, label = self._item(i)
            pixels = self._bytes(image, where)
            if pixels.shape != shape:
                raise InputError(f"{where} has shape {pixels.shape}, it had {shape} when opened")
            if label != self.labels[i]:
                raise InputError(f"{where} has label {label}, it had {self.labels[i]} when opened")
            raw[row] = pixels
        return to_nchw(raw, self._layout)

    def _keep(self, mask: np.ndarray) -> torch.utils.data.Subset[Any]:
        return torch.utils.data.Subset(self._dataset, np.flatnonzero(mask).tolist())


def dataset_of(loader: torch.utils.data.DataLoader[Any]) -> Any:
    """The dataset that a loader goes through. Raises InputError when the loader gives anything but all its items."""
    dataset: Any = loader.dataset
    batches: Any = loader.batch_sampler
    sampler: Any = loader.sampler if batches is None else batches
    if type(batches) is torch.utils.data.BatchSampler:
        sampler = batches.sampler
    if not isinstance(dataset, torch.utils.data.IterableDataset):
        in_order = isinstance(sampler, torch.utils.data.SequentialSampler)
        every = in_order or isinstance(sampler, torch.utils.data.RandomSampler)
        if not every or len(sampler) != len(dataset) or getattr(sampler, "replacement", False):
            raise InputError(
                f"the DataLoader's sampler ({type(sampler).__name__}) may leave out or repeat items: pass a dataset of "
                "what was trained on, for instance torch.utils.data.Subset(loader.dataset, indices)"
            )
        if in_order and batches is not None and batches.drop_last and len(dataset) % batches.batch_size:
            raise InputError(
                f"the DataLoader drops the last {len(dataset) % batches.batch_size} items (drop_last=True): pass "
                "torch.utils.data.Subset(loader.dataset, indices) of what was trained on"
            )
    if loader.collate_fn not in (torch.utils.data.default_collate, torch.utils.data.default_convert):
        raise InputError(
            "the DataLoader has a collate_fn of its own, which may change images: pass its .dataset if that gives "
            "(image, label) as the model was trained on them"
        )
    return dataset


def _class_names(dataset: Any, count: int) -> list[str] | None:
    """What torchvision's datasets call their classes; None where these are no `count` names or more."""
    while isinstance(dataset, torch.utils.data.Subset):
        dataset = dataset.dataset
    names = getattr(dataset, "classes", None)
    if isinstance(names, list | tuple) and len(names) >= count and all(isinstance(name, str) for name in names):
        return list(names)
    return None


def _as_array(image: Any, where: str) -> np.ndarray:
    if isinstance(image, torch.Tensor):
        image = image.detach().cpu()
        return np.asarray((image.float() if image.dtype == torch.bfloat16 else image).numpy())
    if isinstance(image, np.ndarray):
        return image
    raise InputError(f"{where}: the image must be a tensor, a numpy array or a PIL image, got {type(image).__name__}")


def _describe(item: Any) -> str:
    return f"a {type(item).__name__}" + (f" of {len(item)}" if hasattr(item, "__len__") else "")
