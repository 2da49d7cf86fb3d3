#include "bre_cpu.h"
#include "parallel.h"
#include "pixels.h"

namespace bre::cpu {
namespace {

// One image: each tile of bytes becomes floats once, in L1, for all P templates; then P inner products over it.
struct ProjectImage {
  static constexpr std::int64_t kColumns = 1024;  // per tile: 4 KB of floats
  static constexpr int kSums = 4;                 // independent vectors of sums, to hide the latency of an add
  typedef float Floats __attribute__((vector_size(4 * kLanes), aligned(4), may_alias));

  BRE_INLINE void operator()(const std::uint8_t* image, std::int64_t D, const float* templates, std::int64_t P,
                             float* out) const {
    for (std::int64_t p = 0; p < P; ++p) out[p] = 0;
    for (std::int64_t begin = 0; begin < D; begin += kColumns) {
      const std::int64_t n = std::min(kColumns, D - begin);
      alignas(64) float x[kColumns];
      for (std::int64_t d = 0; d < n; ++d) x[d] = image[begin + d];
      for (std::int64_t p = 0; p < P; ++p) out[p] += dot(x, templates + p * D + begin, n);
    }
    for (std::int64_t p = 0; p < P; ++p) out[p] /= 255.0f;
  }

  BRE_INLINE static float dot(const float* x, const float* w, std::int64_t n) {
    constexpr std::int64_t kStep = kSums * kLanes;
    Floats sum[kSums] = {};
    std::int64_t d = 0;
    for (; d + kStep <= n; d += kStep) {
      for (int i = 0; i < kSums; ++i) {
        const std::int64_t at = d + i * kLanes;
        sum[i] += *reinterpret_cast<const Floats*>(x + at) * *reinterpret_cast<const Floats*>(w + at);
      }
    }
    float rest = 0, total = 0;
    for (; d < n; ++d) rest += x[d] * w[d];
    const Floats all = (sum[0] + sum[1]) + (sum[2] + sum[3]);
    for (int j = 0; j < kLanes; ++j) total += all[j];
    return total + rest;
  }
};

}  // namespace

void project(const std::uint8_t* images, std::int64_t M, std::int64_t D, const float* templates, std::int64_t P,
             float* out, int threads) {
  const Isa isa = current_isa();
  parallel_for(M, threads, [&](std::int64_t m) {
    on_isa(isa, ProjectImage{}, images + m * D, D, templates, P, out + m * P);
  });
}

}  // namespace bre::cpu
