"""Images that are damaged or not there: all refused together, or left out, listed, and never counted as clean."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import InputError
from .dataset_options import Options
from .imageset import ImageSet, Skipped
from .remote_path import AnyPath

NAMED = 20  # images; that a message or a note names of those it counts; source: chosen, as many as one reads
# share of the images; that may be left out unless another number is given, or NAMED of a small set; source: chosen, who
# poisons could hide what nobody looks at
MAX_SKIPPED_SHARE = 0.01


class UnreadableImage(InputError):
    """An image file that the decoder does not take, or that is not there."""


class NoFile(io.RawIOBase):
    """What stands for an image that is not there: reading it raises."""

    def __init__(self, reason: str):
        self._reason = reason

    def seek(self, offset: int, whence: int = 0) -> int:
        raise UnreadableImage(self._reason)

    def read(self, size: int | None = -1) -> bytes:
        raise UnreadableImage(self._reason)


def refusal(reasons: Mapping[int, str], source: str) -> InputError:
    """reasons: {image: why it cannot be read}, at least one, in order."""
    first = list(reasons.values())[:NAMED]
    if len(reasons) == 1:
        return UnreadableImage(first[0], argument="on_error")
    more = f"; and {len(reasons) - NAMED} more" if len(reasons) > NAMED else ""
    return UnreadableImage(
        f"{len(reasons)} images of {source} are damaged or not there: {'; '.join(first)}{more}", argument="on_error"
    )


class SkippedSet(ImageSet):
    """Another set without the images that cannot be read, which `skipped` lists."""

    def __init__(self, images: ImageSet, reasons: Mapping[int, str], options: Options):
        """reasons: {image: why it cannot be read}. Raises InputError where there are more than may be left out."""
        limit = options.max_skipped
        if limit is None:
            limit = max(NAMED, int(MAX_SKIPPED_SHARE * len(images)))
        if len(reasons) > limit:
            error = refusal(reasons, images.source)
            raise InputError(f"{error.message}; {limit} may be left out", argument="max_skipped")
        self._images = images
        self._rows = np.setdiff1d(np.arange(len(images)), np.array(list(reasons), np.int64))
        self.path, self.takes = images.path, images.takes
        names = images.class_names
        self.skipped = tuple(
            Skipped(images.describe(i), int(images.labels[i]), names[images.labels[i]], reasons[i])
            for i in sorted(reasons)
        )
        shown = ", ".join(image.name for image in self.skipped[:NAMED])
        more = f" and {len(reasons) - NAMED} more" if len(reasons) > NAMED else ""
        what = f"{len(reasons)} images that are damaged or not there were left out, and nothing is known of them"
        self.notes = (*images.notes, f"{what}: {shown}{more}")
        super().__init__(images.labels[self._rows], images.image_shape, images.source, names)

    def describe(self, index: int) -> str:
        return self._images.describe(int(self._rows[index]))

    def file(self, index: int) -> AnyPath | None:
        return self._images.file(int(self._rows[index]))

    def _read(self, indices: np.ndarray) -> np.ndarray:
        return self._images.read(self._rows[indices])

    def keeps_folder(self) -> bool:
        return self._images.keeps_folder()

    def check_out(self, out: Path) -> None:
        self._images.check_out(out)

    def _all_rows(self, mask: np.ndarray) -> np.ndarray:
        """A mask of this set's images as one of the other's."""
        rows = np.zeros(len(self._images), bool)
        rows[self._rows] = mask
        return rows

    def _keep(self, mask: np.ndarray) -> Any:
        return self._images._keep(self._all_rows(mask))

    def _write(self, mask: np.ndarray, part: Path) -> None:
        self._images._write(self._all_rows(mask), part)
