"""What no report can be: every value that is refused."""

import numpy as np
import pytest
from reports import SHAPE, make_facts, make_finding, make_histogram, make_property, make_report

from bre.errors import InputError
from bre.report import (
    BINS,
    ClassRow,
    Cost,
    Histogram,
    StatisticTest,
)


def refused(match):
    return pytest.raises(InputError, match=match)


# ---- what it refuses to be


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"p_value": float("nan")}, r"p_value must be a finite number in \[0, 1\], got nan"),
        ({"p_value": 1.5}, r"got 1\.5"),
        ({"target": -1}, "target must be an integer from 0"),
        ({"target": True}, "got True"),
        ({"sources": (2,)}, "sources must be distinct classes other than it"),
        ({"sources": (1, 1)}, "sources must be distinct"),
        ({"seen_in": ("hearsay",)}, "seen_in must be one of images, model, inside; got 'hearsay'"),
        ({"pattern": np.full(SHAPE, np.nan)}, "pattern must be finite and within"),
        ({"pattern": np.full(SHAPE, 60.0)}, "pattern must be finite and within"),
        ({"pattern": np.zeros((4, 5))}, r"float32 with 3 axes, got float64 of shape \(4, 5\)"),
        ({"pattern": np.zeros(SHAPE, np.uint8)}, "got uint8"),
        ({"indices": np.array([4, 2, 9])}, "strictly ascending"),
        ({"indices": np.array([2, 2, 9])}, "strictly ascending"),
        ({"indices": np.array([-1, 2, 9])}, ">= 0"),
        ({"indices": np.array([1.0, 2.0, 3.0])}, "int64 with 1 axes, got float64"),
        ({"log_odds": np.zeros(2, np.float32)}, "one per index: 2 for 3"),
        ({"log_odds": np.array([0, np.inf, 0])}, "log_odds must be finite"),
        ({"success_rate": 2}, "success_rate"),
        ({"pattern_norm": -0.1}, "pattern_norm"),
        ({"pattern": None}, "pattern and pattern_norm must both be given, or both be None"),
        ({"pattern_norm": None}, "pattern and pattern_norm must both be given, or both be None"),
        ({"kind": "doubt"}, "kind must be one of poison, property; got 'doubt'"),
        ({"kind": None}, "kind must be one of"),
        ({"window": (0, 0, 2)}, r"window must be \(top, left, height, width\), got \(0, 0, 2\)"),
        ({"window": "0022"}, "window must be a list"),
        ({"window": (0, 0, 0, 2)}, "window must be an integer from 1"),
        ({"window": (-1, 0, 2, 2)}, "window must be an integer from 0"),
        ({"window": (0, 0, 2.0, 2)}, r"window must be an integer from 1 .* got 2\.0"),
    ],
)
def test_findings_that_cannot_be(changes, match):
    with refused(match):
        make_finding(**changes)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"verb": "guess"}, "verb must be one of screen, detect"),
        ({"poisoned": False}, "poisoned is False but there are 1 findings of poison"),
        ({"findings": ()}, "poisoned is True but there are 0 findings"),
        ({"findings": ("x",)}, "findings must hold Finding, got str"),
        ({"cost": {}}, "cost must be Cost, got dict"),
        ({"seed": 1.0}, r"seed must be an integer from 0 .* got 1\.0"),
        ({"versions": {"bre": 1}}, "must be text, got 1"),
        ({"classes": (ClassRow(4, "dog", 5, True),)}, r"distinct labels below 4, got \[4\]"),
        ({"classes": (ClassRow(1, "a", 5, True),) * 2}, "distinct labels"),
        ({"findings": [make_finding(target=4)]}, "target 4 and sources .1, 3. of 4 classes"),
        ({"findings": [make_finding(sources=[9])]}, r"sources \(9,\) of 4 classes"),
        ({"findings": [make_finding(pattern=np.zeros((1, 4, 5)))]}, r"shape \(1, 4, 5\), the images have"),
        ({"findings": [make_finding(indices=[1, 2, 20])]}, "flags image 20, the dataset has 20 images"),
        ({"dataset": {}}, "dataset must be DatasetFacts, got dict"),
        ({"classes": [ClassRow(2, "bird", 2, True)]}, "a finding flags 3 images of class 2, of 2"),
        ({"findings": [make_finding(window=(0, 0, 5, 5))]}, r"window \(0, 0, 5, 5\) lies outside of images of shape"),
        ({"findings": [make_finding(window=(2, 3, 2, 3))]}, "lies outside"),
        ({"findings": [make_property()]}, "poisoned is True but there are 0 findings of poison"),
        (
            {"poisoned": False, "findings": [make_property(), make_finding()]},
            "False but there are 1 findings of poison",
        ),
    ],
)
def test_reports_that_cannot_be(changes, match):
    with refused(match):
        make_report(**changes)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"count": 0}, "count"),
        ({"image_shape": (4, 5)}, r"\(C, H, W\), got \(4, 5\)"),
        ({"class_names": ()}, "at least one class"),
        ({"fingerprint": "zz"}, "64 hexadecimal digits, got 'zz'"),
        ({"source": 3}, "dataset.source must be text"),
        ({"class_names": ("a", 1)}, "dataset.class_names must be text"),
    ],
)
def test_datasets_that_cannot_be(changes, match):
    with refused(match):
        make_facts(**changes)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"edges": [0.0]}, "2 to 1001 ascending"),
        ({"edges": [0.0, 0.0, 1.0]}, "ascending"),
        ({"edges": [0.0, 1.0, np.inf]}, "finite"),
        ({"edges": [-1e308, 0.0, 1e308]}, "finite"),
        ({"edges": [0.0, 5e-324, 1e-323]}, "finite"),
        ({"target_counts": [1]}, "target_counts must be 2 counts"),
        ({"target_counts": [1, [2]]}, "int64 with 1 axes, got"),
        ({"other_counts": [1, -1]}, "other_counts must be 2 counts >= 0"),
        ({"other_counts": [1.0, 2.0]}, "int64 with 1 axes, got float64"),
        ({"cut": None}, "cut"),
    ],
)
def test_histograms_that_cannot_be(changes, match):
    with refused(match):
        make_histogram(**changes)


