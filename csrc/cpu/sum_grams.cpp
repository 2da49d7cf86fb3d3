#include "bre_cpu.h"
#include "isa.h"
#include "parallel.h"

namespace bre::cpu {
namespace {

// One row of n: out = the sum of kParts rows, which may be out itself; excess and above: of what exceeds `floor`, how
// much in all and how many.
template <int kParts>
struct SumRow {
  BRE_INLINE void operator()(const GramParts* parts, std::int64_t begin, std::int64_t n, std::int32_t floor,
                             std::int32_t* out, std::int64_t* excess, std::int64_t* above) const {
    const std::int32_t *a = parts->part[0] + begin, *b = parts->part[1] + begin, *c = parts->part[2] + begin,
                       *d = parts->part[3] + begin;
    constexpr std::int64_t kChunk = 64;  // what exceeds is below 2^32, so 64 of them fit the sums' upper halves as well
    std::int64_t total = 0, count = 0;
    for (std::int64_t start = 0; start < n; start += kChunk) {
      const std::int64_t end = std::min(start + kChunk, n);
      std::int32_t some = 0;
      std::int64_t part = 0;
      for (std::int64_t j = start; j < end; ++j) {
        std::int32_t sum = a[j];
        if (kParts > 1) sum += b[j];
        if (kParts > 2) sum += c[j];
        if (kParts > 3) sum += d[j];
        out[j] = sum;
        const bool exceeds = sum > floor;
        some += exceeds;
        part += exceeds ? static_cast<std::int64_t>(sum) - floor : 0;
      }
      total += part;
      count += some;
    }
    *excess = total;
    *above = count;
  }
};

}  // namespace

void sum_grams(GramParts parts, const std::int64_t* rows, std::int64_t r, std::int64_t n, std::int32_t floor,
               std::int32_t* out, std::int64_t* excess, std::int64_t* above, int threads) {
  const Isa isa = current_isa();
  constexpr std::int64_t kTask = 32;
  parallel_for(ceil_div(r, kTask), threads, [&](std::int64_t task) {
    for (std::int64_t i = task * kTask; i < std::min(r, (task + 1) * kTask); ++i) {
      std::int32_t* to = out + i * n;
      const auto sum = [&](auto kernel) {
        on_isa(isa, kernel, static_cast<const GramParts*>(&parts), i * n, n, floor, to, excess + i, above + i);
      };
      if (parts.count == 1) sum(SumRow<1>{});
      if (parts.count == 2) sum(SumRow<2>{});
      if (parts.count == 3) sum(SumRow<3>{});
      if (parts.count == 4) sum(SumRow<4>{});
      const std::int32_t own = to[rows[i]];
      if (own > floor) {
        above[i] -= 1;
        excess[i] -= static_cast<std::int64_t>(own) - floor;
      }
    }
  });
}

}  // namespace bre::cpu
