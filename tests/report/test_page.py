"""The report as a page and as a figure: what it shows, that no name gets through as markup, and in a real browser."""

from __future__ import annotations

import base64
import builtins
import dataclasses
import html.parser
import http.server
import io
import re
import shutil
import subprocess
import threading
from collections import Counter

import numpy as np
import pytest
from PIL import Image
from reports import NAMES, SHAPE, make_clean, make_finding, make_histogram, make_report

from bre.errors import InputError
from bre.inputs import open_dataset
from bre.report import ClassRow, Histogram, Report, StatisticTest, dataset_facts
from bre.report.page import charts, pictures

EVIL = "http://evil.test/x"
NASTY = (
    f"<script>console.error(1)</script><img src={EVIL} onerror=alert(1)>",
    f'"><link rel=stylesheet href={EVIL}><style>*{{background:url({EVIL})}}</style>',
    "' onmouseover='alert(1) {{ 7 * 7 }} {% raw %}",
    "\x1b]0;x\x07\u202e\udcff</style></title></iframe>",
)


class Elements(html.parser.HTMLParser):
    """Every element of a document with its attributes, and its text."""

    def __init__(self, page):
        super().__init__()
        self.found, self.words = [], []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())

    def all(self, tag):
        return [attrs for name, attrs in self.found if name == tag]


def pixels(url):
    """(H, W, C) of a data: URL."""
    kind, _, data = url.partition(",")
    assert kind == "data:image/png;base64"
    image = Image.open(io.BytesIO(base64.b64decode(data)))
    return np.asarray(image).reshape(*image.size[::-1], -1)


@pytest.fixture
def data():
    """Twenty images, 2, 4 and 9 of them in class 2, as `make_finding` flags them."""
    labels = np.arange(20) % 4
    labels[[2, 4, 9]] = 2
    return np.random.default_rng(1).integers(0, 256, (20, *SHAPE), dtype=np.uint8), labels


def about(data, **changes):
    rows = [ClassRow(k, name, 5, True, 1.5 + 20 * (k == 2), 0.4 + k, 0.8) for k, name in enumerate(NAMES)]
    findings = changes.pop("findings", (make_finding(histogram=make_histogram()),))
    facts = {**dataset_facts(open_dataset(data), findings), "class_names": NAMES}
    tests = (StatisticTest("image_statistic", 0.025, 9.0), StatisticTest("model_statistic", 0.025, 6.0))
    return make_report(**{"dataset": facts, "classes": rows, "findings": findings, "tests": tests, **changes})


# ---- what it shows


def test_a_finding_with_its_images(data):
    report = about(data)
    page = Elements(report.page(data))
    for part in (
        "A pattern is planted in class 2 'bird': 3 of 20 images carry it. p = 3e-05, alpha = 0.05",
        "What it does not mean",
        "taken from 1 'car', 3 'cat'",
        "98.5% of held-out source images go to 2 'bird'",
        "5 images of class 2 'bird'",
        "15 images of other classes",
        "3 of 3, from the highest score to the lowest",
        "In the images",
        "In the model",
        "The line:",
        "bre 0.1.0",
        "20 images forward, 10 backward",
        report.dataset["fingerprint"],
    ):
        assert part in page.text
    scores = re.findall(r"image (\d+) score (\S+)", page.text)
    assert scores == [("9", "3.5"), ("4", "2.5"), ("2", "1.5")]
    assert len(page.all("img")) == 1 + 3 * 3


def test_a_page_without_images_or_findings():
    report = make_report()
    assert len(Elements(report.page()).all("img")) == 1
    clean = Elements(make_clean().page())
    assert clean.text.startswith("Nothing found: set.npz")
    assert "no proof that the set is clean" in clean.text
    assert not clean.all("img")
    bare = make_clean(classes=(), versions={})
    assert "The classes against each other" not in bare.page()
    nothing = make_finding(pattern=np.zeros(SHAPE), indices=np.empty(0, int), log_odds=np.empty(0), sources=())
    page = Elements(make_report(findings=(nothing,)).page())
    assert "No single image could be told apart" in page.text
    assert "taken from not known" in page.text
    assert not page.all("img")


