// Passes over the bytes of images: half the resolution, sums of channels, tiles as they are.
#include <algorithm>

#include "pixels.cuh"

namespace bre::cuda {
namespace {

constexpr int kThreads = 128;

// Means of 2 x 2 pixels of two rows of W bytes, 8 of them per thread from 16 bytes of each row.
__global__ void __launch_bounds__(kThreads) halve_eights(const std::uint8_t* __restrict__ images, std::int64_t lines,
                                                         int H, int W, std::uint8_t* __restrict__ out) {
  const int pieces = W / 16, height = (H + 1) / 2;
  const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x, line = i / pieces;
  if (line >= lines) return;
  const int x = static_cast<int>(i % pieces) * 16, y = static_cast<int>(line % height) * 2;
  const std::uint8_t* from = images + line / height * H * W + x;
  const uint4 above = load_16(from + static_cast<std::int64_t>(y) * W);
  const uint4 below = load_16(from + static_cast<std::int64_t>(min(y + 1, H - 1)) * W);
  Vec<std::uint8_t, 8> mean;
#pragma unroll
  for (int k = 0; k < 8; ++k) {
    const std::uint32_t sum =
        byte_of(above, 2 * k) + byte_of(above, 2 * k + 1) + byte_of(below, 2 * k) + byte_of(below, 2 * k + 1);
    mean.at[k] = static_cast<std::uint8_t>((sum + 2) / 4);
  }
  store(out + line * (W / 2) + x / 2, mean);
}

// Any size, a pixel of the result per thread; beyond an odd edge its last pixels count again.
__global__ void __launch_bounds__(kThreads) halve_pixels(const std::uint8_t* __restrict__ images, std::int64_t lines,
                                                         int H, int W, std::uint8_t* __restrict__ out) {
  const int width = (W + 1) / 2, height = (H + 1) / 2;
  const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x, line = i / width;
  if (line >= lines) return;
  const int x = static_cast<int>(i % width) * 2, y = static_cast<int>(line % height) * 2, beside = min(x + 1, W - 1);
  const std::uint8_t* above = images + (line / height * H + y) * W;
  const std::uint8_t* below = images + (line / height * H + min(y + 1, H - 1)) * W;
  out[i] = static_cast<std::uint8_t>((above[x] + above[beside] + below[x] + below[beside] + 2) / 4);
}

// A warp sums a plane of `area` bytes.
template <bool kWhole>
__global__ void __launch_bounds__(kThreads) sum_planes(const std::uint8_t* __restrict__ images, std::int64_t planes,
                                                       std::int64_t area, std::int64_t* __restrict__ out) {
  const std::int64_t plane = static_cast<std::int64_t>(blockIdx.x) * (kThreads / 32) + threadIdx.x / 32;
  if (plane >= planes) return;  // the whole warp
  const int lane = threadIdx.x % 32;
  const std::uint8_t* from = images + plane * area;
  long long total = 0;
#pragma unroll 4
  for (std::int64_t a = lane * 16; a < area; a += 32 * 16) {
    const uint4 x = kWhole ? load_16(from + a) : gather_16(from + a, static_cast<int>(area - a < 16 ? area - a : 16));
    std::uint32_t sum = __dp4a(x.x, 0x01010101u, 0u);
    sum = __dp4a(x.y, 0x01010101u, sum);
    sum = __dp4a(x.z, 0x01010101u, sum);
    total += __dp4a(x.w, 0x01010101u, sum);
  }
  total = warp_reduce(total, Add{});
  if (lane == 0) out[plane] = total;
}

// A block per tile, threads side by side along its values; in the image they lie in runs of 8.
__global__ void __launch_bounds__(kThreads)
    gather_tiles(const std::uint8_t* __restrict__ images, std::int64_t values, TileGrid grid, int width,
                 const std::int64_t* __restrict__ chosen, std::int64_t Q, const std::int32_t* __restrict__ places,
                 int d, std::uint8_t* __restrict__ out) {
  const std::int64_t i = blockIdx.x, p = chosen[i];
  const std::int64_t corner =
      (grid.top + p / grid.across * grid.step) * width + grid.left + p % grid.across * grid.step;
  const std::uint8_t* from = images + i / Q * values + corner;
  for (int j = threadIdx.x; j < d; j += kThreads) out[i * d + j] = from[places[j]];
}

}  // namespace

void halve(const std::uint8_t* images, std::int64_t M, ImageSize size, std::uint8_t* out, cudaStream_t stream) {
  BRE_CHECK(fits_int(size.height * size.width));
  const std::int64_t lines = M * size.channels * ceil_div(size.height, 2);
  const bool whole = size.width % 16 == 0 && aligned(16, images) && aligned(8, out);
  const std::int64_t pieces = lines * (whole ? size.width / 16 : ceil_div(size.width, 2));
  BRE_CHECK(launch(whole ? halve_eights : halve_pixels, ceil_div(pieces, kThreads), kThreads, stream, images, lines,
                   size.height, size.width, out));
}

void channel_sums(const std::uint8_t* images, std::int64_t M, ImageSize size, std::int64_t* out, cudaStream_t stream) {
  const std::int64_t area = size.height * size.width, planes = M * size.channels;
  const bool whole = area % 16 == 0 && aligned(16, images);
  BRE_CHECK(launch(whole ? sum_planes<true> : sum_planes<false>, ceil_div(planes, kThreads / 32), kThreads, stream,
                   images, planes, area, out));
}

void cut_tiles(const std::uint8_t* images, std::int64_t M, ImageSize size, TileGrid grid, const std::int64_t* chosen,
               std::int64_t Q, const std::int32_t* places, std::uint8_t* out, cudaStream_t stream) {
  BRE_CHECK(fits_int(size.values()));
  BRE_CHECK(launch(gather_tiles, M * Q, kThreads, stream, images, size.values(), grid, size.width, chosen, Q, places,
                   size.channels * grid.height * grid.width, out));
}

}  // namespace bre::cuda
