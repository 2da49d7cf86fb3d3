// Tiles gathered from an image; python/bre/ops/tiles.py says the order of their values.
#pragma once

#include <algorithm>

#include "bre_cpu.h"
#include "cells.h"
#include "isa.h"

namespace bre::cpu {

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