def test_a_finding_takes_no_other_histogram():
    with refused("histogram must be Histogram, got dict"):
        make_finding(histogram={})


def test_a_histogram_of_scores_loses_none_and_has_an_edge_on_the_cut():
    rng = np.random.default_rng(0)
    for target, others, cut in (
        (rng.normal(3, 40, 200), rng.normal(-20, 1, 1000), 0.0),
        (rng.normal(3, 1, 5).astype(np.float32), np.empty(0), -7.5),
        (np.full(4, 2.0), np.full(3, 2.0), 2.0),
        (np.array([1e30, -1e30]), np.array([0.0]), 1.0),
    ):
        made = Histogram.of(target, others, cut)
        assert len(made.target_counts) == len(made.other_counts) == BINS
        assert (made.target_counts.sum(), made.other_counts.sum()) == (len(target), len(others))
        assert cut in made.edges
        assert made.target_counts[made.edges[:-1] >= cut].sum() == (target >= cut).sum()


@pytest.mark.parametrize(
    ("tests", "match"),
    [
        ("x", "tests must be a list"),
        (({"name": "cross_class"},), "tests must hold StatisticTest, got dict"),
        ((StatisticTest("alignment", 0.01),) * 2, "tests must have distinct names"),
        (
            (StatisticTest("alignment", 0.04), StatisticTest("cross_class", 0.02)),
            "add up to 0.06, more than alpha 0.05",
        ),
    ],
)
def test_tests_that_a_report_cannot_hold(tests, match):
    with refused(match):
        make_report(tests=tests)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        (
            {"name": "p_value"},
            "name must be one of image_statistic, model_statistic, alignment, separation, mark, cross_class",
        ),
        ({"level": 1.5}, "level must be a finite number in .0, 1."),
        ({"level": None}, "level must be"),
        ({"threshold": 0.0}, "threshold must be"),
        ({"threshold": 1e300}, "threshold must be"),
        ({"threshold": float("nan")}, "threshold must be"),
        ({"threshold": "2"}, "threshold must be"),
    ],
)
def test_tests_that_cannot_be(changes, match):
    with refused(match):
        StatisticTest(**{"name": "image_statistic", "level": 0.05, "threshold": 3.0, **changes})


def test_costs_that_cannot_be():
    with refused("forward_images"):
        Cost(-1, 0, {})
    with refused("seconds"):
        Cost(0, 0, {"a": float("inf")})
