"""What every view answers: one or more statistics per class, and which images carry what a class is an outlier by.

A view looks at its material once (`search_images`, `search_model`) and returns an `Evidence`. It decides nothing: the
statistics are judged by `verbs.verdict`, and only for classes that are outliers is it asked for carriers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

CROSS_CLASS = "cross_class"  # in place of a statistic's name: what images of several classes share
MAIN_SOURCE = 0.5  # a class is named a source if its share is at least this part of what larger ones have on average


@dataclass(frozen=True, eq=False)
class Statistic:
    """One number per class, large where a pattern is planted in it.

    name: column of the report's class table. values: float64 (K,) > 0, NaN for a class that was not measured.
    class_p_values: float64 (K,), bounds on each class's p-value by itself, None where a comparison is all there is.
    single: whether only the class of the largest value can be an outlier.
    """

    name: str
    values: np.ndarray
    class_p_values: np.ndarray | None = None
    single: bool = False


@dataclass(frozen=True, eq=False)
class Carriers:
    """Which images of a class carry its planted pattern, and the pattern.

    members: int64 (n,), the class's images, dataset order; log_odds: float64 (n,), natural logarithm, that each carries
    the pattern; flagged: bool (n,), those called poisoned; scores: float (n,), what the flags were drawn from;
    other_scores: float (m,), likewise of some images of other classes; pattern: float32 (C, H, W), pixel units;
    sources: the classes that the carriers come from, largest share first, empty where that cannot be told;
    success_rate: share of held-out source images whose prediction the pattern changes to the class, None without a
    model.
    """

    members: np.ndarray
    log_odds: np.ndarray
    flagged: np.ndarray
    scores: np.ndarray
    other_scores: np.ndarray
    pattern: np.ndarray
    sources: tuple[int, ...]
    success_rate: float | None = None


class Evidence(Protocol):
    """What a view shows.

    view: its name in the report. statistics: in the order in which they call classes. cross_class_p_value: bound on the
    p-value of what images of several classes share, None for a view that does not look for it. columns: further columns
    of the report's class table, float64 (K,) each. notes: what went otherwise than by default, one sentence each;
    complete once carriers were asked for.
    """

    @property
    def view(self) -> str: ...
    @property
    def statistics(self) -> tuple[Statistic, ...]: ...
    @property
    def cross_class_p_value(self) -> float | None: ...
    @property
    def columns(self) -> Mapping[str, np.ndarray]: ...
    @property
    def notes(self) -> tuple[str, ...]: ...

    def cross_class(self, known: Sequence[int]) -> tuple[int, ...]:
        """The classes that hold what images of several classes share; known: classes that are outliers already."""
        ...

    def confirms(self, label: int) -> bool:
        """Whether a class that is an outlier of this view holds up when it is looked at more closely."""
        ...

    def carriers(self, label: int, called_by: str) -> Carriers:
        """Of a class that is an outlier of this view; called_by: the name of the statistic that it is one by, or
        CROSS_CLASS."""
        ...

    def corroborate(self, label: int, carriers: Carriers) -> Carriers:
        """Carriers that another view found, with what this one adds."""
        ...


def main_sources(shares: Sequence[tuple[int, float]]) -> tuple[int, ...]:
    """The classes, largest share first as given, up to one with less than MAIN_SOURCE of the mean share before it: of
    many equal shares that were counted, the largest alone says too much."""
    named: list[int] = []
    total = 0.0
    for label, share in shares:
        if share <= 0 or share * len(named) < MAIN_SOURCE * total:
            break
        named.append(label)
        total += share
    return tuple(named)


def evenly_spaced(indices: np.ndarray, most: int) -> np.ndarray:
    """At most `most` of the indices (n,), spread evenly over them in their order."""
    return indices[np.linspace(0, len(indices) - 1, min(most, len(indices))).astype(np.int64)]
