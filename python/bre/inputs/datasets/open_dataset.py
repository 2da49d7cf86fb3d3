"""open_dataset: which format is this?"""

import glob
import os
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...errors import InputError
from .arrays import ArraySet
from .cifar import CifarBinarySet, CifarPythonSet, CifarSet, batch_files
from .csv_file import Columns, ListingSet
from .folder import FolderSet
from .huggingface import SPLITS, STATE, HuggingFaceSet, splits
from .image_files import FittedSet, Form
from .imageset import LISTINGS, ImageSet
from .npz import NpzSet, is_zip
from .parquet import ParquetSet
from .torch_dataset import TorchSet, dataset_of
from .webdataset import ShardSet

_PACKED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")


def open_dataset(
    data: Any,
    *,
    unsafe: bool = False,
    layout: str | None = None,
    resize: tuple[int, int] | None = None,
    convert: str | None = None,
    columns: Columns | None = None,
) -> ImageSet:
    """A labelled image set, from any of

    - a pair (images, labels) of numpy arrays or torch tensors: images uint8 or float in [0, 1], (M, C, H, W),
      (M, H, W, C) or (M, H, W); labels (M,) integers. Floats are rounded to the nearest of 255 grey levels;
    - a map-style torch Dataset of (image, label), images likewise or PIL, without augmentation; or a DataLoader that
      goes through all of one;
    - the path of a folder of class folders of image files (png, jpg, bmp, webp, ppm, tiff);
    - the path of a .csv or .tsv of image path and label;
    - the path of Parquet or of WebDataset's tar files: one, a folder of them, or a pattern ("data/train-*.parquet");
    - the path of a folder that Hugging Face's `Dataset.save_to_disk` wrote;
    - the path of a .npz file with `images` and `labels`;
    - the path of CIFAR-10's binary batches, or with unsafe=True of its Python batches, which are pickles.

    layout: "NCHW" or "NHWC" where the shape alone does not tell; otherwise the channel axis is the one of 1
    or 3. resize: (H, W) to bring all images to; convert: "RGB" or "L"; without them images of several sizes or modes
    are refused. columns: the names of the image and the label column (of a tar: the members' endings) where the
    usual names do not tell. Raises InputError, naming what was expected and what came, for everything that is not
    such a set; for an empty set; and for one with fewer than two classes.
    """
    form, columns = Form(resize, convert), _columns(columns)
    images = _open(data, unsafe, layout, form, columns)
    if columns is not None and not isinstance(images, ListingSet | ShardSet | ParquetSet | HuggingFaceSet):
        raise InputError(
            f"columns are for CSV, tar, Parquet and Hugging Face datasets; {images.source} has none", argument="columns"
        )
    if layout is not None and not isinstance(images, ArraySet | TorchSet):
        raise InputError(
            f"layout is for arrays, torch datasets and .npz; {images.source} has a layout of its own", argument="layout"
        )
    if form and isinstance(images, ArraySet | CifarSet):
        return FittedSet(images, form)
    return images


def _open(data: Any, unsafe: bool, layout: str | None, form: Form, columns: Columns | None) -> ImageSet:
    if isinstance(data, ImageSet):
        if form or layout or columns:
            options = ("resize", "convert", "columns", "layout")
            raise InputError("this dataset is open already: give its options when opening it", argument=options)
        return data
    if isinstance(data, (str, os.PathLike)):
        return _open_path(Path(data), unsafe, layout, form, columns)
    if isinstance(data, (np.ndarray, torch.Tensor)):
        raise InputError(f"labels are missing: pass a pair (images, labels), got one {type(data).__name__}")
    if isinstance(data, tuple) or (isinstance(data, list) and _holds_arrays(data)):
        if len(data) != 2:
            raise InputError(f"expected a pair (images, labels), got {len(data)} items")
        return ArraySet(*data, layout=layout)
    if isinstance(data, torch.utils.data.DataLoader):
        data = dataset_of(data)
    table = isinstance(data, Mapping) or hasattr(data, "iloc")  # NpzFile, DataFrame: indexed by something else
    indexed = hasattr(data, "__getitem__") and hasattr(data, "__len__") and not table
    if indexed and not isinstance(data, torch.utils.data.IterableDataset):
        return TorchSet(data, layout=layout, form=form)
    raise InputError(
        "a dataset must be a pair (images, labels), a map-style torch Dataset (with len and indexing), or "
        f"the path of a folder or file; got {type(data).__name__}"
    )


