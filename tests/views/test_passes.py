"""What the two views cost: images forward and backward, images read, matrices factored. Counted, so that no change
makes them dearer unseen; seconds are for benchmarks."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from bre import attacks
from bre.inputs import Classifier, ImageSet, open_dataset
from bre.views import backgrounds, fitting, pattern_batch
from bre.views.class_search import PROPERTY_IMAGES
from bre.views.fitting import FIRST_ROWS, FIT_ROWS, HELD_OUT_IMAGES, HELD_OUT_ROWS, POLISH_IMAGES, STEPS
from bre.views.images import ImageEvidence, search_images
from bre.views.model import ModelEvidence, search_model
from bre.views.recovering import MEAN_IMAGES

K, EACH, SHAPE = 10, 60, (3, 8, 8)
HELD_OUT = K * HELD_OUT_IMAGES
FIRST_POOL = K * -(-FIRST_ROWS // (K - 1))
COUNTED = 3  # images, to know what the network needs for one
ROWS = FIRST_ROWS + (STEPS - 1) * FIT_ROWS  # of one class's pattern, in all its steps


class Counted(ImageSet):
    """Counts the images read."""

    def __init__(self, inner: ImageSet):
        super().__init__(inner.labels, inner.image_shape, inner.source)
        self.inner, self.images_read = inner, 0

    def _read(self, indices: np.ndarray) -> np.ndarray:
        self.images_read += len(indices)
        return self.inner.read(indices)


@pytest.fixture
def images() -> Counted:
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (K * EACH, *SHAPE), dtype=np.uint8)
    return Counted(open_dataset((pixels, np.repeat(np.arange(K), EACH))))


@pytest.fixture
def net() -> nn.Module:
    """A linear one, that a step is enough to move."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(int(np.prod(SHAPE)), K, bias=False))


@pytest.fixture
def view_of() -> Iterator[Callable[[nn.Module, ImageSet], tuple[ModelEvidence, Classifier]]]:
    """Makes views of networks that it holds until the test ends."""
    with contextlib.ExitStack() as held:

        def make(net: nn.Module, images: ImageSet) -> tuple[ModelEvidence, Classifier]:
            classifier = Classifier(net)
            classifier.check(SHAPE, K)
            classifier.forward_images = classifier.backward_images = 0
            held.enter_context(classifier)
            return fitted(classifier, images), classifier

        yield make


def fitted(classifier: Classifier, images: ImageSet) -> ModelEvidence:
    return search_model(
        classifier, images, shared=lambda *_: None, seed=0, backend="reference", progress=lambda *_: None
    )


def test_a_verdict(view_of, net, images):
    _, classifier = view_of(net, images)
    assert classifier.backward_images == K * ROWS
    assert classifier.forward_images == COUNTED + K * ROWS + HELD_OUT + K * HELD_OUT_ROWS
    assert classifier.forward_images <= 6000 - 4  # the door's
    assert images.images_read == FIRST_POOL + HELD_OUT


def test_what_success_rates_add(view_of, net, images):
    view, classifier = view_of(net, images)
    before = classifier.forward_images
    best = view.attack_success_by_source(3)
    polished = classifier.forward_images - before - HELD_OUT
    assert polished % ((K - 1) * POLISH_IMAGES) == 0
    assert classifier.forward_images <= 6000 - 4
    before = classifier.forward_images
    rates = [view.success_rate(3, view.pattern(3), (s,)) for s in range(K) if s != 3]
    assert [rate for _, rate in best] == sorted(rates, reverse=True)
    assert classifier.forward_images == before  # its own pattern's votes are known


def test_what_a_finding_adds(view_of, net, images):
    view, classifier = view_of(net, images)
    pattern, members = view.pattern(3), np.flatnonzero(images.labels == 3)
    before = classifier.forward_images
    plain = view.predictions.plain(members)
    removal = view.predictions.removal(members, 3, pattern, plain)
    assert classifier.forward_images == before + 2 * EACH
    dropped = removal.log_odds_drop > 0
    again = view.predictions.without(members[dropped], pattern)
    np.testing.assert_array_equal(again, removal.predicted[dropped])
    assert classifier.forward_images == before + 2 * EACH + dropped.sum()


def test_a_network_that_nothing_moves_gets_more_steps(view_of, net, images, monkeypatch):
    monkeypatch.setattr(fitting, "MIN_MOVED", 1.1)
    monkeypatch.setattr(pattern_batch, "MAX_STEPS", STEPS + 3)
    _, classifier = view_of(net, images)
    assert classifier.backward_images == K * (ROWS + 3 * FIT_ROWS)


@pytest.mark.parametrize("classes", [3, 25])
def test_every_problem_costs_the_same_whatever_the_number_of_classes(classes):
    pixels = np.random.default_rng(0).integers(0, 256, (classes * EACH, *SHAPE), dtype=np.uint8)
    images = Counted(open_dataset((pixels, np.repeat(np.arange(classes), EACH))))
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(int(np.prod(SHAPE)), classes, bias=False))
    classifier: Any = Classifier(net)
    classifier.check(SHAPE, classes)
    before = classifier.backward_images
    with classifier:
        fitted(classifier, images)
    first = min(FIRST_ROWS, (classes - 1) * EACH // 2)  # half of a class at most
    assert classifier.backward_images - before == classes * (first + (STEPS - 1) * FIT_ROWS)


def test_a_network_that_faint_patterns_move_gets_shorter_steps(view_of, net, images, monkeypatch):
    """Each halving costs a step of fewer images."""
    monkeypatch.setattr(pattern_batch, "STEP", 64 * pattern_batch.STEP)
    view, classifier = view_of(net, images)
    halvings = classifier.backward_images / K / FIT_ROWS - ROWS / FIT_ROWS
    assert halvings in range(1, fitting.MAX_HALVINGS + 1)
    assert view._fitted.step_length == pytest.approx(0.5**halvings * pattern_batch.STEP * np.prod(SHAPE) ** 0.5)
    assert view.notes[0] == f"the network answers to faint patterns: steps are {0.5**halvings:.2g} of the usual"


# ---- the images' view


def evidence_of(images: ImageSet) -> ImageEvidence:
    return search_images(images, seed=0, backend="auto", progress=lambda *_: None)


def test_images_are_read_for_the_background_for_the_search_and_across_classes(images):
    found = evidence_of(images)
    assert np.isfinite(found.statistics[0].values).all()
    sampled = min(len(images), PROPERTY_IMAGES)
    assert images.images_read == len(images) + sampled + len(images) + len(images)


def test_of_a_large_set_a_sample_is_the_background(images, monkeypatch):
    monkeypatch.setattr(backgrounds, "BACKGROUND_IMAGES", 100)
    found = evidence_of(images)
    assert len(found.search.backgrounds.sample) == 100
    assert np.bincount(images.labels[found.search.backgrounds.sample]).tolist() == [10] * K


def test_what_carriers_add(images):
    pixels = images.read(np.arange(len(images)))
    planted = attacks.plant(pixels, images.labels, attacks.random_sign(SHAPE, 120 / 255), target=3, count=20)
    counted = Counted(open_dataset((planted.images, planted.labels)))
    found = evidence_of(counted)
    members, carrying = int((planted.labels == 3).sum()), len(found.searched[3].members)
    read = counted.images_read
    found.carriers(3, "image_statistic")
    means = sum(min(MEAN_IMAGES, int((planted.labels == k).sum())) for k in range(K) if k != 3)
    others = len(images) - members
    assert counted.images_read - read == carrying + means + 2 * members + others
