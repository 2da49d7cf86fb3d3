// What several kernels share about pixels and numbers: 16-bit floats, fixed-order sums, tiles of channel planes.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

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
  const std::uint32_t bits = bits_of(x);
  const std::uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  const std::uint32_t quiet = (bits >> 16) | 0x40u;  // NaN stays NaN
  return {static_cast<std::uint16_t>((bits & 0x7fffffffu) > 0x7f800000u ? quiet : rounded)};
}
template <>
BRE_INLINE float16 from_float<float16>(float x) {  // likewise
  constexpr std::uint32_t kTooLarge = 143u << 23, kSmallestNormal = 113u << 23;  // 2^16, 2^-14
  constexpr std::uint32_t kShift = 126u << 23;  // 0.5, whose last bit is the smallest subnormal's: adding it rounds
  const std::uint32_t bits = bits_of(x), sign = bits & 0x80000000u, rest = bits ^ sign;
  const std::uint32_t subnormal = bits_of(float_of(rest) + float_of(kShift)) - kShift;
  const std::uint32_t normal = (rest - (112u << 23) + 0xfffu + ((rest >> 13) & 1u)) >> 13;  // may carry into infinity
  const std::uint32_t special = rest > 0x7f800000u ? 0x7e00u : 0x7c00u;  // NaN stays NaN
  const std::uint32_t half = rest >= kTooLarge ? special : rest < kSmallestNormal ? subnormal : normal;
  return {static_cast<std::uint16_t>(half | (sign >> 16))};
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

// x/255 + s*v. s is -1, 0 or 1, so s*v is exact and fusing the multiply-add changes nothing: every backend gets these
// very bits, and so the very same clip mask. A true division: x * (1/255) rounds differently.
BRE_INLINE float shifted(std::uint8_t x, float s, float v) { return static_cast<float>(x) / 255.0f + s * v; }

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

// Pixels are handled in tiles of kTile per channel, small enough that a tile of every channel stays in L1.
constexpr std::int64_t kTile = 256;

}  // namespace bre::cpu
