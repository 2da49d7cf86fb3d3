"""What Parquet files and Hugging Face datasets share: Arrow tables with an image column and a label column."""

import contextlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..._check import first_line
from ...errors import InputError
from .._extras import need
from .csv_file import Columns
from .imageset import as_labels, number_labels

_IMAGE_NAMES = ("image", "img", "jpg", "png")
_LABEL_NAMES = ("label", "labels", "fine_label", "class", "cls", "target")


class Roles(NamedTuple):
    """Which column of a table is what."""

    image: str
    label: str
    struct: bool  # images are {bytes, path}, as Hugging Face stores them, and not bytes alone
    names: tuple[str, ...] | None  # of the classes, where the table says

    @property
    def leaf(self) -> str:
        """What to ask Parquet for, so that of the images only their bytes are read."""
        return f"{self.image}.bytes" if self.struct else self.image


def pyarrow(module: str = "pyarrow") -> Any:
    return need(module, "arrow", "reading Parquet and Hugging Face datasets")


@contextlib.contextmanager
def guarded(where: str | Path) -> Iterator[None]:
    """Every way in which Arrow fails on a bad file turned into InputError; they share no base class."""
    try:
        yield
    except InputError:
        raise
    except Exception as e:
        raise InputError(f"{where} is damaged or truncated, or cannot be read by Arrow: {first_line(e)}") from e


def find_roles(schema: Any, where: str | Path, columns: Columns | None) -> Roles:
    """The image and label columns: those given, or those that the table's own metadata or a usual name tells.

    Raises InputError when that does not give one of each, or the images are no encoded files.
    """
    features = _features(schema)
    found = []
    for i, (what, kind, usual) in enumerate((("image", "Image", _IMAGE_NAMES), ("label", "ClassLabel", _LABEL_NAMES))):
        places = [columns[i]] if columns else [n for n in schema.names if features.get(n, {}).get("_type") == kind]
        places = places or [n for n in usual if n in schema.names][:1]
        if len(places) != 1 or schema.names.count(places[0]) != 1:
            raise InputError(
                f"{where}: expected one {what} column{f' {places[0]!r}' if len(places) == 1 else ''}, the columns are "
                f"{schema.names[:20]}: name the image's and the label's",
                argument="columns",
            )
        found.append(places[0])
    image, label = found
    struct = _image_kind(schema.field(image).type, f"{where}, column {image!r}")
    names = features.get(label, {}).get("names")
    if not (isinstance(names, list) and names and all(isinstance(name, str) for name in names)):
        names = None
    return Roles(image, label, struct, tuple(names) if names else None)


def _features(schema: Any) -> dict[str, dict[str, Any]]:
    """Hugging Face's own description of the columns, {} where the table has none."""
    try:
        found = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return {}
    return {k: v for k, v in found.items() if isinstance(v, dict)} if isinstance(found, dict) else {}


def _image_kind(kind: Any, where: str) -> bool:
    """Whether images are structs around their bytes. Raises InputError for all but that and plain bytes."""
    types = pyarrow("pyarrow.types")
    struct: bool = types.is_struct(kind) and kind.get_field_index("bytes") >= 0
    inner = kind.field("bytes").type if struct else kind
    if not (types.is_binary(inner) or types.is_large_binary(inner)):
        raise InputError(
            f"{where} holds {str(kind)[:200]}; expected encoded image files (PNG, JPEG, ...) as bytes, or as Hugging "
            "Face's {bytes, path}"
        )
    return struct


def image_bytes(column: Any, struct: bool) -> Any:
    """The image column of a batch -> its bytes, as an Arrow array."""
    return pyarrow("pyarrow.compute").struct_field(column, "bytes") if struct else column


def one_image(array: Any, row: int, where: str) -> bytes:
    """One image of `image_bytes`. Raises InputError where there is none."""
    value = array[row].as_py()
    if value is None:
        raise InputError(f"{where} holds no image bytes; embed the images, a path alone is not followed")
    return bytes(value)


def read_labels(column: Any, names: Sequence[str] | None, where: str) -> tuple[np.ndarray, list[str] | None]:
    """column: an Arrow ChunkedArray of whole numbers or text -> (M,) int64 and the class names.

    Raises InputError for other types and missing labels.
    """
    types = pyarrow("pyarrow.types")
    if column.null_count:
        raise InputError(f"{where}: {column.null_count} of {len(column)} labels are missing")
    kind = column.type.value_type if types.is_dictionary(column.type) else column.type
    if types.is_integer(kind):
        labels = as_labels(np.asarray(column.to_numpy(), dtype=np.int64), len(column), where)
        return labels, None if names is None else list(names)
    if types.is_string(kind) or types.is_large_string(kind):
        return number_labels(column.to_pylist(), where)
    raise InputError(f"{where}: labels must be whole numbers or names, got {str(column.type)[:200]}")
