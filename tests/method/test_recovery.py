"""From a mean displacement in whitened space back to the pattern, in the cases where the truth is known."""

from __future__ import annotations

import numpy as np
import pytest
import synthetic
import torch

from bre import attacks
from bre.method.recovery import BASES, recover, simplex_fit
from bre.method.whitening import Background

SHAPE = (3, 12, 12)
SIZE = 432


def centred(patterns: np.ndarray) -> np.ndarray:
    """(m, D) with each channel's mean taken away: what cannot be told from brightness is not asked for."""
    planes = patterns.reshape(-1, *SHAPE)
    return (planes - planes.mean((2, 3), keepdims=True)).reshape(-1, SIZE)


@pytest.fixture(scope="module")
def background() -> Background:
    """Of 1/f images."""
    sample = centred(synthetic.images(0, 4000, SHAPE, steep=1.5).reshape(-1, SIZE).astype(float))
    factor = np.linalg.cholesky(np.cov(sample.T) + np.eye(SIZE) / 12)
    return Background(torch.zeros(SIZE, dtype=torch.float64), torch.from_numpy(factor), 4000, SHAPE)


@pytest.fixture(scope="module")
def unwhitened(background) -> np.ndarray:
    """L^-1 C, from numpy alone."""
    return centred(np.linalg.inv(background.factor.numpy()))


@pytest.fixture(scope="module")
def means(unwhitened) -> np.ndarray:
    """(5, D): whitened class means, smooth as the means of classes are."""
    return centred(0.2 * (synthetic.images(1, 5, SHAPE, steep=1.5).reshape(5, SIZE) - 128.0)) @ unwhitened.T


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a.ravel() @ b.ravel() / np.linalg.norm(a) / np.linalg.norm(b))


def displaced(pattern, unwhitened, means, mixture, count, seed=0):
    """What `count` images with the pattern average to, and the variance of each of its coordinates."""
    noise = np.random.default_rng(seed).normal(0, count**-0.5, SIZE)
    return unwhitened @ (255.0 * pattern.ravel()) + means.T @ np.asarray(mixture) + noise, 1 / count


MIXTURE = (0.6, 0.4, 0.0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("pattern", "basis"),
    [
        (attacks.local(SHAPE, "cross"), "pixel"),
        (attacks.local(SHAPE, "l", at=(2, 3)), "pixel"),
        (attacks.local(SHAPE, "pixel"), "pixel"),
        (attacks.chessboard(SHAPE), "hartley"),
        (attacks.grid(SHAPE), "hartley"),
        (attacks.sine(SHAPE, cycles=3), "hartley"),
    ],
    ids=["cross", "l", "pixel", "chessboard", "grid", "sine"],
)
def test_simple_patterns_are_recovered(pattern, basis, background, unwhitened, means):
    found = recover(*displaced(pattern, unwhitened, means, MIXTURE, 300), background, means)
    assert found.basis == basis
    assert cosine(centred(found.pattern), centred(pattern)) > 0.99
    assert cosine(unwhitened @ found.pattern, unwhitened @ pattern.ravel()) > 0.98
    size = np.linalg.norm(centred(found.pattern)) / np.linalg.norm(centred(255 * pattern))
    assert size == pytest.approx(1, abs=0.1)
    np.testing.assert_allclose(found.mixture, MIXTURE, atol=0.1)


def test_a_cross_is_found_pixel_by_pixel(background, unwhitened, means):
    pattern = attacks.local(SHAPE)
    found = recover(*displaced(pattern, unwhitened, means, MIXTURE, 300), background, means).pattern
    assert ((np.abs(found.reshape(SHAPE)) > 1).any(0) == (pattern > 0).any(0)).all()


def test_a_pattern_that_is_everywhere_is_dense(background, unwhitened, means):
    pattern = attacks.random_sign(SHAPE)
    found = recover(*displaced(pattern, unwhitened, means, MIXTURE, 2000), background, means)
    assert found.basis == "dense"
    assert cosine(unwhitened @ found.pattern, unwhitened @ pattern.ravel()) > 0.95
    np.testing.assert_allclose(found.mixture, MIXTURE, atol=0.15)


def test_no_pattern_but_a_source_mixture(background, unwhitened, means):
    """A relabelled but otherwise untouched set of images: nothing was added to it."""
    found = recover(*displaced(np.zeros(SHAPE), unwhitened, means, MIXTURE, 300), background, means)
    assert np.abs(found.pattern).max() < 2
    np.testing.assert_allclose(found.mixture, MIXTURE, atol=0.1)


def test_few_images_still_name_the_place(background, unwhitened, means):
    pattern = attacks.local(SHAPE)
    found = recover(*displaced(pattern, unwhitened, means, MIXTURE, 10), background, means)
    assert cosine(centred(found.pattern), centred(pattern)) > 0.9


@pytest.mark.parametrize("name", BASES)
def test_bases_are_orthonormal(name):
    forward, inverse = BASES[name]
    planes = np.random.default_rng(0).normal(size=SHAPE)
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
    np.testing.assert_allclose(simplex_fit(np.eye(3), np.array(target)), weights, atol=1e-5)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_weights_sum_to_one_and_are_the_truth(scale):
    generator = np.random.default_rng(0)
    columns, weights = scale * generator.normal(size=(6, 40)), generator.dirichlet(np.ones(6))
    fitted = simplex_fit(columns, columns.T @ weights)
    assert fitted.sum() == pytest.approx(1)
    assert (fitted >= 0).all()
    np.testing.assert_allclose(fitted, weights, atol=1e-3)


def test_one_column():
    assert simplex_fit(np.ones((1, 4)), np.zeros(4)).tolist() == [1.0]
