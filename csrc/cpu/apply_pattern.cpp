#include <vector>

#include "bre_cpu.h"
#include "parallel.h"
#include "pixels.h"

namespace bre::cpu {
namespace {

// One image: out = (clip(x/255 + s*v, 0, 1) - mean) * scale, scale = 1/std.
template <class Out>
BRE_INLINE Out normalised(std::uint8_t x, float s, float v, float mean, float scale) {
  const float y = shifted(x, s, v);
  return from_float<Out>((std::min(std::max(y, 0.0f), 1.0f) - mean) * scale);
}

template <class Out>
struct Planar {
  BRE_INLINE void operator()(const std::uint8_t* image, ImageShape shape, float s, const float* pattern,
                             const float* mean, const float* scale, Out* out) const {
    for (std::int64_t c = 0; c < shape.channels; ++c) {
      const std::uint8_t* x = image + c * shape.area;
      const float* v = pattern + c * shape.area;
      Out* y = out + c * shape.area;
      const float m = mean[c], k = scale[c];
      for (std::int64_t p = 0; p < shape.area; ++p) y[p] = normalised<Out>(x[p], s, v[p], m, k);
    }
  }
};

// kChannels is known for the usual images, which lets the compiler interleave whole vectors; 0: any number.
template <class Out, int kChannels>
struct Interleaved {
  BRE_INLINE void operator()(const std::uint8_t* image, ImageShape shape, float s, const float* pattern,
                             const float* mean, const float* scale, Out* out) const {
    const std::int64_t channels = kChannels ? kChannels : shape.channels;
    for (std::int64_t begin = 0; begin < shape.area; begin += kTile) {
      const std::int64_t n = std::min(kTile, shape.area - begin);
      Out* y = out + begin * channels;
      Out planes[kChannels ? kChannels : 1][kTile];
      for (std::int64_t c = 0; c < channels; ++c) {
        const std::uint8_t* x = image + c * shape.area + begin;
        const float* v = pattern + c * shape.area + begin;
        const float m = mean[c], k = scale[c];
        Out* plane = planes[kChannels ? c : 0];
        for (std::int64_t p = 0; p < n; ++p) plane[p] = normalised<Out>(x[p], s, v[p], m, k);
        if (!kChannels) {
          for (std::int64_t p = 0; p < n; ++p) y[p * channels + c] = plane[p];
        }
      }
      if (kChannels) {
        for (std::int64_t p = 0; p < n; ++p) {
          for (int c = 0; c < kChannels; ++c) y[p * kChannels + c] = planes[c][p];
        }
      }
    }
  }
};

}  // namespace

void apply_pattern(const std::uint8_t* images, ImageShape shape, const std::int64_t* index, const std::int8_t* sign,
                   std::int64_t T, std::int64_t N, const float* pattern, const float* mean, const float* std,
                   Layout layout, Dtype dtype, void* out, int threads) {
  const Isa isa = current_isa();
  const std::int64_t D = shape.size();
  std::vector<float> scale(static_cast<std::size_t>(shape.channels));
  for (std::int64_t c = 0; c < shape.channels; ++c) scale[c] = 1.0f / std[c];

  with_dtype(dtype, [&](auto* type) {
    using Out = std::remove_pointer_t<decltype(type)>;
    const auto rows = [&](auto kernel) {
      parallel_for(T * N, threads, [&](std::int64_t r) {
        on_isa(isa, kernel, images + index[r] * D, shape, static_cast<float>(sign[r]), pattern + r / N * D, mean,
               static_cast<const float*>(scale.data()), static_cast<Out*>(out) + r * D);
      });
    };
    if (layout == Layout::nchw || shape.channels == 1) return rows(Planar<Out>{});
    if (shape.channels == 3) return rows(Interleaved<Out, 3>{});
    if (shape.channels == 4) return rows(Interleaved<Out, 4>{});
    rows(Interleaved<Out, 0>{});
  });
}

}  // namespace bre::cpu
