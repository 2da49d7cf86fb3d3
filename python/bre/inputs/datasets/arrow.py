"""What Parquet files and Hugging Face datasets share: Arrow tables with an image column and a label column."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..._check import first_line
from ...errors import InputError
from .._extras import need
from .column_names import IMAGE_NAMES, ambiguous, find_image, find_label
from .dataset_options import Columns
from .labels import as_labels, number_labels
from .unreadable import UnreadableImage

_LONGEST_NAME = 1000  # bytes, of a class


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
def arrow_errors(where: str | Path) -> Iterator[None]:
    """Around calls of Arrow: what it raises for bad files becomes an InputError. What the system says (a full disk, no
    permission) comes as an OSError with a number, and is passed on."""
    pa = pyarrow()
    try:
        yield
    except InputError:
        raise
    except (pa.ArrowException, OSError, UnicodeDecodeError, EOFError) as e:
        if isinstance(e, OSError) and e.errno:
            raise
        raise InputError(f"{where} is damaged or truncated, or cannot be read by Arrow: {first_line(e)}") from e


def find_roles(schema: Any, where: str | Path, columns: Columns | None) -> Roles:
    """The image and label columns: those given, or those that the table's own metadata or a usual name tells.

    Raises InputError when that does not give one of each, or the images are no encoded files.
    """
    features, names = _features(schema), list(schema.names)
    found = []
    for what, kind, find, wanted in (
        ("image", "Image", _find_image, columns and columns[0]),
        ("label", "ClassLabel", find_label, columns and columns[1]),
    ):
        told = [] if wanted else [name for name in names if features.get(name, {}).get("_type") == kind]
        if len(told) > 1:
            raise ambiguous(what, " or ".join(map(repr, told[:5])), names, where)
        found.append(told[0] if told else names[find(names, wanted, where)])
    image, label = found
    if names.count(image) != 1 or names.count(label) != 1:
        raise InputError(f"{where}: two columns have one name, the columns are {names[:20]}")
    struct = _image_kind(schema.field(image).type, f"{where}, column {image!r}")
    return Roles(image, label, struct, class_names(features.get(label, {}).get("names")))


def _find_image(names: Sequence[str], wanted: str | None, where: str | Path) -> int:
    return find_image(names, wanted, where, IMAGE_NAMES)


def class_names(found: Any) -> tuple[str, ...] | None:
    """The names that a table has for its classes; None where it has none."""
    if isinstance(found, list) and found and all(isinstance(name, str) for name in found):
        return tuple(found)
    return None


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
    if types.is_binary(inner) or types.is_large_binary(inner) or types.is_binary_view(inner):
        return struct
    hint = (
        "; paths are not followed: load the set with the `datasets` library and save it with save_to_disk, which puts "
        "the images into it"
    )
    raise InputError(
        f"{where} holds {str(kind)[:200]}; expected encoded image files (PNG, JPEG, ...) as bytes, or as Hugging "
        f"Face's {{bytes, path}}{hint if types.is_string(inner) or types.is_large_string(inner) else ''}"
    )


def image_bytes(column: Any, struct: bool) -> Any:
    """The image column of a batch -> its bytes, as an Arrow array."""
    return pyarrow("pyarrow.compute").struct_field(column, "bytes") if struct else column


def kept_rows(batch: Any, mask: np.ndarray) -> Any:
    """The rows of a batch where mask is true, as a table."""
    pa = pyarrow()
    try:
        return pa.Table.from_batches([batch.filter(pa.array(mask))], batch.schema)
    except pa.ArrowNotImplementedError:  # of kinds that Arrow does not filter yet, as binary_view
        edges = np.flatnonzero(np.diff(mask, prepend=False, append=False)).reshape(-1, 2)
        runs = [batch.slice(start, stop - start) for start, stop in edges.tolist()]
        return pa.Table.from_batches(runs, batch.schema)


def no_bytes(where: str) -> UnreadableImage:
    return UnreadableImage(
        f"{where} holds no image bytes; a path alone is not followed: load the set with the `datasets` library and "
        "save it with save_to_disk, which puts the images into it"
    )


def one_image(array: Any, row: int, where: str) -> bytes:
    """One image of `image_bytes`. Raises InputError where there is none."""
    value = array[row].as_py()
    if value is None:
        raise no_bytes(where)
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
    if is_text(kind):
        for chunk in column.chunks:
            _refuse_long(chunk.dictionary if types.is_dictionary(chunk.type) else chunk, where)
        return number_labels(column.to_pylist(), where)
    raise InputError(f"{where}: labels must be whole numbers or names, got {str(column.type)[:200]}")


def is_text(kind: Any) -> bool:
    types = pyarrow("pyarrow.types")
    return bool(types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind))


def _refuse_long(text: Any, where: str) -> None:
    longest = pyarrow("pyarrow.compute").max(pyarrow("pyarrow.compute").binary_length(text)).as_py() or 0
    if longest > _LONGEST_NAME:
        raise InputError(f"{where}: a label is {longest} bytes long; expected whole numbers or names")