def _holds_arrays(items: list[Any]) -> bool:
    return any(isinstance(item, (np.ndarray, torch.Tensor)) for item in items)


def _columns(columns: Any) -> Columns | None:
    if columns is None:
        return None
    given = list(columns) if isinstance(columns, Iterable) and not isinstance(columns, str) else []
    if len(given) != 2 or not all(isinstance(name, str) and name for name in given):
        raise InputError(f"columns must be two names, (image, label), got {columns!r}")
    return given[0], given[1]


def _open_path(path: Path, unsafe: bool, layout: str | None, form: Form, columns: Columns | None) -> ImageSet:
    try:
        if path.is_dir():
            return _open_folder(path, unsafe, form, columns)
        if not path.exists():
            return _open_pattern(path, form, columns)
        return _open_file(path, layout, form, columns)
    except (OSError, ValueError) as e:  # no permission; or a name that no file can have
        if isinstance(e, InputError):
            raise
        raise InputError(f"{str(path)!r} cannot be read: {e}") from e


def _open_folder(path: Path, unsafe: bool, form: Form, columns: Columns | None) -> ImageSet:
    if batch_files(path, binary=True):
        return CifarBinarySet(path)
    if batch_files(path, binary=False):
        return CifarPythonSet(path, unsafe=unsafe)
    if (path / SPLITS).is_file():
        raise InputError(f"{path} holds the splits {splits(path)}: name the one to read, as in {path / 'train'}")
    if (path / STATE).is_file():
        return HuggingFaceSet(path, form, columns)
    files = sorted(p for p in path.iterdir() if p.suffix.lower() in (".parquet", ".tar") and p.is_file())
    return _open_shards(path, files, form, columns) if files else FolderSet(path, form)


def _open_pattern(path: Path, form: Form, columns: Columns | None) -> ImageSet:
    files = sorted(Path(p) for p in glob.glob(str(path)))
    if not files:
        raise InputError(f"no such dataset: {path}")
    return _open_shards(path, files, form, columns)


def _open_shards(path: Path, files: list[Path], form: Form, columns: Columns | None) -> ImageSet:
    """Several Parquet files, or several tars, all of one split."""
    kinds = {p.suffix.lower() for p in files}
    if kinds not in ({".parquet"}, {".tar"}) or not all(p.is_file() for p in files):
        found = [p.name for p in files[:5]]
        raise InputError(f"{path}: expected .parquet files only, or .tar files only, found {found}")
    split = {next((s for s in ("test", "val") if p.name.startswith(s)), "train") for p in files}
    if len(split) > 1:
        raise InputError(
            f"{path} holds several splits ({', '.join(p.name for p in files[:5])}): name the files to read, as in "
            f"{str((path if path.is_dir() else path.parent) / ('train-*' + files[0].suffix))!r}"
        )
    return (ParquetSet if kinds == {".parquet"} else ShardSet)(path, files, form, columns)


def _open_file(path: Path, layout: str | None, form: Form, columns: Columns | None) -> ImageSet:
    if path.name.lower().endswith(_PACKED):
        raise InputError(f"{path} is compressed, and nothing in it can be found without reading all before: unpack it")
    if path.suffix.lower() in LISTINGS:
        return ListingSet(path, form, columns)
    with path.open("rb") as f:
        parquet = f.read(4) == b"PAR1"
    if parquet or path.suffix.lower() == ".parquet":
        return ParquetSet(path, [path], form, columns)
    if path.suffix.lower() == ".npz" or is_zip(path):
        return NpzSet(path, layout=layout)
    if path.suffix.lower() == ".tar" or tarfile.is_tarfile(path):
        return ShardSet(path, [path], form, columns)
    raise InputError(
        f"{path} is no dataset bre knows: expected a folder of class folders, a .csv of path and label, Parquet, "
        "WebDataset's .tar, a folder of `save_to_disk`, a .npz, or CIFAR-10's batches"
    )
