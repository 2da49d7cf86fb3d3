"""open_dataset: which format is this?"""

from __future__ import annotations

import os
import tarfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...errors import InputError
from .arrays import ArraySet
from .boxes import BoxSet, open_boxes
from .cifar import CifarSet, open_cifar
from .csv_file import CsvSet
from .dataset_options import Columns, Options
from .folder import FolderSet
from .globs import matching_files, one_split
from .huggingface import SPLITS, HuggingFaceSet, is_saved, splits
from .huggingface_object import HuggingFaceObjectSet, is_dataset, is_dataset_dict, only_split
from .idx import IdxSet, find_images
from .image_files import ReshapedSet
from .image_form import ImageForm
from .imageset import ImageSet
from .json_lines import JsonLinesSet
from .mat import MatSet
from .npy import NpySet, find_pair
from .npz import NpzSet, is_zip
from .open_uri import SHARDS, open_uri
from .parquet import ParquetSet
from .regular_files import open_regular, unreadable
from .remote_path import is_uri, local_path
from .torch_dataset import TorchSet, dataset_of
from .unreadable import SkippedSet
from .webdataset import WebDatasetSet

_PACKED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
# How files begin that people have instead, and what helps.
_PAIR = "read it in Python, and give a pair (images, labels)"
_OTHERS = {
    b"7z\xbc\xaf\x27\x1c": "a 7z archive: unpack it, and name the folder of class folders",
    b"Rar!": "a RAR archive: unpack it, and name the folder of class folders",
    b"\x1f\x8b": "compressed with gzip: unpack it",
    b"\x89HDF\r\n\x1a\n": f"HDF5: {_PAIR}",
    b"ARROW1": "an Arrow file: name the folder of `save_to_disk` that it is in",
    b"\x80\x02": f"a pickle, which can run any code when it is read: if you trust it, {_PAIR}",
    b"\x80\x03": f"a pickle, which can run any code when it is read: if you trust it, {_PAIR}",
    b"\x80\x04": f"a pickle, which can run any code when it is read: if you trust it, {_PAIR}",
    b"\x80\x05": f"a pickle, which can run any code when it is read: if you trust it, {_PAIR}",
}
_LISTS = {
    ".csv": CsvSet,
    ".tsv": CsvSet,
    ".txt": CsvSet,
    ".lst": CsvSet,
    ".jsonl": JsonLinesSet,
    ".ndjson": JsonLinesSet,
}


def open_dataset(
    data: Any,
    *,
    unsafe: bool = False,
    layout: str | None = None,
    resize: tuple[int, int] | None = None,
    crop: tuple[int, int] | None = None,
    pad: bool = False,
    convert: str | None = None,
    columns: Columns | None = None,
    root: str | os.PathLike[str] | None = None,
    boxes: str | os.PathLike[str] | None = None,
    follow_links: bool = False,
    on_error: str = "fail",
    max_skipped: int | None = None,
) -> ImageSet:
    """A labelled image set, from any of

    - a pair (images, labels) of numpy arrays or torch tensors: images uint8, float in [0, 1], or whole numbers 0 to 255
      of any type, (M, C, H, W), (M, H, W, C) or (M, H, W); labels (M,) or (M, 1) integers, or (M, K) one-hot rows.
      Floats in [0, 1] are rounded to the nearest of 255 grey levels;
    - a map-style torch Dataset of (image, label) or of dicts, images likewise or PIL, without augmentation; or a
      DataLoader that goes through all of one;
    - a Hugging Face `Dataset`, or a `DatasetDict` of one split;
    - the path of a folder of class folders of image files (png, jpg, bmp, webp, ppm, tiff);
    - the path of a .csv or .tsv of image path and label, of JSON Lines of both, or of a list of "path label" (.txt);
    - the path of Parquet or of WebDataset's tar files: one, a folder of them, a glob ("data/train-*.parquet") or
      braces ("train-{000..009}.tar");
    - the URI of Parquet, of tar files, or of a folder of class folders: "s3://bucket/train-{000..009}.tar", gs://, hf://,
      https:// (files only);
    - the path of a folder that Hugging Face's `Dataset.save_to_disk` wrote, or of a clone of a set on its hub;
    - the path of a .npz file, of a .npy of images with one of labels beside it, of MNIST's idx files, of a .mat of X
      and y, of CIFAR-10's or CIFAR-100's folder (the Python versions are pickles, and need unsafe=True);
    - the path of a folder of images and `boxes=` in them, a COCO JSON file or a folder of YOLO's text files.

    layout: "NCHW" or "NHWC" where the shape alone does not tell; otherwise the channel axis is the one of 1 or 3.
    resize, crop: (H, W) to stretch all images to, or to cut from the middle of each; pad: add black below and on the
    right, up to the largest; convert: "RGB" or "L". Without them images of several sizes or modes are refused.
    columns: the names of the image and the label column (of a tar: the members' endings, `json:KEY` for a value in a
    JSON member; of a .npz: the arrays; of items that are tuples: their numbers) where the usual names do not tell.
    root: the folder that the paths in a list are relative to, if it is not the list's. follow_links: read what links
    and paths out of the dataset's folder lead to. on_error: images that are damaged or
    not there are refused, all in one message ("fail"), or left out ("skip"): each is decoded once for that, they are
    listed in `skipped` and in the notes, and not counted. max_skipped: how many may be left out; without it, 20 or
    one in a hundred. Raises InputError, naming what was expected and what came, for everything that is not such a set;
    for an empty set; and for one with fewer than two classes.
    """
    form = ImageForm(resize, crop, pad, convert)
    options = Options(form, unsafe, layout, columns, root, boxes, follow_links, on_error, max_skipped)  # type: ignore[arg-type]
    images = _open(data, options)
    if isinstance(data, str | os.PathLike):
        images.reopening = partial(_reopen, _anywhere(os.fspath(data)), options)
    return images


