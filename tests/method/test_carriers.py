"""Which images carry a pattern: mixtures with known members, saturation known and unknown."""

from __future__ import annotations

import numpy as np
import pytest

from bre.method import carriers

CENTRE = 12.0


def draw(seed: int, clean: int = 1800, poisoned: int = 200, saturated: float = 0.0, partial: bool = True):
    """(scores, reach, which are poisoned): of `saturated` of the images nothing is certain, and of those of them that
    are poisoned a uniform share of the pattern is left, or all of it."""
    generator = np.random.default_rng(seed)
    truth = np.arange(clean + poisoned) >= clean
    cut = generator.random(len(truth)) < saturated
    share = np.where(cut & partial, generator.random(len(truth)), 1.0) * truth
    return generator.normal(size=len(truth)) + CENTRE * share, np.where(cut, 0.0, 1.0), truth


def flagged(scores: np.ndarray, reach: np.ndarray, scale: np.ndarray | None = None) -> np.ndarray:
    scale = np.ones(len(scores)) if scale is None else scale
    return carriers.log_odds(scores, scale, reach, CENTRE) > carriers.FLAG_LOG_ODDS


@pytest.mark.parametrize("poisoned", [5, 20, 200, 1800])
def test_two_groups_are_told_apart(poisoned):
    scores, reach, truth = draw(0, poisoned=poisoned)
    assert (flagged(scores, reach) == truth).all()


def test_images_that_saturation_cut_are_found():
    scores, reach, truth = draw(1, clean=9000, poisoned=1000, saturated=0.3)
    found = flagged(scores, reach)
    low = truth & (reach == 0) & (scores > 4) & (scores < 8)  # half a pattern or less
    assert low.sum() > 50
    assert found[low].all()
    assert found[truth].mean() >= 0.92
    assert found[~truth].mean() <= 0.005  # where next to nothing is left, no score can tell
    assert flagged(scores, np.ones(len(scores)))[truth].mean() < found[truth].mean()  # had the reach not been known


def test_a_low_score_speaks_against_an_image_that_lost_nothing():
    scores, reach, truth = draw(2, clean=9000, poisoned=1000, saturated=0.3)
    reach[0], reach[1], truth[:2] = 0.0, 1.0, False
    scores[:2] = 4.5
    odds = carriers.log_odds(scores, np.ones(len(scores)), reach, CENTRE)
    assert odds[0] > odds[1] + 1


def test_a_pattern_that_replaces_pixels_loses_nothing():
    right = []
    for seed in range(3, 8):
        scores, reach, truth = draw(seed, poisoned=400, saturated=0.9, partial=False)
        right.append(flagged(scores, reach) == truth)
    assert np.mean(right) >= 0.999


def test_where_a_pattern_saturates_low_scores_count_more():
    """Of the images that it brings to their limits most carry it, though of some of them nothing is left."""
    scores, reach, truth = draw(8, clean=9000, poisoned=1000, saturated=0.3)
    rare = truth | (reach == 1) | (np.arange(len(truth)) % 20 == 0)  # few others are at their limits there
    scores, reach, truth = scores[rare], reach[rare], truth[rare]
    low = truth & (reach == 0) & (scores < 2)
    assert low.sum() > 20
    assert flagged(scores, reach)[low].mean() > 0.9
    assert not flagged(scores, np.where(truth, reach, 1.0))[~truth & (scores < 2)].any()


def test_a_carrier_may_lie_beyond_the_others():
    """It has the others' noise, with their heavy tails, on top of the pattern."""
    generator = np.random.default_rng(9)
    scores, reach, truth = draw(9)
    scores[~truth] = generator.standard_t(4, 1800)
    scores[-1] = 2 * CENTRE
    assert flagged(scores, reach)[-1]


def test_a_textured_image_needs_a_larger_score():
    scores, reach, _ = draw(4)
    scores[:2], scale = 8.0, np.ones(len(scores))
    scale[0] = 3.0
    odds = carriers.log_odds(scores, scale, reach, CENTRE)
    assert odds[0] < odds[1]  # of two that lie there, the one whose noise is large may do so without the pattern


def test_heavy_tails_are_look_alikes():
    generator = np.random.default_rng(5)
    scores, reach, truth = draw(5)
    scores[:1800] = generator.standard_t(4, 1800)
    assert flagged(scores, reach)[~truth].mean() <= 0.005


@pytest.mark.parametrize("count", [1, 2])
def test_hardly_any_images(count):
    odds = carriers.log_odds(np.full(count, CENTRE), np.ones(count), np.ones(count), CENTRE)
    assert odds.shape == (count,)
    assert not np.isnan(odds).any()


def test_equal_scores_make_no_nan():
    odds = carriers.log_odds(np.zeros(50), np.ones(50), np.ones(50), CENTRE)
    assert (odds < 0).all()


def test_the_unit_of_the_scores_does_not_matter():
    scores, reach, _ = draw(6, saturated=0.2)
    odds = carriers.log_odds(scores, np.ones(len(scores)), reach, CENTRE)
    other = carriers.log_odds(7 * scores, np.full(len(scores), 7.0), reach, 7 * CENTRE)
    np.testing.assert_allclose(odds, other, atol=1e-3)


def test_reach_is_what_pixels_below_their_limits_hold():
    images = np.full((5, 1, 2, 2), 100, np.uint8)
    images[1, 0, 0, 0] = 255  # where the pattern is added
    images[2, 0, 0, 0] = 0  # far from its limit, for a pattern that is added
    images[3, 0, 0, 1] = 0  # where it is taken away
    pattern, weights = np.array([2.0, -1.0, 1.0, 0.0]), np.array([1.0, -2.0, 0.0, 9.0])
    images[4].reshape(-1)[:] = [255, 0, 255, 255]
    np.testing.assert_allclose(carriers.unsaturated_share(images, pattern, weights), [1, 0.5, 1, 0.5, 0])


def test_a_pattern_of_no_weight_has_full_reach():
    images = np.full((2, 1, 2, 2), 255, np.uint8)
    np.testing.assert_array_equal(carriers.unsaturated_share(images, np.zeros(4), np.ones(4)), [1, 1])
    assert carriers.unsaturated_share(images[:0], np.ones(4), np.ones(4)).shape == (0,)
