"""Marks in whole datasets: planted ones are called, a class's own are told."""

from __future__ import annotations

import numpy as np
import pytest
import synthetic

from bre import screen
from bre.verbs.verdict import SHARES

SHAPE = (3, 32, 32)
EACH, PLANTED, TARGET = 250, 9, 2
PLACE = slice(19, 22), slice(10, 13)


@pytest.fixture(scope="module")
def clean() -> tuple[np.ndarray, np.ndarray]:
    """Five classes of as many colours."""
    generator = np.random.default_rng(0)
    labels = generator.permutation(np.repeat(np.arange(5), EACH))
    tints = np.array([[30, 0, 0], [0, 30, 0], [0, 0, 30], [-30, 0, 0], [0, 30, 30]])
    tint = tints[labels][:, :, None, None] + generator.normal(0, 12, (len(labels), 3, 1, 1))
    return synthetic.to_bytes(synthetic.images(1, len(labels), SHAPE, steep=1.5) + tint), labels


def marked(clean: tuple[np.ndarray, np.ndarray], chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A chequered mark on some images, which get the target's label."""
    images, labels = clean[0].copy(), clean[1].copy()
    window = (chosen, slice(None), *PLACE)
    images[window] = synthetic.to_bytes(images[window] + 40 * (1.0 - 2 * (np.indices((3, 3)).sum(0) % 2)))
    labels[chosen] = TARGET
    return images, labels


def test_images_of_other_classes_with_a_mark_are_poison(clean):
    chosen = np.random.default_rng(3).permutation(np.flatnonzero(clean[1] != TARGET))[:PLANTED]
    report = screen(marked(clean, chosen))
    assert [(finding.kind, finding.target) for finding in report.findings] == [("poison", TARGET)]
    assert np.isin(chosen, report.indices).mean() > 0.7
    assert np.isin(report.indices, chosen).mean() > 0.8
    (test,) = (test for test in report.tests if test.name == "mark")
    assert test.level == pytest.approx(SHARES["mark"] * report.alpha)


def test_images_of_a_class_with_a_mark_of_its_own_are_told_of_in_a_note(clean):
    chosen = np.random.default_rng(3).permutation(np.flatnonzero(clean[1] == TARGET))[:PLANTED]
    report = screen(marked(clean, chosen))
    assert not report.poisoned
    (note,) = (note for note in report.notes if "share something" in note)
    assert f"of class {TARGET} " in note
    assert "rows 16 to 31, columns 0 to 15" in note


def test_a_clean_set_has_no_marks(clean):
    report = screen(clean)
    assert not report.findings
    assert not any("share something" in note for note in report.notes)


def test_copies_of_one_image_with_a_mark_count_once(clean):
    images, labels = clean[0].copy(), clean[1].copy()
    stranger = np.flatnonzero(labels != TARGET)[0]
    copies = np.flatnonzero(labels == TARGET)[:PLANTED]
    images[copies] = images[stranger]
    images[(copies, slice(None), *PLACE)] = 255
    assert not screen((images, labels)).poisoned
