"""Images as encoded files (PNG, JPEG, ...): decoding, and bringing them to one size and mode when told to."""

import io
import warnings
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from PIL import Image

from ...errors import InputError
from .imageset import ImageSet

Encoded: TypeAlias = Path | bytes  # one image file: where it is, or what it holds
Header: TypeAlias = tuple[tuple[int, int], str]  # ((W, H), mode)

EXTENSIONS = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".ppm", ".pgm", ".tif", ".tiff")
# pixels; largest side that images are resized to; source: chosen, above what the search takes, and below what would
# fill the memory
MAX_SIDE = 4096
_FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "PPM", "TIFF")  # the decoders that may run; all others stay out of reach
_MANY_FRAMES = ("PNG", "WEBP", "TIFF")
_CONVERTIBLE = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr")  # 8 bits a channel or fewer
_TRANSPARENT = ("P", "PA", "LA")


@dataclass(frozen=True)
class Form:
    """What images are brought to when they are read: nothing is changed that was not asked for.

    resize: (H, W), stretched to it by antialiased bilinear filtering; None keeps the size. convert: "RGB" or "L"
    (grey); transparency is dropped, the colours under it show; None keeps the mode, which then must be RGB or L.
    """

    resize: tuple[int, int] | None = None
    convert: str | None = None

    def __post_init__(self) -> None:
        if self.convert is not None and not (isinstance(self.convert, str) and self.convert in ("RGB", "L")):
            raise InputError(f"convert must be 'RGB', 'L' (grey) or None, got {self.convert!r}")
        if self.resize is not None:
            object.__setattr__(self, "resize", check_size(self.resize, "resize"))

    def __bool__(self) -> bool:
        return self != Form()

    def header(self, size: tuple[int, int], mode: str, where: str) -> Header:
        """The ((W, H), mode) that an image with this header will have; the mode is RGB or L.

        Raises InputError for a mode that is neither and was not asked to be converted, or that cannot be.
        """
        if mode not in _CONVERTIBLE:
            raise InputError(f"{where} has mode {mode}, of more than 8 bits a channel: save it with 8 bits first")
        if not self.convert and mode not in ("RGB", "L"):
            raise InputError(
                f"{where} has mode {mode}; images must be 8-bit RGB or L (grey): convert them to one of these",
                argument="convert",
            )
        return (size if self.resize is None else self.resize[::-1]), self.convert or mode

    def apply(self, image: Image.Image) -> Image.Image:
        """The image in this form; its header must have passed `header`."""
        if self.convert and image.mode != self.convert:
            if image.mode in _TRANSPARENT:  # Pillow looks up transparent palette entries on this way only
                image = image.convert("RGBA")
            image = image.convert(self.convert)
        if self.resize and image.size != self.resize[::-1]:
            image = image.resize(self.resize[::-1], Image.Resampling.BILINEAR)
        return image

    def of_array(self, image: np.ndarray) -> np.ndarray:
        """image: (H, W, C) uint8, C of 1 or 3 -> (H', W', C') uint8 in this form.

        Raises InputError for another number of channels.
        """
        if image.shape[2] not in (1, 3):
            raise InputError(f"images of {image.shape[2]} channels can be neither resized nor converted; 1 or 3 can")
        return as_hwc(self.apply(Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)))


