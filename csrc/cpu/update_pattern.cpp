#include <memory>
#include <vector>

#include "bre_cpu.h"
#include "parallel.h"
#include "pixels.h"

namespace bre::cpu {
namespace {

// gradient of the pattern over one tile of pixels, every channel: sum over n, in order, of
// sign * [0 <= x/255 + sign*v <= 1] * grad, then divided by std. The tile stays in L1 while the images pass by.
template <class Number, Layout kLayout, int kChannels>
struct SumTile {
  BRE_INLINE void operator()(const Number* grad, const std::uint8_t* images, ImageShape shape,
                             const std::int64_t* index, const std::int8_t* sign, std::int64_t N, const float* pattern,
                             const float* std, std::int64_t begin, std::int64_t end, float* gradient) const {
    const std::int64_t channels = kChannels ? kChannels : shape.channels;
    const std::int64_t area = shape.area, D = shape.size(), n_pixels = end - begin;
    for (std::int64_t c = 0; c < channels; ++c) std::fill_n(gradient + c * area + begin, n_pixels, 0.0f);
    float planes[kChannels ? kChannels : 1][kTile];

    for (std::int64_t n = 0; n < N; ++n) {
      if (sign[n] == 0) continue;
      const float s = sign[n];
      const Number* from = grad + n * D;
      if (kLayout == Layout::nhwc && kChannels) {
        for (std::int64_t p = 0; p < n_pixels; ++p) {
          for (int c = 0; c < kChannels; ++c) planes[c][p] = to_float(from[(begin + p) * kChannels + c]);
        }
      }
      for (std::int64_t c = 0; c < channels; ++c) {
        const std::uint8_t* x = images + index[n] * D + c * area + begin;
        const float* v = pattern + c * area + begin;
        float* sum = gradient + c * area + begin;
        const auto add = [=](std::int64_t p, float g) BRE_INLINE_LAMBDA {
          const float y = shifted(x[p], s, v[p]), signed_g = s * g;
          sum[p] += (y >= 0.0f) & (y <= 1.0f) ? signed_g : 0.0f;
        };
        if (kLayout == Layout::nchw) {
          for (std::int64_t p = 0; p < n_pixels; ++p) add(p, to_float(from[c * area + begin + p]));
        } else if (kChannels) {
          for (std::int64_t p = 0; p < n_pixels; ++p) add(p, planes[c][p]);
        } else {
          for (std::int64_t p = 0; p < n_pixels; ++p) add(p, to_float(from[(begin + p) * channels + c]));
        }
      }
    }
    for (std::int64_t c = 0; c < channels; ++c) {
      const float scale = 1.0f / std[c];
      for (std::int64_t p = begin; p < end; ++p) gradient[c * area + p] *= scale;
    }
  }
};

BRE_INLINE float inverse_or_zero(double norm) { return norm > 0 ? static_cast<float>(1.0 / norm) : 0.0f; }

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
                    const std::int64_t* index, const std::int8_t* sign, std::int64_t T, std::int64_t N,
                    float* pattern, float* momentum, const bool* active, const float* std, UpdateStep step,
                    float* norms, int threads) {
  const Isa isa = current_isa();
  const std::int64_t D = shape.size(), tiles = ceil_div(shape.area, kTile);
  const std::unique_ptr<float[]> gradient(new float[static_cast<std::size_t>(T * D)]);

  with_dtype(dtype, [&](auto* type) {
    using Number = std::remove_pointer_t<decltype(type)>;
    const auto sum = [&](auto kernel) {
      parallel_for(T * tiles, threads, [&](std::int64_t task) {
        const std::int64_t t = task / tiles, begin = task % tiles * kTile;
        if (!active[t]) return;
        on_isa(isa, kernel, static_cast<const Number*>(grad) + t * N * D, images, shape, index + t * N, sign + t * N,
               N, static_cast<const float*>(pattern) + t * D, std, begin, std::min(begin + kTile, shape.area),
               gradient.get() + t * D);
      });
    };
    if (layout == Layout::nchw || shape.channels == 1) return sum(SumTile<Number, Layout::nchw, 0>{});
    if (shape.channels == 3) return sum(SumTile<Number, Layout::nhwc, 3>{});
    if (shape.channels == 4) return sum(SumTile<Number, Layout::nhwc, 4>{});
    sum(SumTile<Number, Layout::nhwc, 0>{});
  });

  parallel_for(T, threads, [&](std::int64_t t) {
    float* v = pattern + t * D;
    if (active[t]) {
      on_isa(isa, Descend{}, static_cast<const float*>(gradient.get()) + t * D, D, step, momentum + t * D, v);
    }
    on_isa(isa, Norm{}, static_cast<const float*>(v), D, norms + t);
  });
}

}  // namespace bre::cpu
