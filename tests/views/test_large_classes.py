"""Classes that are searched in blocks: a pattern in few images of each is found, and size alone is no evidence."""

from __future__ import annotations

import numpy as np
import pytest
import synthetic

from bre import attacks, screen
from bre.method import blocks
from bre.views import class_search

SHAPE = (3, 12, 12)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(class_search, "MAX_SEARCH", 300)


def unequal(seed: int, large: int, others: int) -> tuple[np.ndarray, np.ndarray]:
    """Class 0 of `large` images and four of `others`."""
    images, labels = synthetic.labelled(seed, 5, large, SHAPE)
    kept = np.concatenate([np.flatnonzero(labels == k)[: large if k == 0 else others] for k in range(5)])
    kept = np.random.default_rng(seed).permutation(kept)
    return images[kept], labels[kept]


def test_what_few_images_of_each_block_carry_is_found_in_the_class():
    images, labels = unequal(0, 1500, 150)
    made = attacks.plant(images, labels, attacks.chessboard(SHAPE, 8 / 255), target=0, count=40, seed=0)
    report = screen((made.images, made.labels))
    assert [finding.target for finding in report.findings] == [0]
    found = np.isin(np.flatnonzero(made.poisoned), report.indices)
    assert found.mean() > 0.9
    assert made.poisoned[report.indices].mean() > 0.9
    assert any("1 of 5" in note and "6 blocks, each image in one" in note for note in report.notes)


@pytest.mark.parametrize("seed", [1, 2])
def test_a_class_much_larger_than_the_others_is_not_called_for_that(seed):
    report = screen(unequal(seed, 1500, 150))
    assert not report.poisoned


def test_copies_in_several_blocks_are_no_pattern():
    images, labels = unequal(3, 900, 150)
    some = np.flatnonzero(labels == 0)[:20]
    images, labels = np.concatenate([images, *[images[some]] * 5]), np.concatenate([labels, *[labels[some]] * 5])
    assert not screen((images, labels)).poisoned


@pytest.mark.parametrize("most", [300, 3000])
@pytest.mark.parametrize("elsewhere", [0, 0.02])
def test_what_other_classes_hold_as_well_is_nature(monkeypatch, most, elsewhere):
    """Searched in blocks and at once: three in a hundred images of a class have a chessboard, and two of the others."""
    monkeypatch.setattr(class_search, "MAX_SEARCH", most)
    images, labels = synthetic.labelled(4, 5, 800, SHAPE)
    random = np.random.default_rng(0)
    share = np.where(labels == 0, 0.03, elsewhere)
    carries = random.random(len(labels)) < share
    images[carries] = attacks.embed(images[carries], attacks.chessboard(SHAPE, 8 / 255))
    report = screen((images, labels))
    assert report.poisoned == (elsewhere == 0)
    assert (report.classes[0].image_statistic > 10) == (elsewhere == 0)


def tail(scores: np.ndarray) -> blocks.Tail:
    rows = np.flatnonzero(scores > blocks.TAIL_START_Z)
    return blocks.Tail(0.0, 1.0, rows, scores[rows])


def test_a_mode_of_the_class_is_put_together_from_tails():
    random = np.random.default_rng(0)
    parts = [random.normal(size=1000) for _ in range(10)]
    for part in parts:
        part[:3] = 30 + random.normal(size=3) / 4
    counted = np.ones(10_000, bool)
    mode = blocks.class_mode([tail(part) for part in parts], [1000] * 10, counted)
    assert mode.members.tolist() == [1000 * block + row for block in range(10) for row in range(3)]
    assert mode.evidence > 30
    counted[mode.members[4:]] = False
    assert blocks.class_mode([tail(part) for part in parts], [1000] * 10, counted).evidence == 0


def test_evidence_of_classes_without_a_mode_is_small():
    """A bound on p: of heavy tails in 20 blocks, exp(-evidence) is below 0.05 in fewer than 5% of sets."""
    random = np.random.default_rng(0)
    found = []
    for _ in range(200):
        parts = [random.standard_t(4, 1000) for _ in range(20)]
        found.append(blocks.class_mode([tail(part) for part in parts], [1000] * 20, np.ones(20_000, bool)).evidence)
    assert np.mean(np.exp(-np.array(found)) < 0.05) < 0.05


def test_one_direction_of_each_group_of_images_is_kept():
    modes = [
        blocks.ClassMode(evidence, 5.0, 6.0, centre, np.arange(start, start + 10))
        for evidence, centre, start in [(9.0, 5.0, 0), (8.0, 5.0, 2), (7.0, 9.0, 50), (0.0, np.inf, 80)]
    ]
    assert blocks.best_of(modes, 8) == [2, 0]
