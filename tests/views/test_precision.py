"""bfloat16 in the network instead of float32: the same verdicts, on the poisoned and the clean set of test_verbs."""

from __future__ import annotations

import numpy as np
import pytest
import synthetic
import torch
from small_victim import CLASSES, EACH, PATTERN, SHAPE, TARGET, trained
from torch import Tensor, nn

import bre
from bre import attacks
from bre.inputs import Classifier, open_model
from bre.views import pattern_batch


@pytest.fixture(scope="module")
def data() -> tuple[np.ndarray, np.ndarray]:
    return synthetic.labelled(0, CLASSES, EACH, SHAPE, strength=40)


@pytest.fixture(scope="module")
def planted(data: tuple[np.ndarray, np.ndarray]) -> attacks.Poisoned:
    return attacks.plant(*data, PATTERN, target=TARGET, count=120)


@pytest.fixture(scope="module")
def victim(planted: attacks.Poisoned) -> nn.Module:
    return trained(planted.images, planted.labels, epochs=5)


def in_bfloat16(model: nn.Module, data: tuple[np.ndarray, np.ndarray]) -> bre.Report:
    """Everything goes through a network of bfloat16 inputs, products and gradients."""
    report = bre.detect(model, data, precision="bfloat16")
    assert report.notes == ("the network ran in bfloat16",)
    return report


def by_model(report: bre.Report) -> np.ndarray:
    return np.array([row.model_statistic for row in report.classes])


def test_the_verdict_on_a_poisoned_set(planted: attacks.Poisoned, victim: nn.Module) -> None:
    data = planted.images, planted.labels
    report, full = in_bfloat16(victim, data), bre.detect(victim, data)
    assert by_model(full).argmax() == TARGET
    np.testing.assert_allclose(by_model(report), by_model(full), rtol=0.2)
    assert not np.array_equal(by_model(report), by_model(full))
    assert [finding.target for finding in report.findings] == [TARGET]
    flagged = np.isin(np.arange(len(planted.poisoned)), report.indices)
    assert flagged[planted.poisoned].mean() >= 0.95
    assert flagged[~planted.poisoned].mean() < 0.01


def test_the_verdict_on_a_clean_set(data: tuple[np.ndarray, np.ndarray]) -> None:
    model = trained(*data, epochs=5)
    report = in_bfloat16(model, data)
    np.testing.assert_allclose(by_model(report), by_model(bre.detect(model, data)), rtol=0.2)
    assert not report.poisoned


def batch_of(classifier: Classifier, planted: attacks.Poisoned) -> pattern_batch.PatternBatch:
    images, labels = planted.images[~planted.poisoned][:120], torch.from_numpy(planted.labels[~planted.poisoned][:120])
    index = torch.stack([torch.nonzero(labels != t).flatten()[:60] for t in range(CLASSES)])
    return pattern_batch.PatternBatch(
        classifier,
        torch.from_numpy(images),
        index,
        labels[index],
        torch.ones_like(index, dtype=torch.int8),
        torch.arange(CLASSES),
        backend="auto",
    )


def grown(model: object, planted: attacks.Poisoned, precision: str) -> pattern_batch.PatternBatch:
    """Patterns that have grown until the first moved its sources."""
    with open_model(model, precision=precision) as classifier:
        classifier.check(SHAPE, CLASSES)
        batch = batch_of(classifier, planted)
        for _ in range(pattern_batch.MAX_STEPS):
            batch.step(torch.ones(CLASSES, dtype=torch.bool))
            if batch.look().max() >= pattern_batch.PI:
                break
        return batch


def exported(module: nn.Module) -> torch.export.ExportedProgram:
    example = torch.zeros(3, *SHAPE)
    return torch.export.export(module, (example,), dynamic_shapes=({0: torch.export.Dim("n", min=1, max=4096)},))


def scripted(module: nn.Module) -> nn.Module:
    return torch.jit.trace(module, torch.zeros(2, *SHAPE))


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.parametrize("form", [nn.Module.eval, exported, scripted], ids=["module", "exported", "scripted"])
def test_the_same_pattern_wins(planted: attacks.Poisoned, victim: nn.Module, form: object) -> None:
    model = form(victim)  # type: ignore[operator]
    full, half = (grown(model, planted, precision) for precision in ("float32", "bfloat16"))
    assert int(full.share.argmax()) == int(half.share.argmax()) == TARGET
    assert half.share[TARGET] >= pattern_batch.PI
    assert (full.notes, half.notes) == ((), ("the network ran in bfloat16",))

    def direction(batch: pattern_batch.PatternBatch) -> Tensor:
        return nn.functional.normalize(batch.pattern[TARGET].flatten(), dim=0)

    assert direction(full) @ direction(half) > 0.8
    assert half.pattern.dtype == half.momentum.dtype == half.weight.dtype == half.share.dtype == torch.float32
    assert not torch.equal(full.pattern, half.pattern)  # it did run in another precision
