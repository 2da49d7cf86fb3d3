"""screen, detect and cleanse on a small poisoned set and the victim trained on it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import synthetic
import torch
from small_victim import CLASSES, EACH, PATTERN, SHAPE, TARGET, trained

import bre
from bre import attacks, ops
from bre.inputs import open_dataset, open_model
from bre.ops import cuda
from bre.verbs.detect import apart, places_of
from bre.verbs.findings import finding_of
from bre.views.model import ModelEvidence, search_model
from bre.views.predictions import Predictions


@dataclass(frozen=True, eq=False)
class Case:
    """A set, the truth about it, and its victim."""

    data: tuple[np.ndarray, np.ndarray]
    poisoned: np.ndarray
    victim: torch.nn.Module


@pytest.fixture(scope="module")
def clean() -> Case:
    data = synthetic.labelled(0, CLASSES, EACH, SHAPE, strength=40)
    return Case(data, np.zeros(len(data[1]), bool), trained(*data))


@pytest.fixture(scope="module")
def case() -> Case:
    images, labels = synthetic.labelled(0, CLASSES, EACH, SHAPE, strength=40)
    planted = attacks.plant(images, labels, PATTERN, target=TARGET, count=120)
    return Case((planted.images, planted.labels), planted.poisoned, trained(planted.images, planted.labels))


@pytest.fixture(scope="module")
def detected(case) -> bre.Report:
    return bre.detect(case.victim, case.data)


@pytest.fixture(scope="module")
def screened(case) -> bre.Report:
    return bre.screen(case.data)


def same(first: bre.Report, second: bre.Report, folder: Path) -> None:
    """Saved, two reports agree to the byte, but for the seconds."""
    folder.mkdir()
    folders = [report.save(folder / name) for report, name in ((first, "first"), (second, "second"))]
    names = [sorted(p.name for p in folder.iterdir()) for folder in folders]
    assert names[0] == names[1] == ["arrays.npz", "report.html", "report.json", "timing.json"]
    for name in ("arrays.npz", "report.json"):
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes(), name


def check_finding(report: bre.Report, case: Case) -> bre.Finding:
    """The true finding comes first and flags the right images."""
    assert report.poisoned
    assert report.p_value <= 0.05
    finding = report.findings[0]
    flagged = np.isin(np.arange(len(case.poisoned)), finding.indices)
    assert finding.target == TARGET
    assert flagged[case.poisoned].mean() >= 0.95
    assert flagged[~case.poisoned].mean() < 0.01
    assert len(finding.sources) >= 3  # all five send images, a few of them may be seen as fewer than half of the most
    a, b = ((p - p.mean((1, 2), keepdims=True)).ravel() for p in (finding.pattern, PATTERN))
    assert a @ b / np.linalg.norm(a) / np.linalg.norm(b) >= 0.9
    check_histogram(finding, case)
    return finding


def check_histogram(finding: bre.Finding, case: Case) -> None:
    """The class's images lie on both sides of the cut, those of other classes below it."""
    kept, labels = finding.histogram, case.data[1]
    above = kept.edges[:-1] >= kept.cut
    assert kept.target_counts.sum() == (labels == TARGET).sum()
    assert kept.target_counts[above].sum() == pytest.approx(len(finding.indices), abs=5)
    assert kept.other_counts[above].sum() <= 0.02 * kept.other_counts.sum()


def test_screen(screened, case):
    finding = check_finding(screened, case)
    assert [f.target for f in screened.findings] == [TARGET]
    assert (finding.success_rate, finding.seen_in) == (None, ("images",))
    assert (screened.cost.forward_images, screened.cost.backward_images) == (0, 0)


def test_detect(detected, case):
    finding = check_finding(detected, case)
    assert [f.target for f in detected.findings] == [TARGET]
    assert finding.success_rate >= 0.8
    assert "images" in finding.seen_in


@pytest.fixture
def model_evidence(case) -> Iterator[ModelEvidence]:
    """Of the victim, without a view of the images beside it."""
    images = open_dataset(case.data)
    with open_model(case.victim) as classifier:
        classifier.check(SHAPE, CLASSES)
        yield search_model(classifier, images, shared=lambda *_: None, seed=0, backend="auto", progress=lambda *_: None)


