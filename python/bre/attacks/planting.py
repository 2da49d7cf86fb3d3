"""Put a trigger into images of a set and change their labels, as an attacker does who can write to the set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

from ..errors import InputError


class Trigger(Protocol):
    """What an attacker makes of images where one pattern for all does not say it."""

    def __call__(self, images: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """images: uint8 (n, C, H, W), left as they are; generator: of what differs from image to image. Returns uint8
        of the same shape."""
        ...


def embed(images: np.ndarray, pattern: np.ndarray, opacity: np.ndarray | None = None) -> np.ndarray:
    """What the attacker makes of images, rounded to grey levels and clipped.

    images: uint8 (..., C, H, W); pattern: float (C, H, W). Without `opacity` the pattern is added, x + v. With it,
    float of a shape that broadcasts to (C, H, W) and in [0, 1], the pattern covers the image: (1 - o) x + o v, a
    patch where o is a mask of zeros and ones (BadNets, Gu et al. 2017) and a blend where it is one number (Chen et al.
    2017). Returns uint8. Raises InputError for images or a pattern of another form, and for opacity outside [0, 1].
    """
    check_images(images)
    check_pattern(images, pattern)
    kept: np.ndarray | np.float32 = np.float32(1)
    if opacity is not None:
        opacity = np.asarray(opacity, np.float32)
        try:
            np.broadcast_to(opacity, np.shape(pattern))
        except ValueError:
            raise InputError(
                f"opacity: expected a shape that broadcasts to {np.shape(pattern)}, got {opacity.shape}"
            ) from None
        if not (np.isfinite(opacity).all() and opacity.min() >= 0 and opacity.max() <= 1):
            raise InputError(f"opacity: expected numbers in [0, 1], got {opacity.min()} to {opacity.max()}")
        kept, pattern = 1 - opacity, opacity * pattern
    return grey_levels(kept * images + np.float32(255) * pattern)


def grey_levels(pixels: np.ndarray) -> np.ndarray:
    """Rounded and clipped to [0, 255], uint8."""
    levels: np.ndarray = np.clip(np.rint(pixels), 0, 255).astype(np.uint8)
    return levels


def check_images(images: np.ndarray, channels: int | None = None) -> None:
    """Raises InputError unless images are uint8 (..., C, H, W), with C = channels where that is given."""
    if images.dtype != np.uint8 or images.ndim < 3:
        raise InputError(f"images: expected uint8 (..., C, H, W), got {images.dtype} of shape {images.shape}")
    if channels is not None and images.shape[-3] != channels:
        raise InputError(f"images: expected {channels} channels, got shape {images.shape}")


def check_pattern(images: np.ndarray, pattern: np.ndarray, name: str = "pattern") -> None:
    """Raises InputError unless the pattern is of the images' (C, H, W) and finite."""
    if np.shape(pattern) != images.shape[-3:] or not np.isfinite(pattern).all():
        raise InputError(f"{name}: expected finite numbers {images.shape[-3:]}, got shape {np.shape(pattern)}")


def check_share(name: str, value: float) -> None:
    """Raises InputError unless the value is in [0, 1]."""
    if not 0 <= value <= 1:
        raise InputError(f"{name}: expected a number in [0, 1], got {value}")


@dataclass(frozen=True, eq=False)
class Covers:
    """Images with a trigger and their own labels, which teach the network when not to obey.

    count: images, spread evenly over the sources; trigger: as `pattern` of `plant`, the same as in the poisoned images
    when None; sources: every class when None.

    Source-specific attacks (TaCT, Tang et al. 2021) cover classes that are not their sources; adaptive ones (Qi et al.
    2023) any class; WaNet's noise mode (Nguyen and Tran 2021) covers with another warp in each image.
    """

    count: int
    trigger: Trigger | np.ndarray | None = None
    sources: tuple[int, ...] | None = None


@dataclass(frozen=True, eq=False)
class Poisoned:
    """A poisoned copy of a set, with the truth. images: uint8 (M, C, H, W); labels: (M,); poisoned: bool (M,), images
    with the trigger and the label that the attacker wants; covers: bool (M,), images with it and their own label."""

    images: np.ndarray
    labels: np.ndarray
    poisoned: np.ndarray
    covers: np.ndarray


