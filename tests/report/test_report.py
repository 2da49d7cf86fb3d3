"""Reports: what they hold and what they print."""

import dataclasses
import json
import pickle

import numpy as np
import pytest
from reports import NAMES, SHAPE, make_clean, make_facts, make_finding, make_property, make_report

from bre.errors import InputError
from bre.report import (
    ClassRow,
    Cost,
    Report,
    dataset_facts,
    flagged_images,
)
from bre.verbs.versions import packages, versions


def refused(match):
    return pytest.raises(InputError, match=match)


# ---- what it is


def test_frozen_and_its_arrays_are_read_only_copies():
    given = np.array([2, 4, 9])
    finding = make_finding(indices=given)
    given[0] = 0
    assert finding.indices.tolist() == [2, 4, 9]
    for array in (finding.indices, finding.log_odds, finding.pattern, make_report().indices):
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0
    with pytest.raises(dataclasses.FrozenInstanceError):
        make_report().poisoned = False


def test_arrays_take_their_declared_dtypes_and_numbers_become_plain():
    finding = make_finding(
        target=np.int64(2),
        p_value=np.float64(0.01),
        indices=np.array([1, 2, 3], np.uint16),
        log_odds=np.zeros(3, np.float64),
        pattern=np.zeros(SHAPE, np.float64),
    )
    assert (finding.indices.dtype, finding.log_odds.dtype) == (np.int64, np.float32)
    assert finding.pattern.dtype == np.float32
    assert type(finding.target) is int
    assert type(finding.p_value) is float
    assert type(make_report(poisoned=np.bool_(True)).poisoned) is bool


def test_indices_are_the_union_in_dataset_order():
    other = make_finding(target=0, indices=np.array([3, 4, 7]))
    report = make_report(findings=(make_finding(), other))
    assert report.indices.tolist() == [2, 3, 4, 7, 9]
    assert make_clean().indices.tolist() == []
    assert make_clean().indices.dtype == np.int64


def test_properties_neither_poison_a_report_nor_count_among_its_indices():
    both = make_report(findings=(make_finding(), make_property(target=0, indices=[1, 5, 6])))
    assert both.indices.tolist() == [2, 4, 9]
    assert flagged_images(both.findings).tolist() == [1, 2, 4, 5, 6, 9]
    only = make_clean(findings=(make_property(),))
    assert not only.poisoned
    assert only.indices.tolist() == []
    assert [finding.is_poison for finding in both.findings] == [True, False]


def test_survives_pickling():
    report = make_report()
    assert pickle.loads(pickle.dumps(report)).to_dict() == report.to_dict()


def test_facts_and_versions_fit_a_report():
    from bre.inputs import open_dataset

    images = np.zeros((6, 4, 5, 3), np.uint8)
    dataset = open_dataset((images, np.arange(6) % 2))
    facts = dataset_facts(dataset, [])
    report = make_clean(dataset=facts, versions=versions(), classes=())
    assert report.dataset == facts
    assert facts.fingerprint == dataset.fingerprint(np.empty(0, np.int64))
    assert packages().keys() == {"bre", "python", "torch", "numpy", "scipy"}
    assert report.versions.keys() == packages().keys() | {"instruction set", "blas"}
    assert all(report.versions.values())


# ---- what it prints


def test_notes_are_kept_and_shown(tmp_path):
    report = make_report(notes=["memory was short", "<b>\x1b"])
    assert report.notes == ("memory was short", "<b>\x1b")
    assert Report.load(report.save(tmp_path / "report")).to_dict() == report.to_dict()
    assert "Notes:\n  memory was short\n  <b>\ufffd\n" in report.summary()
    assert "<dt>notes</dt><dd>memory was short; &lt;b&gt;\ufffd</dd>" in report.page()
    assert "otes" not in make_report().summary() + make_report().page()
    for bad in ("one", [1], None):
        with refused("notes must be"):
            make_report(notes=bad)


def test_reprs():
    assert repr(make_report()) == ("Report(detect: poisoned, p=3e-05, target 2 'bird', 3 of 20 images flagged, 12.3 s)")
    assert repr(make_clean()) == "Report(screen: nothing found, p=0.41, 20 images, 12.3 s)"
    known = make_clean(findings=(make_property(),))
    assert repr(known) == "Report(screen: no poison, p=0.41, property of 2 'bird', 20 images, 12.3 s)"
    assert repr(make_property()).startswith("Finding(property, target 2, sources [], p=3e-05, 3 images")
    two = make_report(findings=(make_finding(), make_finding(target=0, indices=[11, 12, 13])))
    assert "targets 2 'bird', 0 'plane', 6 of 20" in repr(two)
    assert repr(make_finding()) == ("Finding(target 2, sources [1, 3], p=3e-05, 3 images, seen in images, model)")


