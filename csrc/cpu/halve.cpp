#include "bre_cpu.h"
#include "isa.h"
#include "parallel.h"

namespace bre::cpu {
namespace {

// Two rows of W bytes to one of ceil(W / 2): means of 2 x 2, halves rounded up. The last row or column of an odd image
// is given twice, which is the mean of what is there.
struct HalveRow {
  BRE_INLINE void operator()(const std::uint8_t* above, const std::uint8_t* below, std::int64_t W,
                             std::uint8_t* out) const {
    for (std::int64_t x = 0; x < W / 2; ++x) {
      const int sum = above[2 * x] + above[2 * x + 1] + below[2 * x] + below[2 * x + 1];
      out[x] = static_cast<std::uint8_t>((sum + 2) >> 2);
    }
    if (W % 2) out[W / 2] = static_cast<std::uint8_t>((above[W - 1] + below[W - 1] + 1) >> 1);
  }
};

}  // namespace

void halve(const std::uint8_t* images, std::int64_t M, ImageSize size, std::uint8_t* out, int threads) {
  const Isa isa = current_isa();
  const std::int64_t H = size.height, W = size.width, height = ceil_div(H, 2), width = ceil_div(W, 2);
  parallel_for(M * size.channels, threads, [&](std::int64_t plane) {
    const std::uint8_t* from = images + plane * H * W;
    for (std::int64_t y = 0; y < height; ++y) {
      on_isa(isa, HalveRow{}, from + 2 * y * W, from + std::min(2 * y + 1, H - 1) * W, W,
             out + (plane * height + y) * width);
    }
  });
}

}  // namespace bre::cpu
