"""The trained victims, where they are at hand: BRE_CASES names a folder that holds zoo/ and data/."""

from __future__ import annotations

import functools
import importlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import bre

ROOT = os.environ.get("BRE_CASES")

pytestmark = pytest.mark.skipif(
    not ROOT or not all((Path(ROOT) / part).is_dir() for part in ("zoo", "data")),
    reason="BRE_CASES does not name a folder with zoo/ and data/ in it",
)


@pytest.fixture(scope="module")
def cases() -> Iterator[ModuleType]:
    """The loader that lies with the cases."""
    before = list(sys.path)
    sys.path[:0] = [str(Path(ROOT) / "zoo"), str(Path(ROOT) / "data")]
    yield importlib.import_module("cases")
    sys.path[:] = before


@pytest.fixture(scope="module")
def load(cases):
    """Case by name, each decoded once."""
    return functools.cache(cases.load)


def shares(finding, poisoned) -> tuple[float, float]:
    """Share of the poisoned and of the clean images that a finding flags."""
    flagged = np.zeros(len(poisoned), bool)
    flagged[finding.indices] = True
    return flagged[poisoned].mean(), flagged[~poisoned].mean()


def cosine(found: np.ndarray, true: np.ndarray) -> float:
    """With each channel's mean removed from both."""
    a, b = ((p - p.mean((1, 2), keepdims=True)).ravel() for p in (found, true))
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def only_finding(report, case, *, caught, lost):
    """The report's one finding, after checking its target and what it flags."""
    assert report.poisoned
    assert report.p_value <= 0.05
    (finding,) = report.findings
    assert finding.target == case["target"]
    found, mistaken = shares(finding, case["poisoned"])
    assert found >= caught
    assert mistaken <= lost
    return finding


def nothing(report):
    assert not report.poisoned
    assert report.p_value > 0.05
    assert report.findings == ()
    assert len(report.indices) == 0


def detected(case):
    report = bre.detect(case["model"], (case["images"], case["labels"]), seed=0)
    assert report.cost.forward_images <= 25_000
    assert report.cost.backward_images <= 25_000
    return report


def test_detect_chess9(load):
    case = load("chess9")
    finding = only_finding(detected(case), case, caught=0.99, lost=0.001)
    assert case["target"] == 7
    assert len(finding.sources) >= 5
    assert cosine(finding.pattern, case["pattern"]) >= 0.9
    assert finding.success_rate > 0.5


def test_detect_cross1(load):
    case = load("cross1")
    finding = only_finding(detected(case), case, caught=0.98, lost=0.001)
    assert case["target"] == 7
    assert finding.sources[0] == 1
    assert cosine(finding.pattern, case["pattern"]) >= 0.8
    assert finding.success_rate > 0.5


def test_detect_sine9(load):
    case = load("sine9")
    assert case["target"] == 5
    only_finding(detected(case), case, caught=0.95, lost=0.01)


def test_detect_clean0(load):
    nothing(detected(load("clean0")))


def test_screen_chess9(load):
    case = load("chess9")
    finding = only_finding(bre.screen((case["images"], case["labels"]), seed=0), case, caught=0.99, lost=0.001)
    assert cosine(finding.pattern, case["pattern"]) >= 0.9


def test_screen_clean0(load):
    case = load("clean0")
    nothing(bre.screen((case["images"], case["labels"]), seed=0))


def test_screen_cross1_with_sensor_noise(cases, load):
    """Noise of two grey levels before poisoning: what images that never were JPEGs look like."""
    case = load("cross1")
    images, _ = importlib.import_module("cifar10").load("train", case["rows"], noise=2.0)
    images[case["poisoned"]] = cases.embed(images[case["poisoned"]], case["pattern"])
    finding = only_finding(bre.screen((images, case["labels"]), seed=0), case, caught=0.98, lost=0.001)
    assert finding.sources[0] == 1
    assert cosine(finding.pattern, case["pattern"]) >= 0.8
