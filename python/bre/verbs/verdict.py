"""What `screen` and `detect` have in common: options checked, statistics judged, findings and rows made of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np

from ..errors import InputError
from ..inputs import ImageSet
from ..method import stats
from ..report import ClassRow, Finding, Histogram, StatisticTest
from ..views.images import MIN_IMAGES, Carriers, ImageView, check_size

MAX_UNUSED = 100_000  # labels that no image has: every class is a row of the report
MAIN_SOURCE = 0.5  # a class is named a source if its share is at least this part of what larger ones have on average

Progress = Callable[[str, float], None]


def image_finding(label: int, p_value: float, carriers: Carriers) -> Finding:
    """A finding of the data's view."""
    flagged, histogram = carriers.flagged, None
    if flagged.any():
        histogram = Histogram.of(carriers.along, carriers.beside, cut=stats.parting(carriers.along, flagged))
    return Finding(
        target=label,
        sources=main_sources(carriers.sources),
        p_value=p_value,
        pattern=carriers.pattern,
        pattern_norm=float(np.sqrt(np.square(carriers.pattern, dtype=np.float64).sum())),
        indices=carriers.members[flagged],
        log_odds=carriers.log_odds[flagged].astype(np.float32),
        success_rate=None,
        seen_in=("images",),
        histogram=histogram,
    )


def main_sources(shares: tuple[tuple[int, float], ...]) -> tuple[int, ...]:
    """The classes, largest share first as given, up to one with less than MAIN_SOURCE of the mean share before it: of
    many equal shares that were counted, the largest alone says too much."""
    total = 0.0
    for place, (_, share) in enumerate(shares):
        if share <= 0 or share * place < MAIN_SOURCE * total:
            shares = shares[:place]
            break
        total += share
    return tuple(label for label, _ in shares)


def class_rows(images: ImageSet, p_values: np.ndarray, **columns: np.ndarray) -> Iterator[ClassRow]:
    """The per-class table; a class that could not be searched says why.

    p_values and columns: float64 (K,) each, NaN for what was not measured; columns are named as ClassRow's fields.
    """
    counts = np.bincount(images.labels, minlength=len(images.class_names))
    for label, (name, count) in enumerate(zip(images.class_names, counts.tolist(), strict=True)):
        measured = {key: float(column[label]) for key, column in columns.items() if np.isfinite(column[label])}
        tested = bool(np.isfinite(p_values[label]))
        yield ClassRow(
            label=label,
            name=name,
            count=count,
            tested=tested,
            p_value=float(p_values[label]) if tested else None,
            note=""
            if "image_statistic" in measured
            else f"not searched: {MIN_IMAGES} different photographs are needed, its {count} images hold fewer",
            **measured,
        )


def judge_images(view: ImageView, alpha: float) -> tuple[stats.OutlierTest, dict[int, Carriers]]:
    """The classes that stand out by what some of their images share, at CLASSES_SHARE of alpha; and those that hold
    what images of several classes share, at the rest of it, with the carriers of those that do not stand out."""
    test = judge_classes(view.statistics, stats.CLASSES_SHARE * alpha, view.chances, stats.SPREADS["image_statistic"])
    p_values = np.minimum(1.0, test.p_values / stats.CLASSES_SHARE)
    spread, everywhere = min(1.0, view.spread_p_value / (1 - stats.CLASSES_SHARE)), {}
    if spread <= alpha:
        everywhere = view.carriers_everywhere(test.outliers)
    p_values[list(everywhere)] = np.fmin(p_values[list(everywhere)], spread)  # NaN: not searched by itself
    p_value = min([1.0, test.p_value / stats.CLASSES_SHARE, *([spread] if everywhere else [])])
    beside = {label: carriers for label, carriers in everywhere.items() if label not in test.outliers}
    return stats.OutlierTest(p_values, test.outliers + tuple(beside), p_value), beside


def judge_classes(
    statistics: np.ndarray, alpha: float, chances: np.ndarray | None = None, spread: float = 0.0
) -> stats.OutlierTest:
    """The outlier test over the classes that have a statistic, its answers back in label order (NaN elsewhere).

    chances: (K,) p-values of the classes by themselves; corrected for K, they bound the comparison's from below, and
    that of every smaller outlier, which was compared without the larger ones. spread: as for `stats.outlier_test`.
    """
    labels = np.flatnonzero(np.isfinite(statistics))
    if len(labels) < 3:
        raise InputError(
            f"at least 3 classes with {MIN_IMAGES} different photographs are needed, got {len(labels)}; of images that "
            "are alike at half their resolution only one counts"
        )
    test = stats.outlier_test(statistics[labels], alpha, spread)
    least = np.zeros(len(labels)) if chances is None else np.minimum(1.0, len(labels) * chances[labels])
    above = list(test.outliers)
    least[above] = np.maximum.accumulate(least[above])  # who is left out of a comparison must be an outlier
    outliers = [place for place in above if least[place] <= alpha]
    p_values = np.full(len(statistics), np.nan)
    p_values[labels] = np.maximum(test.p_values, least)
    p_value = max(test.p_value, float(least[above or slice(None)].min()))
    return stats.OutlierTest(p_values, tuple(labels[outliers].tolist()), p_value)


def image_tests(view: ImageView, alpha: float) -> tuple[StatisticTest, ...]:
    """How `judge_images` divides alpha."""
    classes = statistic_test("image_statistic", view.statistics, stats.CLASSES_SHARE * alpha)
    return classes, StatisticTest("cross_class", (1 - stats.CLASSES_SHARE) * alpha)


def statistic_test(name: str, statistics: np.ndarray, level: float) -> StatisticTest:
    """name: column of ClassRow; statistics: float64 (K,), NaN for what was not measured; level: its part of alpha."""
    measured = statistics[np.isfinite(statistics)]
    return StatisticTest(name, level, stats.threshold(measured, level, stats.SPREADS[name]))


def check_options(seed: int, alpha: float) -> tuple[int, float]:
    """Raises InputError unless seed is an integer in [0, 2^63) and alpha a number in (0, 1)."""
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or not 0 <= seed < 2**63:
        raise InputError(f"seed: expected an integer >= 0, below 2^63, got {seed!r}")
    if isinstance(alpha, bool) or not isinstance(alpha, int | float | np.number) or not 0 < alpha < 1:
        raise InputError(f"alpha: expected a number between 0 and 1, got {alpha!r}")
    return int(seed), float(alpha)


def check_images(images: ImageSet) -> None:
    """Raises InputError for images too large, for labels that are identifiers, and unless three classes are large
    enough: the verdict compares them."""
    check_size(images)
    counts = np.bincount(images.labels, minlength=len(images.class_names))
    if (unused := int((counts == 0).sum())) > MAX_UNUSED:
        raise InputError(
            f"of the labels up to {len(counts) - 1} no image has {unused}, as if they were identifiers: number the "
            "classes from 0 on"
        )
    large = int((counts >= MIN_IMAGES).sum())
    if large < 3:
        raise InputError(
            f"at least 3 classes with {MIN_IMAGES} images each are needed, since the verdict compares classes; "
            f"got {large} such classes among {len(counts)} (images per class: {', '.join(map(str, counts[:20]))}"
            f"{', ...' if len(counts) > 20 else ''})"
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
