// Tiles of images, as bytes, to whitened codes: gathered, multiplied by the weights' int16 digits, then mean, scale and
// rounding, cell by cell, without leaving the chip in between.
//
// Why no library product: its integers would have to come as bytes, twice, and leave as int32, to be read again for
// the lengths of cells and once more for the codes: 14 bytes moved per value, where this moves 2.
#include <algorithm>

#include "../cpu/cells.h"
#include "pixels.cuh"

namespace bre::cuda {
namespace {

constexpr int kTiles = 64;  // of a block
constexpr int kOutputs = 64;  // whitened values of each, of 64 threads: 8 x 8 a thread
constexpr int kDepth = 64;  // values of a tile per step
constexpr int kGroups = kDepth / 4;  // of four values: two products (dp2a)
constexpr int kPitch = kTiles + 4;  // words; the +4 keeps rows of 16 bytes aligned and groups on other banks
constexpr int kMostPieces = 4;  // of kOutputs: a cell of three or four channels

struct CellTable {  // as cpu::Cells, in a kernel's parameters
  int count, start[cpu::Cells::kMost + 1], unit_start[cpu::Cells::kMost], unit_size[cpu::Cells::kMost];
};

struct Arguments {
  int channels, height, width;
  TileGrid grid;
  int d;
  const std::int64_t* sums;
  const float *scale, *channel, *offset;
  std::int8_t* values;
  float* kept;
  std::int64_t total, first, tiles;  // tiles: of all images
};

// Eight values from the j-th of a row of weights on, as four words, zero beyond the diagonal: at once, ...
__device__ __forceinline__ void eight_at_once(const std::int16_t* row, int j, int diagonal, std::uint32_t (&word)[4]) {
  const uint4 x = load_16(reinterpret_cast<const std::uint8_t*>(row + j));
  word[0] = x.x, word[1] = x.y, word[2] = x.z, word[3] = x.w;
#pragma unroll
  for (int k = 0; k < 4; ++k) {
    const int beyond = j + 2 * k - diagonal;
    word[k] = beyond > 0 ? 0u : beyond == 0 ? word[k] & 65535u : word[k];
  }
}

// ... or one by one.
__device__ __forceinline__ void eight_in_turn(const std::int16_t* row, int j, int diagonal, std::uint32_t (&word)[4]) {
#pragma unroll
  for (int k = 0; k < 8; ++k) {
    const std::uint32_t x = j + k <= diagonal ? static_cast<std::uint16_t>(row[j + k]) : 0u;
    word[k / 2] |= x << (k % 2 * 16);
  }
}

// kTiles tiles and one cell of them, kPieces * kOutputs values at a time; larger cells go round twice, for their length
// and for their codes. wide: rows of weights begin at multiples of 16 bytes; an argument, since kernels of both
// kinds take twice as long to compile.
template <int kPieces>
__global__ void __launch_bounds__(64 * kPieces, 1)
    whiten_tiles(const std::uint8_t* __restrict__ images, const std::int32_t* __restrict__ places,
                 const std::int16_t* __restrict__ rows, const bool wide, const Arguments given, const CellTable cells) {
  const int number = blockIdx.x % cells.count;
  const std::int64_t tile0 = static_cast<std::int64_t>(blockIdx.x / cells.count) * kTiles;
  const int begin = cells.start[number], end = cells.start[number + 1], d = given.d;
  const std::int64_t P = given.grid.down * given.grid.across;
  const std::int64_t values = static_cast<std::int64_t>(given.channels) * given.height * given.width;
  const int piece = threadIdx.x / 64, y = threadIdx.x % 64 / 8, q = threadIdx.x % 8;

  __shared__ uint4 staged[kGroups][kPitch / 4];  // 4 KB: [group of values][quad of tiles]
  __shared__ uint4 weights[kPieces][kGroups][2][kPitch / 4];  // 9 KB a piece: [group][pair of values][quad of outputs]
  __shared__ std::int32_t digits[kPieces][kOutputs];  // sums of the rows
  __shared__ float parts[kTiles][kPieces * 8];  // of the cell's squared length
  __shared__ float of_tile[kTiles];  // a channel's mean, or what the cell keeps

  // Loading: every thread words of one tile, and one row of the weights.
  const std::int64_t loaded = tile0 + threadIdx.x % kTiles, p = loaded % P;
  const std::int64_t corner = (given.grid.top + p / given.grid.across * given.grid.step) * given.width +
                              given.grid.left + p % given.grid.across * given.grid.step;
  const std::uint8_t* from = images + loaded / P * values + corner;
  const bool there = loaded < given.tiles;

  const int rounds = (end - begin + kPieces * kOutputs - 1) / (kPieces * kOutputs);
  const int turns = rounds == 1 ? 1 : 2 * rounds;
  float square[8] = {}, share[8] = {};
  for (int turn = 0; turn < turns; ++turn) {
    const int first = begin + turn % rounds * kPieces * kOutputs;  // of the outputs
    const int last = min(first + kPieces * kOutputs, end);
    const int own = first + piece * kOutputs + threadIdx.x % kOutputs;
    const std::int16_t* row = rows + static_cast<std::int64_t>(own) * d;
    int sum[8][8] = {}, of_digits = 0;
    for (int step = 0; step < last; step += kDepth) {
      for (int g = piece; g < kGroups; g += kPieces) {
        std::uint32_t word = 0;
#pragma unroll
        for (int k = 0; k < 4; ++k) {
          const int j = step + 4 * g + k;
          if (there && j < d) word |= static_cast<std::uint32_t>(from[places[j]] ^ 128u) << (8 * k);
        }
        reinterpret_cast<std::uint32_t*>(staged[g])[threadIdx.x % kTiles] = word;
      }
      const auto stage = [&](int eight, const std::uint32_t (&word)[4]) {
#pragma unroll
        for (int k = 0; k < 4; ++k) {
          of_digits += static_cast<std::int16_t>(word[k] & 65535u) + static_cast<std::int16_t>(word[k] >> 16);
          reinterpret_cast<std::uint32_t*>(weights[piece][2 * eight + k / 2][k % 2])[threadIdx.x % kOutputs] = word[k];
        }
      };
      if (wide) {
#pragma unroll
        for (int eight = 0; eight < kDepth / 8; ++eight) {
          const int j = step + 8 * eight;
          std::uint32_t word[4] = {};
          if (own < last && j <= own) eight_at_once(row, j, own, word);
          stage(eight, word);
        }
      } else {
#pragma unroll 1
        for (int eight = 0; eight < kDepth / 8; ++eight) {
          std::uint32_t word[4] = {};
          if (own < last) eight_in_turn(row, step + 8 * eight, own, word);
          stage(eight, word);
        }
      }
      __syncthreads();
#pragma unroll 1
      for (int g = 0; g < kGroups; ++g) {
        const uint4 t0 = staged[g][y], t1 = staged[g][y + 8];
        const std::uint32_t tile[8] = {t0.x, t0.y, t0.z, t0.w, t1.x, t1.y, t1.z, t1.w};
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const uint4 w0 = weights[piece][g][half][q], w1 = weights[piece][g][half][q + 8];
          const std::uint32_t weight[8] = {w0.x, w0.y, w0.z, w0.w, w1.x, w1.y, w1.z, w1.w};
#pragma unroll
          for (int i = 0; i < 8; ++i) {
#pragma unroll
            for (int j = 0; j < 8; ++j) {
              const int w = static_cast<int>(weight[j]), x = static_cast<int>(tile[i]);
              sum[i][j] = half == 0 ? __dp2a_lo(w, x, sum[i][j]) : __dp2a_hi(w, x, sum[i][j]);
            }
          }
        }
      }
      __syncthreads();
    }
    digits[piece][threadIdx.x % kOutputs] = of_digits;
    __syncthreads();

    // Whitened values: this thread's tiles 4*y and on, and 32 after; outputs 4*q and on, and 32 after.
    float z[8][8];
#pragma unroll
    for (int j = 0; j < 8; ++j) {
      const int place = j / 4 * 32 + 4 * q + j % 4, r = first + piece * kOutputs + place;
      const float scale = r < last ? given.scale[r] : 0.0f;
      const int of_row = 128 * digits[piece][place];
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        const std::int64_t tile = tile0 + i / 4 * 32 + 4 * y + i % 4;
        z[i][j] = scale * static_cast<float>(sum[i][j] + of_row);
        if (r < last && tile < given.tiles) z[i][j] -= given.offset[tile % P * d + r];
      }
    }
#pragma unroll 1
    for (int c = 0; c < given.channels; ++c) {
      if (threadIdx.x < kTiles) {
        const double total = there ? static_cast<double>(given.sums[loaded / P * given.channels + c]) : 0.0;
        of_tile[threadIdx.x] = static_cast<float>(total / (static_cast<double>(given.height) * given.width));
      }
      __syncthreads();
#pragma unroll
      for (int j = 0; j < 8; ++j) {
        const int r = first + piece * kOutputs + j / 4 * 32 + 4 * q + j % 4;
        const float weight = r < last ? given.channel[static_cast<std::int64_t>(c) * d + r] : 0.0f;
#pragma unroll
        for (int i = 0; i < 8; ++i) z[i][j] -= weight * of_tile[i / 4 * 32 + 4 * y + i % 4];
      }
      __syncthreads();
    }

