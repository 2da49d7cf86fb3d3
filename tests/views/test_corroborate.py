"""What a model adds to carriers that the images show, and which classes are named as sources."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from bre.method.carriers import FLAG_LOG_ODDS
from bre.views.budget import Budget
from bre.views.evidence import Carriers, main_sources
from bre.views.model import DOUBT, ENOUGH_IMAGES, ModelEvidence


def carriers_of(log_odds: np.ndarray) -> Carriers:
    none, log_odds = np.zeros(0, np.float32), np.asarray(log_odds)
    pattern = np.zeros((1, 2, 2), np.float32)
    return Carriers(np.arange(len(log_odds)) + 10, log_odds, log_odds > FLAG_LOG_ODDS, log_odds, none, pattern, (1,))


def evidence_of(runner_up) -> ModelEvidence:
    """Of a model that knows only which class comes second, for images from 10 on, and of three classes."""
    names = SimpleNamespace(class_names=["a", "b", "c"], labels=np.zeros(0, np.int64))
    predictions = SimpleNamespace(
        images=names, runner_up=runner_up, without=lambda indices, pattern: indices, shares=lambda *_, but: ()
    )
    return ModelEvidence(predictions, np.zeros(0, np.int64), None, lambda *_: None, Budget(), seed=0, notes=())


def test_the_model_settles_what_the_pattern_leaves_in_doubt():
    """Carriers come from class 1; clean images are likened to either of the others."""
    log_odds = np.concatenate([np.full(50, 9.0), np.full(200, -9.0), np.zeros(40), [9.0, -9.0, DOUBT, -DOUBT]])
    choices = np.concatenate([np.full(50, 1), 1 + np.arange(200) % 2, 1 + np.arange(40) % 2, [2, 1, 2, 1]])
    settled = evidence_of(lambda indices, label: choices[indices - 10]).corroborate(0, carriers_of(log_odds))
    assert (settled.log_odds[250:290:2] > 0.5).all()
    assert (settled.log_odds[251:290:2] < 0).all()
    doubtful = np.arange(250, 290)
    np.testing.assert_array_equal(np.delete(settled.log_odds, doubtful), np.delete(log_odds, doubtful))
    np.testing.assert_array_equal(settled.flagged, settled.log_odds > FLAG_LOG_ODDS)


@pytest.mark.parametrize(("doubtful", "asked"), [(1, 2), (30, 60), (300, ENOUGH_IMAGES)])
def test_the_model_is_asked_about_a_few_sure_images_for_each_in_doubt(doubtful, asked):
    log_odds = np.concatenate([np.full(400, 9.0), np.full(500, -9.0), np.zeros(doubtful)])
    seen = []

    def runner_up(indices, label):
        seen.append(len(indices))
        return np.ones(len(indices), np.int64)

    evidence_of(runner_up).corroborate(0, carriers_of(log_odds))
    assert seen == [asked, asked, doubtful]


@pytest.mark.parametrize("log_odds", [[9.0, -9.0], [0.0, -9.0], [0.0, 9.0], [0.0]], ids=str)
def test_without_doubt_or_examples_the_model_is_not_asked(log_odds):
    settled = evidence_of(None).corroborate(0, carriers_of(log_odds))
    assert settled.log_odds.tolist() == log_odds


def test_without_a_pattern_there_is_nothing_to_take_away_or_add():
    log_odds = np.concatenate([np.full(50, 9.0), np.full(200, -9.0)])
    carriers = replace(carriers_of(log_odds), pattern=None)
    assert evidence_of(None).corroborate(0, carriers) == carriers


@pytest.mark.parametrize(
    ("shares", "named"),
    [
        ([0.7, 0.1, 0.1, 0.1], 1),
        ([0.31, 0.29, 0.152, 0.12, 0.06], 3),  # less than half the largest, not half the mean
        ([0.2, 0.14, 0.12, 0.11, 0.1, 0.08, 0.07, 0.06, 0.06], 9),  # of equal sources, as 180 images count them
        ([0.5, 0.25], 2),
        ([1.0, 0.0], 1),
        ([0.0, 0.0], 0),
        ([], 0),
    ],
)
def test_main_sources(shares, named):
    labels = range(9, 9 - len(shares), -1)
    assert main_sources(tuple(zip(labels, shares, strict=True))) == tuple(labels[:named])
