#include "bre_cpu.h"
#include "isa.h"
#include "parallel.h"
#include "tiles.h"

namespace bre::cpu {
namespace {

struct SumBytes {
  BRE_INLINE void operator()(const std::uint8_t* x, std::int64_t n, std::int64_t* total) const {
    std::int64_t sum = 0;
    for (std::int64_t i = 0; i < n;) {
      std::uint32_t part = 0;  // of at most 2^16 bytes
      for (const std::int64_t end = std::min(i + 65536, n); i < end; ++i) part += x[i];
      sum += part;
    }
    *total = sum;
  }
};

struct CentreRow {
  BRE_INLINE void operator()(const std::int64_t* exact, const double* with_sum, const double* with_mean,
                             const std::int64_t* channel, std::int64_t i, std::int64_t d, std::int64_t C,
                             double* out) const {
    const double* own = with_sum + i * C;
    const double* means = with_mean + channel[i] * C;
    for (std::int64_t j = 0; j < d; ++j) {
      const std::int64_t c = channel[j];
      out[j] = static_cast<double>(exact[j]) - own[c] - with_sum[j * C + channel[i]] + means[c];
    }
  }
};

}  // namespace

void centre_moments(const std::int64_t* exact, const double* with_sum, const double* with_mean,
                    const std::int64_t* channel, std::int64_t d, std::int64_t C, double* out, int threads) {
  const Isa isa = current_isa();
  parallel_for(d, threads, [&](std::int64_t i) {
    on_isa(isa, CentreRow{}, exact + i * d, with_sum, with_mean, channel, i, d, C, out + i * d);
  });
}

void cut_tiles(const std::uint8_t* images, std::int64_t M, ImageSize size, TileGrid grid, const std::int64_t* chosen,
               std::int64_t Q, std::uint8_t* out, int threads) {
  const Isa isa = current_isa();
  const Cells cells(grid, size.channels);
  parallel_for(M, threads, [&](std::int64_t m) {
    const std::uint8_t* image = images + m * size.values();
    for (std::int64_t i = m * Q; i < (m + 1) * Q; ++i) {
      on_isa(isa, Gather{}, image + grid.corner(chosen[i], size), size, &cells, out + i * cells.size());
    }
  });
}

void channel_sums(const std::uint8_t* images, std::int64_t M, ImageSize size, std::int64_t* out, int threads) {
  const Isa isa = current_isa();
  const std::int64_t area = size.height * size.width;
  parallel_for(M * size.channels, threads,
               [&](std::int64_t i) { on_isa(isa, SumBytes{}, images + i * area, area, out + i); });
}

}  // namespace bre::cpu