    if (turn < rounds) {
#pragma unroll
      for (int i = 0; i < 8; ++i) {
#pragma unroll
        for (int j = 0; j < 8; ++j) square[i] += z[i][j] * z[i][j];
      }
    }
    if (turn == rounds - 1) {  // the whole block: all pieces of the cell have been seen
#pragma unroll
      for (int i = 0; i < 8; ++i) parts[i / 4 * 32 + 4 * y + i % 4][piece * 8 + q] = square[i];
      __syncthreads();
      if (threadIdx.x < kTiles) {
        double length = 0;
#pragma unroll 1
        for (int k = 0; k < kPieces * 8; ++k) length += parts[threadIdx.x][k];
        of_tile[threadIdx.x] = static_cast<float>(1.0 / sqrt(1.0 + length / (end - begin)));
      }
      __syncthreads();
#pragma unroll
      for (int i = 0; i < 8; ++i) share[i] = of_tile[i / 4 * 32 + 4 * y + i % 4];
    }
    if (turn < turns - rounds) continue;

    // Codes, and what the cell keeps.
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const std::int64_t tile = tile0 + i / 4 * 32 + 4 * y + i % 4;
      if (tile >= given.tiles) continue;
      const TileGrid& grid = given.grid;
      const std::int64_t at = tile % P, image = given.first + tile / P;
      const std::int64_t top = grid.top + at / grid.across * grid.step, left = grid.left + at % grid.across * grid.step;
      const std::int64_t before = given.channels * (top * given.width + grid.height * left);  // values of tiles before
      std::int8_t* to = given.values + given.total * (before + cells.unit_start[number]) +
                        image * cells.unit_size[number] - cells.unit_start[number];
      const float unit = cpu::kCodeUnit * share[i];
#pragma unroll
      for (int j = 0; j < 8; ++j) {
        const int r = first + piece * kOutputs + j / 4 * 32 + 4 * q + j % 4;
        if (r >= last) continue;
        const float code = fminf(fmaxf(z[i][j] * unit, -127.0f), 127.0f);
        to[r] = static_cast<std::int8_t>(rintf(code));
      }
      if (q == 0 && piece == 0 && turn == turns - rounds) {
        const std::int64_t cell = top / grid.cell * ceil_div(given.width, grid.cell) +
                                  ceil_div(grid.height, grid.cell) * (left / grid.cell) + number;
        given.kept[cell * given.total + image] = share[i];
      }
    }
  }
}

}  // namespace

