"""The report as a page: what it shows of findings, properties, windows and images."""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import pytest
from report_pages import Elements, about, make_data, pixels
from reports import SHAPE, make_clean, make_facts, make_finding, make_property, make_report

from bre.errors import InputError
from bre.inputs import open_dataset
from bre.report import ClassRow, Report, StatisticTest
from bre.report.page import charts, pictures


@pytest.fixture
def data():
    return make_data()


# ---- what it shows


def test_a_finding_with_its_images(data):
    report = about(data)
    page = Elements(report.page(data))
    for part in (
        "A pattern is planted in class 2 'bird': 3 of 20 images are flagged. p = 3e-05, alpha = 0.05",
        "What it does not mean",
        "source classes 1 'car', 3 'cat'",
        "98.5% of held-out source images are predicted as 2 'bird' when the pattern is added",
        "5 images of class 2 'bird'",
        "15 images of other classes",
        "3 of 5 images of class 2 'bird', 60%",
        "3 of 3, by falling log odds. Each as given",
        "image_statistic 0.025, model_statistic 0.025",
        "In the images",
        "In the model",
        "The line:",
        "bre 0.1.0",
        "20 images forward, 10 backward",
        report.dataset.fingerprint,
    ):
        assert part in page.text
    scores = re.findall(r"image (\d+) log odds (\S+)", page.text)
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
    assert "The classes compared" not in bare.page()
    nothing = make_finding(pattern=np.zeros(SHAPE), indices=np.empty(0, int), log_odds=np.empty(0), sources=())
    page = Elements(make_report(findings=(nothing,)).page())
    assert "No single image could be flagged" in page.text
    assert "source classes not known" in page.text
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
    with pytest.raises(InputError, match="flags image 8 in class 2, but its label is 0"):
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


# ---- properties, windows, patterns that are none in pixels


def test_a_property_is_no_poison_and_told_as_a_shortcut(data):
    page = Elements(about(data, findings=(make_property(),), poisoned=False).page(data))
    for part in (
        "No poison found, 1 class property",
        "No planted pattern was found. Images of class 2 'bird' share a property of the class.",
        "Finding 1: a property of class 2 'bird'",
        "A shortcut that a network may learn",
        "3 of 5 images of class 2 'bird', 60%",
        "Else nothing has to be removed; bre cleanse leaves these images alone.",
    ):
        assert part in page.text
    assert "source classes" not in page.text
    assert page.all("header")[0]["class"] == "known"
    assert [row["class"] for row in page.all("div") if row.get("class", "").startswith("row ")].count(
        "row property"
    ) == 2


def test_poison_beside_a_property(data):
    findings = (make_finding(), make_property(target=0, indices=[0, 8, 12]))
    page = Elements(about(data, findings=findings).page(data))
    assert page.text.startswith("Poisoned: set") or page.text.startswith("Poisoned: ")
    assert "3 of 20 images are flagged" in page.text
    assert "Finding 2: a property of class 0 'plane'" in page.text


@pytest.mark.parametrize("finding", [make_finding(), make_property()])
def test_a_window_is_shown_on_the_image(data, finding):
    changes = {"findings": (dataclasses.replace(finding, window=(1, 2, 2, 3)),), "poisoned": finding.is_poison}
    report = about(data, **changes)
    with_images, without = Elements(report.page(data)), Elements(report.page())
    assert "place 2 x 3 pixels from row 1, column 2 on" in with_images.text
    assert "on the image with the highest log odds" in with_images.text
    assert "on the image" not in without.text
    for page in (with_images, without):
        (place,) = (attrs for attrs in page.all("div") if attrs.get("class") == "place")
        assert place["style"] == "aspect-ratio:1.2500"
        assert "left:40.00%;top:25.00%;width:60.00%;height:50.00%" in [i.get("style") for i in page.all("i")]
    below = next(attrs["src"] for attrs in with_images.all("img") if attrs["alt"] == "A flagged image, whole")
    assert np.array_equal(pixels(below).transpose(2, 0, 1), data[0][9])


