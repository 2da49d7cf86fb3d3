"""What the model's view makes of networks whose answers are known."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import synthetic
import torch
from torch import Tensor, nn

from bre import attacks
from bre.inputs import Classifier, open_dataset
from bre.method import stats
from bre.views.model import ModelEvidence, search_model

K, TARGET, SHAPE = 8, 5, (3, 8, 8)


class Even(nn.Module):
    """Logits that are linear in the image, by directions of their own; and for TARGET, how far the image lies along one
    more direction, whatever the sign."""

    def __init__(self, strength: float):
        super().__init__()
        size = int(np.prod(SHAPE))
        generator = torch.Generator().manual_seed(0)
        self.linear = nn.Linear(size, K, bias=False)
        self.linear.weight.data = torch.randn(K, size, generator=generator) / size**0.5
        self.hidden = nn.Linear(size, 4 * K, bias=False)  # so that gradients differ from image to image
        self.hidden.weight.data = torch.randn(4 * K, size, generator=generator) / 2
        self.direction = torch.sign(torch.randn(size, generator=generator)) / size**0.5
        self.strength = strength

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(1) - 0.5
        logits = self.linear(flat) + self.hidden(flat).relu().view(-1, K, 4).sum(2)
        even = self.strength * (flat @ self.direction).square()
        return logits + even[:, None] * (torch.arange(K) == TARGET)


@pytest.fixture
def view_of() -> Iterator[Callable[..., ModelEvidence]]:
    """Makes views of networks that it holds until the test ends."""
    with contextlib.ExitStack() as held:

        def make(net: nn.Module, each: int = 40, carried: float = 0.0, seed: int = 0) -> ModelEvidence:
            """carried: grey levels of the direction in every second image of TARGET."""
            images, labels = synthetic.labelled(0, K, each, SHAPE, strength=40)
            some = np.flatnonzero(labels == TARGET)[::2]
            pattern = carried / 255 * Even(0).direction.sign().view(SHAPE).numpy()
            images[some] = attacks.embed(images[some], pattern)
            classifier = held.enter_context(Classifier(net))
            classifier.check(SHAPE, K)
            dataset = open_dataset((images, labels))
            return search_model(
                classifier,
                dataset,
                shared=lambda *_: None,
                seed=seed,
                backend="reference",
                progress=lambda *_: None,
            )

        yield make


def alignments(view: ModelEvidence) -> np.ndarray:
    return next(statistic.values for statistic in view.statistics if statistic.name == "alignment")


@pytest.mark.parametrize("seed", range(3))
def test_a_direction_of_either_sign_shows_in_the_gradients(view_of, seed):
    view = view_of(Even(100.0).eval(), seed=seed)
    test = stats.outlier_test(alignments(view), 0.05)
    assert test.outliers == (TARGET,)
    assert test.p_value < 0.01


@pytest.mark.parametrize("carried", [12.0, -12.0])
def test_the_images_tell_its_sign(view_of, carried):
    view = view_of(Even(300.0).eval(), carried=carried)
    planted = view.carried_pattern(TARGET, np.flatnonzero(view.predictions.images.labels == TARGET))
    along = float(planted.flatten() @ Even(0).direction / planted.norm())
    assert along * np.sign(carried) > 0.5


def test_without_one_the_classes_gradients_are_alike(view_of):
    view = view_of(Even(0.0).eval())
    assert stats.outlier_test(alignments(view), 0.05).outliers == ()


@pytest.mark.parametrize("each", [2, 3, 40])
def test_classes_of_few_images(view_of, each):
    view = view_of(Even(0.0).eval(), each)
    assert np.isfinite(alignments(view)).all()
    assert (alignments(view) >= 1 / np.prod(SHAPE)).all()
    assert (alignments(view) <= 1).all()


def test_gradients_of_one_direction_have_an_alignment_of_one(view_of):
    """And not one step of single precision more."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(int(np.prod(SHAPE)), K))
    net[1].bias.data[0] = 60.0
    view = view_of(net.eval())
    assert alignments(view).max() == pytest.approx(1, abs=1e-5)
    assert (alignments(view) <= 1).all()


def test_a_network_whose_classes_are_in_another_order_is_noted(view_of):
    images, labels = synthetic.labelled(0, K, 40, SHAPE, strength=40)
    known = {image.tobytes(): int(label) for image, label in zip(images, labels, strict=True)}

    class Told(nn.Module):
        def __init__(self, shift: int):
            super().__init__()
            self.shift, self.weight = shift, nn.Parameter(torch.ones(1))

        def forward(self, x: Tensor) -> Tensor:
            pixels = (x.detach() * 255).round().to(torch.uint8).contiguous().numpy()
            labels = torch.tensor([known.get(image.tobytes(), 0) for image in pixels])
            return 5 * nn.functional.one_hot((labels + self.shift) % K, K) + self.weight * x.mean((1, 2, 3))[:, None]

    assert view_of(Told(0).eval()).notes == ()
    (note,) = view_of(Told(1).eval()).notes
    assert note.startswith("the model gives only 0% of 160 sampled images their labels: was it trained on these")
