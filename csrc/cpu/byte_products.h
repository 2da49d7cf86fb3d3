// Integer products on the byte dot instructions, for whoever packs what is multiplied: moments (sums over images), gram
// (sums over columns). Dot instructions multiply unsigned bytes u by signed ones w. Both sides are packed into panels
// so that one register holds kGroup consecutive members of the sum for neighbouring columns.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#include "instruction_sets.h"
#include "parallel.h"

namespace bre::cpu::bytes {

// dot(sum, u, w) adds to each int32 lane the product of kGroup rows of one column of U (the lane's) with kGroup rows of
// one column of W (the same in all lanes).
struct Portable : PortableVectors {
  using U = std::uint8_t;
  using W = std::int8_t;
  static constexpr int kGroup = 4, kVectors = 2, kRows = 2;
  BRE_INLINE static void dot(Sums& sum, const Sums& u, const Sums& w) {
    for (int g = 0; g < kGroup; ++g) sum += ((u >> (8 * g)) & 255) * ((w << (24 - 8 * g)) >> 24);
  }
};

#if BRE_X86
struct Avx2 : Avx2Vectors {  // pairs of int16: the byte form, vpmaddubsw, would saturate
  using U = std::int16_t;
  using W = std::int16_t;
  static constexpr int kGroup = 2, kVectors = 2, kRows = 6;
};

struct Avx512 : Avx512Vectors {  // fours of bytes: 64 multiply-adds per instruction
  using U = std::uint8_t;
  using W = std::int8_t;
  static constexpr int kGroup = 4, kVectors = 3, kRows = 8;
  BRE_INLINE static void dot(Sums& sum, const Sums& u, const Sums& w) {
    asm("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(u), "v"(w));
  }
};
#endif

// Members of the sum per pass over a block: a panel of U (at most 24 KB) stays in L1.
constexpr std::int64_t kDepth = 512;
constexpr std::int64_t kBlock = 192;  // columns are cut into blocks of this; a block's sums (147 KB) stay in L2

template <class I>
constexpr std::int64_t kPanelU = I::kLanes * I::kVectors;  // columns of U per panel; of W: kRows

// sums[kRows][..] (row stride kBlock) += panel of W (kRows columns) times panel of U (kLanes*kVectors columns).
// kRows*kVectors sums live in registers; each step is kVectors loads, kRows broadcasts, kRows*kVectors dots. The loops
// over the sums are flat and unrolled by order: only then does gcc keep the sums out of memory.
template <class I>
struct DotPanels {
  BRE_INLINE void operator()(const typename I::U* u, const typename I::W* w, std::int64_t groups,
                             std::int32_t* sums) const {
    using Sums = typename I::Sums;
    constexpr int kSums = I::kRows * I::kVectors;
    Sums sum[kSums];
#pragma GCC unroll 32
    for (int k = 0; k < kSums; ++k) {
      sum[k] = *reinterpret_cast<const Sums*>(sums + k / I::kVectors * kBlock + k % I::kVectors * I::kLanes);
    }
    for (std::int64_t g = 0; g < groups; ++g) {
      Sums columns[I::kVectors], row;
#pragma GCC unroll 32
      for (int j = 0; j < I::kVectors; ++j) {
        columns[j] = *reinterpret_cast<const Sums*>(u + j * I::kLanes * I::kGroup);
      }
#pragma GCC unroll 32
      for (int k = 0; k < kSums; ++k) {
        if (k % I::kVectors == 0) {
          std::int32_t word;
          std::memcpy(&word, w + k / I::kVectors * I::kGroup, sizeof word);
          row = Sums{} + word;
        }
        I::dot(sum[k], columns[k % I::kVectors], row);
      }
      u += kPanelU<I> * I::kGroup;
      w += I::kRows * I::kGroup;
    }
#pragma GCC unroll 32
    for (int k = 0; k < kSums; ++k) {
      *reinterpret_cast<Sums*>(sums + k / I::kVectors * kBlock + k % I::kVectors * I::kLanes) = sum[k];
    }
  }
};

// Rows of block a against columns of block b, a <= b: one task.
struct BlockPair {
  std::int64_t a, b;
};

inline std::vector<BlockPair> upper_triangle(std::int64_t blocks) {
  std::vector<BlockPair> pairs;
  for (std::int64_t a = 0; a < blocks; ++a) {
    for (std::int64_t b = a; b < blocks; ++b) pairs.push_back({a, b});
  }
  return pairs;
}

// sums (kBlock, kBlock) += W block a times U block b, of `rows` and `columns` packed ones in all, over `groups` groups
// of the sum. What lies past the last row or column is left out, and, of a triangle, what lies wholly below the
// diagonal.
template <class I>
void multiply_blocks(BlockPair pair, std::int64_t rows, std::int64_t columns, bool triangle, const typename I::U* u,
                     const typename I::W* w, std::int64_t groups, std::int32_t* sums) {
  static_assert(kBlock % kPanelU<I> == 0 && kBlock % I::kRows == 0 && kDepth % I::kGroup == 0);
  const std::int64_t row = pair.a * kBlock, col = pair.b * kBlock, depth = groups * I::kGroup;
  for (std::int64_t group = 0; group < groups; group += kDepth / I::kGroup) {
    const std::int64_t deep = std::min(kDepth / I::kGroup, groups - group);
    for (std::int64_t j = 0; j < kBlock && col + j < columns; j += kPanelU<I>) {
      const std::int64_t end = triangle ? std::min(rows, col + j + kPanelU<I>) : rows;
      for (std::int64_t i = 0; i < kBlock && row + i < end; i += I::kRows) {
        I::run(DotPanels<I>{}, u + (col + j) * depth + group * kPanelU<I> * I::kGroup,
               w + (row + i) * depth + group * I::kRows * I::kGroup, deep, sums + i * kBlock + j);
      }
    }
  }
}

// The triangle below the diagonal of (n, n) from the one above, in 16 x 16 squares so that both sides move in whole
// cache lines.
template <class Number>
void mirror(Number* matrix, std::int64_t n, int threads) {
  constexpr std::int64_t kSquare = 16;
  parallel_for(ceil_div(n, kSquare), threads, [&](std::int64_t band) {
    for (std::int64_t left = 0; left <= band * kSquare; left += kSquare) {
      for (std::int64_t i = band * kSquare; i < std::min(n, (band + 1) * kSquare); ++i) {
        for (std::int64_t j = left; j < std::min(i, left + kSquare); ++j) matrix[i * n + j] = matrix[j * n + i];
      }
    }
  });
}

}  // namespace bre::cpu::bytes
