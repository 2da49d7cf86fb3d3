"""Raw image blocks to bytes: layout, grey levels, and the errors both can meet."""

import numpy as np

from ...errors import InputError

LAYOUTS = ("NCHW", "NHWC")
# pixel units; by so much floats may leave [0, 1], as interpolation does; source: derived, a fortieth of a grey level
# is rounded away
ROUNDING = 1e-4


def find_layout(shape: tuple[int, ...], layout: str | None, source: str) -> str:
    """shape: (M, H, W), (M, C, H, W) or (M, H, W, C) -> "NHW", "NCHW" or "NHWC".

    Without `layout` the channel axis is the one of size 1 or 3. Raises InputError when none or both could be.
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
    first, last = shape[1] in (1, 3), shape[3] in (1, 3)
    if first == last:
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


def to_bytes(block: np.ndarray, where: str) -> np.ndarray:
    """uint8, or floats in [0, 1] rounded to the nearest of 255 grey levels -> uint8 of the same shape.

    Raises InputError for other dtypes, NaN, and floats outside [0, 1]; `where` names the images in the
    message.
    """
    if block.dtype == np.uint8:
        return block
    if block.dtype.kind != "f":
        raise InputError(f"{where}: pixels must be uint8, or floats in [0, 1]; got {block.dtype}")
    low, high = (float(block.min()), float(block.max())) if block.size else (0.0, 0.0)
    if not (np.isfinite(low) and np.isfinite(high)):
        raise InputError(f"{where}: pixels hold NaN or infinity")
    if low < -ROUNDING or high > 1 + ROUNDING:
        guess = "they look normalised: pass the images un-normalised, and the mean and std with the model"
        if low >= 0:
            guess = "they look like grey levels stored as floats: convert them to uint8" if high > 2 else "clip them"
        raise InputError(f"{where}: float pixels must lie in [0, 1], found {low:.7g} to {high:.7g}; {guess}")
    grey: np.ndarray = np.rint(block.astype(np.float32, copy=False) * np.float32(255)).astype(np.uint8)
    return grey
