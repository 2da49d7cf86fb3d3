"""The search in a class: planted minorities are found whole, and nothing is found where nothing was planted."""

from __future__ import annotations

import gc
import weakref

import engine
import numpy as np
import pytest
import synthetic
import torch

from bre.method import clusters
from bre.method.codes import Codes, inner_products
from bre.method.levels import Level


def chessboard(shape: tuple[int, int, int], amplitude: float) -> np.ndarray:
    return amplitude * (np.indices(shape[1:]).sum(0) % 2)


def square(shape: tuple[int, int, int], amplitude: float) -> np.ndarray:
    pattern = np.zeros(shape)
    pattern[:, 4:8, 5:9] = amplitude * np.where(np.indices((4, 4)).sum(0) % 2, 1, -1)
    return pattern


@pytest.mark.parametrize("shape", [(3, 12, 12), (3, 40, 56), (1, 40, 33)])
@pytest.mark.parametrize("pattern", [chessboard, square])
def test_a_planted_minority_is_found_whole(shape, pattern):
    images = synthetic.images(0, 900, shape, steep=1.5)
    own, carries = synthetic.plant(images[500:], pattern(shape, 16 if pattern is chessboard else 60), 40)
    best = clusters.search(engine.codes(engine.whitenings(images[:500]), own)).anywhere[0]
    assert best.evidence > 12  # a chance of 1e-5 in a window
    members = carries[best.members]
    assert members.mean() >= 0.99
    assert members.sum() >= 30  # the others lie beside the mode: which images carry a pattern is asked later


@pytest.mark.parametrize("share", [0.2, 0.35, 0.5])
@pytest.mark.parametrize("pattern", [chessboard, square])
def test_up_to_half_of_a_class_may_be_planted(pattern, share):
    shape = (3, 20, 20)
    images = synthetic.images(0, 900, shape, steep=1.5)
    own, carries = synthetic.plant(
        images[400:], pattern(shape, 16 if pattern is chessboard else 60), round(share * 500)
    )
    best = clusters.search(engine.codes(engine.whitenings(images[:400]), own)).anywhere[0]
    assert best.evidence > 12
    assert carries[best.members].mean() >= 0.97
    assert carries[best.members].sum() > 0.5 * share * 500


def test_a_local_pattern_is_found_where_it_lies():
    images = synthetic.images(1, 900, (1, 64, 64), steep=1.5)
    own, carries = synthetic.plant(images[500:], square((1, 64, 64), 80), 30)
    best = clusters.search(engine.codes(engine.whitenings(images[:500]), own)).anywhere[0]
    assert carries[best.members].mean() >= 0.99
    assert best.level == 0
    top, left, height, width = best.window
    assert (top, left) == (0, 0)
    assert height * width <= 16


@pytest.mark.parametrize("shape", [(3, 12, 12), (1, 40, 56)])
@pytest.mark.parametrize("kind", ["gaussian", "heavy", "photographs"])
def test_nothing_is_found_in_noise(shape, kind):
    random, found = np.random.default_rng(2), []
    for seed in range(3):
        if kind == "photographs":
            images = synthetic.images(seed, 500, shape, steep=1.5)
        else:
            noise = random.normal(size=(500, *shape)) if kind == "gaussian" else random.standard_t(3, (500, *shape))
            images = synthetic.to_bytes(128 + 20 * noise)
        best = clusters.search(engine.codes(engine.whitenings(images[:250]), images[250:])).anywhere
        found.append(best[0].evidence if best else 0.0)
    assert max(found) < 8, found


def test_threads_decide_nothing_of_the_answer():
    images = synthetic.images(3, 700, (1, 40, 56), steep=1.5)
    own, _ = synthetic.plant(images[300:], chessboard((1, 40, 56), 8), 20)
    codes, before, found = engine.codes(engine.whitenings(images[:300]), own), torch.get_num_threads(), []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        try:
            found.append(clusters.search(codes).anywhere)
        finally:
            torch.set_num_threads(before)
    for one, two in zip(*found, strict=True):
        assert (one.level, one.window, one.evidence) == (two.level, two.window, two.evidence)
        assert np.array_equal(one.scores, two.scores)


@pytest.mark.parametrize("rows", [None, 7, 40])
@pytest.mark.parametrize("shape", [(3, 12, 12), (1, 70, 90), (3, 150, 150)])
def test_windows_are_sums_over_their_cells(shape, rows):
    level, random = Level(shape, 1), np.random.default_rng(4)
    units = [torch.from_numpy(random.integers(-127, 128, (60, unit.size), np.int8)) for unit in level.units]
    codes = Codes(units, torch.ones(60, *level.grid), level)
    some = np.arange(60) if rows is None else np.sort(random.permutation(60)[:rows])
    seen = []
    for window, products in codes.windows(some):
        seen.append(window)
        values = torch.cat([units[number] for number in codes.inside(window)], dim=1).long()
        assert torch.equal(products.long(), values[some] @ values.T), window
    assert sorted(seen) == sorted(level.windows)
    assert seen[-1] == level.windows[-1]


def test_products_of_some_rows_are_rows_of_all_products():
    codes = torch.from_numpy(np.random.default_rng(5).integers(-127, 128, (50, 37), np.int8))
    everything = inner_products(codes, None, torch.empty(50, 50, dtype=torch.int32))
    for rows in (torch.arange(3), torch.arange(0, 50, 2)):
        assert torch.equal(inner_products(codes, rows, torch.empty(len(rows), 50, dtype=torch.int32)), everything[rows])


def test_what_images_keep_adds_up_over_a_window():
    level = Level((3, 50, 70), 1)
    kept = torch.rand(9, *level.grid) * 0.9 + 0.1
    codes = Codes([torch.zeros(9, unit.size, dtype=torch.int8) for unit in level.units], kept, level)
    for top, left, height, width in level.windows:
        inside, sizes = kept[:, top : top + height, left : left + width].square(), codes.sizes[top:, left:]
        sizes = sizes[:height, :width]
        own, whole = codes.own_and_whole((top, left, height, width))
        assert torch.allclose(own, 144 * ((1 - inside) * sizes).sum((1, 2)), rtol=1e-3)
        assert torch.allclose(whole.square(), (inside * sizes).sum((1, 2)) / sizes.sum(), rtol=1e-4)


def test_a_large_class_is_looked_at_through_some_of_its_images(monkeypatch):
    images = synthetic.images(6, 900, (3, 12, 12), steep=1.5)
    own, carries = synthetic.plant(images[300:], chessboard((3, 12, 12), 12), 60)
    monkeypatch.setattr("bre.method.codes.MAX_GRAM_ROWS", 200)
    codes = engine.codes(engine.whitenings(images[:300]), own)
    assert len(codes[0].chosen_rows(0)) == 200
    best = clusters.search(codes, seed=1).anywhere[0]
    assert carries[best.members].mean() >= 0.99
    assert carries[best.members].sum() >= 54


def test_products_go_when_nobody_holds_them():
    """Matrices of every window: they must not wait for the collector of cycles."""
    between = torch.zeros(6, 6)
    products = clusters.Products(between, torch.ones(6), torch.ones(6), torch.arange(6))
    assert products.of_rows is products
    some = clusters.Products(between[:4], torch.ones(6), torch.ones(6), torch.tensor([0, 2, 3, 5]))
    assert some.of_rows.between.shape == (4, 4)
    left = weakref.ref(products), weakref.ref(some)
    gc.disable()
    try:
        del products, some
        assert [each() for each in left] == [None, None]
    finally:
        gc.enable()