def test_classes_that_were_not_tested_are_named():
    rows = [ClassRow(0, "plane", 1, False, note="too few images"), ClassRow(1, "car", 3, False)]
    page = Elements(make_clean(classes=rows).page())
    assert "0 'plane' too few images" in page.text
    assert "1 'car' 3 images" in page.text


def test_the_page_is_of_this_dataset_only(data):
    images, labels = data
    with pytest.raises(InputError, match="the report is about another dataset: 20 images of 3x4x5"):
        about(data).page((images, (labels + 1) % 4))
    moved = about(data, findings=(make_finding(indices=[2, 4, 8]),))
    with pytest.raises(InputError, match="flags image 8 as planted in class 2, but its label is 0"):
        moved.page(data)


def test_save_writes_the_page_and_shows_images_if_it_may(data, tmp_path):
    about(data).save(tmp_path / "with", data)
    about(data).save(tmp_path / "without")
    pages = [Elements((tmp_path / name / "report.html").read_text("utf-8")) for name in ("with", "without")]
    assert [len(page.all("img")) for page in pages] == [10, 1]
    with pytest.raises(InputError, match="another dataset"):
        make_report().save(tmp_path / "wrong", data)
    assert not (tmp_path / "wrong").exists()


def test_notebooks_get_the_page_in_a_frame():
    report = about((np.zeros((20, *SHAPE), np.uint8), np.arange(20) % 4))
    page = Elements(report._repr_html_())
    assert [tag for tag, _ in page.found] == ["iframe"]
    assert page.all("iframe")[0]["srcdoc"] == report.page()
    assert page.all("iframe")[0]["sandbox"] is None  # the strictest


# ---- pictures


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_pictures_of_a_pattern(channels):
    pattern = np.zeros((channels, 2, 3), np.float32)
    pattern[0, 0, 0], pattern[-1, 1, 2] = 0.02, -0.01
    drawn = pictures.pattern(pattern)
    assert drawn.peak == pytest.approx(5.1)
    assert drawn.channels == {2: "first 1 of 2", 5: "first 3 of 5"}.get(channels, "")
    picture = pixels(drawn.url)
    assert picture.shape == (2, 3, 3 if channels >= 3 else 1)
    assert picture[0, 0, 0] == 255
    assert picture[0, 1, 0] == 128
    if channels in (1, 3):
        assert picture[1, 2, -1] == 64


def test_the_gallery_is_even_over_the_scores_and_undoes_the_pattern():
    count = 200
    rng = np.random.default_rng(0)
    images = rng.integers(60, 190, (2 * count, *SHAPE), dtype=np.uint8)
    pattern = np.zeros(SHAPE, np.float32)
    pattern[:, ::2] = 4 / 255
    dataset = open_dataset((images, np.repeat([2, 0], count)))
    scores = rng.normal(size=count).astype(np.float32)
    finding = make_finding(pattern=pattern, indices=np.arange(count), log_odds=scores)
    gallery = pictures.gallery(finding, dataset)
    shown = [card.score for card in gallery.cards]
    assert (len(shown), gallery.of, gallery.gain) == (pictures.GALLERY, count, pytest.approx(24))
    assert shown == sorted(shown, reverse=True)
    assert (shown[0], shown[-1]) == (scores.max(), scores.min())
    for card in gallery.cards:
        index = int(card.name.split()[1])
        given, more, less = (
            pixels(url).transpose(2, 0, 1).astype(int) for url in (card.as_given, card.amplified, card.without)
        )
        assert scores[index] == card.score
        assert np.array_equal(given, images[index])
        assert set((more - given)[:, ::2].ravel()) == {23 * 4} if given.max() < 164 else (more >= given).all()
        assert (given - less)[:, ::2].min() == (given - less)[:, ::2].max() == 4
        assert (given == less)[:, 1::2].all()


