// How an image is cut into tiles and cells; python/bre/ops/tiles.py says the order of their values.
#pragma once

#include <algorithm>

#include "bre_cpu.h"
#include "isa.h"

namespace bre::cpu {

// Where the values of a tile's cells begin, in its own order.
struct Cells {
  std::int64_t count = 0, top[4], left[4], height[4], width[4], start[5] = {0};

  Cells(const TileGrid& grid, std::int64_t channels) {
    for (std::int64_t y = 0; y < grid.height; y += grid.cell) {
      for (std::int64_t x = 0; x < grid.width; x += grid.cell, ++count) {
        top[count] = y;
        left[count] = x;
        height[count] = std::min(grid.cell, grid.height - y);
        width[count] = std::min(grid.cell, grid.width - x);
        start[count + 1] = start[count] + channels * height[count] * width[count];
      }
    }
  }
  std::int64_t size() const { return start[count]; }
};

// The tile at `corner` of an image, cell by cell, channel by channel, row by row.
struct Gather {
  template <class Number>
  BRE_INLINE void operator()(const std::uint8_t* corner, ImageSize size, const Cells* cells, Number* tile) const {
    for (std::int64_t k = 0; k < cells->count; ++k) {
      const std::int64_t height = cells->height[k], width = cells->width[k];
      for (std::int64_t c = 0; c < size.channels; ++c) {
        const std::uint8_t* row = corner + (c * size.height + cells->top[k]) * size.width + cells->left[k];
        for (std::int64_t y = 0; y < height; ++y, row += size.width, tile += width) {
          if (width == 8) {
            for (int x = 0; x < 8; ++x) tile[x] = row[x];
          } else {
            for (std::int64_t x = 0; x < width; ++x) tile[x] = row[x];
          }
        }
      }
    }
  }
};

}  // namespace bre::cpu
