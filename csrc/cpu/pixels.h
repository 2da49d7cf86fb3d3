// What several kernels share about pixels and numbers: bf16, fixed-order sums, tiles of channel planes.
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

BRE_INLINE float to_float(float x) { return x; }
BRE_INLINE float to_float(bfloat16 x) {
  const std::uint32_t bits = static_cast<std::uint32_t>(x.bits) << 16;
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

template <class Number>
BRE_INLINE Number from_float(float x);
template <>
BRE_INLINE float from_float<float>(float x) {
  return x;
}
template <>
BRE_INLINE bfloat16 from_float<bfloat16>(float x) {  // to nearest, ties to even
  std::uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  const std::uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  const std::uint32_t quiet = (bits >> 16) | 0x40u;  // NaN stays NaN
  return {static_cast<std::uint16_t>((bits & 0x7fffffffu) > 0x7f800000u ? quiet : rounded)};
}

// Calls body with a null pointer of the C++ type of `dtype`.
template <class Body>
void with_dtype(Dtype dtype, const Body& body) {
  if (dtype == Dtype::bf16) {
    body(static_cast<bfloat16*>(nullptr));
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
