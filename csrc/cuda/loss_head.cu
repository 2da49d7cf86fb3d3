#include <algorithm>
#include <cmath>

#include "pixels.cuh"

namespace bre::cuda {
namespace {

constexpr int kLeastWarps = 4;  // of a block: four short rows, or one long one

template <int kWarps>
constexpr int kBlock = 32 * (kWarps > kLeastWarps ? kWarps : kLeastWarps);

// kWarps warps per row, kItems logits per thread in registers: a row of up to 32*kWarps*kItems classes is read once and
// written once. Two exponentials per logit: 44 M for 1000 rows of 22 000 take 12 us at 16 per SM and cycle, while
// their 176 MB take 60. With d = z_t - logsumexp(others), p_t = sigmoid(d). Both losses are softplus: -log p_t =
// softplus(-d) and -log(1-p_t) = softplus(d), with gradients -+sigmoid(-+d) at t, shared out among the others by their
// own softmax.
template <class Number, int kWarps, int kItems>
__global__ void __launch_bounds__(kBlock<kWarps>)
    loss_rows(const Number* __restrict__ logits, const std::int64_t* __restrict__ target,
              const std::int8_t* __restrict__ sign, const float* __restrict__ weight, std::int64_t rows, int N, int K,
              float* __restrict__ loss, Number* __restrict__ grad, bool* __restrict__ success) {
  constexpr int kThreads = 32 * kWarps, kSpan = kThreads * kItems;
  constexpr float kNone = -INFINITY;
  const int lane = threadIdx.x % kThreads;
  const std::int64_t r = static_cast<std::int64_t>(blockIdx.x) * (kBlock<kWarps> / kThreads) + threadIdx.x / kThreads;
  if (r >= rows) return;  // a whole warp, and with kWarps > 1 never: there a block is a row
  const Number* from = logits + r * K;
  const int t = static_cast<int>(target[r / N]);
  const float own = to_float(from[t]);

  float z[kItems];  // the other classes' logits; none at the target and past the end
  const auto read = [&](int begin) {
#pragma unroll
    for (int k = 0; k < kItems; ++k) {
      const int i = begin + k * kThreads + lane;
      z[k] = i < K && i != t ? to_float(from[i]) : kNone;
    }
  };

  float top = kNone, beaten = 0;  // beaten: 1 where another class comes before the target; of equals, the lowest does
  for (int begin = 0; begin < K; begin += kSpan) {
    read(begin);
#pragma unroll
    for (int k = 0; k < kItems; ++k) {
      top = fmaxf(top, z[k]);
      if (z[k] > own || (z[k] == own && begin + k * kThreads + lane < t)) beaten = 1;
    }
  }
  __shared__ float slots[3][kWarps];
  top = block_reduce<kWarps>(top, kNone, slots[0], Max{});
  beaten = block_reduce<kWarps>(beaten, 0.0f, slots[1], Max{});

  float total = 0;
  for (int begin = 0; begin < K; begin += kSpan) {
    if (K > kSpan) read(begin);
#pragma unroll
    for (int k = 0; k < kItems; ++k) total += expf(z[k] - top);
  }
  total = block_reduce<kWarps>(total, 0.0f, slots[2], Add{});

  const bool add = sign[r] >= 0;
  const float d = (own - top) - logf(total), a = add ? d : -d, e = expf(-fabsf(a));
  const float pull = weight[r] * (a >= 0 ? e : 1.0f) / (1.0f + e);  // weight * sigmoid(-a)
  const float signed_pull = add ? pull : -pull, share = signed_pull / total;
  if (lane == 0) {
    loss[r] = fmaxf(-a, 0.0f) + log1pf(e);
    success[r] = add == (beaten == 0);
  }
  for (int begin = 0; begin < K; begin += kSpan) {
    if (K > kSpan) read(begin);
#pragma unroll
    for (int k = 0; k < kItems; ++k) {
      const int i = begin + k * kThreads + lane;
      if (i < K) grad[r * K + i] = from_float<Number>(i == t ? -signed_pull : share * expf(z[k] - top));
    }
  }
}

}  // namespace

void loss_head(const void* logits, Dtype dtype, const std::int64_t* target, const std::int8_t* sign,
               const float* weight, std::int64_t T, std::int64_t N, std::int64_t K, float* loss, void* grad,
               bool* success, cudaStream_t stream) {
  BRE_CHECK(fits_int(std::max(N, K)));
  with_dtype(dtype, [&](auto* type) {
    using Number = std::remove_pointer_t<decltype(type)>;
    const auto rows = [&](auto kernel, int threads, int per_block) {
      BRE_CHECK(launch(kernel, ceil_div(T * N, per_block), threads, stream, static_cast<const Number*>(logits), target,
                       sign, weight, T * N, N, K, loss, static_cast<Number*>(grad), success));
    };
    if (K <= 32 * 4) return rows(loss_rows<Number, 1, 4>, kBlock<1>, kLeastWarps);
    if (K <= 32 * 32) return rows(loss_rows<Number, 1, 32>, kBlock<1>, kLeastWarps);
    if (K <= 256 * 32) return rows(loss_rows<Number, 8, 32>, kBlock<8>, 1);
    rows(loss_rows<Number, 32, 22>, kBlock<32>, 1);
  });
}

}  // namespace bre::cuda