def test_large_images_make_small_pictures():
    assert pixels(pictures.pattern(np.full((3, 40, 1000), 0.1, np.float32)).url).shape == (10, 256, 3)


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
        assert all(0 <= bar.place <= 1 for bar in chart.bars)


def test_charts_hold_the_largest_and_the_found():
    names = tuple(f"class {k}" for k in range(100))
    rows = [ClassRow(k, name, 50, True, 1 + 0.01 * k) for k, name in enumerate(names)]
    dataset = {**make_report().dataset, "class_names": names}
    tests = (StatisticTest("image_statistic", 0.05, 2.5),)
    (chart,) = charts.charts(make_report(dataset=dataset, classes=rows, tests=tests))
    assert [bar.value for bar in chart.bars] == sorted((bar.value for bar in chart.bars), reverse=True)
    assert (len(chart.bars), chart.hidden) == (charts.MOST_ROWS + 1, 100 - charts.MOST_ROWS - 1)
    assert [bar.name for bar in chart.bars if bar.found] == ["2 'class 2'"]
    assert all(0 < bar.place < 1 for bar in chart.bars)
    assert 0 < chart.threshold[1] < 1
    assert "75 more classes lie below" in make_report(dataset=dataset, classes=rows).page()


def test_statistics_that_cannot_be_drawn_are_left_out():
    rows = [ClassRow(k, name, 5, True, 2.0 if k < 3 else None, k - 1.0) for k, name in enumerate(NAMES)]
    (chart,) = charts.charts(make_clean(classes=rows))
    assert (chart.view, len(chart.bars)) == ("image_statistic", 3)
    make_clean(classes=rows).page()


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-214, 1034), (-3e-7, 2e-7), (5e9, 8e9), (-1e30, 1e30)])
def test_ticks_are_few_and_inside(low, high):
    found = charts.ticks(low, high)
    assert 2 <= len(found) <= charts.MOST_TICKS
    assert low <= min(found) < max(found) <= high


@pytest.mark.parametrize(("low", "high"), [(1.3, 9), (0.5, 2000), (7, 11), (1e-30, 1e30)])
def test_log_ticks_are_few_and_inside(low, high):
    found = charts.log_ticks(low, high)
    assert 2 <= len(found) <= charts.MOST_TICKS
    assert low <= min(found) < max(found) <= high


def test_histogram_heights():
    chart = charts.histogram(Histogram([-2.0, -1.0, 0.0, 2.0], [0, 1, 7], [99, 0, 0], 0.0))
    assert chart.target_heights == pytest.approx((0, np.log(2) / np.log(100), np.log(8) / np.log(100)))
    assert chart.other_heights == (1, 0, 0)
    assert chart.flagged == (False, False, True)
    assert (chart.cut, chart.most, chart.counts) == (0.5, 99, (8, 99))


# ---- nothing from outside gets through


def nasty(data):
    report = about(data)
    finding = make_finding(histogram=make_histogram())
    return dataclasses.replace(
        report,
        dataset={**report.dataset, "class_names": NASTY, "source": NASTY[0]},
        classes=tuple(ClassRow(k, name, 5, True, 1 + k, None, 0.5, note=name) for k, name in enumerate(NASTY)),
        versions={NASTY[1]: NASTY[2]},
        backend=NASTY[3],
        cost=dataclasses.replace(report.cost, seconds={NASTY[1]: 1.0}),
        findings=(finding,),
    )


@pytest.fixture
def nasty_page(data, monkeypatch):
    dataset = open_dataset(data)
    monkeypatch.setattr(dataset, "describe", lambda index: NASTY[index % 2])
    return nasty(data).page(dataset)