def _anywhere(name: str) -> str:
    """A path for a process with another working directory."""
    return name if "://" in name else os.path.abspath(name)


def _reopen(name: str, options: Options) -> ImageSet:
    images = _open(name, options)
    images.reopening = partial(_reopen, name, options)
    return images


def _open(data: Any, options: Options) -> ImageSet:
    images = _found(data, options)
    if images is not data:
        options.refuse_unused(images.takes, images.source)
    if images.unreadable:
        return SkippedSet(images, images.unreadable, options)
    if options.form and isinstance(images, ArraySet | CifarSet):
        return ReshapedSet(images, options.form)
    return images


def _found(data: Any, options: Options) -> ImageSet:
    if isinstance(data, ImageSet):
        if given := options.given():
            raise InputError("this dataset is open already: give its options when opening it", argument=tuple(given))
        return data
    if isinstance(data, (str, os.PathLike)):
        return _open_path(os.fspath(data), options)
    if isinstance(data, (np.ndarray, torch.Tensor)):
        raise InputError(f"labels are missing: pass a pair (images, labels), got one {type(data).__name__}")
    if isinstance(data, tuple) or (isinstance(data, list) and _holds_arrays(data)):
        if len(data) != 2:
            raise InputError(f"expected a pair (images, labels), got {len(data)} items")
        return ArraySet(data[0], data[1], options)
    if is_dataset_dict(data):
        data = only_split(data)
    if is_dataset(data):
        return HuggingFaceObjectSet(data, options)
    if isinstance(data, torch.utils.data.DataLoader):
        data = dataset_of(data)
    table = isinstance(data, Mapping) or hasattr(data, "iloc")  # NpzFile, DataFrame: indexed by something else
    indexed = hasattr(data, "__getitem__") and hasattr(data, "__len__") and not table
    if indexed and not isinstance(data, torch.utils.data.IterableDataset):
        return TorchSet(data, options)
    raise InputError(
        "a dataset must be a pair (images, labels), a map-style torch Dataset (with len and indexing), or "
        f"the path of a folder or file; got {type(data).__name__}"
    )


def _holds_arrays(items: list[Any]) -> bool:
    return any(isinstance(item, (np.ndarray, torch.Tensor)) for item in items)


