"""A report as SARIF: levels, rules, and what is said of images."""

from __future__ import annotations

import json

import numpy as np
import pytest
from reports import NAMES, SHAPE, make_clean, make_facts, make_finding, make_property, make_report

from bre.inputs import open_dataset
from bre.report import StatisticTest
from bre.report.sarif import RULES, sarif


@pytest.fixture
def images():
    labels = np.arange(20) % 4
    labels[[2, 4, 9]] = 2
    return open_dataset((np.zeros((20, *SHAPE), np.uint8), labels))


def results(report, images):
    (run,) = json.loads(json.dumps(sarif(report, images), allow_nan=False))["runs"]
    rules = run["tool"]["driver"]["rules"]
    assert [rule["id"] for rule in rules] == list(RULES)
    for result in run["results"]:
        rule = rules[result["ruleIndex"]]
        assert (rule["id"], rule["defaultConfiguration"]["level"]) == (result["ruleId"], result["level"])
    return run["results"]


def test_poison_is_an_error_on_the_class_and_on_its_images(images):
    first, *others = results(make_report(), images)
    assert (first["ruleId"], first["level"]) == ("poisoned-class", "error")
    assert first["message"]["text"].startswith("A pattern is planted in class 2 'bird' (p = 3e-05): flagged 3 of 5")
    assert [(result["ruleId"], result["properties"]["index"]) for result in others] == [
        ("poisoned-image", index) for index in (2, 4, 9)
    ]
    assert others[0]["properties"]["logOdds"] == 1.5


def test_a_property_is_a_note_on_the_class_alone(images):
    (note,) = results(make_clean(findings=(make_property(),)), images)
    assert (note["ruleId"], note["level"]) == ("class-property", "note")
    assert note["message"]["text"].startswith("A property of class 2 'bird'")
    assert "planted" not in json.dumps(note)
    both = results(make_report(findings=(make_finding(), make_property(target=0))), images)
    assert [result["level"] for result in both] == ["error"] * 4 + ["note"]


def test_the_tests_of_the_verdict_are_told(images):
    tests = (StatisticTest("image_statistic", 0.045, 3.5), StatisticTest("cross_class", 0.005))
    (run,) = sarif(make_report(tests=tests), images)["runs"]
    assert run["properties"]["tests"][0] == {"name": "image_statistic", "level": 0.045, "threshold": 3.5}
    assert results(make_clean(), images) == []


def test_names_are_no_markup(images):
    facts = make_facts(class_names=(*NAMES[:2], "[x](http://evil.test) {0}\x1b", NAMES[3]))
    first = results(make_report(dataset=facts), images)[0]
    assert "\\[x\\](http://evil.test) {{0}}\ufffd" in first["message"]["text"]
