"""Waves that the mean of a class shows: found at any frequency and phase, and no more than that."""

from __future__ import annotations

import engine
import numpy as np
import pytest
import synthetic

from bre.method import clusters, stats, waves


def wave(shape: tuple[int, int, int], down: float, across: float, amplitude: float, phase: float = 0.7) -> np.ndarray:
    row, column = np.indices(shape[1:])
    plane = np.sin(2 * np.pi * (down * row / shape[1] + across * column / shape[2]) + phase)
    return np.broadcast_to(amplitude * plane, shape)


@pytest.mark.parametrize("shape", [(3, 40, 56), (1, 40, 33), (3, 20, 20)])
@pytest.mark.parametrize(("down", "across"), [(0, 6), (5.5, 0), (4, -7)])
def test_images_that_carry_a_wave_lie_apart_along_one(shape, down, across):
    images = synthetic.images(0, 700, shape, steep=1.5)
    own, carries = synthetic.plant(images[300:], wave(shape, down, across, 16), 40)
    whitenings = engine.whitenings(images[:300])
    codes = engine.codes(whitenings, own)
    starts = waves.of_levels(whitenings, codes)
    assert len(starts) <= waves.MAX_WAVES * len(codes)
    looked = [scores[0].numpy() for _, _, scores in clusters.looked_along(codes, starts, 0)][: len(starts)]
    apart = max(np.median(scores[carries]) for scores in looked)
    assert apart > 5
    best = clusters.search(codes, starts).anywhere[0]
    assert carries[best.members].mean() > 0.95
    assert carries[best.members].sum() > 30


def test_what_pairs_of_images_do_not_show():
    """Sixty of six hundred, and neither company nor an axis of the class tells them."""
    shape = (3, 96, 96)
    images = synthetic.images(1, 900, shape, steep=1.5)
    own, carries = synthetic.plant(images[300:], wave(shape, 0, 12, 4), 60)
    whitenings = engine.whitenings(images[:300])
    codes = engine.codes(whitenings, own)
    without = clusters.search(codes).anywhere
    found = clusters.search(codes, waves.of_levels(whitenings, codes)).anywhere
    assert not without or carries[without[0].members].mean() < 0.5
    assert carries[found[0].members].mean() > 0.9
    assert found[0].evidence > 12


@pytest.mark.parametrize("shape", [(1, 3, 1), (3, 1, 1), (1, 2, 2), (3, 8, 8), (1, 5, 70)])
def test_any_size(shape):
    images = synthetic.images(2, 120, shape)
    whitenings = engine.whitenings(images)
    for start in waves.of_levels(whitenings, engine.codes(whitenings, images)):
        assert np.isfinite(start.total.numpy()).all()
        assert np.isfinite(start.shared.numpy()).all()


def test_flat_images_have_no_waves():
    images = np.full((80, 3, 16, 16), 9, np.uint8)
    whitenings = engine.whitenings(images)
    codes = engine.codes(whitenings, images)
    assert clusters.search(codes, waves.of_levels(whitenings, codes)).anywhere == []


def test_along_waves_images_without_a_pattern_have_little_evidence():
    """The bound of `stats.class_p_values`: more than e nats along one wave with a probability below exp(-e)."""
    shape, evidence = (3, 24, 24), []
    for seed in range(12):
        images = synthetic.images(10 + seed, 500, shape, steep=1.5)
        whitenings = engine.whitenings(images[:300])
        codes = engine.codes(whitenings, images[300:])
        starts = waves.of_levels(whitenings, codes)
        looked = [scores[0].numpy() for _, _, scores in clusters.looked_along(codes, starts, 0)][: len(starts)]
        modes = stats.second_modes(np.stack(looked), floor=clusters.MODE_FLOOR, width=clusters.MODE_WIDTH)
        evidence += modes[:, 0].tolist()
    for nats in (0.5, 1.0, 2.0, 3.0):
        share = float((np.array(evidence) > nats).mean())
        assert share <= np.exp(-nats), (nats, share)
