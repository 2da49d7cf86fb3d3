// Products of all pairs of rows of signed bytes, summed along the rows, as they lie in memory: the packing transposes
// words, all else is byte_products.h. With u = x + 128 and w = x,
//   sum_d x_id x_jd = sum_d w_id u_jd - 128 * sum_d x_id.
#include <memory>
#include <vector>

#include "bre_cpu.h"
#include "byte_products.h"
#include "isa.h"
#include "parallel.h"

namespace bre::cpu {
namespace {

using namespace bytes;

// Columns of codes per packed slab: 600 rows of both sides stay in L2, and the sums fit int32.
constexpr std::int64_t kSlab = 1024;
static_assert(kSlab * 255 * 128 < (std::int64_t{1} << 31));

// Columns [0, depth) of `rows` rows, which begin D apart, into one panel of `width` rows: [group of
// columns][row][column in the group], with `shift` (0 or 128) added; zero beyond the rows and columns that there are.
template <class I, class Number>
struct PackRows {
  static constexpr std::int64_t kChunk = 64;  // columns that are moved at a time: a cache line of each row

  BRE_INLINE void operator()(const std::int8_t* codes, std::int64_t rows, std::int64_t D, std::int64_t depth,
                             std::int64_t width, int shift, Number* panel) const {
    const std::int64_t padded = ceil_div(depth, I::kGroup) * I::kGroup, whole = depth / I::kGroup * I::kGroup;
    for (std::int64_t begin = 0; begin < padded; begin += kChunk) {
      const std::int64_t end = std::min(begin + kChunk, padded);
      for (std::int64_t r = 0; r < width; ++r) {
        const std::int8_t* row = codes + r * D;
        Number* to = panel + (begin / I::kGroup * width + r) * I::kGroup;
        std::int64_t d = begin;
        for (; r < rows && d < std::min(end, whole); d += I::kGroup, to += width * I::kGroup) move(row + d, shift, to);
        for (; d < end; d += I::kGroup, to += width * I::kGroup) {
          for (int g = 0; g < I::kGroup; ++g) {
            to[g] = r < rows && d + g < depth ? static_cast<Number>(row[d + g] + shift) : Number{0};
          }
        }
      }
    }
  }

