#include <algorithm>

#include "pixels.cuh"

namespace bre::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kRows = 8;    // rows of one target per block: a pattern's value is loaded once for all of them
constexpr int kTile = 512;  // pixels of a channel plane per block
constexpr int kUnits = kTile / 16;
constexpr int kPlane = kUnits + 3;  // units of 16 bytes; +3 puts three planes' bytes of one pixel 12 banks apart

__device__ __forceinline__ float normalised(std::uint32_t x, float s, float v, float mean, float scale) {
  const float y = shifted(x, s, v);
  return (fminf(fmaxf(y, 0.0f), 1.0f) - mean) * scale;
}

// kRows rows x kTile pixels of kChannels interleaved planes; kChannels = 1 is one plane of N,C,H,W. The bytes come in
// by 16 (2*kChannels loads in flight per thread) and wait in shared memory (4 KB for one plane, 13 KB for three); the
// outputs leave in the order of memory, four per thread and neighbouring threads side by side, so every store fills
// whole sectors whatever the layout. Images are not shared between targets: their bytes are a fifth of the traffic, and
// mostly in L2.
template <class Out, int kChannels>
__global__ void __launch_bounds__(kThreads)
    apply_tiles(const std::uint8_t* __restrict__ images, int channels, int area, const std::int64_t* __restrict__ index,
                const std::int8_t* __restrict__ sign, int N, const float* __restrict__ pattern,
                const float* __restrict__ mean, const float* __restrict__ std, Out* __restrict__ out) {
  const int D = channels * area, tiles = static_cast<int>(ceil_div(area, kTile)), planes = channels / kChannels;
  const int chunks = static_cast<int>(ceil_div(N, kRows));
  int block = blockIdx.x;
  const int begin = block % tiles * kTile;
  block /= tiles;
  const int c0 = block % planes;  // first channel
  block /= planes;
  const int n0 = block % chunks * kRows, t = block / chunks;
  const int rows = min(kRows, N - n0), pixels = min(kTile, area - begin);
  const std::int64_t r0 = static_cast<std::int64_t>(t) * N + n0;

  __shared__ uint4 staged[kRows][kChannels][kPlane];
#pragma unroll
  for (int i = 0; i < kRows * kChannels * kUnits / kThreads; ++i) {
    const int piece = i * kThreads + threadIdx.x;
    const int unit = piece % kUnits, c = piece / kUnits % kChannels, row = piece / (kUnits * kChannels);
    if (row < rows && unit * 16 < pixels) {
      staged[row][c][unit] = load_16(images + index[r0 + row] * D + (c0 + c) * area + begin + unit * 16);
    }
  }

  // This thread's outputs: kChannels groups of 4 in the tile's memory order.
  float v[kChannels][4], m[kChannels][4], scale[kChannels][4];
#pragma unroll
  for (int j = 0; j < kChannels; ++j) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int e = (j * kThreads + threadIdx.x) * 4 + i, c = e % kChannels, p = e / kChannels;
      v[j][i] = p < pixels ? pattern[static_cast<std::int64_t>(t) * D + (c0 + c) * area + begin + p] : 0.0f;
      m[j][i] = mean[c0 + c];
      scale[j][i] = 1.0f / std[c0 + c];
    }
  }
  __syncthreads();

  for (int row = 0; row < rows; ++row) {
    const float s = sign[r0 + row];
    Out* to = out + (r0 + row) * D + c0 * area + begin * kChannels;
#pragma unroll
    for (int j = 0; j < kChannels; ++j) {
      const int group = j * kThreads + threadIdx.x;
      if (group * 4 >= pixels * kChannels) continue;
      std::uint32_t word = 0;
      if (kChannels == 1) word = reinterpret_cast<const std::uint32_t*>(staged[row][0])[group];
      Vec<Out, 4> y;
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int e = group * 4 + i, c = e % kChannels, p = e / kChannels;
        const std::uint32_t x =
            kChannels == 1 ? byte_of(word, i) : reinterpret_cast<const std::uint8_t*>(staged[row][c])[p];
        y.at[i] = from_float<Out>(normalised(x, s, v[j][i], m[j][i], scale[j][i]));
      }
      store(to + group * 4, y);
    }
  }
}

// Any shape, any alignment: an element per thread in the order of memory, for kRows rows.
template <class Out>
__global__ void __launch_bounds__(kThreads)
    apply_elements(const std::uint8_t* __restrict__ images, int channels, int area, bool nhwc,
                   const std::int64_t* __restrict__ index, const std::int8_t* __restrict__ sign, int N,
                   const float* __restrict__ pattern, const float* __restrict__ mean, const float* __restrict__ std,
                   Out* __restrict__ out) {
  const int D = channels * area, tiles = static_cast<int>(ceil_div(D, kThreads));
  const int chunks = static_cast<int>(ceil_div(N, kRows));
  const int e = static_cast<int>(blockIdx.x % tiles) * kThreads + threadIdx.x;
  const int n0 = static_cast<int>(blockIdx.x / tiles) % chunks * kRows, t = blockIdx.x / tiles / chunks;
  if (e >= D) return;
  const int c = nhwc ? e % channels : e / area, p = nhwc ? e / channels : e % area, d = c * area + p;
  const float v = pattern[static_cast<std::int64_t>(t) * D + d], m = mean[c], scale = 1.0f / std[c];
  for (int n = n0; n < min(n0 + kRows, N); ++n) {
    const std::int64_t r = static_cast<std::int64_t>(t) * N + n;
    out[r * D + e] = from_float<Out>(normalised(images[index[r] * D + d], sign[r], v, m, scale));
  }
}

}  // namespace

void apply_pattern(const std::uint8_t* images, ImageShape shape, const std::int64_t* index, const std::int8_t* sign,
                   std::int64_t T, std::int64_t N, const float* pattern, const float* mean, const float* std,
                   Layout layout, Dtype dtype, void* out, cudaStream_t stream) {
  BRE_CHECK(fits_int(std::max(shape.size(), N)));
  const int C = static_cast<int>(shape.channels), A = static_cast<int>(shape.area);
  const bool nhwc = layout == Layout::nhwc && C > 1, whole = A % 16 == 0 && aligned(16, images, out);
  const std::int64_t chunks = T * ceil_div(N, kRows), tiles = chunks * ceil_div(A, kTile);

  with_dtype(dtype, [&](auto* type) {
    using Out = std::remove_pointer_t<decltype(type)>;
    auto* to = static_cast<Out*>(out);
    const auto by_tiles = [&](auto kernel, std::int64_t planes) {
      BRE_CHECK(launch(kernel, tiles * planes, kThreads, stream, images, C, A, index, sign, N, pattern, mean, std, to));
    };
    if (whole && !nhwc) return by_tiles(apply_tiles<Out, 1>, C);
    if (whole && C == 3) return by_tiles(apply_tiles<Out, 3>, 1);
    if (whole && C == 4) return by_tiles(apply_tiles<Out, 4>, 1);
    BRE_CHECK(launch(apply_elements<Out>, chunks * ceil_div(shape.size(), kThreads), kThreads, stream, images, C, A,
                     nhwc, index, sign, N, pattern, mean, std, to));
  });
}

}  // namespace bre::cuda
