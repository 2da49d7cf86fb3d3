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
