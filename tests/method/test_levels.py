"""How images are cut: levels, tiles, cells, units and windows of sizes that divide by nothing."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from bre.method.levels import Level, halve, levels, pyramid
from bre.ops.tiles import CELL, MAX_TILE

SIZES = [(3, 8, 8), (3, 30, 30), (3, 50, 70), (3, 3, 5), (1, 33, 7), (3, 224, 224), (4, 1, 100)]


@pytest.mark.parametrize("shape", SIZES)
def test_levels_halve_until_the_image_is_one_tile(shape):
    found = levels(shape)
    assert found[0].shape == shape
    assert [level.factor for level in found] == [2**k for k in range(len(found))]
    for finer, coarser in pairwise(found):
        assert max(finer.shape[1:]) > MAX_TILE
        assert coarser.shape == (shape[0], -(-finer.shape[1] // 2), -(-finer.shape[2] // 2))
    assert max(found[-1].shape[1:]) <= MAX_TILE
    assert len(found[-1].tiles) == 1


@pytest.mark.parametrize("shape", SIZES)
def test_every_value_is_in_one_tile_one_cell_and_one_unit(shape):
    for level in levels(shape):
        cells = [cell for tile in level.tiles for cell in level.cell_places(*tile)]
        places = np.concatenate([places for *_, places in cells])
        assert np.array_equal(np.sort(places), np.arange(level.size))
        assert sorted((row, column) for row, column, _ in cells) == list(np.ndindex(level.grid))
        starts = [unit.start for unit in level.units]
        assert starts == list(np.cumsum([0, *(unit.size for unit in level.units)])[:-1])
        assert sum(unit.size for unit in level.units) == level.size
        in_units = [(cell.top // CELL, cell.left // CELL) for unit in level.units for cell in unit.cells]
        assert sorted(in_units) == list(np.ndindex(level.grid))


@pytest.mark.parametrize("shape", SIZES)
def test_windows_lie_inside_and_see_every_cell_at_every_size(shape):
    for level in levels(shape):
        assert level.windows[-1] == (0, 0, *level.grid)
        assert len(set(level.windows)) == len(level.windows)
        seen: dict[int, np.ndarray] = {}
        for top, left, height, width in level.windows:
            assert top % 2 == left % 2 == 0
            assert 0 < height <= level.grid[0] - top
            assert 0 < width <= level.grid[1] - left
            seen.setdefault(max(height, width), np.zeros(level.grid, bool))[top : top + height, left : left + width] = (
                True
            )
        assert seen[max(level.grid)].all()
        assert min(max(level.grid), 2) in seen


def test_a_pattern_of_half_a_window_lies_whole_in_one():
    level = Level((3, 224, 224), 1)
    fours = [window for window in level.windows if window[2:] == (4, 4)]
    for row, column in np.ndindex(27, 27):
        assert any(
            top <= row and row + 2 <= top + 4 and left <= column and column + 2 <= left + 4 for top, left, *_ in fours
        )


def test_halving_takes_means_of_what_is_there():
    image = np.array([[0, 1, 9], [2, 3, 11], [7, 8, 250]], np.uint8)[None, None]
    assert halve(image)[0, 0].tolist() == [[2, 10], [8, 250]]  # 6 / 4, 20 / 2, 15 / 2 rounded up, itself
    sizes = levels((1, 70, 50))
    images = np.random.default_rng(0).integers(0, 256, (2, 1, 70, 50), np.uint8)
    assert [block.shape[1:] for block in pyramid(images, sizes)] == [level.shape for level in sizes]
