"""What every view returns: one or more statistics per class, and on request the carriers of a class.

A view looks at its material once (`search_images`, `search_model`) and returns an `Evidence`. It decides nothing:
`verbs.verdict` tests the statistics, and asks for carriers of outliers only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

CROSS_CLASS = "cross_class"  # in place of a statistic's name: a cross-class pattern
MARK = "mark"  # likewise: a mark whose images look like other classes than their own
JOINT = "joint"  # likewise: several statistics of a view at once
MAIN_SOURCE = 0.5  # ratio; of a source's share to the mean of the larger ones, at least; source: chosen


@dataclass(frozen=True, eq=False)
class Statistic:
    """One number per class, large where a pattern is planted in it.

    name: column of the report's class table. values: float64 (K,) > 0, NaN for a class that was not measured.
    class_p_values: float64 (K,), bounds on each class's own p-value, None if there is only the comparison.
    single: whether only the class of the largest value can be an outlier.
    """

    name: str
    values: np.ndarray
    class_p_values: np.ndarray | None = None
    single: bool = False

    @property
    def measured(self) -> np.ndarray:
        """(k,), of the classes that were measured."""
        values: np.ndarray = self.values[np.isfinite(self.values)]
        return values


@dataclass(frozen=True, eq=False)
class Carriers:
    """Which images of a class carry its planted pattern, and the pattern.

    members: int64 (n,), the class's images, dataset order; log_odds: float64 (n,), natural logarithm, that each carries
    the pattern; flagged: bool (n,), those called poisoned; scores: float (n,), what the flags were drawn from;
    other_scores: float (m,), likewise of some images of other classes; pattern: float32 (C, H, W), pixel units, None
    where no pattern was seen that is added;
    sources: the classes that the carriers come from, largest share first, empty where that cannot be told;
    success_rate: share of held-out source images whose prediction the pattern changes to the class, None without a
    model; window: (top, left, height, width) in pixels, where in the images the pattern shows, None for all of it;
    patterns: that images were flagged by, the one that is given being the first.
    """

    members: np.ndarray
    log_odds: np.ndarray
    flagged: np.ndarray
    scores: np.ndarray
    other_scores: np.ndarray
    pattern: np.ndarray | None
    sources: tuple[int, ...]
    success_rate: float | None = None
    window: tuple[int, int, int, int] | None = None
    patterns: int = 1


class Evidence(Protocol):
    """What a view returns.

    view: its name in the report. statistics: in the order in which they call classes. cross_class_p_value: bound on the
    p-value of a cross-class pattern, None for a view that does not search for one. mark_p_values: float64 (K,), of each
    class's marks, likewise. columns: further columns
    of the report's class table, float64 (K,) each. notes: deviations from the default procedure, one sentence each;
    complete once carriers were asked for.
    """

    @property
    def view(self) -> str: ...
    @property
    def statistics(self) -> tuple[Statistic, ...]: ...
    @property
    def cross_class_p_value(self) -> float | None: ...
    @property
    def mark_p_values(self) -> np.ndarray | None: ...
    @property
    def columns(self) -> Mapping[str, np.ndarray]: ...
    @property
    def notes(self) -> tuple[str, ...]: ...

    def properties(self, unconfirmed: Sequence[int]) -> Mapping[int, Carriers]:
        """By class, what most of it shares and other classes do not, or what an outlier of this view that was not
        confirmed shows: a property of the class, no poison."""
        ...

    def cross_class(self, known: Sequence[int]) -> tuple[int, ...]:
        """The classes that hold a cross-class pattern; known: classes that are outliers already."""
        ...

    def without(self, label: int, images: np.ndarray) -> Evidence | None:
        """What the view says without some images, int64 (n,), of a class, as if they were not there; None where it has
        nothing to add."""
        ...

    def confirms(self, label: int) -> bool:
        """Whether an outlier of this view is confirmed by a closer look."""
        ...

    def carriers(self, label: int, called_by: str) -> Carriers:
        """Of a class that is an outlier of this view; called_by: the name of the statistic that it is one by,
        CROSS_CLASS or MARK."""
        ...

    def corroborate(self, label: int, carriers: Carriers) -> Carriers:
        """Carriers that another view found, with what this one adds."""
        ...


def main_sources(shares: Sequence[tuple[int, float]]) -> tuple[int, ...]:
    """The classes, largest share first as given, up to one with less than MAIN_SOURCE of the mean share before it: of
    many equal shares the largest is the largest by chance."""
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
