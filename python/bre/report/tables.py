"""Tables as CSV, of names that may be anything."""

from __future__ import annotations

import csv
import io
import unicodedata
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..inputs import ImageSet

UNSEEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}  # Unicode categories: control, format, surrogate, separators of lines


def csv_bytes(names: Sequence[str], rows: Iterable[Sequence[Any]]) -> bytes:
    """names: of the columns."""
    text = io.StringIO(newline="")
    table = csv.writer(text)
    table.writerow(names)
    for row in rows:
        table.writerow([spreadsheet_safe(cell) if isinstance(cell, str) else cell for cell in row])
    return text.getvalue().encode()


def spreadsheet_safe(cell: str) -> str:
    """Text from outside for a spreadsheet or a terminal: what would start a formula gets an apostrophe before it;
    control characters, invisible ones and bytes of names that are no UTF-8 are written as escapes."""
    cell = "".join(ascii(c)[1:-1] if unicodedata.category(c) in UNSEEN else c for c in cell)
    return "'" + cell if cell.startswith(("=", "+", "-", "@")) else cell


def skipped_csv(images: ImageSet) -> bytes:
    """The images that could not be read and were left out."""
    return csv_bytes(("image", "label", "class", "reason"), images.skipped)
