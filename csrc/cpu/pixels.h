// What several kernels share about pixels and numbers: 16-bit floats, fixed-order sums, tiles of channel planes.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "bre_cpu.h"
#include "isa.h"

namespace bre::cpu {

struct bfloat16 {
  std::uint16_t bits;
};
struct float16 {
  std::uint16_t bits;
};

BRE_INLINE std::uint32_t bits_of(float x) {
  std::uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  return bits;
}
BRE_INLINE float float_of(std::uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

BRE_INLINE float to_float(float x) { return x; }
BRE_INLINE float to_float(bfloat16 x) { return float_of(static_cast<std::uint32_t>(x.bits) << 16); }
BRE_INLINE float to_float(float16 x) {  // every case computed and one chosen, so that loops vectorise
  const std::uint32_t sign = (x.bits & 0x8000u) << 16, rest = (x.bits & 0x7fffu) << 13, exponent = rest & (31u << 23);
  const std::uint32_t normal = rest + (112u << 23), infinite = rest + (224u << 23);
  const std::uint32_t subnormal = bits_of(float_of(rest + (113u << 23)) - float_of(113u << 23));
  return float_of(sign | (exponent == (31u << 23) ? infinite : exponent == 0 ? subnormal : normal));
}

template <class Number>
BRE_INLINE Number from_float(float x);
template <>
BRE_INLINE float from_float<float>(float x) {
  return x;
}
template <>
BRE_INLINE bfloat16 from_float<bfloat16>(float x) {  // to nearest, ties to even
  const std::uint32_t bits = bits_of(x), rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  return {static_cast<std::uint16_t>((bits & 0x7fffffffu) > 0x7f800000u ? 0x7fc0u : rounded)};  // NaN stays NaN
}
template <>
BRE_INLINE float16 from_float<float16>(float x) {  // to nearest, ties to even
  constexpr std::uint32_t kTooLarge = 143u << 23, kSmallestNormal = 113u << 23;  // 2^16, 2^-14
  constexpr std::uint32_t kShift = 126u << 23;  // 0.5, whose last bit is the smallest subnormal's: adding it rounds
  const std::uint32_t bits = bits_of(x), sign = bits & 0x80000000u, rest = bits ^ sign;
  const std::uint32_t subnormal = bits_of(float_of(rest) + float_of(kShift)) - kShift;
  const std::uint32_t normal = (rest - (112u << 23) + 0xfffu + ((rest >> 13) & 1u)) >> 13;  // may carry into infinity
  const std::uint32_t special = rest > 0x7f800000u ? 0x7e00u : 0x7c00u;  // NaN stays NaN
  const std::uint32_t half = rest >= kTooLarge ? special : rest < kSmallestNormal ? subnormal : normal;
  return {static_cast<std::uint16_t>(half | (sign >> 16))};
}

// Calls body with the number of channels as a constant: 3, 4, or 0 for any other, which the kernel takes from the
// shape.
template <class Body>
void with_channels(std::int64_t channels, const Body& body) {
  if (channels == 3) return body(std::integral_constant<int, 3>{});
  if (channels == 4) return body(std::integral_constant<int, 4>{});
  body(std::integral_constant<int, 0>{});
}

// Calls body with a null pointer of the C++ type of `dtype`.
template <class Body>
void with_dtype(Dtype dtype, const Body& body) {
  if (dtype == Dtype::bf16) {
    body(static_cast<bfloat16*>(nullptr));
  } else if (dtype == Dtype::f16) {
    body(static_cast<float16*>(nullptr));
  } else {
    body(static_cast<float*>(nullptr));
  }
}

// x/255, correctly rounded, without the slow division: 1/255 is kHigh + kLow, kHigh so short that x * kHigh is exact
// (fusing the multiply-add changes nothing). x * (1/255) would round differently.
constexpr float over_255(std::uint8_t x) {
  constexpr float kHigh = 0x1.01p-8f, kLow = 0x1.010102p-24f;
  return static_cast<float>(x) * kHigh + static_cast<float>(x) * kLow;
}
constexpr bool over_255_is_exact() {
  for (int x = 0; x < 256; ++x) {
    if (over_255(static_cast<std::uint8_t>(x)) != static_cast<float>(x) / 255.0f) return false;
  }
  return true;
}
static_assert(over_255_is_exact());

// x/255 + s*v. s is -1, 0 or 1, so s*v is exact, and fused or not every backend gets these very bits, and so the very
// same clip mask.
BRE_INLINE float shifted(std::uint8_t x, float s, float v) { return over_255(x) + s * v; }

// y clipped to [0, 1], for loops that vectorise: positive floats are ordered as their bits are, and negative ones are
// negative integers. gcc would make branches of std::min and std::max, and four comparisons of those. NaN stays NaN.
BRE_INLINE float clipped(float y) {
  const std::int32_t bits = static_cast<std::int32_t>(bits_of(y)), one = 0x3f800000;
  return float_of(static_cast<std::uint32_t>(std::min(std::max(bits, 0), one))) + 0.0f * y;
}

// A sum whose order is fixed by the code: 16 lanes, then the lanes in order.
constexpr int kLanes = 16;

BRE_INLINE double sum_of_squares(const float* x, std::int64_t n) {
  double lane[kLanes] = {};
  std::int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (int j = 0; j < kLanes; ++j) lane[j] += static_cast<double>(x[i + j]) * x[i + j];
  }
  for (int j = 0; i < n; ++i, ++j) lane[j] += static_cast<double>(x[i]) * x[i];
  double total = 0;
  for (double part : lane) total += part;
  return total;
}

// Images are handled in tiles of at most kTile numbers, few enough for the caches next to the core and many enough that
// memory is read in long pieces. Tiles are multiples of kUnit: whole pixels of three or four channels, and whole blocks
// of kBlock numbers, whose bytes are a line of cache.
constexpr std::int64_t kBlock = 64, kUnit = 3 * kBlock, kTile = 16 * kUnit;

// Numbers [begin, begin+n) of an image's C,H,W planes in H,W,C order. kChannels is known for the usual images, which
// lets the compiler shuffle whole vectors (begin and n are whole pixels of them); 0: any number.
template <int kChannels, class Number>
BRE_INLINE void interleave(const Number* __restrict planes, ImageShape shape, std::int64_t begin, std::int64_t n,
                           Number* __restrict to) {
  const std::int64_t channels = kChannels ? kChannels : shape.channels;
  if (kChannels) {
    const Number* from = planes + begin / channels;
    for (std::int64_t p = 0; p < n / channels; ++p) {
      for (std::int64_t c = 0; c < channels; ++c) to[p * channels + c] = from[c * shape.area + p];
    }
  } else {
    std::int64_t p = begin / channels, c = begin % channels;
    for (std::int64_t i = 0; i < n; ++i) {
      to[i] = planes[c * shape.area + p];
      if (++c == channels) c = 0, ++p;
    }
  }
}

}  // namespace bre::cpu
