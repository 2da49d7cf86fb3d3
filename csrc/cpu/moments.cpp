// S += X^T X for bytes X (M, D), exactly, as a small integer matrix product:
//   dot instructions multiply unsigned by signed bytes, so one side is u = x and the other w = x - 128, and
//   sum_m x_mi x_mj = sum_m u_mi w_mj + 128 * sum_m x_mi.
// Both sides are packed into panels so that one register holds kGroup consecutive rows of neighbouring columns; blocks
// on and above the diagonal are summed in int32, added to the int64 result, and mirrored at the end.
#include <cstring>
#include <memory>
#include <vector>

#include "bre_cpu.h"
#include "isa.h"
#include "parallel.h"

namespace bre::cpu {
namespace {

// What an instruction set brings: dot(sum, u, w) adds to each int32 lane the product of kGroup rows of one column of U
// (the lane's) with kGroup rows of one column of W (the same in all lanes). The instructions are named in assembler
// because an intrinsic may not stand in a template that serves several instruction sets; all else is plain vectors.
struct Portable {
  using U = std::uint8_t;
  using W = std::int8_t;
  typedef std::int32_t Sums __attribute__((vector_size(16), aligned(4), may_alias));
  static constexpr int kLanes = 4, kGroup = 4, kVectors = 2, kRows = 2;
  template <class Kernel, class... Args>
  static void run(const Kernel& kernel, Args... args) {
    kernel(args...);
  }
  BRE_INLINE static void dot(Sums& sum, const Sums& u, const Sums& w) {
    for (int g = 0; g < kGroup; ++g) sum += ((u >> (8 * g)) & 255) * ((w << (24 - 8 * g)) >> 24);
  }
};

#if BRE_X86
struct Avx2 {  // pairs of int16: the byte form, vpmaddubsw, would saturate
  using U = std::int16_t;
  using W = std::int16_t;
  typedef std::int32_t Sums __attribute__((vector_size(32), aligned(4), may_alias));
  static constexpr int kLanes = 8, kGroup = 2, kVectors = 2, kRows = 6;
  template <class Kernel, class... Args>
  static void run(const Kernel& kernel, Args... args) {
    run_avx2(kernel, args...);
  }
  BRE_INLINE static void dot(Sums& sum, const Sums& u, const Sums& w) {
    Sums product;
    asm("vpmaddwd %2, %1, %0" : "=x"(product) : "x"(u), "x"(w));
    sum += product;
  }
};

struct Avx512 {  // fours of bytes: 64 multiply-adds per instruction
  using U = std::uint8_t;
  using W = std::int8_t;
  typedef std::int32_t Sums __attribute__((vector_size(64), aligned(4), may_alias));
  static constexpr int kLanes = 16, kGroup = 4, kVectors = 3, kRows = 8;
  template <class Kernel, class... Args>
  static void run(const Kernel& kernel, Args... args) {
    run_avx512(kernel, args...);
  }
  BRE_INLINE static void dot(Sums& sum, const Sums& u, const Sums& w) {
    asm("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(u), "v"(w));
  }
};
#endif

// Rows of images per packed slab, whose sums fit int32.
constexpr std::int64_t kSlab = 4096;
static_assert(kSlab * 255 * 128 < (std::int64_t{1} << 31));
constexpr std::int64_t kDepth = 512;  // rows per pass over a block: a panel of U (at most 24 KB) stays in L1
constexpr std::int64_t kBlock = 192;  // D is cut into blocks of this; a block's sums (147 KB) stay in L2

template <class I>
constexpr std::int64_t kPanelU = I::kLanes * I::kVectors;  // columns of U per panel; of W: kRows

// Columns [first, first+width) of rows [0, n) into one panel [group of rows][column][row in the group], zero beyond
// the images; `flip` is subtracted.
template <class I, class Number>
struct PackPanel {
  BRE_INLINE void operator()(const std::uint8_t* images, std::int64_t n, std::int64_t D, std::int64_t first,
                             std::int64_t width, int flip, Number* panel) const {
    const std::int64_t columns = std::max<std::int64_t>(0, std::min(width, D - first));
    for (std::int64_t m = 0; m < n; m += I::kGroup, panel += width * I::kGroup) {
      for (int g = 0; g < I::kGroup; ++g) {
        if (m + g < n) {
          const std::uint8_t* row = images + (m + g) * D + first;
          for (std::int64_t d = 0; d < columns; ++d) panel[d * I::kGroup + g] = static_cast<Number>(row[d] - flip);
          for (std::int64_t d = columns; d < width; ++d) panel[d * I::kGroup + g] = 0;
        } else {
          for (std::int64_t d = 0; d < width; ++d) panel[d * I::kGroup + g] = 0;
        }
      }
    }
  }
};

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

// second[i][j] += sums[i][j] + 128 * column[j] for the rows and columns of one block that exist.
struct Flush {
  BRE_INLINE void operator()(const std::int32_t* sums, const std::int64_t* column, std::int64_t D, std::int64_t rows,
                             std::int64_t columns, std::int64_t* second) const {
    for (std::int64_t i = 0; i < rows; ++i) {
      for (std::int64_t j = 0; j < columns; ++j) second[i * D + j] += sums[i * kBlock + j] + 128 * column[j];
    }
  }
};

struct AddBytes {
  BRE_INLINE void operator()(const std::uint8_t* x, std::int64_t n, std::int64_t* sum) const {
    for (std::int64_t d = 0; d < n; ++d) sum[d] += x[d];
  }
};

// Rows of block a against columns of block b, a <= b: one task.
struct BlockPair {
  std::int64_t a, b;
};

std::vector<BlockPair> upper_triangle(std::int64_t blocks) {
  std::vector<BlockPair> pairs;
  for (std::int64_t a = 0; a < blocks; ++a) {
    for (std::int64_t b = a; b < blocks; ++b) pairs.push_back({a, b});
  }
  return pairs;
}

template <class I>
void second_moment(Isa isa, const std::uint8_t* images, std::int64_t M, std::int64_t D, std::int64_t* second,
                   int threads) {
  static_assert(kBlock % kPanelU<I> == 0 && kBlock % I::kRows == 0 && kDepth % I::kGroup == 0);
  const std::int64_t blocks = ceil_div(D, kBlock), padded = blocks * kBlock;
  const std::int64_t depth = ceil_div(std::min(M, kSlab), I::kGroup) * I::kGroup;  // rows of a packed slab
  const std::unique_ptr<typename I::U[]> u(new typename I::U[static_cast<std::size_t>(depth * padded)]);
  const std::unique_ptr<typename I::W[]> w(new typename I::W[static_cast<std::size_t>(depth * padded)]);
  const std::unique_ptr<std::int64_t[]> column(new std::int64_t[static_cast<std::size_t>(padded)]);
  const std::vector<BlockPair> pairs = upper_triangle(blocks);

  for (std::int64_t start = 0; start < M; start += kSlab) {
    const std::int64_t n = std::min(kSlab, M - start), groups = ceil_div(n, I::kGroup), rows = groups * I::kGroup;
    const std::uint8_t* slab = images + start * D;

    parallel_for(blocks, threads, [&](std::int64_t block) {
      const std::int64_t begin = block * kBlock, end = begin + kBlock;
      for (std::int64_t d = begin; d < end; d += kPanelU<I>) {
        on_isa(isa, PackPanel<I, typename I::U>{}, slab, n, D, d, kPanelU<I>, 0, u.get() + d * rows);
      }
      for (std::int64_t d = begin; d < end; d += I::kRows) {
        on_isa(isa, PackPanel<I, typename I::W>{}, slab, n, D, d, std::int64_t{I::kRows}, 128, w.get() + d * rows);
      }
      std::fill(column.get() + begin, column.get() + end, 0);
      for (std::int64_t m = 0; m < n; ++m) {
        on_isa(isa, AddBytes{}, slab + m * D + begin, std::min(kBlock, D - begin), column.get() + begin);
      }
    });

    parallel_for(static_cast<std::int64_t>(pairs.size()), threads, [&](std::int64_t task) {
      const std::int64_t row = pairs[task].a * kBlock, col = pairs[task].b * kBlock;
      alignas(64) std::int32_t sums[kBlock * kBlock] = {};
      for (std::int64_t group = 0; group < groups; group += kDepth / I::kGroup) {
        const std::int64_t deep = std::min(kDepth / I::kGroup, groups - group);
        for (std::int64_t j = 0; j < kBlock; j += kPanelU<I>) {
          for (std::int64_t i = 0; i < kBlock; i += I::kRows) {
            I::run(DotPanels<I>{}, u.get() + (col + j) * rows + group * kPanelU<I> * I::kGroup,
                   w.get() + (row + i) * rows + group * I::kRows * I::kGroup, deep, sums + i * kBlock + j);
          }
        }
      }
      on_isa(isa, Flush{}, sums, column.get() + col, D, std::min(kBlock, D - row), std::min(kBlock, D - col),
             second + row * D + col);
    });
  }

  // The triangle below the diagonal, in 16 x 16 squares so that both sides move in whole cache lines.
  constexpr std::int64_t kSquare = 16;
  parallel_for(ceil_div(D, kSquare), threads, [&](std::int64_t band) {
    for (std::int64_t left = 0; left <= band * kSquare; left += kSquare) {
      for (std::int64_t i = band * kSquare; i < std::min(D, (band + 1) * kSquare); ++i) {
        for (std::int64_t j = left; j < std::min(i, left + kSquare); ++j) second[i * D + j] = second[j * D + i];
      }
    }
  });
}

void second_moment(Isa isa, const std::uint8_t* images, std::int64_t M, std::int64_t D, std::int64_t* second,
                   int threads) {
#if BRE_X86
  if (isa == Isa::avx512) return second_moment<Avx512>(isa, images, M, D, second, threads);
  if (isa == Isa::avx2) return second_moment<Avx2>(isa, images, M, D, second, threads);
#endif
  second_moment<Portable>(Isa::baseline, images, M, D, second, threads);
}

}  // namespace

void moments(const std::uint8_t* images, std::int64_t M, std::int64_t D, const std::int64_t* order,
             const std::int64_t* offsets, std::int64_t K, std::int64_t* count, std::int64_t* sum, std::int64_t* second,
             int threads) {
  if (M == 0) return;
  const Isa isa = current_isa();
  second_moment(isa, images, M, D, second, threads);  // first: it allocates, and what fails must have added nothing
  for (std::int64_t k = 0; k < K; ++k) count[k] += offsets[k + 1] - offsets[k];
  parallel_for(ceil_div(D, kBlock), threads, [&](std::int64_t block) {
    const std::int64_t begin = block * kBlock, width = std::min(kBlock, D - begin);
    for (std::int64_t k = 0; k < K; ++k) {
      for (std::int64_t i = offsets[k]; i < offsets[k + 1]; ++i) {
        on_isa(isa, AddBytes{}, images + order[i] * D + begin, width, sum + k * D + begin);
      }
    }
  });
}

}  // namespace bre::cpu
