"""Whitening as an operator: what it whitens, that its parts agree, and how a covariance is shrunk."""

from __future__ import annotations

from itertools import pairwise

import engine
import numpy as np
import pytest
import synthetic
import torch

from bre.method.levels import Level, levels, pyramid
from bre.method.whitening import TileMoments, remove_channel_means

SHAPES = [(3, 12, 12), (3, 40, 56), (1, 35, 50), (3, 3, 5)]


@pytest.mark.parametrize("shape", SHAPES)
def test_templates_displacements_and_whitened_images_agree(shape):
    images = synthetic.images(0, 300, shape, steep=1.5)
    whitening = engine.whitenings(images)[0]
    random = torch.Generator().manual_seed(0)
    pattern = torch.randn(2, whitening.level.size, generator=random, dtype=torch.float64)
    displaced = whitening.displacements(pattern)
    templates = whitening.templates(displaced)
    centred = (remove_channel_means(images[:20]) - whitening.mean).double()
    whitened = whitening.displacements(centred)
    along = sum(part.flatten(1) @ own.flatten(1).T for part, own in zip(whitened, displaced, strict=True))
    assert torch.allclose(centred @ templates.T, along, rtol=1e-6, atol=1e-6 * float(along.abs().max()))
    single = whitening.whiten(images[:20])
    assert all(torch.allclose(a.double(), b, atol=2e-3) for a, b in zip(single, whitened, strict=True))


def test_whitened_tiles_of_unseen_images_have_unit_covariance():
    images = synthetic.images(1, 1500, (3, 40, 56), steep=1.5)
    whitening = engine.whitenings(images[:1000])[0]
    tiles = whitening.whiten(images[1000:])[0].flatten(0, 1)
    covariance = (tiles.T @ tiles / len(tiles)).double()
    assert 0.9 < covariance.diagonal().mean() < 1.1
    assert (covariance - covariance.diagonal().diag()).abs().mean() < 0.03


def test_codes_are_whitened_cells_of_bounded_energy():
    shape = (3, 40, 56)
    images = synthetic.images(2, 200, shape, steep=1.5)
    by = engine.whitenings(images)
    sizes = [whitening.level for whitening in by]
    for whitening, codes, block in zip(by, engine.codes(by, images), pyramid(images, sizes), strict=True):
        cells = whitening.cells(whitening.whiten(block))
        for number, unit in enumerate(whitening.level.units):
            start = 0
            for cell in unit.cells:
                values = cells[cell.top // 8, cell.left // 8]
                kept = (1 + values.square().mean(1, keepdim=True)).rsqrt()
                own = codes.units[number][:, start : start + values.shape[1]]
                start += values.shape[1]
                assert (own - 12 * kept * values).abs().max() < 1.1
                assert torch.allclose(codes.kept[:, cell.top // 8, cell.left // 8], kept[:, 0], atol=0.01)


def moments(images: np.ndarray, groups: np.ndarray, tiles: int = 16) -> TileMoments:
    found = TileMoments(levels(images.shape[1:])[0], tiles)
    for start in range(0, len(images), 64):
        block = slice(start, start + 64)
        found.add(images[block], groups[block], np.arange(len(images))[block] % 2, np.random.default_rng(start))
    return found


def test_a_group_left_out_leaves_the_others_covariance():
    images, groups = synthetic.images(3, 256, (3, 16, 16), steep=1.5), np.arange(256) // 64 % 2
    left = moments(images, groups)
    count, second = left.second(groups != 1)
    assert count == 128
    centred = remove_channel_means(images[groups == 0]).double()
    order = np.concatenate([places for *_, places in left.level.cell_places(0, 0, 16, 16)])
    assert torch.allclose(second, (centred.T @ centred)[order][:, order], rtol=1e-4, atol=5.0)
    assert torch.allclose(left.whitening([1]).mean, centred.mean(0).float(), atol=1e-3)  # not the mean of all images
    everything = moments(images, np.zeros(256, int))
    assert torch.equal(everything.whitening([0]).covariance, everything.whitening().covariance)  # nothing would be left
    assert not torch.equal(left.whitening([1]).covariance, everything.whitening().covariance)


def test_shrinkage_falls_smoothly_with_the_number_of_images():
    images = synthetic.images(4, 3200, (3, 16, 16), steep=1.5)
    weights = []
    for count in (50, 100, 200, 400, 800, 1600, 3200):
        own = moments(images[:count], np.zeros(count, int)).whitening().weights
        assert all(0 <= weight <= 1 for weight in own)
        weights.append(own[0])
    assert all(a > b - 0.02 for a, b in pairwise(weights)), weights
    assert max(abs(a - b) for a, b in pairwise(weights)) < 0.35, weights


def test_a_few_images_are_enough_for_a_factor():
    images = synthetic.images(5, 6, (1, 30, 30))
    whitening = engine.whitenings(images)[-1]
    assert torch.isfinite(whitening.whiten(images)[0]).all()
    flat = np.full((6, 1, 30, 30), 7, np.uint8)
    assert torch.isfinite(engine.whitenings(flat)[-1].whiten(images)[0]).all()


def test_threads_do_not_matter():
    images = synthetic.images(6, 300, (3, 40, 56), steep=1.5)
    found = []
    before = torch.get_num_threads()
    for threads in (1, 2):
        torch.set_num_threads(threads)
        try:
            by = engine.whitenings(images)
            found.append([(w.covariance, *c.units, c.kept) for w, c in zip(by, engine.codes(by, images), strict=True)])
        finally:
            torch.set_num_threads(before)
    for one, two in zip(*found, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


def test_grids_and_kinds_are_in_one_order():
    for shape in [*SHAPES, (3, 224, 100), (3, 7, 100)]:
        level = Level(shape, 1)
        sizes = list(dict.fromkeys((grid.height, grid.width) for grid in level.grids))
        assert sizes == sorted({tile[2:] for tile in level.tiles}, reverse=True)
