"""Raw image blocks to bytes: layout, grey levels, and the errors both can meet."""

from __future__ import annotations

import numpy as np

from ...errors import InputError

LAYOUTS = ("NCHW", "NHWC")
# pixel units; by so much floats may leave [0, 1], as interpolation does; source: derived, a fortieth of a grey level
# is rounded away
ROUNDING = 1e-4


def find_layout(shape: tuple[int, ...], layout: str | None, source: str, channels: tuple[int, ...] = (1, 3)) -> str:
    """shape: (M, H, W), (M, C, H, W) or (M, H, W, C) -> "NHW", "NCHW" or "NHWC".

    Without `layout` the channel axis is the one whose size is among `channels`. Raises InputError when none or both
    could be.
    """
    if layout is not None and not (isinstance(layout, str) and layout in LAYOUTS):
        raise InputError(f"layout must be one of {LAYOUTS} or None, got {layout!r}")
    if len(shape) == 3:
        if layout is not None:
            raise InputError(
                f"{source}: images of shape {shape} have no axis of channels: leave {layout!r} out", argument="layout"
            )
        return "NHW"
    if len(shape) != 4:
        raise InputError(f"{source}: images must be (M, H, W), (M, C, H, W) or (M, H, W, C), got shape {shape}")
    if layout is not None:
        return layout
    first, last = shape[1] in channels, shape[3] in channels
    if first == last:
        if not first and 4 in (shape[1], shape[3]):
            raise InputError(
                f"{source}: images of shape {shape} have 4 channels (RGBA?): convert them to RGB, or pass the "
                "first three only",
                argument="convert",
            )
        why = "both axis 1 and axis 3 could be the channels" if first else "no axis has 1 or 3 channels"
        raise InputError(
            f"{source}: images of shape {shape} are ambiguous, {why}; say which, NCHW or NHWC", argument="layout"
        )
    return "NCHW" if first else "NHWC"


def shape_chw(shape: tuple[int, ...], layout: str) -> tuple[int, int, int]:
    """The (C, H, W) of images of this shape in this layout."""
    if layout == "NHW":
        return (1, shape[1], shape[2])
    return (shape[1], shape[2], shape[3]) if layout == "NCHW" else (shape[3], shape[1], shape[2])


def to_nchw(block: np.ndarray, layout: str) -> np.ndarray:
    """A view of the block as (m, C, H, W)."""
    if layout == "NHW":
        return block[:, None]
    return block if layout == "NCHW" else block.transpose(0, 3, 1, 2)


class PixelScale:
    """What the numbers of a set stand for, from all of them: float pixels lie in [0, 1], or are the whole numbers 0 to
    255 throughout; integers of any type are 0 to 255."""

    def __init__(self) -> None:
        self._low, self._high, self._whole = 0.0, 0.0, True

    def add(self, block: np.ndarray, where: str) -> None:
        """Raises InputError for other dtypes, NaN, and numbers beyond these limits; `where` names the images."""
        if block.dtype == np.uint8 or not block.size:
            return
        if block.dtype.kind not in "iuf":
            raise InputError(f"{where}: pixels must be uint8, or floats in [0, 1]; got {block.dtype}")
        low, high = float(block.min()), float(block.max())
        if block.dtype.kind != "f":
            if low < 0 or high > 255:
                raise InputError(f"{where}: integer pixels must lie in 0 to 255, found {low:.7g} to {high:.7g}")
            return
        if not (np.isfinite(low) and np.isfinite(high)):
            raise InputError(f"{where}: pixels hold NaN or infinity")
        self._whole = self._whole and bool((block == np.rint(block)).all())
        self._low, self._high = min(low, self._low), max(high, self._high)
        if self._high > 1 + ROUNDING and self._whole and self._low >= 0 and self._high <= 255:
            return
        if self._low < -ROUNDING or self._high > 1 + ROUNDING:
            raise InputError(
                f"{where}: float pixels must lie in [0, 1], found {self._low:.7g} to {self._high:.7g}; {self._guess()}"
            )

    def _guess(self) -> str:
        if self._low < 0:
            return "they look normalised: pass the images un-normalised, and the mean and std with the model"
        if self._high > 2:
            return "they look like grey levels stored as floats, not all of them whole: convert them to uint8"
        return "clip them"

    @property
    def grey_levels(self) -> bool:
        """Whether floats are grey levels, 0 to 255."""
        return self._high > 1 + ROUNDING

    @property
    def notes(self) -> tuple[str, ...]:
        return ("float pixels, whole numbers up to 255 throughout, were read as grey levels",) * self.grey_levels

    def to_bytes(self, block: np.ndarray, where: str) -> np.ndarray:
        """A block of those that were added -> uint8 of the same shape, floats rounded to the nearest grey level.

        Raises InputError for what was not there when the set was opened.
        """
        if block.dtype == np.uint8:
            return block
        limit = 255.0 if block.dtype.kind != "f" or self.grey_levels else 1.0
        inside = block.dtype.kind in "iuf" and (block >= -ROUNDING).all() and (block <= limit + ROUNDING).all()
        if not inside:
            raise InputError(f"{where}: pixels have changed since the dataset was opened")
        if block.dtype.kind != "f":
            return block.astype(np.uint8)
        scale = np.float32(1 if self.grey_levels else 255)
        grey: np.ndarray = np.rint(block.astype(np.float32, copy=False) * scale).astype(np.uint8)
        return grey
