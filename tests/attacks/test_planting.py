"""bre.attacks refuses what it cannot plant; what it plants is tested by what finds it."""

from __future__ import annotations

import numpy as np
import pytest

from bre import InputError, attacks

IMAGES = np.full((6, 3, 4, 5), 100, np.uint8)
LABELS = np.arange(6) % 3
PATTERN = np.full((3, 4, 5), 0.1, np.float32)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"images": IMAGES / 255}, "expected uint8 .*, got float64"),
        ({"images": IMAGES[0]}, "expected one for each of the images"),
        ({"pattern": PATTERN[:, :3]}, r"expected finite numbers \(3, 4, 5\), got shape \(3, 3, 5\)"),
        ({"pattern": PATTERN * np.nan}, "expected finite numbers"),
        ({"count": -3}, "expected a number of images >= 0, got -3"),
        ({"count": 50}, "class 0 has 2 images"),
        ({"sources": (1, 2)}, "expected classes other than the target"),
        ({"opacity": 2.0}, "opacity"),
        ({"opacity": np.ones(7)}, r"opacity: expected a shape that broadcasts to \(3, 4, 5\), got \(7,\)"),
        ({"target": None, "sources": (0, 5)}, r"sources: expected classes among \[0, 1, 2\], got \[5\]"),
        ({"covers": attacks.Covers(-1)}, "covers.count: expected a number of images >= 0, got -1"),
        ({"covers": attacks.Covers(2, sources=(9,))}, "covers.sources: expected classes among"),
        ({"covers": attacks.Covers(2, sources=(0,))}, "class 0 has 0 images, 2 are wanted"),
        ({"pattern": attacks.Tint(), "opacity": 0.5}, "opacity: expected none beside a Trigger"),
    ],
)
def test_what_cannot_be_planted(changes, match):
    given = {"images": IMAGES, "labels": LABELS, "pattern": PATTERN, "target": 1, "count": 3, **changes}
    with pytest.raises(InputError, match=match):
        attacks.plant(given.pop("images"), given.pop("labels"), given.pop("pattern"), **given)


def test_what_is_planted():
    planted = attacks.plant(IMAGES, LABELS, PATTERN, target=1, count=2)
    assert planted.images.dtype == np.uint8
    assert (planted.images[planted.poisoned] == 126).all()
    assert (planted.images[~planted.poisoned] == 100).all()
    assert (planted.labels[planted.poisoned] == 1).all()
    assert planted.poisoned.sum() == 2


def test_every_label_but_the_own():
    images, labels = np.repeat(IMAGES, 50, 0), np.repeat(LABELS, 50)
    planted = attacks.plant(images, labels, PATTERN, target="others", count=150)
    assert planted.poisoned.sum() == 150
    moved = (planted.labels - labels)[planted.poisoned] % 3
    assert set(moved.tolist()) == {1, 2}
    assert (planted.labels[~planted.poisoned] == labels[~planted.poisoned]).all()


def test_covers_keep_their_labels():
    class Brighter:
        def __call__(self, images, generator):
            return images + np.uint8(7)

    images, labels = np.repeat(IMAGES, 10, 0), np.repeat(LABELS, 10)
    covers = attacks.Covers(12, Brighter(), sources=(1, 2))
    planted = attacks.plant(images, labels, PATTERN, target=0, sources=(1,), count=6, covers=covers)
    assert not (planted.poisoned & planted.covers).any()
    assert (planted.images[planted.covers] == 107).all()
    assert (planted.labels[planted.covers] == labels[planted.covers]).all()
    assert np.bincount(labels[planted.covers], minlength=3).tolist() == [0, 6, 6]
    same = attacks.plant(images, labels, PATTERN, target=0, sources=(1,), count=6, covers=attacks.Covers(3))
    assert (same.images[same.covers] == 126).all()
    assert (same.poisoned == planted.poisoned).all()  # covers do not change which images are poisoned


def test_a_trigger_of_its_own_in_place_of_a_pattern():
    planted = attacks.plant(IMAGES, LABELS, attacks.Tint((2.0, 1.0, 1.0), (0.0, 0.0, 0.0)), target=1, count=2)
    assert (planted.images[planted.poisoned][:, 0] == 200).all()
    assert (attacks.triggered(IMAGES, PATTERN) == 126).all()
