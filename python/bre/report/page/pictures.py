"""Patterns and images as PNG pictures inside a page."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from markupsafe import Markup
from PIL import Image

if TYPE_CHECKING:
    from ...inputs import ImageSet
    from ..finding import Finding, Window

GALLERY = 24  # images; of a finding, at most; source: chosen, what a person looks through
MIN_GALLERY = 8  # images; of a finding that has them, however large; source: chosen, few tell too little
# values; of all pictures of a gallery; source: chosen, pages of at most a few MB
GALLERY_VALUES = 3 << 20
BESIDE = 8  # images; not flagged, shown where no pattern can be; source: chosen, a row or two
MAX_PICTURE_SIDE = 256  # pixels; of a picture, larger ones are made smaller; source: chosen, a page's column
PEAK_IN_IMAGE = 96  # grey levels; that the pattern's peak is amplified to; source: chosen, plain, and the image is seen
MARGIN = 0.25  # of a window's sides; shown around it; source: chosen, enough to see what it lies on
MIN_CROP = 16  # pixels; that a crop has at least; source: chosen, a single pixel alone tells nothing
LOCAL = 0.5  # of the image's area; a crop is shown where it is less; source: chosen, else the whole image tells more

Crop = tuple[slice, slice]
WHOLE: Crop = (slice(None), slice(None))


@dataclass(frozen=True)
class Pattern:
    """A pattern around mid grey. url: data: of a PNG; peak: grey levels that black and white stand for;
    channels: which are drawn, where not all are; cropped: whether to its window."""

    url: Markup
    peak: float
    channels: str
    cropped: bool


@dataclass(frozen=True)
class Place:
    """Where a window lies. url: of the image below it, "" for none; aspect: its width over its height; left, top,
    width, height: of the window in percent of the image's."""

    url: Markup
    aspect: float
    left: float
    top: float
    width: float
    height: float


@dataclass(frozen=True)
class Card:
    """One image. pictures: (what it shows, data: URL of a PNG)."""

    name: str
    log_odds: float | None
    pictures: tuple[tuple[str, Markup], ...]


@dataclass(frozen=True)
class Gallery:
    """Flagged images by falling log odds. gain: how often the pattern is in the second picture, 0 where no pattern is
    shown; cropped: whether to the window; beside: images of the class that are not flagged."""

    cards: tuple[Card, ...]
    of: int
    gain: float
    cropped: bool
    beside: tuple[Card, ...]


def pattern(values: np.ndarray | None, window: Window | None = None) -> Pattern | None:
    """values: (C, H, W) float32, pixel units; None if there are none or they are all zero."""
    peak = 0.0 if values is None else float(np.abs(values).max(initial=0))
    if values is None or peak == 0:
        return None
    crop = crop_to(window, values.shape[1:])
    count, drawn = values.shape[0], 3 if values.shape[0] >= 3 else 1
    return Pattern(
        _url(0.5 + values[:, *crop] / (2 * peak)),
        255 * peak,
        channels=f"first {drawn} of {count}" if count > drawn else "",
        cropped=crop != WHOLE,
    )


def place(window: Window, image_shape: tuple[int, int, int], below: np.ndarray | None) -> Place:
    """below: (C, H, W) float32 in [0, 1], an image to show it on; None for none."""
    top, left, height, width = window
    _, rows, columns = image_shape
    return Place(
        Markup() if below is None else _url(below),
        aspect=columns / rows,
        left=100 * left / columns,
        top=100 * top / rows,
        width=100 * width / columns,
        height=100 * height / rows,
    )


def crop_to(window: Window | None, sides: tuple[int, ...]) -> Crop:
    """The window with MARGIN around it, or WHOLE where that is not much less than the whole image (H, W)."""
    if window is None:
        return WHOLE
    top, left, height, width = window
    rows, columns = _with_margin(top, height, sides[0]), _with_margin(left, width, sides[1])
    area = (rows.stop - rows.start) * (columns.stop - columns.start)
    return (rows, columns) if area < LOCAL * sides[0] * sides[1] else WHOLE


