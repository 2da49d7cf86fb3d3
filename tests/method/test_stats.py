"""The statistics of a verdict: hand-written vectors, and their distribution under many nulls and alternatives."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit
from scipy.stats import norm

from bre import InputError
from bre.method.stats import (
    NO_MODE,
    Mode,
    OutlierTest,
    bonferroni,
    class_log_likelihood_ratio,
    class_p_values,
    class_statistics,
    fisher_weight,
    flag_threshold,
    joint_p_values,
    outlier_test,
    second_mode,
    second_modes,
    threshold,
    two_normals,
)
from bre.method.stats import _predictive as predictive
from bre.verbs import verdict
from bre.views.evidence import Statistic

# ---- outlier_test: answers that can be read off the numbers


@pytest.mark.parametrize(
    ("statistics", "outliers"),
    [
        ([1.0, 1.1, 0.9], ()),
        ([1.0, 1.0, 1.0, 1.0], ()),
        ([1.0, 1.0, 2.0], (2,)),  # any step above no spread at all
        ([1.0, 1.1, 30.0], (2,)),  # K = 3: one degree of freedom
        ([30.0, 1.0, 1.1, 0.9, 1.05, 0.95], (0,)),
        ([1.0, 40.0, 1.1, 0.9, 1.05, 45.0, 0.95], (5, 1)),  # they hide each other; largest first
        ([1.0, 1.1, 0.9, 1.05, 0.95, 1.2, 0.8, 40.0, 45.0, 50.0], (9, 8, 7)),
        ([1.0, 1.1, 0.9, 1.05, 0.95, 1.2, 0.8, 1e-9], ()),  # a small one is no outlier
    ],
)
def test_outliers(statistics, outliers):
    test = outlier_test(np.array(statistics), 0.05)
    assert test.outliers == outliers
    assert (test.p_value <= 0.05) == bool(outliers)
    assert test.p_values.shape == (len(statistics),)
    assert ((test.p_values >= 0) & (test.p_values <= 1)).all()
    assert set(np.flatnonzero(test.p_values <= 0.05)) == set(outliers)


def test_largest_of_three_by_hand():
    """logs 0, 0, ln 2, ln 3 -> t = (ln 3 - m) / (s sqrt(1 + 1/3)) with 2 degrees, times K, over the share of 0.75."""
    below = np.log([1.0, 1.0, 2.0])
    t = (np.log(3) - below.mean()) / (below.std(ddof=1) * np.sqrt(4 / 3))
    upper_tail = 0.5 - t / (2 * np.sqrt(2 + t * t))  # Student's t with 2 degrees of freedom has a closed form
    assert outlier_test(np.array([1.0, 3.0, 1.0, 2.0]), 0.05).p_value == pytest.approx(4 * upper_tail / 0.75)


def test_scale_and_order_do_not_matter():
    statistics = np.array([1.0, 40.0, 1.1, 0.9, 1.05, 45.0, 0.95])
    test, order = outlier_test(statistics, 0.05), np.random.default_rng(0).permutation(7)
    moved = outlier_test(1e6 * statistics[order], 0.05)
    assert tuple(order[list(moved.outliers)]) == test.outliers
    np.testing.assert_allclose(moved.p_values, test.p_values[order], rtol=1e-6, atol=1e-12)
    np.testing.assert_allclose(moved.p_value, test.p_value, rtol=1e-6)


def test_a_stricter_alpha_finds_fewer():
    statistics = np.array([1.0, 1.1, 0.9, 1.05, 0.95, 2.0])
    found = [outlier_test(statistics, alpha).outliers for alpha in (0.05, 1e-6)]
    assert found == [(5,), ()]


@pytest.mark.parametrize(
    ("statistics", "match"),
    [
        ([1.0, 2.0], "at least 3"),
        ([[1.0, 2.0, 3.0]], "shape"),
        ([1.0, 2.0, 0.0], "positive"),
        ([1.0, 2.0, -1.0], "positive"),
        ([1.0, 2.0, np.nan], "finite"),
        ([1.0, 2.0, np.inf], "finite"),
    ],
)
def test_bad_statistics(statistics, match):
    with pytest.raises(InputError, match=match):
        outlier_test(np.array(statistics), 0.05)


def test_a_known_spread_by_hand():
    """As above with a spread of 0.3: the variance is (4 * 0.3^2 + 2 s^2) / 6, with six degrees of freedom."""
    below = np.log([1.0, 1.0, 2.0])
    deviation = np.sqrt((4 * 0.09 + 2 * below.var(ddof=1)) / 6)
    t = (np.log(3) - below.mean()) / (deviation * np.sqrt(4 / 3))
    draws = np.random.default_rng(0).standard_t(6, 1_000_000)
    p_value = outlier_test(np.array([1.0, 3.0, 1.0, 2.0]), 0.05, prior_sd=0.3).p_value
    assert p_value == pytest.approx(4 * (draws > t).mean() / 0.75, rel=0.02)


def test_with_a_known_spread_others_that_are_alike_do_not_make_an_outlier():
    assert outlier_test(np.array([1.0, 1.0, 1.0, 1.2]), 0.05).outliers == (3,)
    assert outlier_test(np.array([1.0, 1.0, 1.0, 1.2]), 0.05, prior_sd=0.5).outliers == ()
    assert outlier_test(np.array([1.0, 1.2, 400.0]), 0.05).outliers == (2,)
    assert outlier_test(np.array([1.8, 2.5, 437.0]), 0.05).outliers == ()  # one degree of freedom
    assert outlier_test(np.array([1.8, 2.5, 437.0]), 0.05, prior_sd=0.5).outliers == (2,)


@pytest.mark.parametrize("spread", [-0.1, np.nan, np.inf])
def test_bad_prior_sd(spread):
    with pytest.raises(InputError, match="prior_sd"):
        outlier_test(np.ones(5), 0.05, spread)


@pytest.mark.parametrize("alpha", [0.0, 1.0, -0.1, np.nan])
def test_bad_alpha(alpha):
    with pytest.raises(InputError, match="alpha"):
        outlier_test(np.ones(5), alpha)


def test_the_threshold_is_where_the_test_turns():
    rng = np.random.default_rng(0)
    for classes, count in ((4, 0), (10, 1), (10, 0), (12, 2), (40, 1)):
        statistics = rng.lognormal(0, 0.2, classes)
        statistics[:count] *= 300
        outliers = outlier_test(statistics, 0.05).outliers
        assert len(outliers) == count
        limit = threshold(statistics, 0.05)
        weakest = outliers[-1] if count else statistics.argmax()
        for factor, expected in ((1.01, True), (0.99, False)):
            changed = statistics.copy()
            changed[weakest] = limit * factor
            assert (weakest in outlier_test(changed, 0.05).outliers) is expected


def test_the_threshold_of_absurd_statistics():
    assert threshold(np.array([1.0, 1.0, 1e100]), 1e-9) is not None
    assert threshold(np.array([1e-100, 1e100, 1.0]), 1e-9) is None


# ---- outlier_test: what its p-values mean

NULLS = {
    "gamma 1": lambda g, size: g.gamma(1, size=size),
    "gamma 5": lambda g, size: g.gamma(5, size=size),
    "gamma 50": lambda g, size: g.gamma(50, size=size),
    "lognormal 0.2": lambda g, size: g.lognormal(0, 0.2, size),
    "lognormal 0.6": lambda g, size: g.lognormal(0, 0.6, size),
    "lognormal 1": lambda g, size: g.lognormal(0, 1, size),
    "weibull 1.5": lambda g, size: g.weibull(1.5, size),
    "exponential, fourth root": lambda g, size: np.exp((4 + g.exponential(40, size)) ** 0.25),
    "uniform": lambda g, size: g.uniform(0.5, 1.5, size),
}
HEAVY = {"log-laplace": lambda g, size: np.exp(g.laplace(0, 0.5, size))}
DRAWS = {5: 800, 10: 600, 12: 600, 20: 250, 43: 150, 100: 100}
CELLS = [(k, name) for k in (5, 10, 12, 43, 100) for name in NULLS]


def rejected(k: int, name: str, alpha: float) -> float:
    """Share of null samples of K statistics with p <= alpha: predict from the others, judge the largest."""
    sample = (NULLS | HEAVY)[name](np.random.default_rng(k), (DRAWS[k], k))
    return float(np.mean([outlier_test(row, alpha).p_value <= alpha for row in sample]))


@pytest.mark.parametrize(("k", "name"), [*CELLS, *((k, "log-laplace") for k in (20, 43, 100))])
def test_share_of_small_p_values_under_the_null(k, name):
    assert rejected(k, name, 0.05) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / DRAWS[k])


@pytest.mark.parametrize("k", [2, 3, 5, 10, 43])
@pytest.mark.parametrize("windows", [5, 50, 500])
def test_share_of_small_p_values_of_class_statistics(k, windows):
    """Of classes without natural marks: the largest of many directions' evidence, each exponential by chance."""
    generator = np.random.default_rng(k)
    counts = generator.integers(100, 2000, (400, k))
    evidence = -np.log(-np.log(generator.random((400, k)))) + np.log(windows)
    rejections = []
    for row, sizes in zip(evidence, counts, strict=True):
        statistic = Statistic("image_statistic", class_statistics(row, sizes), class_p_values(row, windows))
        rejections.append(verdict.judge_statistic(statistic, 0.05).p_value <= 0.05)
    assert np.mean(rejections) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 400)


