"""A map-style torch Dataset of (image, label), or a DataLoader over one."""

from typing import Any

import numpy as np
import torch
from PIL import Image

from ...errors import InputError
from .image_files import Form, as_hwc
from .imageset import ImageSet, as_labels
from .pixels import find_layout, shape_chw, to_bytes, to_nchw

_REREAD = 8  # items; read a second time when opening; source: chosen, augmentation that spares all of them is unlikely


class TorchSet(ImageSet):
    """Anything with len() and [i] -> (image, label), read once in full when opened, then on demand.

    image: uint8 or float in [0, 1], (C, H, W), (H, W, C) or (H, W), as tensor, numpy or PIL (modes L and RGB), all of
    one shape; or brought to one by a Form. label: an int or a 0-d integer tensor. The same index must give the same
    item: no augmentation.
    """

    def __init__(self, dataset: Any, *, layout: str | None = None, form: Form | None = None):
        self._dataset, self._given_layout, self._form = dataset, layout, form or Form()
        source = type(dataset).__name__
        if len(dataset) == 0:
            raise InputError(f"{source}: the dataset is empty")
        self._raw_shape: tuple[int, ...] | None = None  # item 0 sets it, all others are held to it
        self._raw_shape = self._item(0)[0].shape
        self._layout = "NHWC" if self._form else find_layout((1, *self._raw_shape), layout, f"{source}, item 0")
        labels = as_labels([self._item(i)[1] for i in range(len(dataset))], len(dataset), source)
        names = _class_names(dataset, int(labels.max()) + 1)
        super().__init__(labels, shape_chw((1, *self._raw_shape), self._layout), source, names)
        first = np.arange(min(_REREAD, len(self)))
        if not np.array_equal(self._read(first), self._read(first)):
            raise InputError(
                f"{source} gives another image when the same index is read again (random augmentation?): "
                "pass the dataset without random transforms"
            )

    def describe(self, index: int) -> str:
        return f"item {index}"

    def _item(self, i: int) -> tuple[np.ndarray, int]:
        """Item i as (raw shape) uint8 and its label, checked; (H, W, C) where there is a Form."""
        where = f"{type(self._dataset).__name__}, item {i}"
        item = self._dataset[i]
        if not isinstance(item, (tuple, list)) or len(item) != 2:
            raise InputError(f"{where}: expected (image, label), got {_describe(item)}")
        image = self._bytes(item[0], where)
        if self._raw_shape not in (None, image.shape):
            raise InputError(
                f"{where} has shape {image.shape}, item 0 has {self._raw_shape}; all images need one shape: bring "
                "them to one",
                argument=("resize", "convert"),
            )
        return image, _as_label(item[1], where)

    def _bytes(self, image: Any, where: str) -> np.ndarray:
        if isinstance(image, Image.Image):
            self._form.header(image.size, image.mode, where)
            return as_hwc(self._form.apply(image)) if self._form else np.asarray(image)
        array = to_bytes(_as_array(image, where), where)
        if not self._form:
            return array
        layout = find_layout((1, *array.shape), self._given_layout, where)
        return self._form.of_array(np.ascontiguousarray(to_nchw(array[None], layout)[0].transpose(1, 2, 0)))

    def _read(self, indices: np.ndarray) -> np.ndarray:
        assert self._raw_shape is not None  # since opening
        raw = np.empty((len(indices), *self._raw_shape), np.uint8)
        for row, i in enumerate(indices.tolist()):
            raw[row], label = self._item(i)
            if label != self.labels[i]:
                raise InputError(f"{self.source}, item {i} has label {label}, it had {self.labels[i]} when opened")
        return to_nchw(raw, self._layout)

    def _keep(self, mask: np.ndarray) -> "torch.utils.data.Subset[Any]":
        return torch.utils.data.Subset(self._dataset, np.flatnonzero(mask).tolist())


def dataset_of(loader: "torch.utils.data.DataLoader[Any]") -> Any:
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


def _as_label(label: Any, where: str) -> int:
    if isinstance(label, (torch.Tensor, np.ndarray, np.generic)):
        if label.ndim != 0:
            raise InputError(f"{where}: the label must be a single integer, got shape {tuple(label.shape)}")
        label = label.item()
    if isinstance(label, bool) or not isinstance(label, int):
        raise InputError(f"{where}: the label must be an integer, got {type(label).__name__}")
    return label


def _describe(item: Any) -> str:
    return f"a {type(item).__name__}" + (f" of {len(item)}" if hasattr(item, "__len__") else "")
