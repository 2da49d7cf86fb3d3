"""Images as encoded files (PNG, JPEG, ...): their headers, checked when a set is opened, and their pixels."""

from __future__ import annotations

import contextlib
import threading
import warnings
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ...errors import InputError
from .image_form import SIZES, Header, ImageForm, as_hwc
from .image_form import check_size as check_size  # of the models' input sizes too
from .imageset import ImageSet
from .regular_files import File, refuse_pointer, size_of, unreadable

EXTENSIONS = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".ppm", ".pgm", ".tif", ".tiff")
_FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "PPM", "TIFF")  # the decoders that may run; all others stay out of reach
_MANY_FRAMES = ("PNG", "WEBP", "TIFF")
# A photograph takes a bit or more per pixel. What is above so many pixels and takes less than a 32nd of that is nearly
# all of one colour: it takes a second to decode, whatever it is resized to, and a thousand of them fit into 200 MB.
_LARGE = 1 << 24
_PIXELS_PER_BYTE = 256


class DamagedImage(InputError):
    """An image file that the decoder does not take."""


class ImageFileSet(ImageSet):
    """A set whose images are encoded files, decoded when they are read and never kept.

    All must share one size and one mode (RGB or L), or be brought to them by an ImageForm. Their headers are checked
    when the set is opened.
    """

    def __init__(self, labels: np.ndarray, source: str, names: Sequence[str] | None, form: ImageForm):
        """What `_encoded` and `describe` need must be there already. Raises InputError as ImageSet does."""
        self._header: Header | None = None  # the first image sets it, all others are held to it
        self._first = ""
        self._form = form.fitted([size for _, (size, _) in self._headers(len(labels))] if form.pad else [])
        largest = (1, 1)
        for where, (size, mode) in self._headers(len(labels)):
            self._check(where, size, mode)
            largest = max(largest, size, key=lambda s: s[0] * s[1])
        (w, h), mode = self._header or ((1, 1), "L")  # of an empty set, which is refused next
        super().__init__(labels, (len(mode), h, w), source, names)
        self.notes += self._form.losses(largest)

    @abstractmethod
    def _encoded(self, indices: np.ndarray) -> Iterator[tuple[int, File]]:
        """indices: (m,) int64, valid -> (row, image at indices[row], to be closed by who takes it) for every row, in
        any order."""

    def _headers(self, count: int) -> Iterator[tuple[str, Header]]:
        """(description, header) of every image."""
        for row, file in self._encoded(np.arange(count)):
            where = self.describe(row)
            with file:
                yield where, read_header(file, where)

    def _check(self, where: str, size: tuple[int, int], mode: str) -> None:
        header = self._form.header(size, mode, where)
        if self._header is None:
            self._header, self._first = header, where
        elif header != self._header:
            (w, h), (w0, h0) = header[0], self._header[0]
            sizes, modes = (w, h) != (w0, h0), header[1] != self._header[1]
            raise InputError(
                f"{where} is {w}x{h} {header[1]}, {self._first} is {w0}x{h0} {self._header[1]}; all images need one "
                "size and mode: bring them to one",
                argument=SIZES * sizes + ("convert",) * modes,
            )

    def _read(self, indices: np.ndarray) -> np.ndarray:
        c, h, w = self.image_shape
        raw = np.empty((len(indices), h, w, c), np.uint8)
        for row, file in self._encoded(indices):
            where = self.describe(int(indices[row]))
            with file, opened(file, where) as image:
                self._check(where, image.size, image.mode)
                raw[row] = as_hwc(self._form.apply(decode(image, where)))
        return raw.transpose(0, 3, 1, 2)


