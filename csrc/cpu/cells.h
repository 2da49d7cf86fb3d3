// How a tile is cut into cells; python/bre/ops/tiles.py says the order of their values.
#pragma once

#include <algorithm>

#include "bre_cpu.h"

namespace bre::cpu {

// A tile's cells in their order: where they lie in it, where their values begin, and where those of their unit do.
struct Cells {
  static constexpr int kMost = 16;  // of a tile of 32 x 32 pixels
  std::int64_t count = 0, top[kMost], left[kMost], height[kMost], width[kMost], start[kMost + 1] = {0};
  std::int64_t unit_start[kMost], unit_size[kMost];

  Cells(const TileGrid& grid, std::int64_t channels) {
    for (std::int64_t z = 0; z < kMost; ++z) {
      const std::int64_t y = ((z >> 1 & 1) | (z >> 2 & 2)) * grid.cell, x = ((z & 1) | (z >> 1 & 2)) * grid.cell;
      if (y >= grid.height || x >= grid.width) continue;
      const std::int64_t k = count++;
      top[k] = y;
      left[k] = x;
      height[k] = std::min(grid.cell, grid.height - y);
      width[k] = std::min(grid.cell, grid.width - x);
      start[k + 1] = start[k] + channels * height[k] * width[k];
      const bool same = k > 0 && unit_of(k - 1, grid) == unit_of(k, grid);
      unit_start[k] = same ? unit_start[k - 1] : start[k];
    }
    for (std::int64_t k = count - 1; k >= 0; --k) {
      const bool same = k + 1 < count && unit_start[k + 1] == unit_start[k];
      unit_size[k] = same ? unit_size[k + 1] : start[k + 1] - unit_start[k];
    }
  }
  std::int64_t size() const { return start[count]; }

 private:
  std::int64_t unit_of(std::int64_t k, const TileGrid& grid) const {
    return top[k] / (2 * grid.cell) * kMost + left[k] / (2 * grid.cell);
  }
};

}  // namespace bre::cpu