def test_evidence_of_classes_of_different_sizes():
    """Natural marks grow with the root of a class's size, and a few images hold none."""
    statistics = class_statistics(np.array([0.0, 2.0, 7.0, 14.0]), np.array([50, 400, 1600, 1600]))
    np.testing.assert_allclose(statistics, [4.5, 4.5, 4.5, 8.0])
    np.testing.assert_allclose(class_p_values(np.array([0.0, 20.0]), 100), [1, 100 * np.exp(-20)])


@pytest.mark.parametrize("k", [30, 100, 1000])
@pytest.mark.parametrize("above", [0.0, 0.03, 0.1, 0.25, 0.6])
@pytest.mark.parametrize("scale", [0.2, 0.4])
def test_share_of_small_p_values_where_most_statistics_lie_at_a_floor(k, above, scale):
    """As those of the images do in sets of many classes: the others have an exponential tail above it."""
    generator, count = np.random.default_rng(k), 400 if k < 1000 else 100
    smallest = []
    for _ in range(count):
        logs = np.where(generator.random(k) < above, generator.exponential(scale, k), 0.0)
        smallest.append(outlier_test(4.5 * np.exp(logs), 0.05, 0.5).p_value)
    assert (np.array(smallest) <= 0.05).mean() < 0.05 + 3 * np.sqrt(0.05 * 0.95 / count)


