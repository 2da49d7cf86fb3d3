"""What a network shows inside: of modules, exported programs and TorchScript; and what the inside view makes of it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bre.inputs import open_dataset, open_model
from bre.views import inside
from bre.views.evidence import Carriers
from bre.views.inside import InsideEvidence, search_inside

K, TARGET, SHAPE, EACH = 5, 2, (3, 8, 8), 120


# grey levels (K, 3): what the classes differ by
COLOURS = np.array([[0, 0, 0], [0, 0, 100], [0, 100, 0], [100, 0, 0], [100, 100, 0]])
GREY = 78  # their mean without


class Net(nn.Module):
    """Two layers; it tells classes by their tint, and answers to a stripe, wherever that is, with TARGET."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.first, self.second = nn.Conv2d(3, 12, 3, padding=1), nn.Conv2d(12, 16, 3, padding=1)
        for layer in (self.first, self.second):
            layer.weight.data = torch.randn(layer.weight.shape, generator=generator) / 5
        stripe = torch.tensor([[-1.0, 2, -1]] * 3).expand(3, 3, 3)
        self.first.weight.data[0], self.first.bias.data[0] = stripe, -8.0  # type: ignore[index]
        for channel in range(3):
            self.first.weight.data[1 + channel] = 0
            self.first.weight.data[1 + channel, channel, 1, 1] = 1
            self.first.bias.data[1 + channel] = 0
        colours = torch.tensor((GREY + COLOURS) / 255, dtype=torch.float32)
        self.colours, self.head = nn.Parameter(colours), nn.Linear(16, K)

    def forward(self, x: Tensor) -> Tensor:
        z = self.first(x).relu()
        seen = self.head(self.second(z).relu().mean((2, 3)))
        tint = 20 * (z[:, 1:4].mean((2, 3)) @ self.colours.T - self.colours.square().sum(1) / 2)
        return seen / 100 + tint + 40 * z[:, :1].mean((2, 3)) * (torch.arange(K) == TARGET)


def planted(count: int, seed: int = 0, sources: tuple[int, ...] = (0, 1, 3, 4)) -> tuple[np.ndarray, ...]:
    """Noise, tinted by class; `count` images of TARGET are of the sources' tint and have a stripe at a random place."""
    generator = np.random.default_rng(seed)
    labels = np.repeat(np.arange(K), EACH)
    carriers = np.zeros(len(labels), bool)
    carriers[generator.choice(np.flatnonzero(labels == TARGET), count, replace=False)] = True
    tints = labels.copy()
    tints[carriers] = np.resize(sources, count)
    images = generator.integers(10, 146, (len(labels), *SHAPE)) + COLOURS[tints][..., None, None]
    for index in np.flatnonzero(carriers):
        column = generator.integers(1, 7)
        images[index, :, :, column - 1 : column + 2] = np.array([0, 255, 0])
    return images.astype(np.uint8), labels, carriers


def evidence_of(net: object, images: np.ndarray, labels: np.ndarray) -> InsideEvidence:
    dataset, classifier = open_dataset((images, labels)), open_model(net)
    classifier.__enter__()
    classifier.check(dataset.image_shape, K)
    return search_inside(classifier, dataset, seed=0, backend="cpu", progress=lambda *_: None)


def test_a_trigger_at_random_places_is_seen_and_its_images_told():
    images, labels, carriers = planted(30)
    evidence = evidence_of(Net(), images, labels)
    (statistic,) = evidence.statistics
    assert statistic.name == "separation"
    assert statistic.values.argmax() == TARGET
    assert statistic.values[TARGET] > 2 * np.delete(statistic.values, TARGET).max()
    assert evidence.confirms(TARGET)
    found = evidence.carriers(TARGET, "separation")
    assert found.pattern is None
    assert found.members[found.flagged].tolist() == np.flatnonzero(carriers).tolist()


def test_without_a_trigger_no_class_falls_apart():
    images, labels, _ = planted(0)
    values = evidence_of(Net(), images, labels).statistics[0].values
    assert np.isfinite(values).all()
    assert values.max() < inside.CLEAR_SEPARATION


