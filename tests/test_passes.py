"""What the model's view costs: images forward and backward, images read. Counted, so that no change makes it dearer
unseen; seconds are for benchmarks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from bre import model_view
from bre.inputs import Classifier, ImageSet, open_dataset
from bre.model_view import FIT_ROWS, HELD_OUT_IMAGES, HELD_OUT_ROWS, POLISH_IMAGES, STEPS, ModelView

K, EACH, SHAPE = 10, 60, (3, 8, 8)
HELD_OUT = K * HELD_OUT_IMAGES
FIT_POOL = K * -(-FIT_ROWS // (K - 1))


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


def view_of(net: nn.Module, images: ImageSet) -> tuple[ModelView, Classifier]:
    classifier = Classifier(net)
    classifier.check(SHAPE, K)
    classifier.forward_images = classifier.backward_images = 0
    classifier.__enter__()
    return ModelView(classifier, images, seed=0, backend="reference", progress=lambda *_: None), classifier


def test_a_verdict(net, images):
    _, classifier = view_of(net, images)
    assert classifier.backward_images == STEPS * K * FIT_ROWS
    assert classifier.forward_images == STEPS * K * FIT_ROWS + HELD_OUT + K * HELD_OUT_ROWS
    assert classifier.forward_images <= 6000 - 4  # the door's
    assert images.images_read == FIT_POOL + HELD_OUT + K * HELD_OUT_ROWS


def test_what_success_rates_add(net, images):
    view, classifier = view_of(net, images)
    before = classifier.forward_images
    best = view.best_success_rate(3)
    polished = classifier.forward_images - before - HELD_OUT
    assert polished % ((K - 1) * POLISH_IMAGES) == 0
    assert classifier.forward_images <= 6000 - 4
    before = classifier.forward_images
    rates = [view.success_rate(3, view.pattern(3), (s,)) for s in range(K) if s != 3]
    assert max(rates) == best
    assert classifier.forward_images == before  # its own pattern's votes are known


def test_what_a_finding_adds(net, images):
    view, classifier = view_of(net, images)
    pattern, members = view.pattern(3), np.flatnonzero(images.labels == 3)
    before = classifier.forward_images
    fall = view.fall(members, 3, pattern)
    assert classifier.forward_images == before + 2 * EACH
    some = view.homes(members[fall > 0], 3, pattern)
    assert classifier.forward_images == before + 2 * EACH  # these images were seen without the pattern
    other = pattern.clone()
    assert view.homes(members[fall > 0], 3, other) == some
    assert classifier.forward_images == before + 2 * EACH + (fall > 0).sum()


def test_a_network_that_nothing_moves_gets_more_steps(net, images, monkeypatch):
    monkeypatch.setattr(model_view, "LEAST_SHARE", 1.1)
    monkeypatch.setattr(model_view.optimize, "MAX_STEPS", STEPS + 3)
    _, classifier = view_of(net, images)
    assert classifier.backward_images == (STEPS + 3) * K * FIT_ROWS


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
        ModelView(classifier, images, seed=0, backend="reference", progress=lambda *_: None)
    rows = (classifier.backward_images - before) / classes / STEPS
    assert rows == FIT_ROWS
