"""The verdict: which classes are outliers, by which view, at which part of alpha. Made here and nowhere else."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from ..errors import InputError
from ..method import stats
from ..report import StatisticTest
from ..views.evidence import CROSS_CLASS, JOINT, MARK, Evidence, Statistic

# share of a view's alpha; by test; source: chosen, marks and patterns in several classes give tiny p-values where there
# are any, so that a tenth is enough for each
SHARES = {
    "image_statistic": 0.8,
    MARK: 0.1,
    CROSS_CLASS: 1 - 0.8 - 0.1,
    "model_statistic": 0.3,
    "alignment": 0.3,
    JOINT: 1 - 0.3 - 0.3,
    "separation": 1.0,
}
# standard deviation; of the logarithm of a statistic among clean classes, known beforehand; source: simulated, on
# random clean sets and rounded up, the images' on the 152 held out in docs/sizes.md, of which it calls 0.7% at 0.05,
# and on the 80 of docs/random_sets.md, whose classes are larger: 0.4 called five of those; the separation's is chosen,
# what it was on one clean network with two classes that are honestly two things, where it was 0.52; on others 0.3
PRIOR_SD = {"image_statistic": 0.45, "model_statistic": 0.2, "alignment": 0.1, "separation": 0.5}
# correlation; of the normal scores of a view's statistics among clean classes, at most; source: simulated, upper end of
# the 95% interval of what it was, 0.23, in 254 classes of 31 networks of docs/results*.md; none of them is of
# docs/triggers.md
JOINT_CORRELATION = 0.35
MIN_CLASSES = 2  # classes; that a statistic is compared over; source: derived, with fewer, the others have no spread


@dataclass(frozen=True, eq=False)
class ViewVerdict:
    """What one view says. alpha: its part; p_values: float64 (K,), NaN for classes that were not tested; called_by: by
    outlier, the statistic that called it first, in the order in which they were called; p_value: of the whole set;
    tests: how the view's part of alpha was divided; unconfirmed: by outlier that the view does not confirm, its
    p-value."""

    evidence: Evidence
    alpha: float
    p_values: np.ndarray
    called_by: dict[int, str]
    p_value: float
    tests: tuple[StatisticTest, ...]
    unconfirmed: Mapping[int, float] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Verdict:
    """What all views say together. p_values: float64 (K,), NaN for classes that were not tested; outliers: classes,
    those of the first view first, largest first; p_value: chance of evidence at least this strong in a clean set."""

    alpha: float
    views: tuple[ViewVerdict, ...]
    p_values: np.ndarray
    outliers: tuple[int, ...]
    p_value: float

    @property
    def notes(self) -> tuple[str, ...]:
        """What the verdict could not rest on, one sentence each."""
        compared = int(np.isfinite(self.views[0].p_values).sum())
        if compared > MIN_CLASSES:
            return ()
        return (
            f"only {compared} classes could be compared, so the verdict rests on what is known of clean sets in "
            "general: a pattern has to be several times as evident as what the other class holds",
        )

    @property
    def tests(self) -> tuple[StatisticTest, ...]:
        """How alpha was divided, and where each test draws its line."""
        return tuple(test for view in self.views for test in view.tests)

    def seen_by(self, label: int) -> tuple[ViewVerdict, ...]:
        """The views that call a class an outlier."""
        return tuple(view for view in self.views if label in view.called_by)


def judge(evidence: Sequence[Evidence], alpha: float) -> Verdict:
    """Every view that has a statistic at an equal part of alpha; their tests may depend on each other in any way
    (Bonferroni).

    Raises InputError where fewer than MIN_CLASSES classes have a statistic to compare.
    """
    speaking = [each for each in evidence if each.statistics]
    views = tuple(judge_view(each, alpha / len(speaking)) for each in speaking)
    tests = [stats.OutlierTest(view.p_values, tuple(view.called_by), view.p_value) for view in views]
    together = stats.bonferroni(*tests) if len(tests) > 1 else tests[0]
    return Verdict(alpha, views, together.p_values, together.outliers, together.p_value)


def judge_view(evidence: Evidence, alpha: float) -> ViewVerdict:
    """One view at its part of alpha: the classes that are outliers by its statistics, or that hold what images of
    several classes share, and that the view confirms."""
    records: list[StatisticTest] = []
    called_by: dict[int, str] = {}
    p_values: list[np.ndarray] = []
    p_value = 1.0
    for record, test in _compared(evidence, alpha):
        records.append(record)
        called_by |= {label: record.name for label in test.outliers if label not in called_by}
        p_values.append(np.minimum(1.0, test.p_values / SHARES[record.name]))
        p_value = min(p_value, test.p_value / SHARES[record.name])
    combined = np.fmin.reduce(p_values)  # a class that one statistic was not measured for may have another
    if evidence.mark_p_values is not None:
        share = SHARES[MARK]
        records.append(StatisticTest(MARK, share * alpha))
        marks = np.minimum(1.0, evidence.mark_p_values / share)
        marked = [label for label in np.argsort(marks, kind="stable").tolist() if marks[label] <= alpha]
        called_by |= {label: MARK for label in marked if label not in called_by}
        combined = np.where(np.isfinite(combined), np.fmin(combined, marks), combined)
        p_value = min(p_value, float(marks.min()))
    if evidence.cross_class_p_value is not None:
        share = SHARES[CROSS_CLASS]
        records.append(StatisticTest(CROSS_CLASS, share * alpha))
        across = min(1.0, evidence.cross_class_p_value / share)
        if across <= alpha and (attacked := list(evidence.cross_class(tuple(called_by)))):
            combined[attacked] = np.fmin(combined[attacked], across)
            called_by |= {label: CROSS_CLASS for label in attacked if label not in called_by}
            p_value = min(p_value, across)
    return _confirmed(ViewVerdict(evidence, alpha, combined, called_by, p_value, tuple(records)))


def _compared(evidence: Evidence, alpha: float) -> Iterator[tuple[StatisticTest, stats.OutlierTest]]:
    """The comparison of the classes by each statistic, and by all of them where there are several."""
    for statistic in evidence.statistics:
        level = SHARES[statistic.name] * alpha
        test = judge_statistic(statistic, level)
        threshold = stats.threshold(statistic.measured, level, PRIOR_SD[statistic.name])
        yield StatisticTest(statistic.name, level, threshold), test
    if len(evidence.statistics) > 1:
        level = SHARES[JOINT] * alpha
        yield StatisticTest(JOINT, level), judge_together(evidence.statistics, level)


def _confirmed(view: ViewVerdict) -> ViewVerdict:
    """Without the outliers that the view does not confirm."""
    dropped = [label for label in view.called_by if not view.evidence.confirms(label)]
    if not dropped:
        return view
    p_values, unconfirmed = view.p_values.copy(), {label: float(view.p_values[label]) for label in dropped}
    p_values[dropped] = 1.0
    called_by = {label: name for label, name in view.called_by.items() if label not in dropped}
    p_value = max(view.p_value, float(np.min(p_values[list(called_by)], initial=1.0)))
    return ViewVerdict(view.evidence, view.alpha, p_values, called_by, p_value, view.tests, unconfirmed)


def judge_statistic(statistic: Statistic, level: float) -> stats.OutlierTest:
    """The outlier test over the classes that have a statistic, its answers in label order (NaN elsewhere).

    A class's own p-value, corrected for K, bounds the comparison's from below, and that of every smaller outlier, which
    was compared without the larger ones.
    """
    labels = np.flatnonzero(np.isfinite(statistic.values))
    if len(labels) < MIN_CLASSES:
        raise InputError(
            f"at least {MIN_CLASSES} classes with enough images are needed, since the verdict compares classes; got "
            f"{len(labels)} (near duplicates, which agree at 16 pixels a side, count as one image)"
        )
    test = stats.outlier_test(statistic.values[labels], level, PRIOR_SD[statistic.name])
    own = np.zeros(len(labels))
    if statistic.class_p_values is not None:
        own = np.minimum(1.0, len(labels) * statistic.class_p_values[labels])
    ranked = list(test.outliers)
    own[ranked] = np.maximum.accumulate(own[ranked])  # who is left out of a comparison must be an outlier
    outliers = tuple(labels[[place for place in ranked if own[place] <= level]].tolist())
    p_values = np.full(len(statistic.values), np.nan)
    p_values[labels] = np.maximum(test.p_values, own)
    p_value = max(test.p_value, float(own[ranked or slice(None)].min()))
    if not statistic.single:
        return stats.OutlierTest(p_values, outliers, p_value)
    others = np.arange(len(p_values)) != np.nanargmax(statistic.values)
    p_values[others & np.isfinite(p_values)] = 1.0
    return stats.OutlierTest(p_values, outliers[:1], p_value)


def judge_together(statistics: Sequence[Statistic], level: float) -> stats.OutlierTest:
    """The class that is largest by several statistics at once, over the classes that have all of them; the answers of
    the others are 1, NaN where one is missing."""
    values = np.stack([statistic.values for statistic in statistics])
    labels = np.flatnonzero(np.isfinite(values).all(0))
    p_values = np.full(values.shape[1], np.nan)
    if len(labels) < MIN_CLASSES:
        return stats.OutlierTest(p_values, (), 1.0)
    prior_sds = [PRIOR_SD[statistic.name] for statistic in statistics]
    found = stats.joint_p_values(list(values[:, labels]), prior_sds, JOINT_CORRELATION)
    best, p_value = int(labels[found.argmin()]), float(found.min())
    p_values[labels] = 1.0
    p_values[best] = p_value
    return stats.OutlierTest(p_values, (best,) if p_value <= level else (), p_value)
