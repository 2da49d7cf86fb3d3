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
from .dataset_options import Options
from .image_form import SIZES, Header, ImageForm, as_hwc
from .image_form import check_size as check_size  # of the models' input sizes too
from .image_threads import for_each
from .imageset import ImageSet
from .regular_files import File, refuse_pointer, size_of, unreadable
from .remote_path import AnyPath, NotThere
from .unreadable import UnreadableImage, refusal

EXTENSIONS = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".ppm", ".pgm", ".tif", ".tiff")
_FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "PPM", "TIFF")  # the decoders that may run; all others stay out of reach
_MANY_FRAMES = ("PNG", "WEBP", "TIFF")
# A photograph takes a bit or more per pixel. What is above so many pixels and takes less than a 32nd of that is nearly
# all of one colour: it takes a second to decode, whatever it is resized to, and a thousand of them fit into 200 MB.
_LARGE = 1 << 24
_PIXELS_PER_BYTE = 256


class ImageFileSet(ImageSet):
    """A set whose images are encoded files, decoded when they are read and never kept.

    All must share one size and one mode (RGB or L), or be brought to them by an ImageForm. Their headers are checked
    when the set is opened.
    """

    takes = frozenset({"on_error", "max_skipped"})

    def __init__(self, labels: np.ndarray, source: str, names: Sequence[str] | None, options: Options):
        """What `_encoded` and `describe` need must be there already. Images that cannot be read are refused together,
        or where they may be left out, all being decoded for that, are `unreadable`. Raises InputError as ImageSet
        does."""
        self._header: Header | None = None  # the first image sets it, all others are held to it
        self._first = ""
        thorough, self._form = options.on_error == "skip", options.form
        if options.form.pad:
            found = [header for _, header in self._looked_at(len(labels)) if not isinstance(header, str)]
            self._form = options.form.fitted([size for size, _ in found])
        largest, reasons = (1, 1), {}
        for row, header in self._looked_at(len(labels), thorough):
            if isinstance(header, str):
                reasons[row] = header
                continue
            self._check(self.describe(row), *header)
            largest = max(largest, header[0], key=lambda s: s[0] * s[1])
        if reasons and not thorough:
            raise refusal(dict(sorted(reasons.items())), source)
        self.unreadable = reasons
        (w, h), mode = self._header or ((1, 1), "L")  # of an empty set, which is refused next
        super().__init__(labels, (len(mode), h, w), source, names)
        self.notes += self._form.losses(largest)

    @abstractmethod
    def _encoded(self, indices: np.ndarray) -> Iterator[tuple[int, File]]:
        """indices: (m,) int64, valid -> (row, image at indices[row], to be closed by who takes it) for every row, in
        any order. Each may be read by another thread, and after the next was asked for."""

    def _looked_at(self, count: int, thorough: bool = False) -> Iterator[tuple[int, Header | str]]:
        """(row, header, or why there is none) of every image, in any order. thorough: decode them too."""

        def look(row: int, file: File) -> tuple[int, Header | str]:
            where = self.describe(row)
            try:
                with opened(file, where) as image:
                    header = image.size, image.mode
                    if thorough:
                        decode(image, where)
                    return row, header
            except (UnreadableImage, NotThere) as e:
                return row, e.message

        return for_each(self._encoded(np.arange(count)), look)

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

        def fill(row: int, file: File) -> None:
            where = self.describe(int(indices[row]))
            with opened(file, where) as image:
                self._check(where, image.size, image.mode)
                raw[row] = as_hwc(self._form.apply(decode(image, where)))

        try:
            for _ in for_each(self._encoded(indices), fill):
                pass
        except (UnreadableImage, NotThere) as e:  # whoever sees one wants to know of all
            found = sorted((row, why) for row, why in self._looked_at(len(self), True) if isinstance(why, str))
            raise refusal(dict(found), self.source) if found else e from e
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

    def file(self, index: int) -> AnyPath | None:
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


@contextlib.contextmanager
def opened(file: File, where: str) -> Iterator[Image.Image]:
    """An image whose header was read and found harmless. Raises UnreadableImage for what is no image, InputError for
    one of several frames, and for one that would take too much to decode."""
    source: Any = file
    try:
        with _pillow(where):
            image = Image.open(source, formats=_FORMATS)
            frames = getattr(image, "n_frames", 1) if image.format in _MANY_FRAMES else 1
    except UnreadableImage:
        file.seek(0)
        refuse_pointer(file.read(64), where)
        raise
    with image:
        if frames > 1:
            raise InputError(f"{where} holds {frames} frames; one image per file is needed")
        _refuse_bomb(image.size, size_of(file), where)
        yield image


def decode(image: Image.Image, where: str) -> Image.Image:
    """The image with its pixels, and with colours in the place of a palette. Raises UnreadableImage when they are not
    all there."""
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
    except (MemoryError, InputError):  # the latter of reading the file
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as e:
        raise InputError(f"{where} is too large to decode (a decompression bomb?): {e}") from e
    except Exception as e:
        if isinstance(e, OSError) and e.errno is not None:
            raise unreadable(where, e) from e
        raise UnreadableImage(f"{where} is damaged or truncated, or no image: {e}") from e


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