def test_summary_of_a_finding():
    text = make_report().summary()
    assert text.startswith("POISONED (p = 3e-05, alpha = 0.05)\nset.npz: 20 images of 3x4x5, 4 classes")
    for part in (
        "Finding 1: a pattern is planted in class 2 'bird' (p = 3e-05)",
        "flagged        3 of 5 images of class 2 'bird', 60%",
        "source classes 1 'car', 3 'cat'",
        "98.5% of held-out source images are predicted as 2 'bird'",
        "(a trigger, in the literature)",
        "L2 norm 0.3",
        "of 255 grey levels",
        "bre cleanse",
        "Took 12.3 s (images 5.2 s, model 7.1 s); 20 images forward, 10 backward",
    ):
        assert part in text
    assert max(map(len, text.splitlines())) <= 100


def test_summary_of_three_views_and_many_images():
    cost = Cost(12345, 6789, {f"stage {k}": 1.0 for k in range(12)})
    text = make_report(findings=(make_finding(seen_in=("images", "model", "inside")),), cost=cost).summary()
    assert "seen in        the images, the model and the model's activations" in text
    assert "12 345 images forward, 6 789 backward" in " ".join(text.split())
    assert max(map(len, text.splitlines())) <= 100


def test_summary_of_less():
    text = make_clean().summary()
    assert text.startswith("NOTHING FOUND (p = 0.41")
    assert max(map(len, text.splitlines())) <= 100
    text = " ".join(text.split())
    assert "no proof that the set is clean" in text
    assert "forward" not in text
    unsure = make_finding(sources=(), success_rate=None, indices=np.empty(0, int), log_odds=np.empty(0))
    text = make_report(findings=(unsure,), classes=()).summary()
    assert "source classes not known" in text
    assert "success" not in text
    assert "No image could be flagged" in text


def test_summary_of_properties():
    only = make_clean(findings=(make_property(),)).summary()
    text = " ".join(only.split())
    assert only.startswith("NO POISON FOUND, 1 CLASS PROPERTY (p = 0.41, alpha = 0.05)")
    for part in (
        "Finding 1: a property of class 2 'bird' (p = 3e-05)",
        "3 of 5 images of class 2 'bird', 60%",
        "place 2 x 3 pixels from row 0, column 1 on",
        "A network may learn it as a shortcut",
        "no proof that the set is clean",
        "bre cleanse leaves these images alone",
    ):
        assert part in text
    assert "source classes" not in text
    assert "planted" not in text
    both = make_report(findings=(make_finding(), make_property(target=0), make_property(target=1))).summary()
    assert both.startswith("POISONED")
    assert "Finding 3: a property of class 1 'car'" in both
    assert "A property of a class is not poison: bre cleanse leaves its images alone." in " ".join(both.split())
    assert max(map(len, (only + both).splitlines())) <= 100


def test_the_share_of_the_class_is_always_told():
    for flagged, size, share in (
        (1000, 1000, "1 000 of 1 000 images of class 2 'bird', 100%: the whole class"),
        (4999, 5000, "4 999 of 5 000 images of class 2 'bird', 99.9%: nearly all of the class"),
        (1, 5000, "1 of 5 000 images of class 2 'bird', 0.1%"),
        (123, 1000, "123 of 1 000 images of class 2 'bird', 12.3%"),
    ):
        rows = [ClassRow(2, "bird", size, True)]
        finding = make_finding(indices=np.arange(flagged), log_odds=np.zeros(flagged))
        report = make_report(classes=rows, findings=(finding,), dataset=make_facts(count=9000))
        assert share in report.summary()
        nearly_all = flagged > 0.9 * size
        assert ("or a property of the class, in class 2" in report.summary()) is nearly_all
        assert ("this may be a property of the class" in " ".join(report.summary().split())) is nearly_all
    assert "flagged        3 images of class 2 'bird'\n" in make_report(classes=()).summary()


def test_summary_names_classes_that_were_not_tested():
    rows = [ClassRow(0, "plane", 1, False, note="too few images"), ClassRow(1, "car", 3, False)]
    text = make_clean(classes=rows).summary()
    assert "0 'plane': too few images" in text
    assert "1 'car': 3 images" in text


def test_names_from_outside_cannot_drive_a_terminal():
    names = ("\x1b[31mred", "a\nb", "\udcff", "x" * 5000)
    dataset = make_facts(class_names=names, source="\x1b]0;title\x07")
    report = make_report(dataset=dataset, findings=(make_finding(sources=(0, 1, 3)),))
    for text in (report.summary(), repr(report)):
        assert all(line.isprintable() for line in text.split("\n"))
        assert len(text) < 3000


def test_to_dict_is_json_and_holds_everything():
    report = make_report()
    out = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert out == report.to_dict()
    assert out["schema"] == 4
    assert {f.name for f in dataclasses.fields(Report)} < out.keys()
    assert np.array_equal(np.array(out["findings"][0]["pattern"], np.float32), report.findings[0].pattern)
    assert out["findings"][0]["indices"] == [2, 4, 9]
    small = report.to_dict(arrays=False)
    assert small["findings"][0]["flagged"] == 3
    assert "pattern" not in small["findings"][0]


def test_the_facts_of_a_set_are_read_by_name_as_in_the_json():
    report = make_report()
    assert report.dataset["count"] == report.dataset.count
    assert tuple(report.dataset["class_names"]) == NAMES
    with pytest.raises(KeyError, match="colour"):
        report.dataset["colour"]
