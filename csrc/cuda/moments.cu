// S += X^T X for bytes X (M, D), exactly, on the four-way byte dot products that every GPU since 2016 has (dp4a).
//
// Why not a library product: torch._int_mm wants signed bytes (a shifted copy of the images, then corrections), sizes
// in multiples of 8 and an int32 result of the whole D x D, and could be tested only on a GPU. What it would save is
// small: 50 000 CIFAR images are 2.4e11 multiply-adds (one triangle), 4 ms at 57e12/s (dp4a: 64 per SM and cycle);
// tensor cores would take 0.5 ms, and this runs once for a dataset that took seconds to read.
#include <algorithm>

#include "pixels.cuh"

namespace bre::cuda {
namespace {

using Total = unsigned long long;

template <bool kWhole>
__device__ __forceinline__ uint4 bytes_or_zero(const std::uint8_t* row, int d, int D) {
  if (d >= D) return make_uint4(0, 0, 0, 0);
  return kWhole ? load_16(row + d) : gather_16(row + d, D - d);
}

// ---- sums per class: each block one class and 512 columns; its warps share out the class's images.

constexpr int kSumWarps = 4, kSumThreads = 32 * kSumWarps, kSumColumns = 32 * 16;

template <bool kWhole>
__global__ void __launch_bounds__(kSumThreads)
    class_sums(const std::uint8_t* __restrict__ images, int D, const std::int64_t* __restrict__ order,
               const std::int64_t* __restrict__ offsets, std::int64_t* __restrict__ count,
               std::int64_t* __restrict__ sum) {
  const int tiles = static_cast<int>(ceil_div(D, kSumColumns)), k = blockIdx.x / tiles;
  const int begin = static_cast<int>(blockIdx.x % tiles) * kSumColumns;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const std::int64_t from = offsets[k], to = offsets[k + 1];
  Total own[16] = {};
  for (std::int64_t i = from + warp; i < to; i += kSumWarps) {
    const uint4 x = bytes_or_zero<kWhole>(images + order[i] * D, begin + lane * 16, D);
#pragma unroll
    for (int j = 0; j < 16; ++j) own[j] += byte_of(x, j);
  }
  __shared__ Total parts[kSumWarps][kSumColumns];  // 16 KB
#pragma unroll
  for (int j = 0; j < 16; ++j) parts[warp][lane * 16 + j] = own[j];
  __syncthreads();
  for (int c = threadIdx.x; c < min(kSumColumns, D - begin); c += kSumThreads) {
    Total total = 0;
#pragma unroll
    for (int w = 0; w < kSumWarps; ++w) total += parts[w][c];
    sum[static_cast<std::int64_t>(k) * D + begin + c] += static_cast<std::int64_t>(total);
  }
  if (begin == 0 && threadIdx.x == 0) count[k] += to - from;
}

// ---- the second moment: a block owns 64 x 64 entries on or above the diagonal, a thread 8 x 8 of them.

constexpr int kTile = 64, kThreads = 64;
constexpr int kDepth = 32;             // images per step
constexpr int kGroups = kDepth / 4;    // dp4a multiplies four images of two columns
constexpr int kPitch = kTile + 16;     // words; the +16 keeps the groups' stores on different banks
constexpr std::int64_t kSlab = 65536;  // images whose sum fits 32 bits
static_assert(kSlab * 255 * 255 < (std::int64_t{1} << 32));

// Rows of four bytes to columns: word j of the answer holds byte j of a, b, c and d.
__device__ __forceinline__ uint4 transposed(std::uint32_t a, std::uint32_t b, std::uint32_t c, std::uint32_t d) {
  const std::uint32_t ab = __byte_perm(a, b, 0x5140), cd = __byte_perm(c, d, 0x5140);  // a0 b0 a1 b1
  const std::uint32_t AB = __byte_perm(a, b, 0x7362), CD = __byte_perm(c, d, 0x7362);  // a2 b2 a3 b3
  return make_uint4(__byte_perm(ab, cd, 0x5410), __byte_perm(ab, cd, 0x7632), __byte_perm(AB, CD, 0x5410),
                    __byte_perm(AB, CD, 0x7632));
}

// Columns lie in shared memory in quads of four. Quad q holds columns 4*(q/4) + 16*(q%4) and on, which lets the lanes
// that fill it (16 columns each) write side by side.
__device__ __forceinline__ int column_of(int quad) { return quad / 4 * 4 + quad % 4 * 16; }

template <bool kWhole>
__global__ void __launch_bounds__(kThreads)
    second_moment(const std::uint8_t* __restrict__ images, std::int64_t M, int D, std::int64_t* __restrict__ second) {
  // Block number to tile (a, b) with a <= b: those of column b follow the b*(b+1)/2 of the columns before.
  const std::int64_t block = blockIdx.x;
  std::int64_t b = static_cast<std::int64_t>((sqrtf(8.0f * block + 1.0f) - 1.0f) * 0.5f);
  while (b * (b + 1) / 2 > block) --b;
  while ((b + 1) * (b + 2) / 2 <= block) ++b;
  const int row0 = static_cast<int>(block - b * (b + 1) / 2) * kTile, col0 = static_cast<int>(b) * kTile;

  // Loading: warp 0 brings the rows' columns, warp 1 the columns'; a lane four images of 16 columns.
  const int lane = threadIdx.x % 32, side = threadIdx.x / 32, group = lane / 4, piece = lane % 4;
  const int d = (side ? col0 : row0) + piece * 16;
  uint4 x[4];
  const auto read = [&](std::int64_t m) {
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const std::int64_t image = m + group * 4 + j;
      x[j] = image < M ? bytes_or_zero<kWhole>(images + image * D, d, D) : make_uint4(0, 0, 0, 0);
    }
  };
  __shared__ uint4 staged[2][2][kGroups][kPitch / 4];  // 10 KB: [buffer][side][group of images][quad of columns]
  const auto write = [&](int buffer) {
    uint4* to = staged[buffer][side][group];
    to[piece] = transposed(x[0].x, x[1].x, x[2].x, x[3].x);
    to[4 + piece] = transposed(x[0].y, x[1].y, x[2].y, x[3].y);
    to[8 + piece] = transposed(x[0].z, x[1].z, x[2].z, x[3].z);
    to[12 + piece] = transposed(x[0].w, x[1].w, x[2].w, x[3].w);
  };

