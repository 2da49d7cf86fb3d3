#include <algorithm>
#include <cfloat>

#include "pixels.cuh"

namespace bre::cuda {
namespace {

constexpr int kSplits = 8;  // warps that share out the rows of a target; their sums are added in order
constexpr int kThreads = 32 * kSplits;

// The gradient of a pattern: sum over n of sign * [0 <= x/255 + sign*v <= 1] * grad, divided by std. A lane holds
// kPixels neighbouring pixels of kChannels interleaved planes and meets every kSplits-th row; the pattern stays in
// registers, and fp32 gradients come in by 16 bytes, 16-bit ones by 8. kChannels = 1 is one plane, whose pixels lie
// `stride` apart. T = 10 of 3 x 32 x 32 makes 240 blocks of 8 warps, enough loads in flight for an H100. The order of
// every sum is fixed by the shape.
template <class Number, int kChannels, int kPixels>
__global__ void __launch_bounds__(kThreads)
    sum_gradients(const Number* __restrict__ grad, const std::uint8_t* __restrict__ images, int channels, int area,
                  int channel_stride, int pixel_stride, const std::int64_t* __restrict__ index,
                  const std::int8_t* __restrict__ sign, int N, const float* __restrict__ pattern,
                  const bool* __restrict__ active, const float* __restrict__ std, float* __restrict__ gradient) {
  constexpr int kTile = 32 * kPixels;  // pixels of a block
  const int D = channels * area, span = D / kChannels;
  const int tiles = static_cast<int>(ceil_div(span, kTile)), t = blockIdx.x / tiles;
  const int begin = static_cast<int>(blockIdx.x % tiles) * kTile;
  if (!active[t]) return;  // the whole block
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, d0 = begin + lane * kPixels;
  const std::int64_t first = static_cast<std::int64_t>(t) * D;

  Vec<float, kPixels> sum[kChannels] = {};
  if (d0 < span) {
    Vec<float, kPixels> v[kChannels];
#pragma unroll
    for (int c = 0; c < kChannels; ++c) v[c] = load<kPixels>(pattern + first + c * area + d0);
    const int offset = kChannels > 1 ? d0 * kChannels : d0 / area * channel_stride + d0 % area * pixel_stride;
#pragma unroll 2
    for (int n = warp; n < N; n += kSplits) {
      const std::int64_t r = static_cast<std::int64_t>(t) * N + n;
      const float s = sign[r];
      const std::uint8_t* image = images + index[r] * D + d0;
      Vec<Number, kPixels> g[kChannels];
      Vec<std::uint8_t, kPixels> x[kChannels];
#pragma unroll
      for (int c = 0; c < kChannels; ++c) {
        g[c] = load<kPixels>(grad + r * D + offset + c * kPixels);
        x[c] = load<kPixels>(image + c * area);
      }
#pragma unroll
      for (int c = 0; c < kChannels; ++c) {
#pragma unroll
        for (int i = 0; i < kPixels; ++i) {
          const int e = i * kChannels + c;  // of the lane's gradients, in the order of memory
          const float y = shifted(x[c].at[i], s, v[c].at[i]), signed_g = s * to_float(g[e / kPixels].at[e % kPixels]);
          sum[c].at[i] += y >= 0.0f && y <= 1.0f ? signed_g : 0.0f;
        }
      }
    }
  }

  __shared__ float parts[kSplits][kChannels][kTile];  // 12 KB for three channels
#pragma unroll
  for (int c = 0; c < kChannels; ++c) {
#pragma unroll
    for (int i = 0; i < kPixels; ++i) parts[warp][c][lane * kPixels + i] = sum[c].at[i];
  }
  __syncthreads();
  for (int e = threadIdx.x; e < kChannels * kTile; e += kThreads) {
    const int c = e / kTile, p = e % kTile, d = c * area + begin + p;
    if (begin + p >= span) continue;
    float total = 0;
#pragma unroll
    for (int w = 0; w < kSplits; ++w) total += parts[w][c][p];
    gradient[first + d] = total * (1.0f / std[d / area]);
  }
}

constexpr int kWarps = 32;

// Of norms that have an inverse in float; smaller ones count as zero.
__device__ __forceinline__ float inverse_or_zero(double norm) {
  return norm >= FLT_MIN ? static_cast<float>(1.0 / norm) : 0.0f;
}

// NaN stays what it is, where fminf and fmaxf would make a pattern of it.
__device__ __forceinline__ float clip(float v, float bound) { return v > bound ? bound : v < -bound ? -bound : v; }

// One pattern per block: m = decay*m + g/|g|; v = clip(v - step*m/|m|, -bound, bound). A zero g or m moves nothing.
// Norms are summed in double, in an order that the block's size fixes. One SM moves a pattern of 3 x 224 x 224 (4 MB of
// traffic) in some 40 us, all SMs at once when there are many patterns: small beside the network's share of a step, so
// not split.
__global__ void __launch_bounds__(32 * kWarps)
    descend(const float* __restrict__ gradient, int D, UpdateStep step, const bool* __restrict__ active,
            float* __restrict__ pattern, float* __restrict__ momentum, float* __restrict__ norms) {
  const std::int64_t t = blockIdx.x;
  const float* g = gradient + t * D;
  float* m = momentum + t * D;
  float* v = pattern + t * D;
  __shared__ double slots[3][kWarps];
  const auto norm = [&](double sum, double* slot) { return sqrt(block_reduce<kWarps>(sum, 0.0, slot, Add{})); };

  if (active[t]) {  // the whole block
    double g_squares = 0, m_squares = 0;
#pragma unroll 4
    for (int d = threadIdx.x; d < D; d += 32 * kWarps) g_squares += static_cast<double>(g[d]) * g[d];
    const float unit_g = inverse_or_zero(norm(g_squares, slots[0]));
#pragma unroll 4
    for (int d = threadIdx.x; d < D; d += 32 * kWarps) {
      m[d] = step.decay * m[d] + unit_g * g[d];
      m_squares += static_cast<double>(m[d]) * m[d];
    }
    const float length = step.step * inverse_or_zero(norm(m_squares, slots[1]));
#pragma unroll 4
    for (int d = threadIdx.x; d < D; d += 32 * kWarps) {
      v[d] = clip(v[d] - length * m[d], step.bound);
    }
  }
  double v_squares = 0;
#pragma unroll 4
  for (int d = threadIdx.x; d < D; d += 32 * kWarps) v_squares += static_cast<double>(v[d]) * v[d];
  const double v_norm = norm(v_squares, slots[2]);
  if (threadIdx.x == 0) norms[t] = static_cast<float>(v_norm);
}

}  // namespace

void update_pattern(const void* grad, Dtype dtype, Layout layout, const std::uint8_t* images, ImageShape shape,
                    const std::int64_t* index, const std::int8_t* sign, std::int64_t T, std::int64_t N, float* pattern,
                    float* momentum, const bool* active, const float* std, UpdateStep step, float* gradient,
                    float* norms, cudaStream_t stream) {
  BRE_CHECK(fits_int(std::max(shape.size(), N)));
  const int C = static_cast<int>(shape.channels), A = static_cast<int>(shape.area);
  const bool nhwc = layout == Layout::nhwc && C > 1;

  with_dtype(dtype, [&](auto* type) {
    using Number = std::remove_pointer_t<decltype(type)>;
    const auto sum = [&](auto kernel, int channels, int pixels) {
      BRE_CHECK(launch(kernel, T * ceil_div(shape.size(), 32 * pixels * channels), kThreads, stream,
                       static_cast<const Number*>(grad), images, C, A, nhwc ? 1 : A, nhwc ? C : 1, index, sign, N,
                       pattern, active, std, gradient));
    };
    const bool fours = A % 4 == 0 && aligned(4, images) && aligned(16, grad, pattern);
    if (fours && !nhwc) return sum(sum_gradients<Number, 1, 4>, 1, 4);
    if (fours && C == 3) return sum(sum_gradients<Number, 3, 4>, 3, 4);
    if (fours && C == 4) return sum(sum_gradients<Number, 4, 4>, 4, 4);
    sum(sum_gradients<Number, 1, 1>, 1, 1);
  });
  BRE_CHECK(launch(descend, T, 32 * kWarps, stream, gradient, shape.size(), step, active, pattern, momentum, norms));
}

}  // namespace bre::cuda