def test_a_finding_of_the_models_alone(case, model_evidence):
    carriers = model_evidence.carriers(TARGET, "model_statistic")
    finding = finding_of(TARGET, 0.01, carriers, ("model",))
    assert finding.seen_in == ("model",)
    assert case.poisoned[finding.indices].mean() >= 0.5
    check_histogram(finding, case)
    assert 2 * finding.histogram.other_counts.sum() < 300  # images forward


def test_a_pattern_of_the_models_that_no_image_carries_flags_none(model_evidence):
    """As of a model that was trained on other images, or of a class that others are merely easy to push towards."""
    label = (TARGET + 1) % CLASSES
    finding = finding_of(label, 0.01, model_evidence.carriers(label, "model_statistic"), ("model",))
    rates = dict(model_evidence.attack_success_by_source(label))
    assert (len(finding.indices), len(finding.log_odds), finding.histogram) == (0, 0, None)
    np.testing.assert_array_equal(finding.pattern, model_evidence.pattern(label))
    assert finding.sources[0] == max(rates, key=rates.get)
    assert finding.success_rate == pytest.approx(np.mean([rates[s] for s in finding.sources]), abs=0.05)


def test_the_models_part_is_computed_where_the_model_is(case):
    """On the meta device, whose tensors do not mix with the host's."""

    class OnMeta:
        device, mean, std, precision = torch.device("meta"), (0.5,) * 3, (0.25,) * 3, torch.float32

        def logits(self, x: torch.Tensor) -> torch.Tensor:
            assert x.device == self.device
            return torch.ones(len(x), CLASSES)

    predictions = Predictions(OnMeta(), open_dataset(case.data), "reference", 3)
    assert torch.equal(predictions.logits(np.arange(5), torch.zeros(SHAPE), 1), torch.ones(5, CLASSES))


def test_backends_of_a_model_on_a_gpu(monkeypatch):
    """Both parts are computed there; beside a device that is neither CUDA's nor the CPU, images stay in host memory."""
    monkeypatch.setattr(cuda, "unavailable", lambda device: None if device.type == "cuda" else "not on a GPU")
    device, host, best = torch.device("cuda"), torch.device("cpu"), ops.resolve("auto")
    assert places_of("auto", device) == places_of("cuda", device) == (device, "cuda", "cuda")
    assert places_of("reference", device) == (device, "reference", "reference")
    assert places_of("auto", torch.device("xpu")) == (host, "reference", best)
    assert places_of("auto", device, alone=False) == places_of("cuda", device, alone=False) == (host, "cuda", best)
    assert apart(device, device) == apart(host, host) == ()
    assert apart(device, host) == ("images were compared on the CPU, the model ran on cuda",)
    with pytest.raises(bre.BackendUnavailable, match="cpu"):
        places_of("cpu", device)
    with pytest.raises(bre.BackendUnavailable, match="not on a GPU"):
        places_of("cuda", host)


@pytest.mark.parametrize("seed", [0, 1])
def test_a_clean_set(clean, seed):
    for report in (bre.screen(clean.data, seed=seed), bre.detect(clean.victim, clean.data, seed=seed)):
        assert not report.poisoned
        assert report.p_value > 0.05
        assert report.findings == ()
        assert len(report.indices) == 0


def test_one_seed_one_report(case, detected, screened, tmp_path):
    same(detected, bre.detect(case.victim, case.data), tmp_path / "detect")
    same(screened, bre.screen(case.data), tmp_path / "screen")


def test_a_report_counts_its_own_passes(case, detected):
    model = open_model(case.victim)
    for _ in range(2):
        cost = bre.detect(model, case.data).cost
        assert (cost.forward_images, cost.backward_images) == (
            detected.cost.forward_images,
            detected.cost.backward_images,
        )


@pytest.fixture
def torch_defaults():
    yield
    torch.set_default_dtype(torch.float32)
    torch.set_default_device(None)


@pytest.mark.parametrize("default", [torch.float64, torch.bfloat16, "meta"], ids=str)
def test_defaults_of_torch_do_not_matter(case, detected, tmp_path, torch_defaults, default):
    (torch.set_default_device if default == "meta" else torch.set_default_dtype)(default)
    same(detected, bre.detect(case.victim, case.data), tmp_path / "detect")


