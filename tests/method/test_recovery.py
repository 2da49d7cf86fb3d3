"""From images that carry a pattern back to it, where the truth is known; and the parts of that."""

from __future__ import annotations

import engine
import numpy as np
import pytest
import synthetic
import torch

from bre import attacks
from bre.method.frequencies import BASES, without_means
from bre.method.recovery import mean_displacement, recover, simplex_fit
from bre.method.whitening import Whitening, remove_channel_means

SHAPES = [(3, 12, 12), (1, 40, 56)]
CLASSES = 4


@pytest.fixture(scope="module", params=SHAPES, ids=["one tile", "many tiles"])
def whitening(request) -> Whitening:
    return engine.whitenings(synthetic.images(0, 2000, request.param, steep=1.5))[0]


@pytest.fixture(scope="module")
def means(whitening) -> np.ndarray:
    """(CLASSES, D) grey levels: what images of a class have in common, smooth as the means of classes are."""
    own = 0.1 * (synthetic.images(1, CLASSES, whitening.level.shape, steep=1.5) - 128.0)
    return own.reshape(CLASSES, -1) - own.mean((2, 3)).repeat(np.prod(whitening.level.shape[1:]), 1)


MIXTURE = np.array([0.6, 0.4, 0.0, 0.0])


def recovered(pattern: np.ndarray, whitening: Whitening, means: np.ndarray, count: int):
    """From `count` images of the first two classes that carry a pattern, pixel units."""
    shape = whitening.level.shape
    sources = np.random.default_rng(2).choice(CLASSES, count, p=MIXTURE)
    images = synthetic.images(3, count, shape, steep=1.5) + means.reshape(-1, *shape)[sources]
    tiles = whitening.whiten(synthetic.to_bytes(images + 255 * pattern))
    return recover(mean_displacement(tiles, [kind.sizes for kind in whitening.kinds]), whitening, means)


def centred(pattern: np.ndarray, whitening: Whitening) -> np.ndarray:
    """(D,) with each channel's mean taken away: what cannot be told from brightness is not asked for."""
    return without_means(torch.from_numpy(np.asarray(pattern, float).reshape(1, -1)), whitening)[0].numpy()


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


@pytest.mark.parametrize(
    ("make", "basis"),
    [
        (lambda shape: attacks.local(shape, "cross"), "pixel"),
        (lambda shape: attacks.local(shape, "l", at=(2, 3)), "pixel"),
        (attacks.chessboard, "hartley"),
        (lambda shape: attacks.sine(shape, cycles=5), "hartley"),
    ],
    ids=["cross", "l", "chessboard", "sine"],
)
def test_simple_patterns_are_recovered(make, basis, whitening, means):
    pattern = make(whitening.level.shape)
    found = recovered(pattern, whitening, means, 200)
    assert found.basis == basis
    true, estimate = centred(pattern, whitening), centred(found.pattern, whitening)
    assert cosine(estimate, true) > 0.9
    assert np.linalg.norm(estimate) / np.linalg.norm(255 * true) == pytest.approx(1, abs=0.25)


def test_a_pattern_that_is_everywhere_is_dense(whitening, means):
    pattern = attacks.random_sign(whitening.level.shape)
    found = recovered(pattern, whitening, means, 500)
    assert found.basis == "dense"
    assert cosine(centred(found.pattern, whitening), centred(pattern, whitening)) > 0.9


def test_few_images_still_name_the_place(whitening, means):
    pattern = attacks.local(whitening.level.shape)
    found = recovered(pattern, whitening, means, 10)
    assert cosine(centred(found.pattern, whitening), centred(pattern, whitening)) > 0.9


