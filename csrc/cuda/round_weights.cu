// Rows of a whitening matrix to int16, each rounding's error carried on to the values that it is correlated with; every
// product rounded by itself, as in the other backends.
#include "pixels.cuh"

namespace bre::cuda {
namespace {

constexpr int kWarps = 8, kThreads = 32 * kWarps;
constexpr double kMostDigit = 32000;  // leaves room for what errors add
constexpr double kMostSum = 0.98 * 2147483648.0 / 255;  // of a row's digits: times the largest byte they fit int32

struct Most {
  __device__ __forceinline__ double operator()(double a, double b) const { return fmax(a, b); }
};

// A row per block, from the diagonal down: digit j makes up for the errors of the digits after it. A thread keeps every
// kThreads-th of what they say of the values before, in memory of its own; a step is as long as one barrier.
__global__ void __launch_bounds__(kThreads, 4)
    round_rows(const double* __restrict__ inverse, const double* __restrict__ factor, int d,
               double* __restrict__ carried, std::int16_t* __restrict__ digits, float* __restrict__ scale) {
  const int row = d - 1 - static_cast<int>(blockIdx.x);  // the longest rows first
  const std::int64_t begin = static_cast<std::int64_t>(row) * d;
  const double* own = inverse + begin;
  double* mine = carried + begin;
  __shared__ double slots[2][kWarps], error[2];
  double largest = 0, total = 0;
  for (int j = threadIdx.x; j < d; j += kThreads) {
    mine[j] = 0;
    digits[begin + j] = 0;
    if (j > row) continue;
    largest = fmax(largest, fabs(own[j]));
    total += fabs(own[j]);
  }
  largest = block_reduce<kWarps>(largest, 0.0, slots[0], Most{});
  total = block_reduce<kWarps>(total, 0.0, slots[1], Add{});
  const float step = static_cast<float>(fmax(largest / kMostDigit, total / kMostSum));
  if (threadIdx.x == 0) scale[row] = step;
  for (int j = row; j >= 0; --j) {
    const double* across = factor + static_cast<std::int64_t>(j) * d;
    if (j % kThreads == static_cast<int>(threadIdx.x)) {
      const double wanted = __dadd_rn(own[j], mine[j] / across[j]);
      const double digit = fmin(fmax(rint(wanted / step), -32767.0), 32767.0);
      digits[begin + j] = static_cast<std::int16_t>(digit);
      error[j % 2] = __dadd_rn(own[j], -__dmul_rn(digit, static_cast<double>(step)));
    }
    __syncthreads();  // one per step: the error written next was last read before this one
    const double e = error[j % 2];
    for (int i = threadIdx.x; i < j; i += kThreads) mine[i] = __dadd_rn(mine[i], __dmul_rn(e, across[i]));
  }
}

}  // namespace

void round_weights(const double* inverse, const double* factor, std::int64_t d, double* carried, std::int16_t* rows,
                   float* scale, cudaStream_t stream) {
  BRE_CHECK(fits_int(d + kThreads));
  BRE_CHECK(launch(round_rows, d, kThreads, stream, inverse, factor, d, carried, rows, scale));
}

}  // namespace bre::cuda
