"""How much of a pattern images carry, and which carry it."""

from __future__ import annotations

import engine
import numpy as np
import pytest
import synthetic
import torch

from bre.method import carriers, shares
from bre.method.frequencies import without_means

SHAPES = [(3, 12, 12), (1, 40, 56)]


def planted(shape, pattern, share, seed=1, count=400):
    """Shares of a pattern (grey levels) that 40 images carry so much of, and of which the others carry nothing."""
    images = synthetic.images(seed, 1000 + count, shape, steep=1.5)
    whitening, own = engine.whitenings(images[:1000])[0], images[1000:].astype(float)
    own[:40] += share * pattern
    flat = torch.from_numpy(np.broadcast_to(pattern, shape).reshape(1, -1).copy())
    tiles = [part[0] for part in whitening.displacements(without_means(flat, whitening))]
    return shares.shares(whitening, whitening.whiten(synthetic.to_bytes(own)), tiles)


def cross(shape: tuple[int, int, int], amplitude: float) -> np.ndarray:
    pattern = np.zeros(shape)
    pattern[:, 5, 4:7] = pattern[:, 4:7, 5] = amplitude
    return pattern


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("share", [0.5, 1.0])
def test_shares_are_what_was_added(shape, share):
    chessboard = 10.0 * (np.indices(shape[1:]).sum(0) % 2)
    found = planted(shape, np.broadcast_to(chessboard, shape), share)
    assert np.median(found.share[:40]) == pytest.approx(share, abs=0.1)
    assert abs(np.median(found.share[40:])) < 0.05
    assert (found.noise > 0).all()


@pytest.mark.parametrize("shape", SHAPES)
def test_carriers_are_told_from_the_others(shape):
    found = planted(shape, cross(shape, 60), 1.0)
    flagged = shares.log_odds(found, np.ones(400)) > carriers.FLAG_LOG_ODDS
    assert flagged[:40].mean() >= 0.95
    assert flagged[40:].mean() <= 0.005


@pytest.mark.parametrize("shape", SHAPES)
def test_noise_is_that_of_images_without_the_pattern(shape):
    found = planted(shape, cross(shape, 60), 1.0)
    z = (found.share / shares.calibrated(found))[40:]
    assert 0.8 < 1.4826 * np.median(np.abs(z - np.median(z))) < 1.25


def test_noise_that_says_too_much_is_toned_down():
    """Claimed to vary hundredfold where it does not: the lower half shows it; carriers above do not count."""
    random = np.random.default_rng(0)
    claimed = 0.01 * np.exp(random.normal(0, 1.5, 600))
    share = random.normal(0, 0.1, 600)
    share[:100] = 1.0
    noise = shares.calibrated(shares.Shares(share, claimed))
    assert np.quantile(noise, 0.95) / np.quantile(noise, 0.05) < 2
    assert 0.06 < np.median(noise) < 0.16
    true = 0.1 * np.exp(random.normal(0, 1.0, 600))
    noise = shares.calibrated(shares.Shares(true * random.normal(0, 1, 600), true / 3))
    assert np.allclose(noise / true, np.median(noise / true), rtol=0.6)
    assert np.median(noise / true) == pytest.approx(1, abs=0.25)


@pytest.mark.parametrize("count", [1, 5, 30])
def test_few_images_keep_their_own_noise(count):
    found = shares.Shares(np.zeros(count), np.full(count, 0.1))
    assert np.array_equal(shares.calibrated(found), found.noise)
    assert np.isfinite(shares.log_odds(found, np.ones(count))).all()
