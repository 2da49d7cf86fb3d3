"""What is planted in every class at once: all-to-all labels are found, watermarks and clean images are not."""

from __future__ import annotations

import numpy as np
import pytest
import synthetic
import torch

import bre
from bre import attacks
from bre.inputs import open_dataset
from bre.method import cross_class
from bre.views import images as views_images
from bre.views.images import ImageEvidence, search_images

SHAPE = (3, 10, 10)
CLASSES, EACH, COUNT = 5, 700, 350
PATTERNS = {
    "chessboard": attacks.chessboard(SHAPE, 6 / 255),
    "random sign": attacks.random_sign(SHAPE, 6 / 255, 1),
    "cross": attacks.local(SHAPE, "cross", 60 / 255, (3, 7)),
}


def view(images: np.ndarray, labels: np.ndarray) -> ImageEvidence:
    return search_images(open_dataset((images, labels)), seed=0, backend="auto", progress=lambda stage, fraction: None)


def labelled(seed: int, shape: tuple[int, int, int] = SHAPE) -> tuple[np.ndarray, np.ndarray]:
    """Classes with means of their own, which tell where an image comes from."""
    images, labels = synthetic.labelled(seed, CLASSES, EACH, shape)
    means = synthetic.images(seed + 1, CLASSES, shape, steep=1.5).astype(float) - 128
    return synthetic.to_bytes(images + 0.3 * means[labels]), labels


def all_to_all(pattern: np.ndarray, seed: int = 0) -> attacks.Poisoned:
    images, labels = labelled(seed)
    return attacks.plant(images, labels, pattern, target=None, sources=tuple(range(CLASSES)), count=COUNT, seed=seed)


@pytest.mark.parametrize("name", PATTERNS)
def test_all_to_all_labels_are_found_in_every_class(name):
    planted = all_to_all(PATTERNS[name])
    report = bre.screen((planted.images, planted.labels))
    assert report.p_value < 0.01
    poison = [finding for finding in report.findings if finding.is_poison]
    assert sorted(finding.target for finding in poison) == list(range(CLASSES))
    flagged = np.isin(np.arange(len(planted.labels)), report.indices)
    assert flagged[planted.poisoned].mean() > 0.9
    assert flagged[~planted.poisoned].mean() < 0.01
    for finding in poison:
        assert finding.sources[0] == (finding.target - 1) % CLASSES
        assert finding.target not in finding.sources
        assert finding.p_value <= report.alpha
        estimate, true = (p - p.mean((1, 2), keepdims=True) for p in (finding.pattern, PATTERNS[name]))
        assert (estimate * true).sum() / np.linalg.norm(estimate) / np.linalg.norm(true) > 0.8
        assert 0.8 * np.linalg.norm(true) < np.linalg.norm(estimate) < 1.2 * np.linalg.norm(true)
        assert finding.histogram.target_counts.sum() == (planted.labels == finding.target).sum()


@pytest.mark.parametrize("seed", range(4))
def test_clean_images_share_nothing(seed):
    images, labels = synthetic.labelled(seed, CLASSES, EACH, SHAPE)
    assert view(images, labels).cross_class_p_value > 0.05


@pytest.mark.parametrize("source", [labelled, lambda seed: synthetic.labelled(seed, CLASSES, EACH, SHAPE)])
def test_a_watermark_on_images_of_every_class_is_no_attack(source):
    """Neither where classes have means that tell them apart, nor where they have none."""
    images, labels = source(0)
    marked = np.random.default_rng(0).choice(len(images), COUNT, replace=False)
    images[marked] = attacks.embed(images[marked], PATTERNS["cross"])
    found = view(images, labels)
    assert found.cross_class_p_value < 1e-6  # it is seen
    assert found.cross_class(()) == ()


def test_too_few_images_to_know_the_background_are_not_searched(monkeypatch):
    planted = all_to_all(PATTERNS["chessboard"])
    assert view(planted.images, planted.labels).cross_class_p_value < 1e-6
    monkeypatch.setattr(views_images, "CROSS_CLASS_DEPTH", len(planted.labels) // int(np.prod(SHAPE)) + 1)
    few = view(planted.images, planted.labels)
    assert few.cross_class_p_value == 1
    assert few.cross_class(()) == ()


def test_pixels_that_never_change_and_grey_images():
    images, labels = synthetic.labelled(0, CLASSES, EACH, (1, 10, 10))
    images[:, :, :2] = 0
    assert view(images, labels).cross_class_p_value > 0.05


def test_any_number_of_threads_gives_the_same_answer():
    planted, answers, before = all_to_all(PATTERNS["chessboard"]), [], torch.get_num_threads()
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            answers.append(view(planted.images, planted.labels).shared.pattern)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(answers[0].direction, answers[1].direction)
    assert answers[0].mode == answers[1].mode


def test_scores_are_in_robust_standard_deviations():
    generator = np.random.default_rng(0)
    scores = np.stack([generator.normal(5, 3, 20000), generator.normal(0, 1, 20000)])
    scores[:, :1000] += 100
    standardised = cross_class.standardised(scores)[:, 1000:]
    np.testing.assert_allclose(standardised.mean(1), 0, atol=0.1)
    np.testing.assert_allclose(standardised.std(1), 1, atol=0.1)
    assert not cross_class.standardised(np.zeros((2, 9))).any()


def test_how_far_carriers_are_from_their_class():
    """Nothing for images of the class itself, though its mean is that of a sample; their distance for others'."""
    generator = np.random.default_rng(0)
    centres = np.zeros((3, 200))
    centres[1, 0], centres[2, 1] = 2, 3
    answers = []
    for _ in range(200):
        means = centres + generator.normal(size=(3, 200)) / 10  # of 100 images
        answers.append([cross_class.distance_towards_others(means, 0, centre, 100) for centre in centres])
    none, second, third = np.mean(answers, axis=0)
    assert abs(none) < 0.3
    assert second > 1
    assert third > 2
