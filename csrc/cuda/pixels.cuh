// What several kernels share about pixels and numbers: bytes as floats, packed accesses, sums in a fixed order.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>

#include "launch.h"

namespace bre::cuda {

using bfloat16 = __nv_bfloat16;
using float16 = __half;

__host__ __device__ constexpr std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

__device__ __forceinline__ float to_float(float x) { return x; }
__device__ __forceinline__ float to_float(bfloat16 x) { return __bfloat162float(x); }
__device__ __forceinline__ float to_float(float16 x) { return __half2float(x); }

template <class Number>
__device__ __forceinline__ Number from_float(float x);
template <>
__device__ __forceinline__ float from_float<float>(float x) {
  return x;
}
template <>
__device__ __forceinline__ bfloat16 from_float<bfloat16>(float x) {
  return __float2bfloat16_rn(x);
}
template <>
__device__ __forceinline__ float16 from_float<float16>(float x) {
  return __float2half_rn(x);
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

// kSize neighbours moved by one instruction.
template <class Number, int kSize>
struct alignas(kSize * sizeof(Number)) Vec {
  Number at[kSize];
};

template <int kSize, class Number>
__device__ __forceinline__ Vec<Number, kSize> load(const Number* from) {
  return *reinterpret_cast<const Vec<Number, kSize>*>(from);
}

template <class Number, int kSize>
__device__ __forceinline__ void store(Number* to, const Vec<Number, kSize>& pack) {
  *reinterpret_cast<Vec<Number, kSize>*>(to) = pack;
}

// Byte i of a little-endian word, or of the four words of 16 bytes.
__device__ __forceinline__ std::uint32_t byte_of(std::uint32_t word, int i) { return (word >> (8 * i)) & 255u; }
__device__ __forceinline__ std::uint32_t byte_of(const uint4& words, int i) {
  const std::uint32_t word = i < 4 ? words.x : i < 8 ? words.y : i < 12 ? words.z : words.w;
  return byte_of(word, i % 4);
}

// 16 bytes from an aligned address.
__device__ __forceinline__ uint4 load_16(const std::uint8_t* from) { return *reinterpret_cast<const uint4*>(from); }

// The same, one at a time from any address; zero from the n-th on.
__device__ __forceinline__ uint4 gather_16(const std::uint8_t* from, int n) {
  std::uint32_t words[4] = {};
#pragma unroll
  for (int i = 0; i < 16; ++i) {
    if (i < n) words[i / 4] |= static_cast<std::uint32_t>(from[i]) << (8 * (i % 4));
  }
  return make_uint4(words[0], words[1], words[2], words[3]);
}

// x/255 + s*v with the division correctly rounded, as in every backend, so that clip masks agree bit for bit. One
// Newton step on the product with the rounded reciprocal gives the quotient's very bits for all 256 bytes (a test tries
// them); s is -1, 0 or 1, so fusing the last multiply-add changes nothing. 4 operations; a division takes about 10.
__device__ __forceinline__ float shifted(std::uint32_t byte, float s, float v) {
  constexpr float kReciprocal = 1.0f / 255.0f;
  const float x = static_cast<float>(byte), q = x * kReciprocal;
  return fmaf(s, v, fmaf(fmaf(-255.0f, q, x), kReciprocal, q));
}

constexpr unsigned kAll = 0xffffffffu;  // every lane of a warp

// Folds the lanes' values pairwise; operations that commute leave the same bits in every lane.
template <class Number, class Operation>
__device__ __forceinline__ Number warp_reduce(Number x, const Operation& operation) {
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) x = operation(x, __shfl_xor_sync(kAll, x, offset));
  return x;
}

// The same over kWarps warps, through kWarps slots of shared memory that nobody else uses before the next barrier.
template <int kWarps, class Number, class Operation>
__device__ __forceinline__ Number block_reduce(Number x, Number identity, Number* slots, const Operation& operation) {
  x = warp_reduce(x, operation);
  if (kWarps == 1) return x;
  const int lane = threadIdx.x % 32;
  if (lane == 0) slots[threadIdx.x / 32] = x;
  __syncthreads();
  return warp_reduce(lane < kWarps ? slots[lane] : identity, operation);
}

struct Add {
  template <class Number>
  __device__ __forceinline__ Number operator()(Number a, Number b) const {
    return a + b;
  }
};

struct Max {
  __device__ __forceinline__ float operator()(float a, float b) const { return fmaxf(a, b); }
};

}  // namespace bre::cuda
