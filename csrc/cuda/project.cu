#include <algorithm>

#include "pixels.cuh"

namespace bre::cuda {
namespace {

constexpr int kWarps = 4, kThreads = 32 * kWarps;
constexpr int kImages = 4;                 // per warp: a template's value is read once for all of them
constexpr int kColumns = 32 * 16;          // per step: 16 bytes of each image per lane
constexpr int kQuads = kColumns / 16 + 2;  // lanes, +2 so that neither filling nor reading meets a bank twice
constexpr int kPerBlock = kImages * kWarps;

// kTemplates inner products for kImages images per warp. Templates wait in shared memory (8 of them: 17 KB), as
// four-column pieces [piece of a lane's 16 columns][lane]. Bytes from HBM: 1 per pixel, with 4*kTemplates/16 of
// templates from L2. For 8 templates, 16 loads of 16 bytes from shared memory feed 512 multiply-adds: both take as long
// as the bytes do.
template <int kTemplates, bool kWhole>
__global__ void __launch_bounds__(kThreads)
    project_images(const std::uint8_t* __restrict__ images, std::int64_t M, int D, const float* __restrict__ templates,
                   float* __restrict__ out, std::int64_t out_stride) {
  const int lane = threadIdx.x % 32;
  const std::int64_t m0 = static_cast<std::int64_t>(blockIdx.x) * kPerBlock + threadIdx.x / 32 * kImages;
  __shared__ float4 tile[kTemplates][4][kQuads];
  float sum[kImages][kTemplates] = {};

  for (int begin = 0; begin < D; begin += kColumns) {
    const int own = begin + lane * 16;  // this lane's first column
    uint4 x[kImages];
#pragma unroll
    for (int k = 0; k < kImages; ++k) {
      const bool there = m0 + k < M && own < D;
      const std::uint8_t* from = images + (m0 + k) * D + own;
      x[k] = !there ? make_uint4(0, 0, 0, 0) : kWhole ? load_16(from) : gather_16(from, D - own);
    }
    __syncthreads();  // the last step's tile has been read
#pragma unroll
    for (int i = 0; i < kTemplates; ++i) {  // kThreads pieces of four columns each: a template per round
      const int piece = threadIdx.x, d = begin + piece * 4;
      const float* w = templates + static_cast<std::int64_t>(i) * D + d;
      float4 four = make_float4(0, 0, 0, 0);
      if (kWhole) {
        if (d < D) four = *reinterpret_cast<const float4*>(w);
      } else {
        four = make_float4(d < D ? w[0] : 0, d + 1 < D ? w[1] : 0, d + 2 < D ? w[2] : 0, d + 3 < D ? w[3] : 0);
      }
      tile[i][piece % 4][piece / 4] = four;
    }
    __syncthreads();
#pragma unroll
    for (int quad = 0; quad < 4; ++quad) {
      float pixel[kImages][4];
#pragma unroll
      for (int k = 0; k < kImages; ++k) {
#pragma unroll
        for (int j = 0; j < 4; ++j) pixel[k][j] = static_cast<float>(byte_of(x[k], quad * 4 + j));
      }
#pragma unroll
      for (int i = 0; i < kTemplates; ++i) {
        const float4 w = tile[i][quad][lane];
#pragma unroll
        for (int k = 0; k < kImages; ++k) {
          sum[k][i] = fmaf(pixel[k][0], w.x, sum[k][i]);
          sum[k][i] = fmaf(pixel[k][1], w.y, sum[k][i]);
          sum[k][i] = fmaf(pixel[k][2], w.z, sum[k][i]);
          sum[k][i] = fmaf(pixel[k][3], w.w, sum[k][i]);
        }
      }
    }
  }

#pragma unroll
  for (int k = 0; k < kImages; ++k) {
#pragma unroll
    for (int i = 0; i < kTemplates; ++i) {
      const float total = warp_reduce(sum[k][i], Add{});
      if (lane == 0 && m0 + k < M) out[(m0 + k) * out_stride + i] = total / 255.0f;
    }
  }
}

}  // namespace

void project(const std::uint8_t* images, std::int64_t M, std::int64_t D, const float* templates, std::int64_t P,
             float* out, cudaStream_t stream) {
  BRE_CHECK(fits_int(D + kColumns));
  const bool whole = D % 16 == 0 && aligned(16, images, templates);
  for (std::int64_t p = 0; p < P;) {
    const auto next = [&](auto kernel, std::int64_t n) {
      BRE_CHECK(launch(kernel, ceil_div(M, kPerBlock), kThreads, stream, images, M, D, templates + p * D, out + p, P));
      p += n;
    };
    if (P - p >= 8) {
      next(whole ? project_images<8, true> : project_images<8, false>, 8);
    } else if (P - p >= 4) {
      next(whole ? project_images<4, true> : project_images<4, false>, 4);
    } else {
      next(whole ? project_images<1, true> : project_images<1, false>, 1);
    }
  }
}

}  // namespace bre::cuda
