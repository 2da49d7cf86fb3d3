// Rows of a whitening matrix to int16, each rounding's error carried on to the values that it is correlated with.
// Compiled without contraction, like whiten.cpp.
#include <cmath>
#include <memory>
#include <vector>

#include "bre_cpu.h"
#include "isa.h"
#include "parallel.h"

namespace bre::cpu {
namespace {

constexpr double kMostDigit = 32000;                  // leaves room for what errors add
constexpr double kMostSum = 0.98 * 2147483648.0 / 255;  // of a row's digits: times the largest byte they fit int32

constexpr int kTogether = 16;  // rows that share one reading of the factor, which is larger than the caches
constexpr std::int64_t kColumns = 16;  // whose errors are carried on together
constexpr int kLanes = 8;
typedef double Doubles __attribute__((vector_size(8 * kLanes), aligned(8), may_alias));

// Rows first .. first + count: from the diagonal down, digit j makes up for the errors e_i of the digits i > j, as far
// as value j knows of them: the sum over i of e_i L_ij / L_jj. carried (count, d) holds the sums over i of e_i L_ij.
struct RoundRows {
  BRE_INLINE void operator()(const double* inverse, const double* factor, std::int64_t d, std::int64_t first,
                             std::int64_t count, double* carried, std::int16_t* digits, float* scale) const {
    for (std::int64_t q = 0; q < count; ++q) {
      double largest = 0, total = 0;
      for (std::int64_t j = 0; j <= first + q; ++j) {
        const double size = std::fabs(inverse[q * d + j]);
        largest = std::max(largest, size);
        total += size;
      }
      scale[q] = static_cast<float>(std::max(largest / kMostDigit, total / kMostSum));
      for (std::int64_t j = 0; j < d; ++j) carried[q * d + j] = 0, digits[q * d + j] = 0;
    }
    for (std::int64_t end = first + count; end > 0; end -= std::min(kColumns, end)) {
      const std::int64_t begin = std::max<std::int64_t>(0, end - kColumns);
      double error[kTogether][kColumns] = {};
      for (std::int64_t q = 0; q < count; ++q) {
        for (std::int64_t j = std::min(end - 1, first + q); j >= begin; --j) {
          const double* across = factor + j * d;
          const double step = scale[q], wanted = inverse[q * d + j] + carried[q * d + j] / across[j];
          const double digit = std::min(std::max(std::nearbyint(wanted / step), -32767.0), 32767.0);
          digits[q * d + j] = static_cast<std::int16_t>(digit);
          const double own = inverse[q * d + j] - digit * step;
          error[q][j - begin] = own;
          for (std::int64_t i = begin; i < j; ++i) carried[q * d + i] += own * across[i];
        }
      }
      if (begin == 0) break;
      const double* across = factor + begin * d;  // the block's errors on all values before it, in one pass
      std::int64_t i = 0;
      for (; i + kLanes <= begin; i += kLanes) {
        Doubles rows[kColumns];
#pragma GCC unroll 16
        for (int k = 0; k < kColumns; ++k) rows[k] = *reinterpret_cast<const Doubles*>(across + k * d + i);
        for (std::int64_t q = 0; q < count; ++q) {
          Doubles sum = *reinterpret_cast<Doubles*>(carried + q * d + i);
#pragma GCC unroll 16
          for (int k = kColumns - 1; k >= 0; --k) sum += error[q][k] * rows[k];
          *reinterpret_cast<Doubles*>(carried + q * d + i) = sum;
        }
      }
      for (; i < begin; ++i) {
        for (std::int64_t q = 0; q < count; ++q) {
          for (int k = kColumns - 1; k >= 0; --k) carried[q * d + i] += error[q][k] * across[k * d + i];
        }
      }
    }
  }
};

}  // namespace

void round_weights(const double* inverse, const double* factor, std::int64_t d, std::int16_t* rows, float* scale,
                   int threads) {
  const Isa isa = current_isa();
  const std::unique_ptr<double[]> carried(new double[static_cast<std::size_t>(d * d)]);
  parallel_for(ceil_div(d, kTogether), threads, [&](std::int64_t task) {
    const std::int64_t first = (ceil_div(d, kTogether) - 1 - task) * kTogether;  // the longest rows first
    on_isa(isa, RoundRows{}, inverse + first * d, factor, d, first, std::min<std::int64_t>(kTogether, d - first),
           carried.get() + first * d, rows + first * d, scale + first);
  });
}

}  // namespace bre::cpu
