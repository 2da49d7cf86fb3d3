// The few parts of CUDA's <cuda_fp16.h> that the kernels use, for the CPU.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

struct __half {
  std::uint16_t bits;
};

inline float __half2float(__half x) {
  const int exponent = x.bits >> 10 & 31, fraction = x.bits & 1023;
  float size = std::ldexp(exponent ? 1024.0f + fraction : fraction, std::max(exponent, 1) - 25);
  if (exponent == 31) size = fraction ? NAN : INFINITY;
  return x.bits >> 15 ? -size : size;
}

inline __half __float2half_rn(float x) {  // to nearest, ties to even; NaN becomes the one NaN that CUDA has
  if (x != x) return {0x7fff};
  const unsigned sign = std::signbit(x) ? 0x8000u : 0u;
  const float size = std::fabs(x);
  if (size >= 65520.0f) return {static_cast<std::uint16_t>(sign | 0x7c00u)};
  const int exponent = size < 0x1p-14f ? -14 : std::ilogb(size);
  const unsigned steps = static_cast<unsigned>(std::nearbyint(std::ldexp(size, 10 - exponent)));  // may carry
  return {static_cast<std::uint16_t>(sign | (steps + (static_cast<unsigned>(exponent + 14) << 10)))};
}