class EncodedSet(ImageSet):
    """A set whose images are encoded files, decoded when they are read and never kept.

    All must share one size and one mode (RGB or L), or be brought to them by a Form. Their headers are checked when
    the set is opened.
    """

    def __init__(self, labels: np.ndarray, source: str, names: Sequence[str] | None, form: Form):
        """What `_encoded` and `describe` need must be there already. Raises InputError as ImageSet does."""
        self._form = form
        self._header: Header | None = None  # the first image sets it, all others are held to it
        self._first = ""
        for row, item in self._encoded(np.arange(len(labels))):
            self._check(self.describe(row), *_header(item, self.describe(row)))
        (w, h), mode = self._header or ((1, 1), "L")  # of an empty set, which is refused next
        super().__init__(labels, (len(mode), h, w), source, names)

    @abstractmethod
    def _encoded(self, indices: np.ndarray) -> Iterator[tuple[int, Encoded]]:
        """indices: (m,) int64, valid -> (row, image at indices[row]) for every row, in any order."""

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
                argument=("resize",) * sizes + ("convert",) * modes,
            )

    def _read(self, indices: np.ndarray) -> np.ndarray:
        c, h, w = self.image_shape
        raw = np.empty((len(indices), h, w, c), np.uint8)
        for row, item in self._encoded(indices):
            raw[row] = self._decoded(item, self.describe(int(indices[row])))
        return raw.transpose(0, 3, 1, 2)

    def _decoded(self, item: Encoded, where: str) -> np.ndarray:
        """(H, W, C) uint8."""
        with _pillow(where), Image.open(_file(item), formats=_FORMATS) as image:
            self._check(where, image.size, image.mode)
            return as_hwc(self._form.apply(image))


class FittedSet(ImageSet):
    """Another set, whose images have one shape already, brought to a Form when they are read."""

    def __init__(self, images: ImageSet, form: Form):
        self._images, self._form = images, form
        h, w, c = form.of_array(np.zeros((*images.image_shape[1:], images.image_shape[0]), np.uint8)).shape
        self.path = images.path
        super().__init__(images.labels, (c, h, w), images.source, images.class_names)

    def describe(self, index: int) -> str:
        return self._images.describe(index)

    def file(self, index: int) -> Path | None:
        return self._images.file(index)

    def _read(self, indices: np.ndarray) -> np.ndarray:
        block = self._images.read(indices).transpose(0, 2, 3, 1)
        return np.stack([self._form.of_array(np.ascontiguousarray(image)) for image in block]).transpose(0, 3, 1, 2)

    def _keep(self, mask: np.ndarray) -> Any:
        return self._images.keep(mask)

    def _write(self, mask: np.ndarray, out: Path) -> Path:
        self._images.keep(mask, out)
        return out


def check_size(size: Any, what: str) -> tuple[int, int]:
    """(H, W), as integers. Raises InputError for anything else."""
    sides = tuple(size) if isinstance(size, Sequence) else ()
    whole = all(isinstance(n, int | np.integer) and not isinstance(n, bool) for n in sides)
    if len(sides) != 2 or not whole or not all(1 <= n <= MAX_SIDE for n in sides):
        raise InputError(f"{what} must be (height, width), two integers from 1 to {MAX_SIDE}, got {size!r}")
    return int(sides[0]), int(sides[1])


def as_hwc(image: Image.Image) -> np.ndarray:
    """A PIL image of mode RGB or L -> (H, W, C) uint8."""
    array = np.asarray(image)
    return array[..., None] if array.ndim == 2 else array


def _header(item: Encoded, where: str) -> Header:
    """((W, H), mode) without decoding pixels."""
    with _pillow(where), Image.open(_file(item), formats=_FORMATS) as image:
        if image.format in _MANY_FRAMES and (frames := getattr(image, "n_frames", 1)) > 1:
            raise InputError(f"{where} holds {frames} frames; one image per file is needed")
        return image.size, image.mode


def _file(item: Encoded) -> Path | io.BytesIO:
    return io.BytesIO(item) if isinstance(item, bytes) else item


class _pillow:
    """Every way in which a file can be bad turned into InputError: what Pillow raises for them is no fixed list."""

    def __init__(self, where: str):
        self._where, self._warnings = where, warnings.catch_warnings()

    def __enter__(self) -> None:
        self._warnings.__enter__()
        warnings.simplefilter("ignore")  # odd metadata, which changes no pixel
        warnings.simplefilter("error", Image.DecompressionBombWarning)

    def __exit__(self, _kind: object, e: BaseException | None, _trace: object) -> None:
        self._warnings.__exit__(None, None, None)
        if isinstance(e, (Image.DecompressionBombError, Image.DecompressionBombWarning)):
            raise InputError(f"{self._where} is too large to decode (a decompression bomb?): {e}") from e
        if isinstance(e, Exception) and not isinstance(e, InputError):
            raise InputError(f"{self._where} is damaged or truncated, or no image: {e}") from e
