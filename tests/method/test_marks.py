"""Marks: what few images share in one place, told from what natural images share, and from marks of the class's own."""

from __future__ import annotations

import engine
import numpy as np
import pytest
import synthetic

from bre.method import clusters, marks, matched_filters
from bre.method.levels import Level, pyramid
from bre.method.matched_filters import MatchedFilter

SHAPE = (3, 32, 32)
LEVEL = Level(SHAPE, 1)


def cross(shape: tuple[int, int, int], row: int, column: int, amplitude: float) -> np.ndarray:
    pattern = np.zeros(shape)
    pattern[:, row - 1 : row + 2, column] = pattern[:, row, column - 1 : column + 2] = amplitude
    return pattern


def marks_of(own: np.ndarray, others: np.ndarray) -> list[MatchedFilter]:
    whitenings = engine.whitenings(others)
    codes = engine.codes(whitenings, own)
    found = marks.among(codes, clusters.search(codes).local)
    images = pyramid(own, [each.level for each in whitenings])
    return matched_filters.of_class(whitenings, codes, found, images, np.arange(len(own)))


def heavy(generator: np.random.Generator, count: int, freedom: float = 2) -> np.ndarray:
    values = generator.standard_t(freedom, count)
    return values / (1.4826 * np.median(np.abs(values)))


@pytest.mark.parametrize("carrying", [6, 20])
def test_a_narrow_mode_that_others_do_not_have(carrying):
    generator = np.random.default_rng(0)
    own = np.concatenate([heavy(generator, 600), generator.normal(60, 3, carrying)])
    evidence, low, high = marks.rarer_elsewhere(own, heavy(generator, 4000))
    assert evidence > 1.2 * carrying
    assert 45 < low < 60 < high < 75


def test_tails_of_one_kind_are_no_evidence_however_heavy():
    """The bound of a window, which a search multiplies by their number, holds."""
    generator = np.random.default_rng(1)
    found = np.array(
        [
            marks.rarer_elsewhere(heavy(generator, count, freedom), heavy(generator, 2000, freedom))[0]
            for count, freedom in ((600, 1), (600, 3), (3000, 1), (100, 2), (600, 100))
            for _ in range(80)
        ]
    )
    for evidence in (2, 3, 4):
        assert np.mean(found > evidence) <= 5 * np.exp(-evidence)


def test_too_few_to_make_a_mode():
    assert marks.rarer_elsewhere(np.array([0.0, 50, 51, 52, 53]), np.zeros(9)) == (0.0, np.inf, np.inf)
    assert marks.rarer_elsewhere(np.zeros(0), np.zeros(0))[0] == 0.0


def looking(generator: np.random.Generator, count: int, red: float) -> np.ndarray:
    """uint8 (count, 3, 32, 32): images that are more or less red."""
    tint = np.array([red, 0, 0])[:, None, None] + generator.normal(0, 15, (count, 3, 1, 1))
    return synthetic.to_bytes(synthetic.images(int(generator.integers(2**31)), count, SHAPE, steep=1.5) + tint)


def test_images_that_look_like_another_class_and_images_that_do_not():
    generator = np.random.default_rng(0)
    others = marks.thumbnails(looking(generator, 800, -25))
    strangers = np.concatenate([looking(generator, 12, -25), looking(generator, 250, 25)])
    carry = np.arange(len(strangers)) < 12
    assert marks.foreign(marks.thumbnails(strangers), others, carry, LEVEL, (0, 0, 2, 2)) < 1e-4
    p_values = [
        marks.foreign(marks.thumbnails(looking(generator, 200, 25)), others, np.arange(200) < 12, LEVEL, (0, 2, 2, 2))
        for _ in range(20)
    ]
    assert min(p_values) > 0.001
    assert 0.2 < np.mean(p_values) < 0.8


@pytest.mark.parametrize("members", [0, 30])
def test_no_image_or_all_of_them_say_nothing_of_look(members):
    own = marks.thumbnails(looking(np.random.default_rng(0), 30, 0))
    carry = np.arange(30) < members
    assert marks.foreign(own, own, carry, LEVEL, (0, 0, 2, 2)) == 1.0
    assert marks.foreign(own, own[:2], carry, LEVEL, (0, 0, 2, 2)) == 1.0


def test_what_the_mark_does_to_a_thumbnail_is_no_look():
    """A window's part of the thumbnail is left out: a bright square there says nothing of the rest."""
    generator = np.random.default_rng(2)
    own, others = (looking(generator, count, 0) for count in (200, 600))
    own[:15, :, 16:, :16] = 255
    thumbnails = marks.thumbnails(own), marks.thumbnails(others)
    assert marks.foreign(*thumbnails, np.arange(200) < 15, LEVEL, (2, 0, 2, 2)) > 0.01


@pytest.mark.parametrize("shape", [(3, 64, 64), (1, 40, 56)])
def test_a_mark_is_found_with_the_images_that_carry_it(shape):
    images = synthetic.images(3, 1300, shape, steep=1.5)
    own, carries = synthetic.plant(images[900:], cross(shape, 12, 21, 70), 14)
    found = marks_of(own, images[:900])
    assert found
    mark = found[0]
    assert carries[mark.found.members].all()
    assert mark.found.level == 0
    evidence, members = marks.carriers(mark, matched_filters.score([mark.template], images[:900])[0])
    assert evidence > 6  # of 14 images, beside 900 others
    assert carries[members].all()
    assert len(members) >= 10


def test_photographs_of_one_series_have_no_mark():
    """They share a place, and all the rest as well."""
    images = synthetic.images(4, 1300, (3, 64, 64), steep=1.5)
    own = images[900:].astype(float)
    own[:12] = own[0] + 0.25 * (own[:12] - own[0])
    own = synthetic.to_bytes(own + cross((3, 64, 64), 12, 21, 60) * (np.arange(400) < 12)[:, None, None, None])
    assert all(not np.isin(mark.found.members, np.arange(12)).any() for mark in marks_of(own, images[:900]))