@pytest.mark.parametrize("k", [30, 100, 1000])
def test_a_lone_class_far_above_the_floor_is_an_outlier(k):
    logs = np.zeros(k)
    logs[3] = np.log(60 / 4.5)
    test = outlier_test(4.5 * np.exp(logs), 0.015, 0.5)
    assert test.outliers == (3,)
    logs[3] = np.log(10 / 4.5)
    assert outlier_test(4.5 * np.exp(logs), 0.05, 0.5).outliers == ()


@pytest.mark.parametrize("alpha", [0.01, 0.025, 0.2])
def test_other_levels_under_the_null(alpha):
    for name in ("gamma 5", "lognormal 0.6"):
        assert rejected(10, name, alpha) <= alpha + 3 * np.sqrt(alpha * (1 - alpha) / DRAWS[10])


def test_the_test_is_not_merely_timid():
    """Lognormal statistics of few classes are what the test is exact for, but for the shares of later tests."""
    assert rejected(10, "lognormal 0.6", 0.05) >= 0.02
    assert rejected(10, "exponential, fourth root", 0.05) >= 0.02


def test_heavy_tails_of_few_classes_are_over_rejected():
    """Known and documented: with K < 20 the tail cannot be judged, so tails beyond the lognormal cost false alarms."""
    assert 0.05 < rejected(10, "log-laplace", 0.05) < 0.2