  // Computing: rows' quads y and y+8 against columns' quads q and q+8. Per group 4 loads of 16 bytes, 64 dp4a.
  const int y = threadIdx.x / 8, q = threadIdx.x % 8;
  int buffer = 0;
  read(0);
  for (std::int64_t slab = 0; slab < M; slab += kSlab) {
    std::uint32_t sum[8][8] = {};
    const std::int64_t end = slab + kSlab < M ? slab + kSlab : M;
    for (std::int64_t m = slab; m < end; m += kDepth, buffer ^= 1) {
      write(buffer);
      __syncthreads();  // one per step: the buffer written next was last read before this one
      read(m + kDepth);
#pragma unroll 2  // more would hold more loads in registers than the latency asks for
      for (int g = 0; g < kGroups; ++g) {
        const uint4 r0 = staged[buffer][0][g][y], r1 = staged[buffer][0][g][y + 8];
        const uint4 c0 = staged[buffer][1][g][q], c1 = staged[buffer][1][g][q + 8];
        const std::uint32_t row[8] = {r0.x, r0.y, r0.z, r0.w, r1.x, r1.y, r1.z, r1.w};
        const std::uint32_t column[8] = {c0.x, c0.y, c0.z, c0.w, c1.x, c1.y, c1.z, c1.w};
#pragma unroll
        for (int i = 0; i < 8; ++i) {
#pragma unroll
          for (int j = 0; j < 8; ++j) sum[i][j] = __dp4a(row[i], column[j], sum[i][j]);
        }
      }
    }
#pragma unroll
    for (int i = 0; i < 8; ++i) {
#pragma unroll
      for (int j = 0; j < 8; ++j) {
        const int r = row0 + column_of(y + i / 4 * 8) + i % 4, c = col0 + column_of(q + j / 4 * 8) + j % 4;
        if (r >= D || c >= D) continue;
        const std::int64_t total = second[static_cast<std::int64_t>(r) * D + c] + sum[i][j];
        second[static_cast<std::int64_t>(r) * D + c] = total;
        if (row0 != col0) second[static_cast<std::int64_t>(c) * D + r] = total;
      }
    }
  }
}

}  // namespace

void moments(const std::uint8_t* images, std::int64_t M, std::int64_t D, const std::int64_t* order,
             const std::int64_t* offsets, std::int64_t K, std::int64_t* count, std::int64_t* sum, std::int64_t* second,
             cudaStream_t stream) {
  BRE_CHECK(fits_int(D + kSumColumns));
  const bool whole = D % 16 == 0 && aligned(16, images);
  BRE_CHECK(launch(whole ? class_sums<true> : class_sums<false>, K * ceil_div(D, kSumColumns), kSumThreads, stream,
                   images, D, order, offsets, count, sum));
  add_second_moment(images, M, D, second, stream);
}

void add_second_moment(const std::uint8_t* images, std::int64_t M, std::int64_t D, std::int64_t* second,
                       cudaStream_t stream) {
  BRE_CHECK(fits_int(D + kTile));
  const bool whole = D % 16 == 0 && aligned(16, images);
  const std::int64_t tiles = ceil_div(D, kTile);
  BRE_CHECK(launch(whole ? second_moment<true> : second_moment<false>, M == 0 ? 0 : tiles * (tiles + 1) / 2, kThreads,
                   stream, images, M, D, second));
}

}  // namespace bre::cuda
