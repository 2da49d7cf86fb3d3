"""open_dataset: which format is this?"""

import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..errors import InputError
from .arrays import ArraySet
from .cifar import CifarBinarySet, CifarPythonSet, batch_files
from .folder import FolderSet
from .imageset import ImageSet
from .npz import NpzSet
from .torchset import TorchSet


def open_dataset(data: Any, *, unsafe: bool = False, layout: str | None = None) -> ImageSet:
    """A labelled image set, from any of

    - a pair (images, labels) of numpy arrays or torch tensors: images uint8 or float in [0, 1], (M, C, H, W),
      (M, H, W, C) or (M, H, W); labels (M,) integers. Floats are rounded to the nearest of 255 grey levels;
    - a map-style torch Dataset of (image, label), images likewise or PIL, all of one shape, without
      augmentation;
    - the path of a folder of class folders of image files (png, jpg, bmp, webp, ppm, tiff);
    - the path of a .npz file with `images` and `labels`;
    - the path of CIFAR-10's binary batches, or with unsafe=True of its Python batches, which are pickles.

    layout: "NCHW" or "NHWC" where the shape alone does not tell; otherwise the channel axis is the one of 1
    or 3. Raises InputError, naming what was expected and what came, for everything that is not such a set;
    for an empty set; and for one with fewer than two classes.
    """
    if isinstance(data, ImageSet):
        return data
    if isinstance(data, (str, os.PathLike)):
        return _open_path(Path(data), unsafe, layout)
    if isinstance(data, (np.ndarray, torch.Tensor)):
        raise InputError(f"labels are missing: pass a pair (images, labels), got one {type(data).__name__}")
    if isinstance(data, tuple) or (isinstance(data, list) and _holds_arrays(data)):
        if len(data) != 2:
            raise InputError(f"expected a pair (images, labels), got {len(data)} items")
        return ArraySet(*data, layout=layout)
    if isinstance(data, torch.utils.data.DataLoader):
        raise InputError("got a DataLoader, which may shuffle or augment: pass its .dataset")
    indexed = hasattr(data, "__getitem__") and hasattr(data, "__len__") and not isinstance(data, dict)
    if indexed and not isinstance(data, torch.utils.data.IterableDataset):
        return TorchSet(data, layout=layout)
    raise InputError(
        "a dataset must be a pair (images, labels), a map-style torch Dataset (with len and indexing), or "
        f"the path of a folder or .npz file; got {type(data).__name__}"
    )


def _holds_arrays(items: list) -> bool:
    return any(isinstance(item, (np.ndarray, torch.Tensor)) for item in items)


def _open_path(path: Path, unsafe: bool, layout: str | None) -> ImageSet:
    if path.is_dir():
        if batch_files(path, binary=True):
            return CifarBinarySet(path)
        if batch_files(path, binary=False):
            return CifarPythonSet(path, unsafe=unsafe)
        return FolderSet(path)
    if not path.exists():
        raise InputError(f"no such dataset: {path}")
    if path.suffix.lower() == ".npz" or zipfile.is_zipfile(path):
        return NpzSet(path, layout=layout)
    raise InputError(
        f"{path} is no dataset bre knows: expected a folder of class folders, a .npz, or CIFAR-10's batches"
    )