def _found(k: int, planted: tuple[float, ...], draws: int = 60) -> np.ndarray:
    """(draws,) bool: exactly the planted statistics are the outliers; in units of the median of gamma(5) nulls."""
    generator = np.random.default_rng(k)
    sample = generator.gamma(5, size=(draws, k)) / 4.67
    sample[:, : len(planted)] = planted
    return np.array([set(outlier_test(row, 0.05).outliers) == set(range(len(planted))) for row in sample])


@pytest.mark.parametrize(
    ("k", "planted", "power"),
    [
        (3, (1000.0,), 0.2),
        (5, (20.0,), 0.6),
        (10, (20.0,), 0.95),
        (43, (20.0,), 0.95),
        (100, (20.0,), 0.95),
        (10, (20.0, 22.0), 0.9),
        (43, (20.0, 22.0), 0.8),
        (10, (20.0, 21.0, 22.0), 0.7),
        (43, (20.0, 21.0, 22.0), 0.6),
        (12, (20.0, 21.0, 22.0, 23.0), 0.7),
        (43, tuple(np.linspace(20, 22, 10)), 0.6),
        (100, tuple(np.linspace(20, 24, 30)), 0.8),  # a third of the classes
    ],
)
def test_power(k, planted, power):
    assert _found(k, planted).mean() >= power


# ---- combine


def _verdict(p_value, outliers=(), p_values=(1.0, 1.0, 1.0)):
    return OutlierTest(np.array(p_values), outliers, p_value)


@pytest.mark.parametrize(("k", "correlation"), [(3, 0.0), (10, 0.35), (100, 0.35)])
def test_joint_p_values_under_the_null(k, correlation):
    """Two statistics as correlated as they are taken to be, of spreads that are known beforehand: the level holds."""
    generator = np.random.default_rng(k)
    cover, count = [[1, correlation], [correlation, 1]], 1000
    smallest = []
    for _ in range(count):
        logs = generator.multivariate_normal([0, 1], cover, k).T * np.array([[0.2], [0.1]])
        smallest.append(joint_p_values(np.exp(logs), (0.2, 0.1), 0.35).min())
    assert (np.array(smallest) <= 0.05).mean() < 0.065


def test_joint_p_values_by_hand():
    """A class that two independent statistics put so far out with a chance of 1 in 100 each."""
    one = np.exp(np.array([0.0, 0.1, -0.1, 0.05, 0.0, 0.3]))
    chance = predictive(0.3, np.log(one[:5]), 0.1)
    both = joint_p_values((one, one), (0.1, 0.1), 0.0)
    assert both[5] == pytest.approx(6 * norm.sf(2 * norm.isf(chance) / np.sqrt(2)))
    assert joint_p_values((one, one), (0.1, 0.1), 1.0)[5] == pytest.approx(6 * chance)
    absurd = np.array([1.0, 1.0, 1.0, 1e90])
    assert joint_p_values((absurd, absurd), (0.1, 0.1), 0.0)[3] < 1e-10


@pytest.mark.parametrize(
    ("p_values", "answer"),
    [((0.3,), 0.3), ((0.01, 0.5), 0.02), ((0.5, 0.01), 0.02), ((0.9, 0.7), 1.0), ((0.0, 1.0), 0.0), ((0.1,) * 3, 0.3)],
)
def test_combine(p_values, answer):
    assert bonferroni(*map(_verdict, p_values)).p_value == pytest.approx(answer)


def test_combine_class_by_class():
    first = _verdict(0.01, (2, 0), (0.02, 0.9, 0.01, np.nan, np.nan))
    second = _verdict(0.002, (1, 2), (1.0, 0.004, 0.002, 0.3, np.nan))
    both = bonferroni(first, second)
    np.testing.assert_allclose(both.p_values, [0.04, 0.008, 0.004, 0.6, np.nan])
    assert both.outliers == (2, 0, 1)


def test_combine_holds_its_level_however_the_views_depend():
    first = np.random.default_rng(0).uniform(size=4000)
    for second in (first, 1 - first, np.random.default_rng(1).uniform(size=4000)):
        share = np.mean([bonferroni(*map(_verdict, pair)).p_value <= 0.05 for pair in zip(first, second, strict=True)])
        assert share <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 4000)