void whiten(const std::uint8_t* images, std::int64_t M, ImageSize size, TileGrid grid, const std::int32_t* places,
            const std::int64_t* sums, const std::int16_t* rows, const float* scale, const float* channel,
            const float* offset, std::int8_t* values, float* kept, std::int64_t total, std::int64_t first,
            cudaStream_t stream) {
  BRE_CHECK(fits_int(size.values()));
  const cpu::Cells known(grid, size.channels);
  CellTable cells{};
  cells.count = static_cast<int>(known.count);
  std::int64_t widest = 0;
  for (int k = 0; k < cells.count; ++k) {
    cells.start[k + 1] = static_cast<int>(known.start[k + 1]);
    cells.unit_start[k] = static_cast<int>(known.unit_start[k]);
    cells.unit_size[k] = static_cast<int>(known.unit_size[k]);
    widest = std::max(widest, known.start[k + 1] - known.start[k]);
  }
  const std::int64_t tiles = M * grid.down * grid.across;
  const Arguments given{static_cast<int>(size.channels),
                        static_cast<int>(size.height),
                        static_cast<int>(size.width),
                        grid,
                        static_cast<int>(known.size()),
                        sums,
                        scale,
                        channel,
                        offset,
                        values,
                        kept,
                        total,
                        first,
                        tiles};
  const bool wide = known.size() % 8 == 0 && aligned(16, rows);
  const std::int64_t blocks = ceil_div(tiles, kTiles) * cells.count;
  const auto start = [&](auto kernel, int pieces) {
    BRE_CHECK(launch(kernel, blocks, 64 * pieces, stream, images, places, rows, wide, given, cells));
  };
  // Of grey images, of colours, and more: cells of 8 x 8 are a piece for each channel.
  const std::int64_t pieces = ceil_div(widest, kOutputs);
  if (pieces <= 1) {
    start(whiten_tiles<1>, 1);
  } else if (pieces <= 3) {
    start(whiten_tiles<3>, 3);
  } else {
    start(whiten_tiles<kMostPieces>, kMostPieces);
  }
}

}  // namespace bre::cuda
