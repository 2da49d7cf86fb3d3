"""One finding of a report: a planted pattern, or a property of a class."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from .. import _check as check
from ..errors import InputError
from .facts import LARGEST_SCORE

KINDS = ("poison", "property")
VIEWS = ("images", "model", "inside")  # what shows a pattern, in the order in which they are named
ARRAYS = ("pattern", "indices", "log_odds")  # of a finding, which go to arrays.npz
BINS = 48  # bins; of a histogram of scores; source: chosen, wide enough to be seen on a page
MAX_EDGES = 1001  # edges; of a histogram that is read; source: chosen, far above BINS

Window = tuple[int, int, int, int]


@dataclass(frozen=True, eq=False)
class Histogram:
    """How the scores of a finding lie, in its target class and elsewhere.

    The score here is what the flags were drawn from: for a pattern seen in the images, the standard deviations by which
    an image lies along it; for one seen in the model alone, the drop in log odds of the target class without it, and a
    weighted part of how far the image lies along what such images share.

    edges: (B + 1,) float64, ascending; target_counts, other_counts: (B,) int64, images of the target class and of
    other classes (all or a sample) whose score is in each bin; cut: from there on most of the target class's images are
    flagged.
    """

    edges: np.ndarray
    target_counts: np.ndarray
    other_counts: np.ndarray
    cut: float

    def __post_init__(self) -> None:
        edges = check.array(self.edges, "histogram: edges", "f", np.float64, 1)
        few_and_finite = 2 <= len(edges) <= MAX_EDGES and bool((np.abs(edges) <= LARGEST_SCORE).all())  # NaN fails too
        if not few_and_finite or not (np.diff(edges) > 0).all() or edges[-1] - edges[0] < 1 / LARGEST_SCORE:
            raise InputError(
                f"histogram: edges must be 2 to {MAX_EDGES} ascending finite numbers, got {check.short(edges)}"
            )
        check.assign(
            self,
            edges=edges,
            target_counts=_counts(self.target_counts, "histogram: target_counts", len(edges) - 1),
            other_counts=_counts(self.other_counts, "histogram: other_counts", len(edges) - 1),
            cut=check.real(self.cut, "histogram: cut"),
        )

    @classmethod
    def of(cls, target: np.ndarray, others: np.ndarray, cut: float = 0.0) -> Histogram:
        """Of scores, (n,) and (m,), finite: BINS equal bins over all of them, an edge on the cut."""
        both = np.concatenate([target, others, [cut]]).astype(np.float64)
        low, high = float(both.min()), float(both.max())
        width = (high - low) / (BINS - 1) or 1.0
        first = -math.ceil((cut - low) / width)
        edges = cut + width * np.arange(first, first + BINS + 1)
        counts = [np.histogram(np.clip(scores, edges[0], edges[-1]), edges)[0] for scores in (target, others)]
        return cls(edges, counts[0], counts[1], cut)


@dataclass(frozen=True, eq=False)
class Finding:
    """A pattern that images of one class share.

    kind: "poison", a pattern that was planted in some of the images, the literature's trigger; or "property", one that
    belongs to the class (a border, a caption, a pose, one camera): most of the class has it, or those that have it look
    like their own class without it; or a kind of its own among the things that have the class's label, which stands
    apart inside the network and looks like no other class.
    target: the class that the images are labelled as. sources: the classes that they come from, strongest first; may be
    empty where that is not known. pattern: (C, H, W) float32, what was added, pixel units of [0, 1]; None for one that
    is no addition of pixels. pattern_norm: its L2 norm as tested; None exactly where pattern is. window: (top, left,
    height, width) in pixels, the part of the image in which the pattern lies, None for the whole image. indices: (n,)
    int64, the flagged images, ascending in dataset order. log_odds: (n,) float32, natural logarithm, that each carries
    the pattern. success_rate: share in [0, 1] of held-out source images whose prediction the pattern changes to the
    target, None without a model. seen_in: the views that showed it, of `VIEWS`. histogram: the class's scores beside
    the others', None where no image is flagged. patterns: that the images were flagged by, at least 1: a trigger may be
    planted in parts, or be one of several; `pattern` is the first of them.
    """

    target: int
    sources: tuple[int, ...]
    p_value: float
    pattern: np.ndarray | None
    pattern_norm: float | None
    indices: np.ndarray
    log_odds: np.ndarray
    success_rate: float | None
    seen_in: tuple[str, ...]
    histogram: Histogram | None = None
    kind: str = "poison"
    window: tuple[int, int, int, int] | None = None
    patterns: int = 1

    def __post_init__(self) -> None:
        target = check.integer(self.target, "finding: target")
        what = f"finding with target {target}"
        check.choice(self.kind, f"{what}: kind", KINDS)
        if self.histogram is not None:
            check.instance(self.histogram, Histogram, f"{what}: histogram")
        indices = check.array(self.indices, f"{what}: indices", "iu", np.int64, 1)
        if indices.size and (indices[0] < 0 or not (indices[1:] > indices[:-1]).all()):
            raise InputError(f"{what}: indices must be >= 0 and strictly ascending")
        log_odds = check.array(self.log_odds, f"{what}: log_odds", "f", np.float32, 1)
        if log_odds.shape != indices.shape or not np.isfinite(log_odds).all():
            raise InputError(f"{what}: log_odds must be finite, one per index: {len(log_odds)} for {len(indices)}")
        if (self.pattern is None) != (self.pattern_norm is None):
            raise InputError(f"{what}: pattern and pattern_norm must both be given, or both be None")
        check.assign(
            self,
            target=target,
            sources=_sources(self.sources, target, f"{what}: sources"),
            p_value=check.real(self.p_value, f"{what}: p_value", 0, 1),
            pattern=None if self.pattern is None else _pattern(self.pattern, f"{what}: pattern"),
            pattern_norm=check.optional(self.pattern_norm, f"{what}: pattern_norm", 0),
            indices=indices,
            log_odds=log_odds,
            success_rate=check.optional(self.success_rate, f"{what}: success_rate", 0, 1),
            seen_in=_views(self.seen_in, f"{what}: seen_in"),
            window=None if self.window is None else _window(self.window, f"{what}: window"),
            patterns=check.integer(self.patterns, f"{what}: patterns", 1),
        )

    @property
    def is_poison(self) -> bool:
        """Whether it counts towards the verdict, and towards what `cleanse` leaves out."""
        return self.kind == "poison"

    def __repr__(self) -> str:
        kind = "" if self.is_poison else f"{self.kind}, "
        return (
            f"Finding({kind}target {self.target}, sources {list(self.sources)}, p={self.p_value:.2g}, "
            f"{len(self.indices)} images, seen in {', '.join(self.seen_in)})"
        )


def check_fits(finding: Finding, image_shape: tuple[int, int, int], count: int, classes: int) -> None:
    """Raises InputError unless this can be a finding on `count` images of that shape in so many classes."""
    if max(finding.target, *finding.sources, 0) >= classes:
        sources = check.short(finding.sources)
        raise InputError(f"a finding names target {finding.target} and sources {sources} of {classes} classes")
    if finding.pattern is not None and finding.pattern.shape != image_shape:
        raise InputError(f"a finding's pattern has shape {finding.pattern.shape}, the images have {image_shape}")
    if finding.window is not None:
        top, left, height, width = finding.window
        if top + height > image_shape[1] or left + width > image_shape[2]:
            raise InputError(f"a finding's window {finding.window} lies outside of images of shape {image_shape}")
    if finding.indices.size and finding.indices[-1] >= count:
        raise InputError(f"a finding flags image {finding.indices[-1]}, the dataset has {count} images")


def _counts(values: np.ndarray, what: str, length: int) -> np.ndarray:
    counts = check.array(values, what, "iu", np.int64, 1)
    if len(counts) != length or (counts < 0).any():
        raise InputError(f"{what} must be {length} counts >= 0, got {check.short(counts)}")
    return counts


def _sources(values: tuple[int, ...], target: int, what: str) -> tuple[int, ...]:
    sources = tuple(check.integer(source, what) for source in check.items(values, what))
    if target in sources or len(set(sources)) != len(sources):
        raise InputError(f"{what} must be distinct classes other than it, got {check.short(sources)}")
    return sources


def _pattern(values: np.ndarray, what: str) -> np.ndarray:
    pattern = check.array(values, what, "f", np.float32, 3)
    if not (np.abs(pattern) <= 1).all():  # NaN fails too
        raise InputError(f"{what} must be finite and within [-1, 1]")
    return pattern


def _views(values: tuple[str, ...], what: str) -> tuple[str, ...]:
    views = tuple(check.items(values, what))
    for view in views:
        check.choice(view, what, VIEWS)
    if not views or len(set(views)) != len(views):
        raise InputError(f"{what} must name one view or more, each once, got {check.short(views)}")
    return views


def _window(values: Window, what: str) -> Window:
    sides = check.items(values, what)
    if len(sides) != 4:
        raise InputError(f"{what} must be (top, left, height, width), got {check.short(sides)}")
    top, left = (check.integer(side, what) for side in sides[:2])
    height, width = (check.integer(side, what, 1) for side in sides[2:])
    return top, left, height, width
