"""The charts of a page and the figure: what they show, in numbers."""

from __future__ import annotations

import builtins

import numpy as np
import pytest
from PIL import Image
from report_pages import Elements
from reports import NAMES, make_clean, make_facts, make_finding, make_histogram, make_property, make_report

from bre.errors import InputError
from bre.report import ClassRow, Histogram, StatisticTest
from bre.report.page import charts

# ---- charts


def test_the_line_of_a_chart_is_the_threshold_that_the_report_holds():
    tests = (StatisticTest("image_statistic", 0.025, 7.5), StatisticTest("model_statistic", 0.025))
    images, model = charts.charts(make_report(tests=tests))
    assert images.threshold[0] == 7.5
    assert 0 < images.threshold[1] < 1
    assert model.threshold is None
    assert "The line: 7.5" in Elements(make_report(tests=tests).page()).text
    assert "The line" not in make_report().page()


@pytest.mark.parametrize("values", [(5e-324, 1.0, 1e308), (1e-99, 1.0, 1e99), (1.0, 1.0, 1.0), (2.0, 2.0, 1e99)])
def test_absurd_statistics_are_drawn_or_left_out(values):
    rows = [
        ClassRow(k, name, 5, True, value) for k, (name, value) in enumerate(zip(NAMES, (*values, 1.5), strict=True))
    ]
    make_report(classes=rows).page()
    for chart in charts.charts(make_report(classes=rows)):
        assert all(0 <= bar.position <= 1 for bar in chart.bars)


def test_charts_hold_the_largest_and_the_found():
    names = tuple(f"class {k}" for k in range(100))
    rows = [ClassRow(k, name, 50, True, 1 + 0.01 * k) for k, name in enumerate(names)]
    dataset = make_facts(class_names=names)
    tests = (StatisticTest("image_statistic", 0.05, 2.5),)
    (chart,) = charts.charts(make_report(dataset=dataset, classes=rows, tests=tests))
    assert [bar.value for bar in chart.bars] == sorted((bar.value for bar in chart.bars), reverse=True)
    assert (len(chart.bars), chart.hidden) == (charts.TOP_ROWS + 1, 100 - charts.TOP_ROWS - 1)
    assert [bar.name for bar in chart.bars if bar.kind == "poison"] == ["2 'class 2'"]
    assert all(0 < bar.position < 1 for bar in chart.bars)
    assert 0 < chart.threshold[1] < 1
    assert len(chart.rest) == charts.REST_BINS
    assert max(chart.rest) == 1
    page = Elements(make_report(dataset=dataset, classes=rows).page())
    assert "87 other classes" in page.text
    assert "the histogram counts the others" in page.text


def test_statistics_that_cannot_be_drawn_are_left_out():
    rows = [ClassRow(k, name, 5, True, 2.0 if k < 3 else None, k - 1.0) for k, name in enumerate(NAMES)]
    (chart,) = charts.charts(make_clean(classes=rows))
    assert (chart.statistic, len(chart.bars)) == ("image_statistic", 3)
    make_clean(classes=rows).page()


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-214, 1034), (-3e-7, 2e-7), (5e9, 8e9), (-1e30, 1e30)])
def test_ticks_are_few_and_inside(low, high):
    found = charts.ticks(low, high)
    assert 2 <= len(found) <= charts.MAX_TICKS
    assert low <= min(found) < max(found) <= high


def test_ticks_are_as_many_as_fit():
    assert charts.ticks(-9.5, 16.0) == [-5, 0, 5, 10, 15]
    assert charts.ticks(0.0, 5.0) == [0, 1, 2, 3, 4, 5]
    assert charts.ticks(0.0, 6.0) == [0, 2, 4, 6]


@pytest.mark.parametrize(("low", "high"), [(1.3, 9), (0.5, 2000), (7, 11), (1e-30, 1e30)])
def test_log_ticks_are_few_and_inside(low, high):
    found = charts.log_ticks(low, high)
    assert 2 <= len(found) <= charts.MAX_TICKS
    assert low <= min(found) < max(found) <= high


def test_histogram_heights():
    chart = charts.histogram(Histogram([-2.0, -1.0, 0.0, 2.0], [0, 1, 7], [99, 0, 0], 0.0))
    assert chart.target_heights == pytest.approx((0, np.log(2) / np.log(100), np.log(8) / np.log(100)))
    assert chart.other_heights == (1, 0, 0)
    assert chart.flagged == (False, False, True)
    assert (chart.cut, chart.highest, chart.counts) == (0.5, 99, (8, 99))


# ---- as a figure


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_plot(channels, tmp_path):
    pytest.importorskip("matplotlib")
    shape = (channels, 4, 5)
    pattern = np.full(shape, 0.01, np.float32)
    findings = (
        make_finding(pattern=pattern, histogram=make_histogram()),
        make_finding(pattern=0 * pattern, target=0, indices=np.empty(0, int), log_odds=np.empty(0)),
        make_property(pattern=pattern, target=1),
        make_finding(pattern=None, pattern_norm=None, target=3, sources=()),
    )
    dataset = make_facts(image_shape=shape, class_names=("a$b$", *NAMES[1:]))
    figure = make_report(findings=findings, dataset=dataset).plot()
    titles = [axes.get_title() for axes in figure.axes]
    assert titles[:2] == ["In the images", "In the model"]
    assert titles[2::2] == [
        "pattern, black to white: ±2.5 of 255 grey levels",
        "pattern, black to white: ±1.0 of 255 grey levels",
        "pattern, black to white: ±2.5 of 255 grey levels",
        "no pattern in pixels",
    ]
    assert titles[3::2] == ["scores", *["log odds of the flagged images"] * 3]
    figure.savefig(tmp_path / "report.png")
    with Image.open(tmp_path / "report.png") as drawn:
        assert drawn.width == 900


def test_plot_of_little(tmp_path):
    pytest.importorskip("matplotlib")
    for report in (make_clean(classes=()), make_report(classes=()), make_clean()):
        report.plot().savefig(tmp_path / "report.png")


def test_plot_says_what_is_missing(monkeypatch):
    real = builtins.__import__

    def missing(name, *args, **kwargs):
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(InputError, match=r"pip install 'bre-engine\[plot\]'"):
        make_report().plot()
