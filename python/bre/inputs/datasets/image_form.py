"""ImageForm: the one size and mode that images are brought to, when told to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
from PIL import Image

from ...errors import InputError

Header: TypeAlias = tuple[tuple[int, int], str]  # ((W, H), mode)

# pixels; largest side that images are resized to; source: chosen, above what the search takes, and below what would
# fill the memory
MAX_SIDE = 4096
# of an image's pixels; kept without a note; source: chosen, with less than half, most of the image is lost
MIN_KEPT = 0.5
SIZES = ("resize", "crop", "pad")  # arguments: what brings images to one size
_CONVERTIBLE = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr")  # 8 bits a channel or fewer
_TRANSPARENT = ("P", "PA", "LA")


@dataclass(frozen=True)
class ImageForm:
    """What images are brought to when they are read: nothing is changed that was not asked for.

    resize: (H, W), stretched to it by antialiased bilinear filtering. crop: (H, W), the middle of each image; where an
    odd number of rows or columns goes, the larger part goes below or on the right. pad: black is added below and on
    the right, up to the largest height and the largest width of any image. At most one of these three; without them
    the size stays. convert: "RGB" or "L" (grey); transparency is dropped, the colours under it show; None keeps the
    mode, which then must be RGB or L. canvas: (H, W) of the largest, set when the images are known.
    """

    resize: tuple[int, int] | None = None
    crop: tuple[int, int] | None = None
    pad: bool = False
    convert: str | None = None
    canvas: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if self.convert is not None and not (isinstance(self.convert, str) and self.convert in ("RGB", "L")):
            raise InputError(f"convert must be 'RGB', 'L' (grey) or None, got {self.convert!r}")
        for name in ("resize", "crop"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, check_size(getattr(self, name), name))
        if not isinstance(self.pad, bool):
            raise InputError(f"pad must be True or False, got {self.pad!r}")
        if sum(map(bool, (self.resize, self.crop, self.pad))) > 1:
            raise InputError("images can be resized, cropped or padded: give one of the three", argument=SIZES)

    def __bool__(self) -> bool:
        return self != ImageForm()

    def header(self, size: tuple[int, int], mode: str, where: str) -> Header:
        """The ((W, H), mode) that an image with this header will have; the mode is RGB or L.

        Raises InputError for a mode that is neither and was not asked to be converted, or that cannot be; and for an
        image that is smaller than what is to be cropped from it.
        """
        if mode not in _CONVERTIBLE:
            raise InputError(f"{where} has mode {mode}, of more than 8 bits a channel: save it with 8 bits first")
        if not self.convert and mode not in ("RGB", "L"):
            raise InputError(
                f"{where} has mode {mode}; images must be 8-bit RGB or L (grey): convert them to one of these",
                argument="convert",
            )
        if self.crop and (size[0] < self.crop[1] or size[1] < self.crop[0]):
            raise InputError(
                f"{where} is {size[0]}x{size[1]}, smaller than the {self.crop[1]}x{self.crop[0]} to crop: crop "
                "less, or resize",
                argument=("crop", "resize"),
            )
        if self.canvas and (size[0] > self.canvas[1] or size[1] > self.canvas[0]):
            raise InputError(f"{where} is {size[0]}x{size[1]}; it has grown since the dataset was opened")
        (h, w) = self.resize or self.crop or self.canvas or size[::-1]
        return (w, h), self.convert or mode

    def fitted(self, sizes: Sequence[tuple[int, int]]) -> ImageForm:
        """This form for images of these sizes (W, H): to pad, all must be known."""
        if not self.pad or not sizes:
            return self
        canvas = (max(h for _, h in sizes), max(w for w, _ in sizes))
        if max(canvas) > MAX_SIDE:
            raise InputError(
                f"padded images would be {canvas[1]}x{canvas[0]}, the limit is {MAX_SIDE} a side: resize them",
                argument="resize",
            )
        return replace(self, canvas=canvas)

    def losses(self, size: tuple[int, int]) -> tuple[str, ...]:
        """size: (W, H) of the largest image -> a note, where most of its pixels are lost: whoever adds images may also
        have chosen the form that they are looked at in."""
        wanted = self.resize or self.crop
        kept = wanted[0] * wanted[1] / (size[0] * size[1]) if wanted else 1.0
        if wanted is None or kept >= MIN_KEPT:
            return ()
        how = "resized" if self.resize else "cropped"
        return (
            f"images of up to {size[0]}x{size[1]} pixels were {how} to {wanted[1]}x{wanted[0]}, which keeps "
            f"{100 * kept:.2g}% of their pixels: a pattern in the rest cannot be seen",
        )

    def apply(self, image: Image.Image) -> Image.Image:
        """The image in this form; its header must have passed `header`."""
        if self.convert and image.mode != self.convert:
            if image.mode in _TRANSPARENT:  # Pillow looks up transparent palette entries on this way only
                image = image.convert("RGBA")
            image = image.convert(self.convert)
        if self.resize and image.size != self.resize[::-1]:
            image = image.resize(self.resize[::-1], Image.Resampling.BILINEAR)
        w, h = image.size
        if self.crop:
            top, left = (h - self.crop[0]) // 2, (w - self.crop[1]) // 2
            image = image.crop((left, top, left + self.crop[1], top + self.crop[0]))
        elif self.canvas and (h, w) != self.canvas:
            image = image.crop((0, 0, self.canvas[1], self.canvas[0]))  # Pillow fills what lies outside with 0
        return image

    def of_array(self, image: np.ndarray) -> np.ndarray:
        """image: (H, W, C) uint8, C of 1, 3 or (RGBA, to be converted) 4 -> (H', W', C') uint8 in this form.

        Raises InputError for another number of channels.
        """
        channels = image.shape[2]
        if channels not in (1, 3) and not (channels == 4 and self.convert):
            alpha = channels == 4
            raise InputError(
                f"images of {channels} channels can be neither resized nor cropped, padded or converted; 1 or 3 can",
                argument=("convert",) * alpha,
            )
        return as_hwc(self.apply(Image.fromarray(image[..., 0] if channels == 1 else image)))

    def shape_of(self, shape: tuple[int, ...], where: str) -> tuple[int, int, int]:
        """shape: (H, W, C) of an array -> that of the array in this form. Raises InputError as `header` and
        `of_array` do."""
        (w, h), _ = self.header((shape[1], shape[0]), "RGB", where)
        channels = self.of_array(np.zeros((*(self.crop or (1, 1)), shape[2]), np.uint8)).shape[2]
        return h, w, channels


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
