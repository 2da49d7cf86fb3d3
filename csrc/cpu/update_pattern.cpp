#include <limits>
#include <vector>

#include "bre_cpu.h"
#include "parallel.h"
#include "pixels.h"
#include "stream.h"

namespace bre::cpu {
namespace {

// Rows of one target that are added together: their numbers stream in side by side, and the sums are read and written
// once. The order of additions is that of the rows, as if one came after another.
constexpr int kTogether = 4;

template <class Number>
struct Row {
  const Number* grad;
  const std::uint8_t* x;
  float s;
};

// n numbers of kRows rows: sum += s * [0 <= x/255 + s*v <= 1] * grad. next: the rows wanted after these, whose bytes
// still lie in kPlanes planes of `area`.
template <int kRows, int kPlanes, class Number>
BRE_INLINE void add_rows(const Row<Number>* rows, const Row<Number>* next, std::int64_t area, std::int64_t n,
                         const float* __restrict v, float* __restrict sum) {
  const auto add = [&](std::int64_t i) BRE_INLINE_LAMBDA {
    float total = sum[i];
#pragma GCC unroll 8
    for (int k = 0; k < kRows; ++k) {
      const float y = shifted(rows[k].x[i], rows[k].s, v[i]), signed_grad = rows[k].s * to_float(rows[k].grad[i]);
      total += (y >= 0.0f) & (y <= 1.0f) ? signed_grad : 0.0f;
    }
    sum[i] = total;
  };
  std::int64_t i = 0;
  for (; i + kBlock <= n; i += kBlock) {
    const std::int64_t byte = kPlanes == 1 ? i : i / (n / kPlanes) * area + i % (n / kPlanes);
    for (int k = 0; k < kRows; ++k) {
      prefetch<kBlock>(next[k].grad + i);
      prefetch<kBlock>(next[k].x + byte);
    }
    for (std::int64_t j = 0; j < kBlock; ++j) add(i + j);
  }
  for (; i < n; ++i) add(i);
}

// The gradient of one target's pattern over a tile of numbers: the sum over its N rows, in order, divided by std. The
// tile's sums stay in L1 while the rows pass by once. kChannels: of interleaved gradients, for which bytes and pattern
// are brought into their order and the sums back out of it; 1 where all are planes, 0
// for any number.
template <class Number, int kChannels>
struct SumTile {
  static constexpr bool kPlanar = kChannels == 1;
  static constexpr int kPlanes = std::max(kChannels, 1);