def test_a_local_pattern_and_its_images_are_cropped():
    images = np.random.default_rng(0).integers(0, 256, (8, 3, 64, 48), dtype=np.uint8)
    values = np.zeros((3, 64, 48), np.float32)
    values[:, 50:60, 2:12] = 0.02
    window = (50, 2, 10, 10)
    finding = make_finding(pattern=values, window=window, indices=[0, 2, 4])
    rows, columns = crop = pictures.crop_to(window, (64, 48))
    assert (rows, columns) == (slice(47, 63), slice(0, 15))
    drawn = pictures.pattern(values, window)
    assert drawn.cropped
    assert pixels(drawn.url).shape == (16, 15, 3)
    gallery = pictures.gallery(finding, open_dataset((images, np.array([2, 0] * 4))))
    assert gallery.cropped
    for card in gallery.cards:
        given = pixels(card.pictures[0][1]).transpose(2, 0, 1)
        assert np.array_equal(given, images[int(card.name.split()[1])][:, *crop])
    assert pictures.crop_to((0, 0, 40, 40), (64, 48)) == pictures.WHOLE
    assert pictures.crop_to(None, (64, 48)) == pictures.WHOLE
    assert pictures.crop_to((30, 20, 1, 1), (64, 48)) == (slice(22, 39), slice(12, 29))


def test_a_finding_without_a_pattern_shows_flagged_images_beside_others(data):
    finding = make_finding(pattern=None, pattern_norm=None, seen_in=("inside",))
    report = about(data, findings=(finding,))
    page = Elements(report.page(data))
    assert "pattern none in pixels: found inside the network only" in page.text
    assert "seen in the model's activations" in page.text
    assert "Images of the same class that are not flagged" in page.text
    others = set(np.flatnonzero(data[1] == 2).tolist()) - {2, 4, 9}
    assert {int(n) for n in re.findall(r"image (\d+)(?! log)", page.text)} - {2, 4, 9} == others
    assert len(page.all("img")) == 3 + len(others)
    assert len(Elements(report.page()).all("img")) == 0


def test_galleries_of_large_images_are_short():
    images = np.random.default_rng(0).integers(0, 256, (60, 3, 224, 224), dtype=np.uint8)
    finding = make_finding(pattern=np.full((3, 224, 224), 0.01), indices=np.arange(30), log_odds=np.zeros(30))
    gallery = pictures.gallery(finding, open_dataset((images, np.repeat([2, 0], 30))))
    assert pictures.MIN_GALLERY <= len(gallery.cards) < pictures.GALLERY


def test_a_page_of_a_thousand_classes():
    names = tuple(f"class {k}" for k in range(1000))
    rng = np.random.default_rng(0)
    rows = [
        ClassRow(k, name, 1281, True, float(value), p_value=float(p), note="" if k % 2 else "not searched")
        for k, (name, value, p) in enumerate(zip(names, rng.lognormal(0, 0.2, 1000), rng.random(1000), strict=True))
    ]
    dataset = make_facts(count=1_281_167, class_names=names)
    report = make_report(classes=rows, dataset=dataset, tests=(StatisticTest("image_statistic", 0.045, 12.0),))
    page = Elements(report.page())
    assert "1 281 167 of 3x4x5 in 1 000 classes" in page.text
    assert len(page.all("b")) == charts.TOP_ROWS + 1
    assert "987 other classes" in page.text
    assert "And 480 more." in page.text
    assert "The 200 classes with the smallest p of 1 000; report.json has all." in page.text
    assert len(page.all("tr")) == 1 + 200
    assert len(report.page()) < 200_000


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
    shown = [card.log_odds for card in gallery.cards]
    assert (len(shown), gallery.of, gallery.gain) == (pictures.GALLERY, count, pytest.approx(24))
    assert shown == sorted(shown, reverse=True)
    assert (shown[0], shown[-1]) == (scores.max(), scores.min())
    for card in gallery.cards:
        index = int(card.name.split()[1])
        given, more, less = (pixels(url).transpose(2, 0, 1).astype(int) for _, url in card.pictures)
        assert scores[index] == card.log_odds
        assert np.array_equal(given, images[index])
        assert set((more - given)[:, ::2].ravel()) == {23 * 4} if given.max() < 164 else (more >= given).all()
        assert (given - less)[:, ::2].min() == (given - less)[:, ::2].max() == 4
        assert (given == less)[:, 1::2].all()


def test_large_images_make_small_pictures():
    assert pixels(pictures.pattern(np.full((3, 40, 1000), 0.1, np.float32)).url).shape == (10, 256, 3)


def test_a_report_from_a_stranger_makes_a_page(tmp_path):
    for number, report in enumerate((make_report(), make_clean())):
        again = Report.load(report.save(tmp_path / str(number)))
        assert again.page() == report.page()