# ---- two_normals


def _mixture(seed: int, distance: float, share: float, size: int = 1000) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    high = generator.random(size) < share
    return np.where(high, distance, 0.0) + generator.normal(size=size), high


@pytest.mark.parametrize("share", [0.02, 0.1, 0.3, 0.5])
def test_a_known_mixture(share):
    fits = [(two_normals(values), high) for values, high in (_mixture(seed, 6.0, share) for seed in range(10))]
    assert np.mean([expit(log_odds).mean() for log_odds, _ in fits]) == pytest.approx(share, abs=0.01)
    assert min(((log_odds > 0) == high).mean() for log_odds, high in fits) >= 0.995


def test_unequal_spreads():
    generator = np.random.default_rng(0)
    values = np.concatenate([generator.normal(0, 0.2, 700), generator.normal(8, 2, 300)])
    log_odds = two_normals(values)
    assert expit(log_odds).mean() == pytest.approx(0.3, abs=0.01)
    assert ((log_odds > 0) == (np.arange(1000) >= 700)).mean() >= 0.995


@pytest.mark.parametrize("seed", range(20))
def test_log_odds_never_fall(seed):
    """Also where a wide component surrounds a narrow one, whose far side it would otherwise claim."""
    generator = np.random.default_rng(seed)
    narrow = generator.normal(0, generator.uniform(0.05, 1), 200)
    wide = generator.normal(generator.uniform(-3, 8), generator.uniform(0.5, 4), generator.integers(5, 200))
    values = np.concatenate([narrow, wide])
    assert (np.diff(two_normals(values)[np.argsort(values)]) >= 0).all()


def test_order_and_units_do_not_matter():
    values, _ = _mixture(0, 5.0, 0.2)
    order = np.random.default_rng(1).permutation(len(values))
    log_odds, moved = two_normals(values), two_normals(1000 * values[order] - 7)
    np.testing.assert_allclose(moved, log_odds[order], rtol=1e-4, atol=1e-4)


def test_constant_values_have_no_high_component():
    assert (two_normals(np.full(50, 3.0)) == -np.inf).all()


def test_two_values():
    log_odds = two_normals(np.repeat([0.0, 1.0], [30, 10]))
    assert (log_odds > 0).tolist() == [False] * 30 + [True] * 10
    assert expit(log_odds).mean() == pytest.approx(0.25, abs=1e-3)


@pytest.mark.parametrize(
    "values", [[1.0, 2.0, 3.0], [[1.0, 2.0, 3.0, 4.0]], [1.0, 2.0, 3.0, np.nan], [0.0, 1, 2, np.inf]]
)
def test_bad_values(values):
    with pytest.raises(InputError, match="at least 4 finite numbers"):
        two_normals(np.array(values))


# ---- second mode


def mode(values: np.ndarray) -> Mode:
    return second_mode(values, floor=4.0, width=2.0)


def test_a_second_mode_is_where_it_was_put():
    generator = np.random.default_rng(0)
    values = np.concatenate([generator.normal(0, 1, 2000), generator.normal(30, 0.6, 20)])
    found = mode(values)
    assert found.log_likelihood_ratio > 40  # 20 values, each worth the logarithm of 28 / 2
    assert 28 <= found.low < found.centre < found.high <= 33
    assert found.centre == pytest.approx(30, abs=0.5)
    assert found.inside >= 18
    assert found.p_value < 1e-15


@pytest.mark.parametrize("values", [[], [5.0] * 4, [-9.0] * 50, [0.0] * 50, [4.0] * 50])
def test_no_second_mode(values):
    assert mode(np.array(values)) == NO_MODE
    assert mode(np.array(values)).p_value == 1


def test_values_at_one_place_are_a_mode():
    found = mode(np.concatenate([np.zeros(100), np.full(10, 20.0)]))
    assert found.inside == 10
    assert found.low <= 20.0 == found.high
    assert found.log_likelihood_ratio > 15  # nine values, the tenth makes the edge, each worth log(16 / 2)