class ReshapedSet(ImageSet):
    """Another set, whose images have one shape already, brought to an ImageForm when they are read."""

    def __init__(self, images: ImageSet, form: ImageForm):
        c, h, w = images.image_shape
        self._images, self._form = images, form
        self.path, self.takes, self.notes = images.path, images.takes, images.notes + form.losses((w, h))
        self.beside = images.beside
        h, w, c = form.shape_of((h, w, c), images.source)
        super().__init__(images.labels, (c, h, w), images.source, images.class_names)

    def describe(self, index: int) -> str:
        return self._images.describe(index)

    def file(self, index: int) -> Path | None:
        return self._images.file(index)

    def _read(self, indices: np.ndarray) -> np.ndarray:
        block = self._images.read(indices).transpose(0, 2, 3, 1)
        return np.stack([self._form.of_array(np.ascontiguousarray(image)) for image in block]).transpose(0, 3, 1, 2)

    def keeps_folder(self) -> bool:
        return self._images.keeps_folder()

    def check_out(self, out: Path) -> None:
        self._images.check_out(out)

    def _keep(self, mask: np.ndarray) -> Any:
        return self._images._keep(mask)

    def _write(self, mask: np.ndarray, part: Path) -> None:
        self._images._write(mask, part)


def read_header(file: File, where: str) -> Header:
    """((W, H), mode) without decoding pixels."""
    with opened(file, where) as image:
        return image.size, image.mode


def is_damaged(file: File, where: str) -> bool:
    """Whether an image file cannot be decoded to its end."""
    try:
        with opened(file, where) as image:
            decode(image, where)
    except DamagedImage:
        return True
    return False


@contextlib.contextmanager
def opened(file: File, where: str) -> Iterator[Image.Image]:
    """An image whose header was read and found harmless. Raises DamagedImage for what is no image, InputError for one
    of several frames, and for one that would take too much to decode."""
    source: Any = file
    try:
        with _pillow(where):
            image = Image.open(source, formats=_FORMATS)
            frames = getattr(image, "n_frames", 1) if image.format in _MANY_FRAMES else 1
    except DamagedImage:
        file.seek(0)
        refuse_pointer(file.read(64), where)
        raise
    with image:
        if frames > 1:
            raise InputError(f"{where} holds {frames} frames; one image per file is needed")
        _refuse_bomb(image.size, size_of(file), where)
        yield image


def decode(image: Image.Image, where: str) -> Image.Image:
    """The image with its pixels, and with colours in the place of a palette. Raises DamagedImage when they are not all
    there."""
    with _pillow(where):
        image.load()
        return image.convert("RGBA") if image.mode in ("P", "PA") else image


def _refuse_bomb(size: tuple[int, int], bytes_on_disk: int, where: str) -> None:
    pixels = size[0] * size[1]
    packed = pixels > _LARGE and pixels > _PIXELS_PER_BYTE * bytes_on_disk
    if packed or pixels > (Image.MAX_IMAGE_PIXELS or pixels):
        raise InputError(
            f"{where} is too large to decode (a decompression bomb?): {size[0]}x{size[1]} pixels in {bytes_on_disk} "
            f"bytes"
        )


@contextlib.contextmanager
def _pillow(where: str) -> Iterator[None]:
    """Around calls of Pillow and nothing else: what it raises for bad files is no fixed list. What the system says is
    no fault of the file, and is passed on as what it is."""
    try:
        with _quiet:
            yield
    except MemoryError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as e:
        raise InputError(f"{where} is too large to decode (a decompression bomb?): {e}") from e
    except Exception as e:
        if isinstance(e, OSError) and e.errno is not None:
            raise unreadable(where, e) from e
        raise DamagedImage(f"{where} is damaged or truncated, or no image: {e}") from e


class _Quiet:
    """Pillow's warnings, of odd metadata, left out: nothing in them changes a pixel. warnings.catch_warnings is one for
    all threads, so that it is entered by the first that needs it, and left by the last."""

    def __init__(self) -> None:
        self._lock, self._inside = threading.Lock(), 0
        self._warnings: warnings.catch_warnings[Any] | None = None

    def __enter__(self) -> None:
        with self._lock:
            self._inside += 1
            if self._inside == 1:
                self._warnings = warnings.catch_warnings()
                self._warnings.__enter__()
                warnings.simplefilter("ignore")

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0 and self._warnings is not None:
                self._warnings.__exit__(None, None, None)


_quiet = _Quiet()
