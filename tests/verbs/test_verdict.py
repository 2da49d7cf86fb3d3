"""The verdict, from statistics written by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest

from bre.errors import InputError
from bre.report import StatisticTest
from bre.verbs import verdict
from bre.verbs.verdict import judge, judge_statistic
from bre.views.evidence import Carriers, Statistic

STATISTICS = np.array([10.0, 11.0, 400.0, 9.0, 10.5, 900.0, np.nan, 9.5, 10.2, 11.5])  # 5 and 2 are outliers


@dataclass
class Written:
    """Evidence as it is written here; works: the classes that it confirms, all where None."""

    statistics: tuple[Statistic, ...]
    view: str = "images"
    cross_class_p_value: float | None = None
    mark_p_values: np.ndarray | None = None
    attacked: tuple[int, ...] = ()
    works: tuple[int, ...] | None = None
    known: list[tuple[int, ...]] = field(default_factory=list)
    columns = {}  # noqa: RUF012
    notes = ()

    def cross_class(self, known: Sequence[int]) -> tuple[int, ...]:
        self.known.append(tuple(known))
        return self.attacked

    def confirms(self, label: int) -> bool:
        return self.works is None or label in self.works

    def carriers(self, label: int, called_by: str) -> Carriers:
        raise NotImplementedError

    def corroborate(self, label: int, carriers: Carriers) -> Carriers:
        return carriers


@pytest.fixture
def nothing_known(monkeypatch):
    """No prior spread of any statistic."""
    monkeypatch.setattr(verdict, "PRIOR_SD", dict.fromkeys(verdict.PRIOR_SD, 0.0))


def images(values: np.ndarray, class_p_values: np.ndarray | None = None) -> Statistic:
    return Statistic("image_statistic", values, class_p_values)


def model(gains: np.ndarray, alike: np.ndarray) -> Written:
    return Written((Statistic("model_statistic", gains), Statistic("alignment", alike, single=True)), "model")


@pytest.mark.parametrize(
    ("sure", "called"),
    [((5, 2), (5, 2)), ((5,), (5,)), ((2,), ()), ((), ())],
    ids=["both by themselves", "the larger", "the smaller, compared without the larger", "none"],
)
def test_an_outlier_must_be_one_by_itself_too(nothing_known, sure, called):
    p_values = np.where(np.isin(np.arange(10), sure), 1e-6, 0.1)
    test = judge_statistic(images(STATISTICS, p_values), 0.05)
    assert test.outliers == called
    assert (test.p_value <= 0.05) == bool(called)
    assert np.flatnonzero(test.p_values <= 0.05).tolist() == sorted(called)
    assert np.isnan(test.p_values[6])
    assert judge_statistic(images(STATISTICS), 0.05).outliers == (5, 2)


def test_a_class_that_its_view_does_not_confirm_leaves_no_p_value_behind(nothing_known):
    statistics = np.array([1.0, 1.1, 0.9, 1.05, 0.95, 1e4, 1.0, 3.0, 1.02, 0.98, 1.0, 0.97])
    both = judge([Written((images(statistics),))], 0.05)
    assert both.outliers == (5, 7)
    left = judge([Written((images(statistics),), works=(7,))], 0.05)
    assert left.outliers == (7,)
    assert left.p_values[5] == 1
    assert left.p_value == left.p_values[7] > both.p_value
    assert dict(left.views[0].unconfirmed) == {5: both.p_values[5]}
    none = judge([Written((images(statistics),), works=())], 0.05)
    assert none.outliers == ()
    assert none.p_value == 1


def test_of_the_gradients_only_the_class_where_they_are_most_alike_is_called(nothing_known):
    gains = np.array([1.0, 1.1, 1.2, 1.1, 1.3, 1.0, 1.2, 1.1, 1.15, np.nan])
    alike = np.array([1.0, 1.1, 1.2, 1.1, 30.0, 1.0, 9.0, 1.1, 1.15, np.nan])
    assert judge_statistic(Statistic("alignment", alike), 0.05).outliers == (4, 6)
    test = judge([model(gains, alike)], 0.05)
    assert test.outliers == (4,)
    assert test.p_value <= 0.05
    assert test.p_values[4] <= 0.05
    assert (np.delete(test.p_values, [4, 9]) > 0.05).all()
    assert np.isnan(test.p_values[9])


def test_gradients_a_little_more_alike_where_others_happen_to_be_alike_are_no_backdoor(monkeypatch):
    """As they were in a clean network of depthwise convolutions."""
    gains = np.array([1.81, 1.77, 2.1, 1.57, 2.09, 1.83, 2.32, 1.93, 1.91, 1.75])
    alike = np.array([34, 35, 34, 35, 33, 35, 39, 34, 34, 34]) / 1e4
    test = judge([model(gains, alike)], 0.025)
    assert test.outliers == ()
    assert test.p_value > 0.2
    monkeypatch.setattr(verdict, "PRIOR_SD", dict.fromkeys(verdict.PRIOR_SD, 0.0))
    assert judge_statistic(Statistic("alignment", alike), 0.0125).outliers == (6,)


def test_a_class_that_could_not_be_searched_by_itself_may_hold_what_several_share():
    statistics = images(np.array([10.0, 11.0, 12.0, np.nan]), np.ones(4))
    evidence = Written((statistics,), cross_class_p_value=1e-6, attacked=(3, 0))
    test = judge([evidence], 0.05)
    assert set(test.outliers) == {0, 3}
    assert evidence.known == [()]
    np.testing.assert_allclose(test.p_values[[0, 3]], 1e-5)
    assert test.views[0].called_by == {3: "cross_class", 0: "cross_class"}


NAMES = ["image_statistic", "mark", "cross_class", "model_statistic", "alignment", "joint"]


def test_a_class_that_is_somewhat_large_by_each_statistic_is_called_by_both():
    """As they were for a sine in a third of one class, which a network obeyed in 86% of images."""
    gains = np.array([1.18, 1.26, 1.49, 1.24, 1.6, 1.38, 2.25, 1.41, 1.48, 1.33])
    alike = np.array([36, 39, 39, 36, 36, 37, 48, 37, 39, 38]) / 1e4
    both = judge([model(gains, alike)], 0.05 / 3)
    assert both.outliers == (6,)
    assert both.views[0].called_by == {6: "joint"}
    for one in (model(gains, np.sort(alike)), model(np.sort(gains)[::-1], alike)):
        assert judge([one], 0.05 / 3).outliers == ()


def test_classes_without_one_of_the_statistics_are_not_judged_by_both():
    gains = np.where(np.arange(10) == 3, np.nan, np.linspace(1, 1.1, 10))
    alike = np.where(np.arange(10) == 3, 1e4, np.linspace(1, 1.1, 10))
    found = verdict.judge_together(model(gains, alike).statistics, 0.05)
    assert found.outliers == ()
    assert np.flatnonzero(np.isnan(found.p_values)).tolist() == [3]
    few = np.where(np.arange(10) == 3, 1.0, np.nan)
    assert verdict.judge_together(model(few, alike).statistics, 0.05).p_value == 1


def test_views_share_alpha_and_the_verdict_says_how():
    quiet = np.linspace(1.0, 1.1, 10)
    seen = Written((images(quiet, np.ones(10)),), cross_class_p_value=1.0, mark_p_values=np.ones(10))
    test = judge([seen, model(quiet, quiet)], 0.04)
    assert [record.name for record in test.tests] == NAMES
    assert sum(record.level for record in test.tests) == pytest.approx(0.04)
    np.testing.assert_allclose([record.level for record in test.tests], [0.016, 0.002, 0.002, 0.006, 0.006, 0.008])
    assert all(isinstance(record, StatisticTest) for record in test.tests)
    assert all(test.tests[place].threshold is None for place in (1, 2, 5))
    assert all(test.tests[place].threshold > 1.1 for place in (0, 3, 4))


def test_a_mark_calls_its_class_at_its_part_of_alpha(nothing_known):
    quiet, marks = np.array([*np.linspace(1.0, 1.1, 9), np.nan]), np.ones(10)
    share = verdict.SHARES["mark"]
    marks[[3, 6]] = 0.9 * share * 0.05, 1e-6
    found = judge([Written((images(quiet),), mark_p_values=marks)], 0.05)
    assert found.outliers == (6, 3)
    assert found.views[0].called_by == {6: "mark", 3: "mark"}
    np.testing.assert_allclose(found.p_values[[3, 6]], [0.045, 1e-6 / share])
    assert found.p_value == pytest.approx(1e-6 / share)
    marks[[3, 6]] = 1.1 * share * 0.05
    assert judge([Written((images(quiet),), mark_p_values=marks)], 0.05).outliers == ()


def test_a_class_that_is_an_outlier_anyway_is_called_by_its_statistic(nothing_known):
    marks = np.ones(10)
    marks[5] = 1e-9
    found = judge([Written((images(STATISTICS, np.full(10, 1e-6)),), mark_p_values=marks)], 0.05)
    assert found.views[0].called_by[5] == "image_statistic"


def test_who_sees_an_outlier():
    loud = np.where(np.arange(10) == 4, 1e4, np.linspace(1, 1.1, 10))
    quiet = np.linspace(1, 1.1, 10)
    test = judge([Written((images(loud, np.full(10, 1e-9)),)), model(quiet, loud)], 0.05)
    assert test.outliers == (4,)
    assert [(view.evidence.view, view.called_by[4]) for view in test.seen_by(4)] == [
        ("images", "image_statistic"),
        ("model", "alignment"),
    ]


def test_too_few_classes():
    with pytest.raises(InputError, match=r"at least 2 classes .* got 1"):
        judge([Written((images(np.array([1.0, np.nan])),))], 0.05)