@pytest.mark.parametrize("tail", ["exponential", "uniform", "pareto"])
@pytest.mark.parametrize("size", [6, 12, 30, 300])
def test_decreasing_densities_have_no_second_mode(tail, size):
    """The bound on the p-value holds: a uniform density is the worst of those that do not increase."""
    generator = np.random.default_rng(1)
    draw = {
        "exponential": lambda: 4 + generator.exponential(5, size),
        "uniform": lambda: generator.uniform(4, 70, size),
        "pareto": lambda: 4 * (1 + generator.pareto(1.5, size)),
    }[tail]
    p_values = np.array([mode(draw()).p_value for _ in range(400 if size == 300 else 2000)])
    assert (p_values < 0.05).mean() <= 0.05
    assert (p_values < 0.005).mean() <= 0.005 + 0.005


@pytest.mark.parametrize("size", [12, 30, 300])
def test_densities_that_fall_as_one_over_the_score_have_no_second_mode_where_that_is_known(size):
    """The same bound as above: the density that falls no faster is the worst."""
    generator = np.random.default_rng(1)
    draws = 4 * np.exp(generator.uniform(0, np.log(20), (400 if size == 300 else 2000, size)))
    tables = second_modes(draws, floor=4.0, width=2.0, falling=True)
    p_values = np.array([Mode(*table[:4], int(table[4]), size).p_value for table in tables])
    assert (p_values < 0.05).mean() <= 0.05
    assert (p_values < 0.005).mean() <= 0.005 + 0.005


def test_a_narrow_mode_far_out_is_worth_more_where_scores_are_known_to_fall():
    generator = np.random.default_rng(0)
    tail = 4 * (1 + generator.pareto(1.5, 40))
    scores = np.concatenate([tail[tail < 40], generator.normal(100, 2, 12)])[None]
    known, unknown = (second_modes(scores, floor=4.0, width=2.0, falling=falling)[0, 0] for falling in (True, False))
    assert known > unknown + 5


@pytest.mark.parametrize(
    ("chosen", "cut"),
    [([5, 4, 3], 3.0), ([5], 5.0), ([0, 1, 2, 3, 4, 5], 0.0), ([5, 4, 1], 4.0), ([5, 3, 2], 2.0), ([0], 0.0)],
    ids=["those above", "one", "all", "one far below", "one between not", "the lowest alone"],
)
def test_where_the_chosen_part_from_the_others(chosen, cut):
    scores = np.array([2.0, 0.0, 5.0, 1.0, 4.0, 3.0])
    assert flag_threshold(scores, np.isin(scores, chosen)) == cut


def test_what_a_choice_speaks_for():
    lower, upper = np.repeat([0, 1, 2, 3], 50), np.repeat([0, 3], [10, 190])
    odds = class_log_likelihood_ratio(upper, lower, 5)
    assert odds[3] == pytest.approx(np.log(0.95 / 0.25), abs=0.1)
    assert odds[0] == pytest.approx(np.log(0.05 / 0.25), abs=0.3)
    assert odds[1] == odds[2] < -2  # chosen by the lower group alone
    assert odds[4] == pytest.approx(np.log(10 / 210), abs=1e-9)  # by nobody


@pytest.mark.parametrize("few", [0, 1, 2])
def test_few_choices_speak_softly(few):
    odds = class_log_likelihood_ratio(np.full(few, 2), np.repeat(np.arange(4), 50), 4)
    assert np.abs(odds).max() <= 0.3 * few + 1e-12


def test_the_weight_of_a_second_score():
    generator = np.random.default_rng(0)
    upper = np.arange(4000) < 400
    first, second = generator.normal(3.0 * upper, 1.0), generator.normal(6.0 * upper, 2.0)
    log_odds = np.where(upper, 9.0, -9.0)
    assert fisher_weight(first, second, log_odds) == pytest.approx(0.5, abs=0.05)  # (6 / 2**2) / (3 / 1**2)
    assert fisher_weight(first, generator.normal(size=4000), log_odds) == pytest.approx(0, abs=0.05)
    assert fisher_weight(first, -second, log_odds) == 0
    assert fisher_weight(first, np.zeros(4000), log_odds) == 0
    assert fisher_weight(first, second, np.full(4000, -np.inf)) >= 0
