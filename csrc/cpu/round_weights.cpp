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

// One row: from the diagonal down, digit j makes up for the errors e_i of the digits i > j, as far as value j knows of
// them: the sum over i of e_i L_ij / L_jj. `carried` holds the sums over i of e_i L_ij.
struct RoundRow {
  BRE_INLINE void operator()(const double* row, const double* factor, std::int64_t d, std::int64_t r, double* carried,
                             std::int16_t* digits, float* scale) const {
    double largest = 0, total = 0;
    for (std::int64_t j = 0; j <= r; ++j) {
      largest = std::max(largest, std::fabs(row[j]));
      total += std::fabs(row[j]);
    }
    const float step = static_cast<float>(std::max(largest / kMostDigit, total / kMostSum));
    *scale = step;
    for (std::int64_t j = 0; j < d; ++j) carried[j] = 0, digits[j] = 0;
    if (step == 0) return;
    for (std::int64_t j = r; j >= 0; --j) {
      const double* across = factor + j * d;
      const double wanted = row[j] + carried[j] / across[j];
      const double digit = std::min(std::max(std::nearbyint(wanted / step), -32767.0), 32767.0);
      digits[j] = static_cast<std::int16_t>(digit);
      const double error = row[j] - digit * step;
      for (std::int64_t i = 0; i < j; ++i) carried[i] += error * across[i];
    }
  }
};

}  // namespace

void round_weights(const double* inverse, const double* factor, std::int64_t d, std::int16_t* rows, float* scale,
                   int threads) {
  const Isa isa = current_isa();
  const std::unique_ptr<double[]> carried(new double[static_cast<std::size_t>(d * d)]);
  parallel_for(d, threads, [&](std::int64_t r) {
    on_isa(isa, RoundRow{}, inverse + r * d, factor, d, r, carried.get() + r * d, rows + r * d, scale + r);
  });
}

}  // namespace bre::cpu
