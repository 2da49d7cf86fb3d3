"""A Hugging Face `Dataset` in memory."""

from __future__ import annotations

import importlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import InputError
from .arrow import class_names
from .column_names import IMAGE_NAMES, ambiguous, find_image, find_label
from .dataset_options import Options
from .image_files import ImageFileSet
from .labels import as_labels, number_labels
from .regular_files import File, open_regular
from .remote_path import NotThere
from .unreadable import NoFile


class HuggingFaceObjectSet(ImageFileSet):
    """Its features tell the image and the label column, or their names do. Images are decoded from their bytes, or from
    the files that it names: `datasets` would open these too. Transforms and formats of the dataset are left out.

    `keep` gives a Dataset of the rows that are kept.
    """

    takes = ImageFileSet.takes | {"columns"}

    def __init__(self, dataset: Any, options: Options):
        datasets: Any = importlib.import_module("datasets")  # it is there: this is one of its objects

        self._dataset = dataset
        features, names, columns = dataset.features, list(dataset.column_names), options.columns
        images = [n for n in names if isinstance(features[n], datasets.Image)]
        labels = [n for n in names if isinstance(features[n], datasets.ClassLabel)]
        source = type(dataset).__name__
        if columns is None and max(len(images), len(labels)) > 1:
            what, found = ("image", images) if len(images) > 1 else ("label", labels)
            raise ambiguous(what, " or ".join(map(repr, found[:5])), names, source)
        image = images[0] if images and not columns else names[_image(names, columns and columns[0], source)]
        label = labels[0] if labels and not columns else names[find_label(names, columns and columns[1], source)]
        if not isinstance(features[image], datasets.Image):
            raise InputError(
                f"{source}: column {image!r} holds {str(features[image])[:200]}, expected images: "
                f"dataset.cast_column({image!r}, datasets.Image()) makes them of bytes or paths"
            )
        raw = dataset.with_format(None)
        self._images = raw.select_columns([image]).cast_column(image, datasets.Image(decode=False))
        self._column = image
        values = list(raw.select_columns([label])[label])
        numbered: list[str] | None
        told = class_names(list(getattr(features[label], "names", None) or []))
        if values and all(isinstance(value, str) for value in values):
            numbers, numbered = number_labels(values, source)
        else:
            numbers, numbered = as_labels(values, len(values), source), list(told) if told else None
        if dataset.format["type"] is not None:
            self.notes += ("the dataset's format or transform was left out: its images were read as they are stored",)
        super().__init__(numbers, source, numbered, options)

    def describe(self, index: int) -> str:
        return f"row {index}"

    def file(self, index: int) -> Path | None:
        return None

    def _encoded(self, indices: np.ndarray) -> Iterator[tuple[int, File]]:
        for row, index in enumerate(indices.tolist()):
            value = self._images[index][self._column]
            if not value or (value.get("bytes") is None and not value.get("path")):
                yield row, NoFile(f"{self.describe(index)} holds no image")
                continue
            try:
                yield row, open_regular(value["path"]) if value["bytes"] is None else io.BytesIO(value["bytes"])
            except NotThere as e:
                yield row, NoFile(e.message)

    def _keep(self, mask: np.ndarray) -> Any:
        return self._dataset.select(np.flatnonzero(mask))


def is_dataset(data: Any) -> bool:
    """Whether it is a `datasets.Dataset`; `datasets` is not imported for that."""
    return _is(data, "datasets.arrow_dataset", "Dataset")


def is_dataset_dict(data: Any) -> bool:
    return _is(data, "datasets.dataset_dict", "DatasetDict")


def _is(data: Any, module: str, name: str) -> bool:
    return any(kind.__module__ == module and kind.__name__ == name for kind in type(data).__mro__)


def only_split(splits: Any) -> Any:
    """The one Dataset of a DatasetDict. Raises InputError for several."""
    if len(splits) != 1:
        raise InputError(f"a DatasetDict of the splits {list(splits)}: pass one, as in data['train']")
    return next(iter(splits.values()))


def _image(names: list[str], wanted: str | None, source: str) -> int:
    return find_image(names, wanted, source, IMAGE_NAMES)
