"""What `screen` and `detect` check before any work, and the time they take."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from .._check import MIN_ALPHA
from .._progress import Progress
from ..errors import InputError
from ..inputs import ImageSet
from ..views.class_search import MIN_IMAGES
from ..views.images import check_size
from .verdict import MIN_CLASSES

MAX_UNUSED = 100_000  # labels; that no image has; source: chosen, every class is a row of the report


def check_options(seed: int, alpha: float) -> tuple[int, float]:
    """Raises InputError unless seed is an integer in [0, 2^63) and alpha a number in [MIN_ALPHA, 1)."""
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or not 0 <= seed < 2**63:
        raise InputError(f"seed: expected an integer >= 0, below 2^63, got {seed!r}")
    if isinstance(alpha, bool) or not isinstance(alpha, int | float | np.number) or not MIN_ALPHA <= alpha < 1:
        raise InputError(f"alpha: expected a number from {MIN_ALPHA:g} to below 1, got {alpha!r}")
    return int(seed), float(alpha)


def check_images(images: ImageSet) -> None:
    """Raises InputError for images too large, for labels that are identifiers, and unless MIN_CLASSES classes are
    large enough: the verdict compares them."""
    check_size(images)
    counts = np.bincount(images.labels, minlength=len(images.class_names))
    if (unused := int((counts == 0).sum())) > MAX_UNUSED:
        raise InputError(
            f"{unused} of the labels up to {len(counts) - 1} have no image, as if they were identifiers: number the "
            "classes from 0"
        )
    large = int((counts >= MIN_IMAGES).sum())
    if large < MIN_CLASSES:
        sizes = ", ".join(map(str, counts[:20])) + (", ..." if len(counts) > 20 else "")
        raise InputError(
            f"at least {MIN_CLASSES} classes with {MIN_IMAGES} images each are needed, since the verdict compares "
            f"classes; got {large} such classes among {len(counts)} (images per class: {sizes})"
        )


class Clock:
    """Seconds per stage, and progress passed on to whoever asked for it."""

    def __init__(self, progress: Progress | None):
        self.progress: Progress = progress or (lambda stage, fraction: None)
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = time.perf_counter() - start
