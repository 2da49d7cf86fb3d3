// S += X^T X for bytes X (M, D), exactly, as a small integer matrix product (byte_products.h) of u = x and w = x - 128:
//   sum_m x_mi x_mj = sum_m w_mi u_mj + 128 * sum_m x_mj.
// Blocks on and above the diagonal are summed in int32, added to the int64 result, and mirrored at the end.
//
// Why not a library: oneDNN (inside torch) and FBGEMM have such products, but torch offers none for plain bytes in its
// public functions, they want the sums as a whole (D, D) int32 matrix, which overflows after 33 000 images, and they
// compute the half below the diagonal as well.
#include <memory>
#include <vector>

#include "bre_cpu.h"
#include "byte_products.h"
#include "isa.h"
#include "parallel.h"

namespace bre::cpu {
namespace {

using namespace bytes;

// Images per packed slab, whose sums fit int32.
constexpr std::int64_t kSlab = 4096;
static_assert(kSlab * 255 * 128 < (std::int64_t{1} << 31));

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

template <class I>
void second_moment(Isa isa, const std::uint8_t* images, std::int64_t M, std::int64_t D, std::int64_t* second,
                   int threads) {
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
      multiply_blocks<I>(pairs[task], D, D, true, u.get(), w.get(), groups, sums);
      on_isa(isa, Flush{}, sums, column.get() + col, D, std::min(kBlock, D - row), std::min(kBlock, D - col),
             second + row * D + col);
    });
  }

  mirror(second, D, threads);
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