  BRE_INLINE static void move(const std::int8_t* from, int shift, Number* to) {
    if constexpr (sizeof(Number) == 1) {
      std::uint32_t word;
      std::memcpy(&word, from, sizeof word);
      word ^= shift == 0 ? 0u : 0x80808080u;
      std::memcpy(to, &word, sizeof word);
    } else {
      for (int g = 0; g < I::kGroup; ++g) to[g] = static_cast<Number>(from[g] + shift);
    }
  }
};

std::vector<BlockPair> every_pair(std::int64_t bands, std::int64_t blocks) {
  std::vector<BlockPair> pairs;
  for (std::int64_t a = 0; a < bands; ++a) {
    for (std::int64_t b = 0; b < blocks; ++b) pairs.push_back({a, b});
  }
  return pairs;
}

struct AddCodes {
  BRE_INLINE void operator()(const std::int8_t* x, std::int64_t n, std::int32_t* total) const {
    std::int32_t sum = 0;
    for (std::int64_t d = 0; d < n; ++d) sum += x[d];
    *total = sum;
  }
};

// out[i][j] += sums[i][j] - 128 * total[i] for the rows and columns of one block that exist.
struct Flush {
  BRE_INLINE void operator()(const std::int32_t* sums, const std::int32_t* total, std::int64_t n, std::int64_t rows,
                             std::int64_t columns, std::int32_t* out) const {
    for (std::int64_t i = 0; i < rows; ++i) {
      for (std::int64_t j = 0; j < columns; ++j) out[i * n + j] += sums[i * kBlock + j] - 128 * total[i];
    }
  }
};

// out (r, n) += left right^T. left: (r, D), right: (n, D); where both are the same, only blocks on and above the
// diagonal are computed and the rest is mirrored.
template <class I>
void products_on(Isa isa, const std::int8_t* left, std::int64_t r, const std::int8_t* right, std::int64_t n,
                 std::int64_t D, std::int32_t* out, int threads) {
  const bool symmetric = left == right && r == n;
  const std::int64_t bands = ceil_div(r, kBlock), blocks = ceil_div(n, kBlock);
  const std::size_t most = static_cast<std::size_t>(ceil_div(std::min(D, kSlab), I::kGroup) * I::kGroup * kBlock);
  const std::unique_ptr<typename I::U[]> u(new typename I::U[most * static_cast<std::size_t>(blocks)]);
  const std::unique_ptr<typename I::W[]> w(new typename I::W[most * static_cast<std::size_t>(bands)]);
  const std::unique_ptr<std::int32_t[]> total(new std::int32_t[static_cast<std::size_t>(r)]);
  const std::vector<BlockPair> pairs = symmetric ? upper_triangle(blocks) : every_pair(bands, blocks);

  for (std::int64_t start = 0; start < D; start += kSlab) {
    const std::int64_t width = std::min(kSlab, D - start), groups = ceil_div(width, I::kGroup);
    const std::int64_t depth = groups * I::kGroup;
    const std::int8_t *rows = left + start, *columns = right + start;

    parallel_for(bands + blocks, threads, [&](std::int64_t task) {
      if (task < bands) {
        const std::int64_t begin = task * kBlock, end = std::min(r, begin + kBlock);
        for (std::int64_t i = begin; i < end; i += I::kRows) {
          on_isa(isa, PackRows<I, typename I::W>{}, rows + i * D, r - i, D, width, std::int64_t{I::kRows}, 0,
                 w.get() + i * depth);
        }
        for (std::int64_t i = begin; i < end; ++i) on_isa(isa, AddCodes{}, rows + i * D, width, total.get() + i);
      } else {
        const std::int64_t begin = (task - bands) * kBlock, end = std::min(n, begin + kBlock);
        for (std::int64_t i = begin; i < end; i += kPanelU<I>) {
          on_isa(isa, PackRows<I, typename I::U>{}, columns + i * D, n - i, D, width, kPanelU<I>, 128,
                 u.get() + i * depth);
        }
      }
    });

    parallel_for(static_cast<std::int64_t>(pairs.size()), threads, [&](std::int64_t task) {
      const std::int64_t row = pairs[task].a * kBlock, col = pairs[task].b * kBlock;
      alignas(64) std::int32_t sums[kBlock * kBlock] = {};
      multiply_blocks<I>(pairs[task], r, n, symmetric, u.get(), w.get(), groups, sums);
      on_isa(isa, Flush{}, static_cast<const std::int32_t*>(sums), static_cast<const std::int32_t*>(total.get() + row),
             n, std::min(kBlock, r - row), std::min(kBlock, n - col), out + row * n + col);
    });
  }
  if (symmetric) mirror(out, n, threads);
}

void products(const std::int8_t* left, std::int64_t r, const std::int8_t* right, std::int64_t n, std::int64_t D,
              std::int32_t* out, int threads) {
  const Isa isa = current_isa();
#if BRE_X86
  if (isa == Isa::avx512) return products_on<Avx512>(isa, left, r, right, n, D, out, threads);
  if (isa == Isa::avx2) return products_on<Avx2>(isa, left, r, right, n, D, out, threads);
#endif
  products_on<Portable>(isa, left, r, right, n, D, out, threads);
}

}  // namespace

void gram(const std::int8_t* codes, std::int64_t n, std::int64_t D, std::int32_t* out, int threads) {
  products(codes, n, codes, n, D, out, threads);
}

void cross_gram(const std::int8_t* left, std::int64_t r, const std::int8_t* right, std::int64_t n, std::int64_t D,
                std::int32_t* out, int threads) {
  products(left, r, right, n, D, out, threads);
}

}  // namespace bre::cpu
