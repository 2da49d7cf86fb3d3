"""Which column of a table holds the image, and which the label: those that were named, or those with a usual name."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from ...errors import InputError
from .dataset_options import Columns

# Names as people write them, without capitals, spaces, hyphens and underscores; the first group that is there counts.
PATH_NAMES = (
    ("path", "image", "file", "filename", "filepath", "imagepath", "imagefile", "imagefilename", "img", "imgpath",
     "paths", "images", "files", "filenames", "filepaths", "imagepaths", "imagename", "imgname"),
    ("imageid", "imgid", "id", "name"),
)  # fmt: skip
IMAGE_NAMES = (("image", "img", "jpg", "png", "images", "picture", "pixelvalues", "photo"),)
LABEL_NAMES = (
    ("label", "labels", "class", "classname", "target", "category", "y", "classes", "targets", "categories"),
    ("classid", "labelid", "categoryid", "finelabel", "finelabels", "cls", "species", "breed", "diagnosis"),
)
Usual = tuple[tuple[str, ...], ...]


def find_columns(names: Sequence[str], columns: Columns | None, where: str | Path) -> tuple[int, int]:
    """Where the path of the image and the label stand among the columns.

    Raises InputError where there is not one of each.
    """
    return find_image(names, columns and columns[0], where), find_label(names, columns and columns[1], where)


def find_image(names: Sequence[str], wanted: str | None, where: str | Path, usual: Usual = PATH_NAMES) -> int:
    return _find(names, wanted, usual, "image", where)


def find_label(names: Sequence[str], wanted: str | None, where: str | Path) -> int:
    return _find(names, wanted, LABEL_NAMES, "label", where)


def _find(names: Sequence[str], wanted: str | None, usual: Usual, what: str, where: str | Path) -> int:
    if wanted is not None:
        found = [i for i, name in enumerate(names) if name.strip() == wanted]
        expected = repr(wanted)
    else:
        plain = [re.sub(r"[\s_-]", "", name).lower() for name in names]
        found = next((here for group in usual if (here := [i for i, name in enumerate(plain) if name in group])), [])
        expected = " or ".join(map(repr, usual[0][:5])) + " or the like"
    if len(found) != 1:
        raise ambiguous(what, expected, names, where)
    return found[0]


def ambiguous(what: str, expected: str, names: Sequence[str], where: str | Path) -> InputError:
    shown = [name[:100] for name in names[:20]]
    return InputError(
        f"{where}: expected one {what} column named {expected}, found {shown}: name the image's and the label's",
        argument="columns",
    )
