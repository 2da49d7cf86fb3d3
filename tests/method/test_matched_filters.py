"""Filters of what images share: images are scored without themselves, and nature explains what other classes hold."""

from __future__ import annotations

import engine
import numpy as np
import pytest
import synthetic

from bre.method import clusters, matched_filters
from bre.method.levels import pyramid
from bre.method.matched_filters import MatchedFilter


def mode(members: np.ndarray, evidence: float = 20.0) -> clusters.Found:
    return clusters.Found(0, (0, 0, 2, 2), members, np.zeros(0, np.float32), evidence, 5.0, 7.0, 6.0)


def filtered(generator: np.random.Generator, count: int, carrying: int, at: float = 15) -> MatchedFilter:
    """Of a class of so many images, of which some score as far out."""
    inside, beside = np.arange(carrying), np.arange(carrying, count)
    return MatchedFilter(mode(inside), np.zeros(1), scores(generator, count, carrying, at), inside, beside, count)


def scores(generator: np.random.Generator, count: int, carrying: int, at: float = 15) -> np.ndarray:
    return np.concatenate([at + generator.normal(size=carrying), generator.normal(size=count - carrying)])


@pytest.mark.parametrize(("count", "carrying"), [(2000, 30), (600, 12), (5000, 2500)])
def test_what_no_other_class_holds_is_evident(count, carrying):
    generator = np.random.default_rng(0)
    planted = filtered(generator, count, carrying)
    assert planted.evidence(scores(generator, 4000, 0)) > 2 * carrying - 10
    assert planted.evidence(scores(generator, 4000, 0) + 40) == planted.evidence(scores(generator, 4000, 0))


def test_what_others_hold_half_as_often_is_nature():
    generator = np.random.default_rng(1)
    found = [filtered(generator, 2000, 60).evidence(scores(generator, 4000, 60)) for _ in range(50)]
    assert np.median(found) < 1
    assert max(found) < 8
    often = filtered(generator, 2000, 600)  # covers: a tenth as many images of other classes
    assert often.evidence(scores(generator, 4000, 120)) > 300


def test_scores_that_images_have_by_chance_are_no_part_of_it():
    """A faint pattern: along a filter of pixels, one in six images of any class scores as its carriers do."""
    generator = np.random.default_rng(2)
    assert filtered(generator, 2000, 60, at=1.5).evidence(scores(generator, 4000, 0)) > 20


def test_modes_of_the_same_images_are_compared_once():
    first, same, other = mode(np.arange(10)), mode(np.arange(3, 12)), mode(np.arange(8, 30))
    assert matched_filters.different([first, same, other]) == [first, other]
    many = [mode(np.arange(start, start + 5)) for start in range(0, 100, 5)]
    assert matched_filters.different(many) == many[: matched_filters.MAX_COMPARED]


def cross(shape: tuple[int, int, int]) -> np.ndarray:
    pattern = np.zeros(shape)
    pattern[:, 11:14, 21] = pattern[:, 12, 20:23] = 70
    return pattern


@pytest.mark.parametrize("shape", [(3, 64, 64), (1, 40, 56)])
def test_images_are_scored_without_their_own_part(shape):
    images = synthetic.images(3, 1300, shape, steep=1.5)
    own, carries = synthetic.plant(images[900:], cross(shape), 14)
    whitenings = engine.whitenings(images[:900])
    codes, rows = engine.codes(whitenings, own), np.arange(400)
    found = clusters.search(codes).anywhere[0]
    assert carries[found.members].all()
    levels = pyramid(own, [each.level for each in whitenings])
    (planted,) = matched_filters.of_class(whitenings, codes, [found], levels, rows)
    along = matched_filters.score([planted.template], levels[found.level])[0]
    assert planted.scores[~carries] == pytest.approx(along[~carries])
    assert planted.scores[found.members].mean() < along[found.members].mean()
    assert carries[planted.inside].all()
    assert not carries[planted.beside].any()
    elsewhere = pyramid(images[:900], [each.level for each in whitenings])[found.level]
    assert planted.evidence(matched_filters.score([planted.template], elsewhere)[0]) > 20
