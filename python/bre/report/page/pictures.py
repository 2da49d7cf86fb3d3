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
    from ..report import Finding

GALLERY = 24  # images; of a finding on the page; source: chosen, by what fits a screen
MOST_SIDE = 256  # pixels; of a picture, larger ones are made smaller; source: chosen, by what fits a screen
# grey levels; that the pattern's peak is amplified to inside an image; source: chosen, visible, and the image still is
IN_PLACE = 96


@dataclass(frozen=True)
class Pattern:
    """A pattern around mid grey. url: data: of a PNG; peak: grey levels that black and white stand for;
    channels: which are drawn, where not all are."""

    url: Markup
    peak: float
    channels: str


@dataclass(frozen=True)
class Card:
    """One flagged image. as_given, amplified, without: data: URLs of PNGs."""

    name: str
    score: float
    as_given: Markup
    amplified: Markup
    without: Markup


@dataclass(frozen=True)
class Gallery:
    """Flagged images by falling score. gain: how often the pattern is in `amplified`."""

    cards: tuple[Card, ...]
    of: int
    gain: float


def pattern(values: np.ndarray) -> Pattern | None:
    """values: (C, H, W) float32, pixel units; None if they are all zero."""
    peak = float(np.abs(values).max(initial=0))
    if peak == 0:
        return None
    count, drawn = values.shape[0], 3 if values.shape[0] >= 3 else 1
    return Pattern(_url(0.5 + values / (2 * peak)), 255 * peak, f"first {drawn} of {count}" if count > drawn else "")


def gallery(finding: Finding, images: ImageSet) -> Gallery | None:
    """GALLERY flagged images, evenly spaced from the highest score to the lowest; None if nothing is flagged.

    The image has the pattern once already: `amplified` has it `gain` times, `without` not at all.
    """
    order = np.argsort(-finding.log_odds, kind="stable")
    if not len(order):
        return None
    order = order[np.unique(np.linspace(0, len(order) - 1, min(GALLERY, len(order))).round().astype(int))]
    peak = 255 * float(np.abs(finding.pattern).max(initial=0))
    gain = max(1.0, IN_PLACE / peak) if peak else 1.0
    indices = finding.indices[order]
    cards = tuple(
        Card(
            images.describe(index),
            score,
            _url(pixels),
            _url(pixels + (gain - 1) * finding.pattern),
            _url(pixels - finding.pattern),
        )
        for index, score, pixels in zip(
            indices.tolist(), finding.log_odds[order].tolist(), images.read(indices) / np.float32(255), strict=True
        )
    )
    return Gallery(cards, len(finding.indices), gain)


def _url(pixels: np.ndarray) -> Markup:
    """pixels: (C, H, W) in [0, 1], clipped to it; three channels are a colour picture, else the first is a grey one."""
    grey = np.rint(255 * np.clip(pixels, 0, 1)).astype(np.uint8)
    colour = grey.shape[0] >= 3
    picture = Image.fromarray(np.ascontiguousarray(grey[:3].transpose(1, 2, 0)) if colour else grey[0])
    picture.thumbnail((MOST_SIDE, MOST_SIDE))
    file = io.BytesIO()
    picture.save(file, "PNG", optimize=True)
    return Markup("data:image/png;base64," + base64.b64encode(file.getvalue()).decode())