def _open_path(name: Any, options: Options) -> ImageSet:
    try:
        os.fsencode(name)
        valid = isinstance(name, str) and "\0" not in name
    except UnicodeEncodeError:
        valid = False
    if not valid:
        raise InputError(f"{name!r} cannot be read: no file can have that name")
    if is_uri(name) and not name.startswith("file://"):
        return open_uri(name, options)
    path = local_path(name) if is_uri(name) else Path(name)
    try:
        if options.boxes is not None:
            return _open_boxes(path, options)
        if path.is_dir():
            return _open_folder(path, options)
        if path.exists():
            return _open_file(path, options)
        return _open_glob(path, options)
    except OSError as e:  # the system's word: no permission, too many open files, ...
        raise unreadable(e.filename or path, e) from e


def _open_boxes(path: Path, options: Options) -> BoxSet:
    return open_boxes(path, options)


def _open_folder(path: Path, options: Options) -> ImageSet:
    if cifar := open_cifar(path, options):
        return cifar
    if (path / SPLITS).is_file():
        raise InputError(f"{path} holds the splits {splits(path)}: name the one to read, as in {path / 'train'}")
    if is_saved(path):
        return HuggingFaceSet(path, options)
    raw = [folder for folder in (path, path / "raw", *path.glob("*/raw")) if folder.is_dir()]  # as torchvision does
    found = [(folder, images) for folder in raw if (images := find_images(folder))]
    if len(found) == 1:
        return IdxSet(*found[0], options)
    if pair := find_pair(path, options):
        return NpySet(path, *pair, options)
    for folder in (path, path / "data"):  # a clone of a set on Hugging Face's hub has its Parquet in data/
        if files := _shards_in(folder):
            return _open_shards(folder if folder == path else path, files, options)
    packed = [p for p in path.iterdir() if p.name.lower().endswith(_PACKED)]
    if packed and not any(p.is_dir() for p in path.iterdir()):
        raise InputError(
            f"{path} holds compressed tars, such as {packed[0].name}, in which nothing can be found without reading "
            "all before: unpack them to .tar, as gunzip does"
        )
    return FolderSet(path, options)


def _shards_in(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in SHARDS) if folder.is_dir() else []


def _open_glob(path: Path, options: Options) -> ImageSet:
    files = matching_files(path)
    if not files:
        raise InputError(f"no such dataset: {path}")
    return _open_shards(path, files, options)


def _open_shards(path: Path, files: list[Path], options: Options) -> ImageSet:
    """Several Parquet files, or several tars, all of one split."""
    kinds = {p.suffix.lower() for p in files}
    if len(kinds) != 1 or not kinds <= SHARDS.keys() or not all(p.is_file() for p in files):
        found = [p.name for p in files[:5]]
        raise InputError(f"{path}: expected .parquet files only, or .tar files only, found {found}")
    one_split(path, files)
    return SHARDS[kinds.pop()](path, files, options)


def _open_file(path: Path, options: Options) -> ImageSet:
    ending = path.suffix.lower()
    if path.name.lower().endswith(_PACKED):
        raise InputError(f"{path} is compressed, and nothing in it can be found without reading all before: unpack it")
    with open_regular(path) as f:
        head = f.read(8)
    if ending in _LISTS:
        return _LISTS[ending](path, options)
    if head[:4] == b"PAR1" or ending == ".parquet":
        return ParquetSet(path, [path], options)
    if ending == ".npz" or is_zip(path):
        return NpzSet(path, options)
    if head[:6] == b"\x93NUMPY" or ending == ".npy":
        if pair := find_pair(path, options):
            return NpySet(path, *pair, options)
        raise InputError(f"{path} has no labels: put them beside it, as labels.npy is beside images.npy")
    if ending == ".mat":
        return MatSet(path, options)
    if images := find_images(path):
        return IdxSet(path, images, options)
    if ending == ".tar" or tarfile.is_tarfile(path):
        return WebDatasetSet(path, [path], options)
    for begin, what in _OTHERS.items():
        if head.startswith(begin):
            raise InputError(f"{path} is {what}")
    boxes = ending == ".json"
    hint = ""
    if boxes:
        hint = (
            " If it lists images and labels: write an object a line, and call it .jsonl. If it lists boxes: name the "
            "folder of images, and this file as the boxes"
        )
    raise InputError(
        f"{path} is no dataset bre knows: expected a folder of class folders, a .csv of path and label, Parquet, "
        f"WebDataset's .tar, a folder of `save_to_disk`, a .npz, or another format of docs/formats.md.{hint}",
        argument=("boxes",) * boxes,
    )