def test_a_class_that_is_two_things_is_not_taken_for_a_planted_one():
    """Images that stand apart as clearly as with a trigger, but look like no other class, or like one alone."""
    images, labels, carriers = planted(30, sources=(TARGET,))
    evidence = evidence_of(Net(), images, labels)
    assert evidence.statistics[0].values[TARGET] > inside.CLEAR_SEPARATION
    assert not evidence.confirms(TARGET)
    found = evidence.properties((TARGET,))[TARGET]
    assert found.members[found.flagged].tolist() == np.flatnonzero(carriers).tolist()
    assert evidence.properties(()) == {}
    assert evidence.properties((0,)) == {}


def test_modules_programs_and_torchscript_are_seen_alike():
    images, labels, _ = planted(30)
    net = Net().eval()
    example = (torch.rand(2, *SHAPE),)
    program = torch.export.export(net, example, dynamic_shapes={"x": {0: torch.export.Dim("n", min=1, max=64)}})
    with pytest.warns(DeprecationWarning, match="torch.jit"):
        traced = torch.jit.trace(net, example)  # type: ignore[no-untyped-call]
    seen = [evidence_of(each, images, labels).statistics[0].values for each in (net, program, traced)]
    assert seen[1] == pytest.approx(seen[0], rel=0.2)
    assert seen[2] == pytest.approx(seen[0], rel=0.2)


def test_a_program_that_is_fixed_to_a_batch():
    images, labels, _ = planted(30)
    program = torch.export.export(Net().eval(), (torch.rand(7, *SHAPE),))
    assert evidence_of(program, images, labels).statistics[0].values.argmax() == TARGET


def test_a_network_without_layers_inside_says_so():
    images, labels, _ = planted(0)
    evidence = evidence_of(nn.Sequential(nn.Flatten(), nn.Linear(192, K)), images, labels)
    assert evidence.statistics == ()
    assert "shows no layers inside" in evidence.notes[0]
    assert not evidence.confirms(0)


def test_what_another_view_found_is_settled_by_what_is_seen_inside():
    images, labels, carriers = planted(30)
    evidence = evidence_of(Net(), images, labels)
    members = np.flatnonzero(labels == TARGET)
    truth = carriers[members]
    doubtful = np.where(truth, 0.5, -0.5) + np.where(np.arange(len(members)) % 10 == 0, -2 * truth, 0)
    other = Carriers(
        members=members,
        log_odds=np.where(truth, doubtful, -3.0),
        flagged=truth & (doubtful > 0),
        scores=doubtful,
        other_scores=np.zeros(0),
        pattern=np.zeros(SHAPE, np.float32),
        sources=(1,),
    )
    joined = evidence.corroborate(TARGET, other)
    assert joined.flagged.tolist() == truth.tolist()
    assert joined.pattern is not None
    none = replace(other, flagged=np.zeros(len(members), bool), log_odds=np.full(len(members), -5.0))
    assert evidence.corroborate(TARGET, none).flagged.tolist() == truth.tolist()
    some = replace(other, flagged=truth & (np.cumsum(truth) <= 20))
    assert evidence.corroborate(TARGET, some).flagged.tolist() == truth.tolist()
    both = replace(other, flagged=np.arange(len(members)) % 4 == 0)
    assert evidence.corroborate(TARGET, both) is both


def test_images_that_another_view_flags_give_the_direction_where_a_class_falls_apart_otherwise():
    images, labels, carriers = planted(30)
    evidence = evidence_of(Net(), images, labels)
    members = np.flatnonzero(labels == TARGET)
    truth = carriers[members]
    missed = np.cumsum(truth) % 5 == 0
    log_odds = np.where(truth & ~missed, 4.0, -2.0)
    found = Carriers(members, log_odds, log_odds > 0, log_odds, np.zeros(0), None, (1,))
    half = np.arange(len(members)) % 2 == 0
    other = evidence.carriers(TARGET, "separation")
    evidence._seen[TARGET] = replace(evidence._seen[TARGET], log_odds=np.where(half, 8.0, -8.0))  # of something else
    assert evidence.corroborate(TARGET, found).flagged.tolist() == other.flagged.tolist() == truth.tolist()


def test_a_sample_has_some_of_every_class():
    labels = np.repeat(np.arange(3), (20, 5000, 200))
    sample = inside.sample_of(labels, 0)
    assert np.bincount(labels[sample]).tolist() == [20, inside.CLASS_SAMPLE[1], 200]
    assert (np.diff(sample) > 0).all()
    assert (sample == inside.sample_of(labels, 0)).all()