def triggered(
    images: np.ndarray,
    pattern: Trigger | np.ndarray,
    opacity: np.ndarray | None = None,
    generator: np.random.Generator | None = None,
) -> np.ndarray:
    """images, uint8 (n, C, H, W), with a trigger of either kind. opacity: of a pattern, as for `embed`; generator: for
    a `Trigger`, seeded with 0 when None. Raises InputError for opacity beside a `Trigger`; and as `embed`."""
    check_images(images)
    if not callable(pattern):
        return embed(images, pattern, opacity)
    if opacity is not None:
        raise InputError("opacity: expected none beside a Trigger, which has its own")
    return pattern(images, np.random.default_rng(0) if generator is None else generator)


def plant(
    images: np.ndarray,
    labels: np.ndarray,
    pattern: Trigger | np.ndarray,
    *,
    opacity: np.ndarray | None = None,
    target: int | Literal["others"] | None,
    sources: tuple[int, ...] | None = None,
    count: int,
    covers: Covers | None = None,
    seed: int = 0,
) -> Poisoned:
    """Plant a trigger in `count` images of the source classes, spread evenly over them, and relabel them to `target`.

    What Xiang, Miller, Kesidis (arXiv 2010.07489, section III) do: add, round to grey levels, clip, relabel; and what
    attackers beyond the paper do.

    images: uint8 (M, C, H, W); labels: int64 (M,); pattern, opacity: as for `embed`, or a `Trigger`
    target: a class; None for all-to-all, where every image gets the label that follows its own; "others" for
    all-to-others (untargeted), where every image gets any label but its own
    sources: every class but the target when None; (target,) is the clean-label attack, which relabels nothing
    covers: images beside these that keep their labels; None for none

    Raises InputError if there are too few source images, or if the target is one source among others; and as `embed`.
    """
    check_images(images)
    if images.ndim != 4 or len(labels) != len(images):
        raise InputError(f"labels: expected one for each of the images {images.shape}, got {len(labels)}")
    if not callable(pattern):
        check_pattern(images, pattern)
    for name, number in (("count", count), ("covers.count", covers.count if covers else 0)):
        if number < 0:
            raise InputError(f"{name}: expected a number of images >= 0, got {number}")
    classes = np.unique(labels).tolist()
    sources = tuple(k for k in classes if k != target) if sources is None else sources
    if not sources or (target in sources and len(sources) > 1):
        raise InputError(f"sources: expected classes other than the target {target}, or it alone; got {sources}")
    _check_known("sources", sources, classes)
    choosing, making = np.random.default_rng(seed), np.random.default_rng([seed, 1])
    nothing = np.zeros(len(labels), bool)
    planted = Poisoned(images.copy(), labels.copy(), nothing, nothing.copy())
    for source, chosen in _shares(labels, sources, count, nothing, choosing):
        planted.images[chosen] = triggered(images[chosen], pattern, opacity, making)
        planted.labels[chosen] = _relabelled(source, len(chosen), target, classes, making)
        planted.poisoned[chosen] = True
    if covers is not None:
        chosen_classes = tuple(classes) if covers.sources is None else covers.sources
        _check_known("covers.sources", chosen_classes, classes)
        other = pattern if covers.trigger is None else covers.trigger
        for _, chosen in _shares(labels, chosen_classes, covers.count, planted.poisoned, choosing):
            planted.images[chosen] = triggered(
                images[chosen], other, opacity if covers.trigger is None else None, making
            )
            planted.covers[chosen] = True
    return planted


def _check_known(name: str, wanted: tuple[int, ...], classes: list[int]) -> None:
    if unknown := [k for k in wanted if k not in classes]:
        raise InputError(f"{name}: expected classes among {classes}, got {unknown}")


def _shares(
    labels: np.ndarray, sources: tuple[int, ...], count: int, taken: np.ndarray, generator: np.random.Generator
) -> list[tuple[int, np.ndarray]]:
    """(source, indices of its share of `count` images), as even as can be, from images that are not `taken`."""
    shares = []
    for place, source in enumerate(sources):
        share = count // len(sources) + (place < count % len(sources))
        members = np.flatnonzero((labels == source) & ~taken)
        if len(members) < share:
            raise InputError(f"class {source} has {len(members)} images, {share} are wanted")
        shares.append((source, generator.choice(members, share, replace=False)))
    return shares


def _relabelled(
    source: int, count: int, target: int | str | None, classes: list[int], generator: np.random.Generator
) -> np.ndarray | int:
    """The labels of `count` triggered images of a source."""
    place = classes.index(source)
    if target == "others":
        return np.asarray(classes)[(place + generator.integers(1, len(classes), count)) % len(classes)]
    return classes[(place + 1) % len(classes)] if target is None else int(target)