  BRE_INLINE void operator()(const Number* grad, const std::uint8_t* images, ImageShape shape,
                             const std::int64_t* index, const std::int8_t* sign, std::int64_t N, const float* pattern,
                             const float* scale, std::int64_t begin, std::int64_t n, float* gradient) const {
    const std::int64_t D = shape.size();
    alignas(64) float sum[kTile], v[kPlanar ? 1 : kTile];
    alignas(64) std::uint8_t x[kTogether][kPlanar ? 1 : kTile];
    std::fill_n(sum, n, 0.0f);
    if (!kPlanar) interleave<kChannels>(pattern, shape, begin, n, v);
    const float* shift = kPlanar ? pattern + begin : v;

    const auto row = [=](std::int64_t r) BRE_INLINE_LAMBDA {
      return Row<Number>{grad + r * D + begin, images + index[r] * D + begin / kPlanes, static_cast<float>(sign[r])};
    };
    for (std::int64_t r = 0; r < N; r += kTogether) {
      Row<Number> rows[kTogether], next[kTogether];
      int count = 0;
      for (int k = 0; k < kTogether; ++k) {
        next[k] = row(std::min(r + kTogether + k, N - 1));
        if (r + k >= N || sign[r + k] == 0) continue;
        rows[count] = row(r + k);
        if (!kPlanar) {
          interleave<kChannels>(images + index[r + k] * D, shape, begin, n, x[count]);
          rows[count].x = x[count];
        }
        ++count;
      }
      if (count == kTogether) {
        add_rows<kTogether, kPlanes>(rows, next, shape.area, n, shift, sum);
      } else {
        for (int k = 0; k < count; ++k) add_rows<1, kPlanes>(rows + k, next + k, shape.area, n, shift, sum);
      }
    }

    std::int64_t p = kPlanar ? begin % shape.area : begin / shape.channels;
    std::int64_t c = kPlanar ? begin / shape.area : begin % shape.channels;
    for (std::int64_t i = 0; i < n; ++i) {
      gradient[c * shape.area + p] = sum[i] * scale[c];
      if (kPlanar) {
        if (++p == shape.area) p = 0, ++c;
      } else {
        if (++c == shape.channels) c = 0, ++p;
      }
    }
  }
};

// Of norms that have an inverse in float; smaller ones count as zero.
BRE_INLINE float inverse_or_zero(double norm) {
  return norm >= std::numeric_limits<float>::min() ? static_cast<float>(1.0 / norm) : 0.0f;
}

// One pattern of D numbers: m = decay*m + g/|g|; v = clip(v - step*m/|m|, -bound, bound). A zero g or m moves nothing.
struct Descend {
  BRE_INLINE void operator()(const float* g, std::int64_t D, UpdateStep step, float* m, float* v) const {
    const float unit_g = inverse_or_zero(std::sqrt(sum_of_squares(g, D)));
    for (std::int64_t d = 0; d < D; ++d) m[d] = step.decay * m[d] + unit_g * g[d];
    const float length = step.step * inverse_or_zero(std::sqrt(sum_of_squares(m, D)));
    for (std::int64_t d = 0; d < D; ++d) {
      v[d] = std::min(std::max(v[d] - length * m[d], -step.bound), step.bound);
    }
  }
};

struct Norm {
  BRE_INLINE void operator()(const float* v, std::int64_t D, float* norm) const {
    *norm = static_cast<float>(std::sqrt(sum_of_squares(v, D)));
  }
};

}  // namespace

void update_pattern(const void* grad, Dtype dtype, Layout layout, const std::uint8_t* images, ImageShape shape,
                    const std::int64_t* index, const std::int8_t* sign, std::int64_t T, std::int64_t N, float* pattern,
                    float* momentum, const bool* active, const float* std, UpdateStep step, float* gradient,
                    float* norms, int threads) {
  const Isa isa = current_isa();
  const std::int64_t D = shape.size();
  // Few targets are cut finer, so that every thread has work. A number's sum is the same in any tile.
  const std::int64_t share = ceil_div(T * D, std::max(threads, 1));
  const std::int64_t tile = std::clamp(ceil_div(share, kUnit) * kUnit, kUnit, kTile), tiles = ceil_div(D, tile);

  std::vector<float> scale(static_cast<std::size_t>(shape.channels));
  for (std::int64_t c = 0; c < shape.channels; ++c) scale[c] = 1.0f / std[c];

  with_dtype(dtype, [&](auto* type) {
    using Number = std::remove_pointer_t<decltype(type)>;
    const auto sum = [&](auto kernel) {
      parallel_for(T * tiles, threads, [&](std::int64_t task) {
        const std::int64_t t = task / tiles, begin = task % tiles * tile;
        if (!active[t]) return;
        on_isa(isa, kernel, static_cast<const Number*>(grad) + t * N * D, images, shape, index + t * N, sign + t * N, N,
               static_cast<const float*>(pattern) + t * D, static_cast<const float*>(scale.data()), begin,
               std::min(tile, D - begin), gradient + t * D);
      });
    };
    if (layout == Layout::nchw || shape.channels == 1) return sum(SumTile<Number, 1>{});
    with_channels(shape.channels, [&](auto channels) { sum(SumTile<Number, decltype(channels)::value>{}); });
  });

  parallel_for(T, threads, [&](std::int64_t t) {
    float* v = pattern + t * D;
    if (active[t]) {
      on_isa(isa, Descend{}, static_cast<const float*>(gradient) + t * D, D, step, momentum + t * D, v);
    }
    on_isa(isa, Norm{}, static_cast<const float*>(v), D, norms + t);
  });
}

}  // namespace bre::cpu
