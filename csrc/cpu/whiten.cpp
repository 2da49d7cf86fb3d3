// Tiles of images, as bytes, to whitened codes: gather, integer product with the weights' int16 digits, then mean,
// scale and rounding in float, cell by cell, while all of it is in the caches. Compiled without contraction
// (CMakeLists.txt), so that the codes are the same on every instruction set.
#include <cmath>
#include <cstring>
#include <memory>
#include <vector>

#include "bre_cpu.h"
#include "instruction_sets.h"
#include "parallel.h"
#include "tiles.h"

namespace bre::cpu {
namespace {

struct TileWeights {
  const std::int16_t* rows;
  const float *scale, *channel, *offset;
};

// dot(sum, u, w) adds to each int32 lane the product of two int16 of u, the lane's, with two of w, the same in all
// lanes. kVectors registers of weights' rows meet kTiles tiles.
struct Portable : PortableVectors {
  static constexpr int kVectors = 2, kTiles = 2;
  BRE_INLINE static void dot(Sums& sum, const Sums& u, const Sums& w) {
    sum += ((u << 16) >> 16) * ((w << 16) >> 16) + (u >> 16) * (w >> 16);
  }
};

#if BRE_X86
struct Avx2 : Avx2Vectors {
  static constexpr int kVectors = 2, kTiles = 6;
};

struct Avx512 : Avx512Vectors {
  static constexpr int kVectors = 3, kTiles = 8;
  BRE_INLINE static void dot(Sums& sum, const Sums& u, const Sums& w) {
    asm("vpdpwssd %2, %1, %0" : "+v"(sum) : "v"(u), "v"(w));
  }
};
#endif

template <class I>
constexpr std::int64_t kPanel = I::kLanes * I::kVectors;  // rows of the weights side by side
template <class I>
constexpr std::int64_t kTask = 4 * I::kTiles;  // tiles of a task: with 768 values, 50 KB of them and 100 KB of sums

constexpr std::int64_t round_up(std::int64_t n, std::int64_t unit) { return ceil_div(n, unit) * unit; }

// z (kTiles, kPanel; rows `z_stride` apart) = the tiles' products with one panel of weights, over `pairs` pairs of
// values.
template <class I>
struct DotTiles {
  BRE_INLINE void operator()(const std::int16_t* panel, const std::int16_t* tiles, std::int64_t stride,
                             std::int64_t pairs, std::int32_t* z, std::int64_t z_stride) const {
    using Sums = typename I::Sums;
    constexpr int kSums = I::kTiles * I::kVectors;
    Sums sum[kSums] = {};
    for (std::int64_t g = 0; g < pairs; ++g) {
      Sums rows[I::kVectors], tile;
#pragma GCC unroll 32
      for (int j = 0; j < I::kVectors; ++j) rows[j] = *reinterpret_cast<const Sums*>(panel + j * I::kLanes * 2);
#pragma GCC unroll 32
      for (int k = 0; k < kSums; ++k) {
        if (k % I::kVectors == 0) {
          std::int32_t word;
          std::memcpy(&word, tiles + k / I::kVectors * stride, sizeof word);
          tile = Sums{} + word;
        }
        I::dot(sum[k], rows[k % I::kVectors], tile);
      }
      panel += kPanel<I> * 2;
      tiles += 2;
    }
#pragma GCC unroll 32
    for (int k = 0; k < kSums; ++k) {
      *reinterpret_cast<Sums*>(z + k / I::kVectors * z_stride + k % I::kVectors * I::kLanes) = sum[k];
    }
  }
};

// A panel's rows, as far as they reach, as pairs: [pair of values][row][value in the pair].
struct PackWeights {
  void operator()(const std::int16_t* rows, std::int64_t d, std::int64_t first, std::int64_t width, std::int64_t depth,
                  std::int16_t* panel) const {
    for (std::int64_t j = 0; j < round_up(depth, 2); ++j) {
      for (std::int64_t r = 0; r < width; ++r) {
        const bool there = first + r < d && j <= first + r;
        panel[(j / 2 * width + r) * 2 + j % 2] = there ? rows[(first + r) * d + j] : std::int16_t{0};
      }
    }
  }
};

// y = scale * z - offset - channel * means, the whitened tile.
struct Whitened {
  BRE_INLINE void operator()(const std::int32_t* z, std::int64_t d, const TileWeights* weights, const float* offset,
                             const std::int64_t* sums, ImageSize size, float* y) const {
    const float* scale = weights->scale;
    for (std::int64_t r = 0; r < d; ++r) y[r] = scale[r] * static_cast<float>(z[r]) - offset[r];
    for (std::int64_t c = 0; c < size.channels; ++c) {
      const float* channel = weights->channel + c * d;
      const float mean =
          static_cast<float>(static_cast<double>(sums[c]) / static_cast<double>(size.height * size.width));
      for (std::int64_t r = 0; r < d; ++r) y[r] -= channel[r] * mean;
    }
  }
};

// kept = (1 + |y|^2 / n)^(-1/2) for the n values of a cell; code = rint(kCodeUnit * kept * y) within +-127.
struct Quantise {
  BRE_INLINE void operator()(const float* y, std::int64_t n, std::int8_t* out, float* kept) const {
    constexpr int kParts = 16;  // sums side by side, so that vectors of any width add in the same order
    float part[kParts] = {};
    std::int64_t r = 0;
    for (; r + kParts <= n; r += kParts) {
      for (int j = 0; j < kParts; ++j) part[j] += y[r + j] * y[r + j];
    }
    for (; r < n; ++r) part[r % kParts] += y[r] * y[r];
    double total = 0;
    for (int j = 0; j < kParts; ++j) total += part[j];
    *kept = static_cast<float>(1.0 / std::sqrt(1.0 + total / static_cast<double>(n)));
    const float unit = kCodeUnit * *kept;
    constexpr float kMagic = 12582912.0f;  // 1.5 * 2^23: adding it rounds to the nearest integer, ties to even
    for (r = 0; r < n; ++r) {
      const float code = std::min(std::max(y[r] * unit, -127.0f), 127.0f);
      out[r] = static_cast<std::int8_t>(static_cast<std::int32_t>((code + kMagic) - kMagic));
    }
  }
};

template <class I>
void whiten_on(Isa isa, const std::uint8_t* images, std::int64_t M, ImageSize size, TileGrid grid,
               const std::int64_t* sums, TileWeights weights, std::int8_t* values, float* kept, std::int64_t total,
               std::int64_t first, int threads) {
  const Cells cells(grid, size.channels);
  const std::int64_t d = cells.size(), P = grid.down * grid.across, panels = ceil_div(d, kPanel<I>);
  const std::int64_t stride = round_up(d, 32), z_stride = panels * kPanel<I>;
  const auto depth_of = [&](std::int64_t panel) { return std::min(d, (panel + 1) * kPanel<I>); };

  // Rows of the weights end at the diagonal, so panels differ in depth.
  std::vector<std::int64_t> begin(static_cast<std::size_t>(panels + 1));
  for (std::int64_t p = 0; p < panels; ++p) begin[p + 1] = begin[p] + round_up(depth_of(p), 2) * kPanel<I>;
  const std::unique_ptr<std::int16_t[]> packed(new std::int16_t[static_cast<std::size_t>(begin[panels])]);
  parallel_for(panels, threads, [&](std::int64_t p) {
    PackWeights{}(weights.rows, d, p * kPanel<I>, kPanel<I>, depth_of(p), packed.get() + begin[p]);
  });

  const std::int64_t tasks = ceil_div(M * P, kTask<I>), team = std::min<std::int64_t>(tasks, std::max(threads, 1));
  const std::unique_ptr<std::int16_t[]> tiles(new std::int16_t[static_cast<std::size_t>(team * kTask<I> * stride)]());
  const std::unique_ptr<std::int32_t[]> products(
      new std::int32_t[static_cast<std::size_t>(team * kTask<I> * z_stride)]);
  const std::unique_ptr<float[]> scratch(new float[static_cast<std::size_t>(team * d)]);

  parallel_for_workers(tasks, threads, [&](std::int64_t task, int worker) {
    std::int16_t* x = tiles.get() + worker * kTask<I> * stride;
    std::int32_t* z = products.get() + worker * kTask<I> * z_stride;
    float* y = scratch.get() + worker * d;
    const std::int64_t start = task * kTask<I>, count = std::min(kTask<I>, M * P - start);
    for (std::int64_t t = 0; t < count; ++t) {
      const std::int64_t m = (start + t) / P, p = (start + t) % P;
      on_isa(isa, Gather{}, images + m * size.values() + grid.corner(p, size), size, &cells, x + t * stride);
    }
    for (std::int64_t p = 0; p < panels; ++p) {
      for (std::int64_t t = 0; t < count; t += I::kTiles) {
        I::run(DotTiles<I>{}, static_cast<const std::int16_t*>(packed.get() + begin[p]),
               static_cast<const std::int16_t*>(x + t * stride), stride, ceil_div(depth_of(p), 2),
               z + t * z_stride + p * kPanel<I>, z_stride);
      }
    }
    for (std::int64_t t = 0; t < count; ++t) {
      const std::int64_t m = (start + t) / P, p = (start + t) % P;
      on_isa(isa, Whitened{}, static_cast<const std::int32_t*>(z + t * z_stride), d, &weights, weights.offset + p * d,
             sums + m * size.channels, size, y);
      const std::int64_t row = grid.row(p), column = grid.column(p);
      const std::int64_t before = size.channels * (row * size.width + grid.height * column);  // values of tiles before
      const std::int64_t number = row / grid.cell * ceil_div(size.width, grid.cell) +
                                  ceil_div(grid.height, grid.cell) * (column / grid.cell);  // cells of tiles before
      for (std::int64_t k = 0; k < cells.count; ++k) {
        std::int8_t* unit = values + total * (before + cells.unit_start[k]) + (first + m) * cells.unit_size[k];
        on_isa(isa, Quantise{}, static_cast<const float*>(y + cells.start[k]), cells.start[k + 1] - cells.start[k],
               unit + cells.start[k] - cells.unit_start[k], kept + (number + k) * total + first + m);
      }
    }
  });
}

}  // namespace

void whiten(const std::uint8_t* images, std::int64_t M, ImageSize size, TileGrid grid, const std::int64_t* sums,
            const std::int16_t* rows, const float* scale, const float* channel, const float* offset,
            std::int8_t* values, float* kept, std::int64_t total, std::int64_t first, int threads) {
  const TileWeights weights{rows, scale, channel, offset};
  const Isa isa = current_isa();
#if BRE_X86
  if (isa == Isa::avx512) {
    return whiten_on<Avx512>(isa, images, M, size, grid, sums, weights, values, kept, total, first, threads);
  }
  if (isa == Isa::avx2) {
    return whiten_on<Avx2>(isa, images, M, size, grid, sums, weights, values, kept, total, first, threads);
  }
#endif
  whiten_on<Portable>(isa, images, M, size, grid, sums, weights, values, kept, total, first, threads);
}

}  // namespace bre::cpu