def _with_margin(start: int, length: int, side: int) -> slice:
    margin = max(round(MARGIN * length), (MIN_CROP - length + 1) // 2, 0)
    return slice(max(start - margin, 0), min(start + length + margin, side))


def gallery(finding: Finding, images: ImageSet) -> Gallery | None:
    """Flagged images, evenly spaced from the highest log odds to the lowest; None if nothing is flagged.

    The image has the pattern once already: the second picture has it `gain` times, the third not at all. Without a
    pattern there is the image alone, and images of the class that are not flagged beside it.
    """
    order = np.argsort(-finding.log_odds, kind="stable")
    if not len(order):
        return None
    crop = crop_to(finding.window, images.image_shape[1:])
    order = order[_evenly(len(order), _affordable(images.image_shape, crop))]
    peak = 0.0 if finding.pattern is None else 255 * float(np.abs(finding.pattern).max(initial=0))
    gain = max(1.0, PEAK_IN_IMAGE / peak) if peak else 0.0
    indices = finding.indices[order]
    pixels = images.read(indices)[:, :, *crop] / np.float32(255)
    cards = tuple(
        Card(images.describe(index), log_odds, _pictures(image, finding.pattern if gain else None, gain, crop))
        for index, log_odds, image in zip(indices.tolist(), finding.log_odds[order].tolist(), pixels, strict=True)
    )
    beside = () if gain else _not_flagged(finding, images, crop)
    return Gallery(cards, len(finding.indices), gain, crop != WHOLE, beside)


def _pictures(image: np.ndarray, added: np.ndarray | None, gain: float, crop: Crop) -> tuple[tuple[str, Markup], ...]:
    """image: (C, h, w), cropped; added: (C, H, W), not cropped."""
    as_given = ("As given", _url(image))
    if added is None:
        return (as_given,)
    there = added[:, *crop]
    return (
        as_given,
        ("The pattern amplified", _url(image + (gain - 1) * there)),
        ("The pattern subtracted", _url(image - there)),
    )


def _not_flagged(finding: Finding, images: ImageSet, crop: Crop) -> tuple[Card, ...]:
    others = np.setdiff1d(np.flatnonzero(images.labels == finding.target), finding.indices, assume_unique=True)
    if not len(others):
        return ()
    others = others[_evenly(len(others), min(BESIDE, _affordable(images.image_shape, crop)))]
    pixels = images.read(others)[:, :, *crop] / np.float32(255)
    return tuple(
        Card(images.describe(index), None, _pictures(image, None, 0.0, crop))
        for index, image in zip(others.tolist(), pixels, strict=True)
    )


def _evenly(count: int, most: int) -> np.ndarray:
    return np.unique(np.linspace(0, count - 1, min(most, count)).round().astype(int))


def _affordable(image_shape: tuple[int, int, int], crop: Crop) -> int:
    """How many images a gallery shows."""
    height, width = (len(range(*part.indices(side))) for part, side in zip(crop, image_shape[1:], strict=True))
    values = 3 * min(height, MAX_PICTURE_SIDE) * min(width, MAX_PICTURE_SIDE) * min(image_shape[0], 3)
    return min(GALLERY, max(MIN_GALLERY, GALLERY_VALUES // values))


def _url(pixels: np.ndarray) -> Markup:
    """pixels: (C, H, W) in [0, 1], clipped to it; three channels are a colour picture, else the first is a grey one."""
    grey = np.rint(255 * np.clip(pixels, 0, 1)).astype(np.uint8)
    colour = grey.shape[0] >= 3
    picture = Image.fromarray(np.ascontiguousarray(grey[:3].transpose(1, 2, 0)) if colour else grey[0])
    picture.thumbnail((MAX_PICTURE_SIDE, MAX_PICTURE_SIDE))
    file = io.BytesIO()
    picture.save(file, "PNG", optimize=True)
    return Markup("data:image/png;base64," + base64.b64encode(file.getvalue()).decode())
