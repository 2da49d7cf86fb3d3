// CUDA C++ for the CPU, for tests only: found before CUDA's own <cuda_runtime.h>, it lets g++ compile a .cu file as C++
// and run its kernels, every thread of a block a fiber.
//
// Threads change places only where they wait for each other: at barriers, shuffles and votes. Which of the waiting
// threads goes first, and which block, is the schedule's choice; a kernel whose answer depends on it has a race. What
// CUDA leaves undefined is an error here: a barrier or a shuffle that some of its threads never reach, a lane that is
// not there. Shared memory holds NaNs when a block starts; under AddressSanitizer, arrays in it are fenced.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <type_traits>

#include "cuda_runtime_api.h"

#define __host__
#define __device__
#define __global__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __shared__ static __attribute__((section("emulated_shared"), used))

struct dim3 {
  unsigned x = 1, y = 1, z = 1;
  dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
template <class Number>
Number min(Number a, Number b) {
  return b < a ? b : a;
}
template <class Number>
Number max(Number a, Number b) {
  return a < b ? b : a;
}

// ---- launches

namespace emulation {

// Runs body once per thread of every block; throws std::runtime_error for what CUDA leaves undefined.
void run(dim3 grid, dim3 block, const std::function<void()>& body);

}  // namespace emulation

extern dim3 threadIdx, blockIdx, blockDim, gridDim;  // of the running thread

struct cudaLaunchConfig_t {
  dim3 gridDim, blockDim;
  std::size_t dynamicSmemBytes;
  cudaStream_t stream;
  void* attrs;
  unsigned numAttrs;
};

template <class... Params, class... Args>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Params...), Args... args) {
  if (config->blockDim.x == 0 || config->blockDim.x > 1024 || config->gridDim.x == 0) {
    return cudaErrorInvalidConfiguration;
  }
  emulation::launches.push_back({emulation::device, config->stream});
  emulation::run(config->gridDim, config->blockDim, [&] { kernel(static_cast<Params>(args)...); });
  return cudaSuccess;
}

// ---- what threads do together

namespace emulation {

struct Site {  // of a barrier, shuffle or vote in the source
  const char* what;
  const char* file;
  int line;
};

void barrier(const Site& site);

// Every lane named by `mask` brings a value; returns the value of lane `source`, which must be one of them.
std::uint64_t exchange(const Site& site, unsigned mask, std::uint64_t value, int source);
// Every lane named by `mask` brings a flag; returns which of them brought true.
unsigned vote(const Site& site, unsigned mask, bool flag);
int lane();

template <class Number>
Number shuffle(const Site& site, unsigned mask, Number value, int source) {
  static_assert(sizeof(Number) <= 8 && std::is_arithmetic_v<Number>);
  std::uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof value);
  bits = exchange(site, mask, bits, source);
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

}  // namespace emulation

#define EMULATED_SITE(what) (::emulation::Site{what, __FILE__, __LINE__})
#define __syncthreads() ::emulation::barrier(EMULATED_SITE("__syncthreads"))
#define __syncwarp(...) ((void)::emulation::vote(EMULATED_SITE("__syncwarp"), 0xffffffffu, false))
#define __shfl_sync(mask, value, source) ::emulation::shuffle(EMULATED_SITE("__shfl_sync"), mask, value, source)
#define __shfl_xor_sync(mask, value, bits) \
  ::emulation::shuffle(EMULATED_SITE("__shfl_xor_sync"), mask, value, ::emulation::lane() ^ (bits))
#define __shfl_down_sync(mask, value, delta)                           \
  ::emulation::shuffle(EMULATED_SITE("__shfl_down_sync"), mask, value, \
                       ::emulation::lane() + (delta) < 32 ? ::emulation::lane() + (delta) : ::emulation::lane())
#define __ballot_sync(mask, flag) ::emulation::vote(EMULATED_SITE("__ballot_sync"), mask, flag)
#define __any_sync(mask, flag) (::emulation::vote(EMULATED_SITE("__any_sync"), mask, flag) != 0)
#define __all_sync(mask, flag) (::emulation::vote(EMULATED_SITE("__all_sync"), mask, flag) == (mask))

// ---- integer instructions

inline unsigned __dp4a(unsigned a, unsigned b, unsigned sum) {
  for (int i = 0; i < 32; i += 8) sum += ((a >> i) & 255u) * ((b >> i) & 255u);
  return sum;
}

inline int __dp4a(int a, int b, int sum) {
  for (int i = 0; i < 32; i += 8) sum += static_cast<std::int8_t>(a >> i) * static_cast<std::int8_t>(b >> i);
  return sum;
}

// Two numbers of 16 bits with the lower or the upper two bytes.
inline int __dp2a_lo(int a, int b, int sum) {
  for (int i = 0; i < 2; ++i) sum += static_cast<std::int16_t>(a >> (16 * i)) * static_cast<std::int8_t>(b >> (8 * i));
  return sum;
}

inline int __dp2a_hi(int a, int b, int sum) { return __dp2a_lo(a, b >> 16, sum); }

inline unsigned __byte_perm(unsigned a, unsigned b, unsigned selector) {  // selectors 0..7 only
  const std::uint64_t bytes = (std::uint64_t{b} << 32) | a;
  unsigned result = 0;
  for (int i = 0; i < 32; i += 8) {
    const unsigned from = 8 * ((selector >> (i / 2)) & 7u);
    result |= static_cast<unsigned>((bytes >> from) & 255u) << i;
  }
  return result;
}

// ---- floating point, each operation rounded by itself

inline double __dadd_rn(double a, double b) { return a + b; }
inline double __dmul_rn(double a, double b) { return a * b; }

inline int __float_as_int(float x) {
  int bits;
  std::memcpy(&bits, &x, sizeof bits);
  return bits;
}

inline float __int_as_float(int bits) {
  float x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}