@pytest.mark.parametrize("cycles", [4, 5])
def test_a_smooth_pattern_of_one_source_whose_mean_is_not_known_well(whitening, means, cycles):
    """Two fifths of the images carry nothing and are of another class, and means are those of fifty images: their noise
    is several times that of the displacement, and smooth patterns weigh little beside it."""
    shape = whitening.level.shape
    pattern = 255 * attacks.sine(shape, 8 / 255, cycles)
    images = synthetic.images(3, 500, shape, steep=1.5) + means.reshape(-1, *shape)[0]
    images[:300] += pattern
    images[300:] += (means[3] - means[0]).reshape(shape)
    others = synthetic.images(5, 50 * CLASSES, shape, steep=1.5).reshape(CLASSES, 50, -1)
    known = means + without_means(torch.from_numpy(others.mean(1) - 128.0), whitening).numpy() - whitening.mean.numpy()
    displacement = mean_displacement(
        whitening.whiten(synthetic.to_bytes(images)), [kind.sizes for kind in whitening.kinds]
    )
    found = recover(displacement, whitening, known[:3], np.full(3, 50))
    assert found.basis in BASES
    assert cosine(centred(found.pattern, whitening), centred(pattern, whitening)) > 0.8


def test_noise_of_the_columns_does_not_spread_a_mixture():
    random = np.random.default_rng(0)
    true = random.normal(size=(6, 3000))
    columns = torch.from_numpy(true + random.normal(0, 3, true.shape))
    target = torch.from_numpy(true[2] + random.normal(0, 0.1, 3000))
    assert simplex_fit(columns, target)[2] < 0.4
    assert simplex_fit(columns, target, np.full(6, 9.0))[2] > 0.7


def test_the_displacement_is_that_of_the_pattern(whitening):
    pattern = 255 * attacks.random_sign(whitening.level.shape)
    images = synthetic.images(4, 400, whitening.level.shape, steep=1.5)
    found = mean_displacement(
        whitening.whiten(synthetic.to_bytes(images + pattern)), [kind.sizes for kind in whitening.kinds]
    )
    true = whitening.displacements(torch.from_numpy(centred(pattern, whitening))[None])
    for estimate, exact, noise in zip(found.tiles, true, found.noise, strict=True):
        assert cosine(estimate.flatten().numpy(), exact.flatten().numpy()) > 0.95
        assert (noise > 0).all()
    assert remove_channel_means(images).shape == (400, whitening.level.size)


@pytest.mark.parametrize("name", BASES)
def test_bases_are_orthonormal(name):
    forward, inverse = BASES[name]
    planes = np.random.default_rng(0).normal(size=SHAPES[0])
    np.testing.assert_allclose(inverse(forward(planes)), planes, atol=1e-12)
    np.testing.assert_allclose(np.linalg.norm(forward(planes)), np.linalg.norm(planes))


# ---- simplex_fit


@pytest.mark.parametrize(
    ("target", "weights"),
    [
        ([1.0, 0.0, 0.0], [1, 0, 0]),
        ([0.5, 0.3, 0.2], [0.5, 0.3, 0.2]),
        ([5.0, 0.0, 0.0], [1, 0, 0]),  # beyond a corner
        ([1.0, 1.0, -3.0], [0.5, 0.5, 0]),  # outside: the nearest point of an edge
        ([0.0, 0.0, 0.0], [1 / 3, 1 / 3, 1 / 3]),
    ],
)
def test_weights_on_the_simplex(target, weights):
    np.testing.assert_allclose(
        simplex_fit(torch.eye(3, dtype=torch.float64), torch.tensor(target, dtype=torch.float64)), weights, atol=1e-5
    )


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_weights_sum_to_one_and_are_the_truth(scale):
    generator = np.random.default_rng(0)
    columns, weights = scale * generator.normal(size=(6, 40)), generator.dirichlet(np.ones(6))
    fitted = simplex_fit(torch.from_numpy(columns), torch.from_numpy(columns.T @ weights))
    assert fitted.sum() == pytest.approx(1)
    assert (fitted >= 0).all()
    np.testing.assert_allclose(fitted, weights, atol=1e-3)


def test_one_column():
    assert simplex_fit(torch.ones(1, 4).double(), torch.zeros(4).double()).tolist() == [1.0]