def test_what_a_pixel_can_hold_bounds_the_pattern():
    """A pixel that is black in all images, and as bright as it can be in the planted ones."""
    generator = np.random.default_rng(3)
    images = generator.integers(0, 256, (400, 1, 12, 12), dtype=np.uint8)
    images[:, :, :2] = images[:, :, -2:] = 0
    labels = np.arange(400) % 4
    pattern = np.zeros((1, 12, 12), np.float32)
    pattern[0, 1, 1] = 1.0
    planted = attacks.plant(images, labels, pattern, target=2, count=40)
    report = bre.screen((planted.images, planted.labels))
    assert [finding.target for finding in report.findings] == [2]
    assert 0.9 < report.findings[0].pattern[0, 1, 1] <= 1


@pytest.mark.parametrize("threads", [1, 2])
def test_thread_counts_do_not_matter(case, detected, screened, tmp_path, threads):
    torch.set_num_threads(threads)
    same(detected, bre.detect(case.victim, case.data), tmp_path / "detect")
    same(screened, bre.screen(case.data), tmp_path / "screen")


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_backends_agree(case, backend):
    report = bre.detect(case.victim, case.data, backend=backend)
    assert report.backend == backend
    check_finding(report, case)


def test_mean_and_std_are_applied(case, detected):
    """The same network behind another input scale."""

    class Rescaled(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = case.victim

        def forward(self, x):
            return self.inner(x * 0.25 + 0.5)

    report = bre.detect(Rescaled(), case.data, mean=[0.5] * 3, std=[0.25] * 3)
    assert check_finding(report, case).success_rate == pytest.approx(detected.findings[0].success_rate, abs=0.05)


@pytest.mark.parametrize("training", [True, False])
def test_the_model_is_left_as_it_was(case, training):
    before = {name: value.clone() for name, value in case.victim.state_dict().items()}
    case.victim.train(training)
    case.victim[0].train(not training)
    case.victim[0].bias.requires_grad_(False)
    try:
        bre.detect(case.victim, case.data)
        assert [m.training for m in case.victim] == [not training] + [training] * (len(case.victim) - 1)
        assert [p.requires_grad for p in case.victim[0].parameters()] == [True, False]
    finally:
        case.victim.eval()
        case.victim[0].bias.requires_grad_(True)
    assert all(torch.equal(value, before[name]) for name, value in case.victim.state_dict().items())


def test_cost_counts_what_ran(case):
    class Counting(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.forwards, self.backwards = case.victim, 0, 0

        def forward(self, x):
            self.forwards += len(x)
            if x.requires_grad:
                x.register_hook(self.count)
            return self.inner(x)

        def count(self, grad):
            self.backwards += len(grad)

    model = Counting()
    cost = bre.detect(model, case.data).cost
    assert (cost.forward_images, cost.backward_images) == (model.forwards, model.backwards)
    assert 0 < cost.backward_images <= cost.forward_images <= 25_000


def test_cleanse_removes_what_was_flagged(case, detected):
    images, labels = bre.cleanse(case.data, detected)
    kept = np.setdiff1d(np.arange(len(case.poisoned)), detected.indices)
    assert (images == case.data[0][kept]).all()
    assert (labels == case.data[1][kept]).all()
    assert case.poisoned[kept].mean() <= 0.05 * case.poisoned.mean()
    assert not bre.screen((images, labels)).poisoned


def test_small_classes_are_named(case):
    """Forty images of one class, three of another, none of a third."""
    images, labels = case.data
    counts = {0: 40, 1: 3, 3: 0}
    keep = np.ones(len(labels), bool)
    for label, count in counts.items():
        keep[np.flatnonzero(labels == label)[count:]] = False
    for report in (bre.screen((images[keep], labels[keep])), bre.detect(case.victim, (images[keep], labels[keep]))):
        for row in report.classes:
            assert row.count == (labels[keep] == row.label).sum()
            assert bool(row.note) == (row.label in counts)
            if row.label in counts:
                assert "not searched: 50 images without near duplicates" in row.note
                assert f"its {row.count} images" in row.note
                assert row.image_statistic is None
