#include <vector>

#include "bre_cpu.h"
#include "parallel.h"
#include "pixels.h"
#include "stream.h"

namespace bre::cpu {
namespace {

// The same number for every pixel, where others have an array.
struct Same {
  float value;
  BRE_INLINE float operator[](std::int64_t) const { return value; }
};

// n numbers: out = (clip(x/255 + s*v, 0, 1) - mean) * scale, scale = 1/std. next: the bytes wanted after these;
// streamed: bytes of one store past the caches, 0 where the result is to stay in them.
template <class Out, class PerNumber>
BRE_INLINE void normalise(const std::uint8_t* __restrict x, const std::uint8_t* next, std::int64_t n, float s,
                          const float* __restrict v, PerNumber mean, PerNumber scale, std::int64_t streamed,
                          Out* __restrict out) {
  const auto number = [=](std::int64_t i) BRE_INLINE_LAMBDA {
    return from_float<Out>((clipped(shifted(x[i], s, v[i])) - mean[i]) * scale[i]);
  };
  std::int64_t i = 0;
  if (streamed) {  // block by block, so that writing goes on while the next block is computed
    for (; i + kBlock <= n; i += kBlock) {
      prefetch<kBlock>(next + i);
      alignas(64) Out block[kBlock];
      for (std::int64_t j = 0; j < kBlock; ++j) block[j] = number(i + j);
      stream(block, out + i, streamed);
    }
  }
  for (; i < n; ++i) out[i] = number(i);
}

// One image, channel by channel.
template <class Out>
struct Planar {
  BRE_INLINE void operator()(const std::uint8_t* image, const std::uint8_t* next, ImageShape shape, float s,
                             const float* pattern, const float* mean, const float* scale, std::int64_t streamed,
                             Out* out) const {
    for (std::int64_t c = 0; c < shape.channels; ++c) {
      const std::int64_t at = c * shape.area;
      normalise(image + at, next + at, shape.area, s, pattern + at, Same{mean[c]}, Same{scale[c]}, streamed, out + at);
    }
  }
};

// One image, its bytes interleaved tile by tile. The pattern is interleaved already; so are mean and scale, for a tile
// that begins with any channel.
template <class Out, int kChannels>
struct Interleaved {
  BRE_INLINE void operator()(const std::uint8_t* image, const std::uint8_t* next, ImageShape shape, float s,
                             const float* pattern, const float* mean, const float* scale, std::int64_t streamed,
                             Out* out) const {
    const std::int64_t D = shape.size(), channels = kChannels ? kChannels : shape.channels;
    alignas(64) std::uint8_t x[kTile];
    for (std::int64_t begin = 0; begin < D; begin += kTile) {
      const std::int64_t n = std::min(kTile, D - begin), first = begin % channels;
      interleave<kChannels>(image, shape, begin, n, x);
      normalise(x, next + begin, n, s, pattern + begin, mean + first, scale + first, streamed, out + begin);
    }
  }
};

template <int kChannels>
struct InterleavePattern {
  BRE_INLINE void operator()(const float* pattern, ImageShape shape, float* interleaved) const {
    interleave<kChannels>(pattern, shape, 0, shape.size(), interleaved);
  }
};

constexpr std::int64_t kRows = 8;  // of a task: the bytes of all but the first were asked for by the row before

}  // namespace

void apply_pattern(const std::uint8_t* images, ImageShape shape, const std::int64_t* index, const std::int8_t* sign,
                   std::int64_t T, std::int64_t N, const float* pattern, const float* mean, const float* std,
                   Layout layout, Dtype dtype, void* out, int threads) {
  const Isa isa = current_isa();
  const std::int64_t D = shape.size();
  const bool planar = layout == Layout::nchw || shape.channels == 1;
  std::vector<float> means(static_cast<std::size_t>(shape.channels + (planar ? 0 : kTile))), scales(means.size());
  for (std::size_t i = 0; i < means.size(); ++i) {
    means[i] = mean[i % shape.channels];
    scales[i] = 1.0f / std[i % shape.channels];
  }
  std::vector<float> interleaved(static_cast<std::size_t>(planar ? 0 : T * D));
  const float* patterns = planar ? pattern : interleaved.data();

  with_dtype(dtype, [&](auto* type) {
    using Out = std::remove_pointer_t<decltype(type)>;
    const std::int64_t plane = shape.area * static_cast<std::int64_t>(sizeof(Out)), rows = T * N;
    const std::int64_t streamed = rows * shape.channels * plane > kBeyondCache ? store_width(isa, out, plane) : 0;
    const auto run = [&](auto kernel) {
      parallel_for(ceil_div(rows, kRows), threads, [&](std::int64_t task) {
        for (std::int64_t r = task * kRows; r < std::min((task + 1) * kRows, rows); ++r) {
          on_isa(isa, kernel, images + index[r] * D, images + index[std::min(r + 1, rows - 1)] * D, shape,
                 static_cast<float>(sign[r]), patterns + r / N * D, static_cast<const float*>(means.data()),
                 static_cast<const float*>(scales.data()), streamed, static_cast<Out*>(out) + r * D);
        }
        if (streamed) stream_end();
      });
    };
    const auto interleaved_rows = [&](auto channels) {
      constexpr int kChannels = decltype(channels)::value;
      parallel_for(T, threads, [&](std::int64_t t) {
        on_isa(isa, InterleavePattern<kChannels>{}, pattern + t * D, shape, interleaved.data() + t * D);
      });
      run(Interleaved<Out, kChannels>{});
    };
    if (planar) return run(Planar<Out>{});
    with_channels(shape.channels, interleaved_rows);
  });
}

}  // namespace bre::cpu