def test_names_from_outside_stay_text(data, nasty_page):
    nice, page = Elements(about(data).page(data)), Elements(nasty_page)
    ours = {"html", "head", "meta", "title", "link", "style", "body", "img"} | {tag for tag, _ in nice.found}
    assert {tag for tag, _ in page.found} <= ours | {"tr", "th", "td", "dt", "dd"}
    assert not page.all("script")
    assert len(page.all("link")) == len(page.all("style")) == 1
    for tag, attrs in page.found:
        assert not [name for name in attrs if name.startswith("on")], (tag, attrs)
        for name in ("src", "href", "srcset", "action"):
            assert attrs.get(name, "data:").startswith("data:")
    assert not set("\x1b\x07\u202e\udcff") & set(nasty_page)
    assert "{{ 7 * 7 }}" in nasty_page.replace("&#39;", "'")
    nasty_page.encode("utf-8")


def test_one_element_per_image_even_so(data, nasty_page):
    counts = [Counter(tag for tag, _ in Elements(page).found) for page in (about(data).page(data), nasty_page)]
    assert counts[0]["img"] == counts[1]["img"]


# ---- in a browser

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on PATH")
FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--enable-logging=stderr"),
    *("--virtual-time-budget=2000", "--dump-dom"),
]
BROWSERS_OWN = re.compile(r"(http://)?([\w-]+\.)*(google|googleapis|gvt1)\.com\b")


def visit(page, profile):
    """(URLs asked for, console lines, the DOM) of a page in Chromium, which reaches nothing but this function."""
    asked = []

    class Proxy(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            known = self.path == "http://report.test/"
            self.send_response(200 if known else 404)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(page.encode() if known else b"")

        def do_CONNECT(self):
            asked.append(self.path)
            self.send_error(502)

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Proxy) as server:
        threading.Thread(target=server.serve_forever).start()
        try:
            proxy = [f"--proxy-server=127.0.0.1:{server.server_port}", "--proxy-bypass-list=<-loopback>"]
            command = [CHROMIUM, *FLAGS, *proxy, f"--user-data-dir={profile}", "http://report.test/"]
            done = subprocess.run(command, capture_output=True, timeout=120)
        finally:
            server.shutdown()
    console = [line for line in done.stderr.decode(errors="replace").splitlines() if "CONSOLE" in line]
    return [url for url in asked if not BROWSERS_OWN.match(url)], console, done.stdout.decode()


@needs_chromium
def test_a_browser_asks_for_nothing_and_complains_of_nothing(data, nasty_page, tmp_path):
    for number, page in enumerate((about(data).page(data), nasty_page)):
        asked, console, dom = visit(page, tmp_path / str(number))
        assert asked == ["http://report.test/"]
        assert console == []
        assert Counter(tag for tag, _ in Elements(dom).found)["img"] == 10


@needs_chromium
def test_the_test_above_would_notice(data, tmp_path):
    bad = f"<img src={EVIL}><script>console.error('seen')</script>"
    asked, console, _ = visit(bad, tmp_path / "1")
    assert EVIL in asked
    assert any("seen" in line for line in console)
    asked, console, _ = visit(about(data).page(data).replace("</main>", bad), tmp_path / "2")  # even then: the policy
    assert asked == ["http://report.test/"]
    assert any("Content Security Policy" in line for line in console)


# ---- as a figure


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_plot(channels, tmp_path):
    pytest.importorskip("matplotlib")
    shape = (channels, 4, 5)
    pattern = np.full(shape, 0.01, np.float32)
    findings = (
        make_finding(pattern=pattern, histogram=make_histogram()),
        make_finding(pattern=0 * pattern, target=0, indices=np.empty(0, int), log_odds=np.empty(0)),
    )
    dataset = {**make_report().dataset, "image_shape": shape, "class_names": ("a$b$", *NAMES[1:])}
    figure = make_report(findings=findings, dataset=dataset).plot()
    titles = [axes.get_title() for axes in figure.axes]
    assert titles[:2] == ["In the images", "In the model"]
    assert titles[3:] == ["scores", "pattern, black to white: ±1.0 of 255 grey levels", "scores of the flagged images"]
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


def test_a_report_from_a_stranger_makes_a_page(tmp_path):
    for number, report in enumerate((make_report(), make_clean())):
        again = Report.load(report.save(tmp_path / str(number)))
        assert again.page() == report.page()
