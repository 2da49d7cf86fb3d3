#include <algorithm>

#include "pixels.cuh"

namespace bre::cuda {
namespace {

constexpr int kWarps = 4, kThreads = 32 * kWarps;

// A row per block: out = the sum of kParts rows, which may be out itself; of what exceeds `floor`, but for column
// rows[i], how much in all and how many. 16 bytes of each part per thread at a time, if kWide.
template <int kParts, bool kWide>
__global__ void __launch_bounds__(kThreads)
    sum_rows(const std::int32_t* a, const std::int32_t* b, const std::int32_t* c, const std::int32_t* d,
             const std::int64_t* __restrict__ rows, int n, std::int32_t floor, std::int32_t* out,
             std::int64_t* __restrict__ excess, std::int64_t* __restrict__ above) {
  constexpr int kSize = kWide ? 4 : 1;
  const std::int64_t i = blockIdx.x, begin = i * n, own = rows[i];
  long long total = 0, count = 0;
#pragma unroll 2
  for (int j = threadIdx.x * kSize; j < n; j += kThreads * kSize) {
    const std::int64_t place = begin + j;
    Vec<std::int32_t, kSize> sum = load<kSize>(a + place), x;
    const auto add = [&](const std::int32_t* part) {
      x = load<kSize>(part + place);
#pragma unroll
      for (int k = 0; k < kSize; ++k) sum.at[k] += x.at[k];
    };
    if (kParts > 1) add(b);
    if (kParts > 2) add(c);
    if (kParts > 3) add(d);
    store(out + place, sum);
#pragma unroll
    for (int k = 0; k < kSize; ++k) {
      const bool exceeds = sum.at[k] > floor && j + k != own;
      count += exceeds;
      total += exceeds ? static_cast<long long>(sum.at[k]) - floor : 0;
    }
  }
  __shared__ long long slots[2][kWarps];
  total = block_reduce<kWarps>(total, 0ll, slots[0], Add{});
  count = block_reduce<kWarps>(count, 0ll, slots[1], Add{});
  if (threadIdx.x == 0) {
    excess[i] = total;
    above[i] = count;
  }
}

}  // namespace

void sum_grams(GramParts parts, const std::int64_t* rows, std::int64_t r, std::int64_t n, std::int32_t floor,
               std::int32_t* out, std::int64_t* excess, std::int64_t* above, cudaStream_t stream) {
  BRE_CHECK(fits_int(n + 4 * kThreads));
  const std::int32_t *a = parts.part[0], *b = parts.part[1], *c = parts.part[2], *d = parts.part[3];
  const bool wide = n % 4 == 0 && aligned(16, a, b, c, d, out);
  const auto sum = [&](auto kernel) {
    BRE_CHECK(launch(kernel, r, kThreads, stream, a, b, c, d, rows, n, floor, out, excess, above));
  };
  if (parts.count == 1) sum(wide ? sum_rows<1, true> : sum_rows<1, false>);
  if (parts.count == 2) sum(wide ? sum_rows<2, true> : sum_rows<2, false>);
  if (parts.count == 3) sum(wide ? sum_rows<3, true> : sum_rows<3, false>);
  if (parts.count == 4) sum(wide ? sum_rows<4, true> : sum_rows<4, false>);
}

}  // namespace bre::cuda
