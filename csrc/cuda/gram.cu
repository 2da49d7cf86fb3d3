// out += X Y^T for signed bytes X (r, D) and Y (n, D), exactly, on the four-way byte dot products (dp4a):
// second_moment's twin for sums along the rows, which come as words that need no transposition. moments.cu says why no
// library product.
#include <algorithm>

#include "pixels.cuh"

namespace bre::cuda {
namespace {

constexpr int kTile = 64, kThreads = 64;  // a block owns 64 x 64 entries, a thread 8 x 8 of them
constexpr int kDepth = 64;                // columns per step: four lanes bring one row's 64 bytes
constexpr int kGroups = kDepth / 4;       // dp4a multiplies four columns of two rows
constexpr int kPitch = kTile + 4;         // words; the +4 keeps rows of 16 bytes aligned and groups on other banks

__device__ __forceinline__ int dot(std::uint32_t a, std::uint32_t b, int sum) {
  return __dp4a(static_cast<int>(a), static_cast<int>(b), sum);
}

template <bool kWhole>
__device__ __forceinline__ uint4 codes_or_zero(const std::uint8_t* codes, int row, int n, int d, int D) {
  if (row >= n || d >= D) return make_uint4(0, 0, 0, 0);
  const std::uint8_t* from = codes + static_cast<std::int64_t>(row) * D + d;
  return kWhole ? load_16(from) : gather_16(from, D - d);
}

// square: left is right, so that only blocks on or above the diagonal are computed, and mirrored.
template <bool kWhole>
__global__ void __launch_bounds__(kThreads)
    gram_tiles(const std::uint8_t* __restrict__ left, int r, const std::uint8_t* __restrict__ right, int n, int D,
               bool square, std::int32_t* __restrict__ out) {
  const std::int64_t block = blockIdx.x;
  int row0, col0;
  if (square) {  // tile (a, b) with a <= b: those of column b follow the b*(b+1)/2 of the columns before
    std::int64_t b = static_cast<std::int64_t>((sqrtf(8.0f * block + 1.0f) - 1.0f) * 0.5f);
    while (b * (b + 1) / 2 > block) --b;
    while ((b + 1) * (b + 2) / 2 <= block) ++b;
    row0 = static_cast<int>(block - b * (b + 1) / 2) * kTile;
    col0 = static_cast<int>(b) * kTile;
  } else {
    const std::int64_t down = ceil_div(r, kTile);
    row0 = static_cast<int>(block % down) * kTile;
    col0 = static_cast<int>(block / down) * kTile;
  }

  // Loading: warp 0 brings the rows, warp 1 the columns; a lane 16 bytes of every eighth of them.
  const int lane = threadIdx.x % 32, side = threadIdx.x / 32, piece = lane % 4, first = lane / 4;
  const std::uint8_t* codes = side ? right : left;
  const int base = side ? col0 : row0, count = side ? n : r;
  uint4 x[8];
  const auto read = [&](int begin) {
#pragma unroll
    for (int k = 0; k < 8; ++k) x[k] = codes_or_zero<kWhole>(codes, base + first + k * 8, count, begin + piece * 16, D);
  };
  __shared__ uint4 staged[2][kGroups][kPitch / 4];  // 9 KB: [side][group of columns][quad of rows]
  const auto write = [&] {
#pragma unroll
    for (int k = 0; k < 8; ++k) {
      const std::uint32_t words[4] = {x[k].x, x[k].y, x[k].z, x[k].w};
#pragma unroll
      for (int g = 0; g < 4; ++g) {
        reinterpret_cast<std::uint32_t*>(staged[side][piece * 4 + g])[first + k * 8] = words[g];
      }
    }
  };

  // Computing: rows 4*y and on, and 32 after, against columns 4*q and on, and 32 after: per group 4 loads, 64 dp4a.
  const int y = threadIdx.x / 8, q = threadIdx.x % 8;
  int sum[8][8] = {};
  read(0);
  for (int begin = 0; begin < D; begin += kDepth) {
    write();
    __syncthreads();
    read(begin + kDepth < D ? begin + kDepth : D);
#pragma unroll 2  // more would hold more loads in registers than the latency asks for
    for (int g = 0; g < kGroups; ++g) {
      const uint4 r0 = staged[0][g][y], r1 = staged[0][g][y + 8], c0 = staged[1][g][q], c1 = staged[1][g][q + 8];
      const std::uint32_t row[8] = {r0.x, r0.y, r0.z, r0.w, r1.x, r1.y, r1.z, r1.w};
      const std::uint32_t column[8] = {c0.x, c0.y, c0.z, c0.w, c1.x, c1.y, c1.z, c1.w};
#pragma unroll
      for (int i = 0; i < 8; ++i) {
#pragma unroll
        for (int j = 0; j < 8; ++j) sum[i][j] = dot(row[i], column[j], sum[i][j]);
      }
    }
    __syncthreads();
  }
#pragma unroll
  for (int i = 0; i < 8; ++i) {
#pragma unroll
    for (int j = 0; j < 8; ++j) {
      const int m = row0 + i / 4 * 32 + 4 * y + i % 4, c = col0 + j / 4 * 32 + 4 * q + j % 4;
      if (m >= r || c >= n) continue;
      const std::int32_t total = out[static_cast<std::int64_t>(m) * n + c] + sum[i][j];
      out[static_cast<std::int64_t>(m) * n + c] = total;
      if (square && row0 != col0) out[static_cast<std::int64_t>(c) * n + m] = total;
    }
  }
}

}  // namespace

void gram(const std::int8_t* codes, std::int64_t n, std::int64_t D, std::int32_t* out, cudaStream_t stream) {
  BRE_CHECK(fits_int(std::max(n + kTile, D + kDepth)));
  const std::int64_t tiles = ceil_div(n, kTile);
  const bool whole = D % 16 == 0 && aligned(16, codes);
  const auto* bytes = reinterpret_cast<const std::uint8_t*>(codes);
  BRE_CHECK(launch(whole ? gram_tiles<true> : gram_tiles<false>, tiles * (tiles + 1) / 2, kThreads, stream, bytes, n,
                   bytes, n, D, true, out));
}

void cross_gram(const std::int8_t* left, std::int64_t r, const std::int8_t* right, std::int64_t n, std::int64_t D,
                std::int32_t* out, cudaStream_t stream) {
  BRE_CHECK(fits_int(std::max({r + kTile, n + kTile, D + kDepth})));
  const bool whole = D % 16 == 0 && aligned(16, left, right);
  BRE_CHECK(launch(whole ? gram_tiles<true> : gram_tiles<false>, ceil_div(r, kTile) * ceil_div(n, kTile), kThreads,
                   stream, reinterpret_cast<const std::uint8_t*>(left), r, reinterpret_cast<const std::uint8_t*>(right),
                   n, D, false, out));
}

}  // namespace bre::cuda
