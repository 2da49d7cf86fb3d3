// What every launcher needs: CUDA's error codes as exceptions, one way to start a kernel, which accesses are aligned.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <limits>

#include "bre_cuda.h"

namespace bre::cuda {

// Throws unless `error` is success. `call` is the source text that returned it.
void check(cudaError_t error, const char* call, const char* file, int line);

#define BRE_CHECK(...) ::bre::cuda::check((__VA_ARGS__), #__VA_ARGS__, __FILE__, __LINE__)

// A grid of `blocks` blocks of `threads` threads, one-dimensional both. No blocks, no launch.
template <class... Params, class... Args>
cudaError_t launch(void (*kernel)(Params...), std::int64_t blocks, int threads, cudaStream_t stream, Args... args) {
  if (blocks == 0) return cudaSuccess;
  if (blocks > std::numeric_limits<std::int32_t>::max()) return cudaErrorInvalidConfiguration;
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(blocks));
  config.blockDim = dim3(static_cast<unsigned>(threads));
  config.stream = stream;
  return cudaLaunchKernelEx(&config, kernel, static_cast<Params>(args)...);
}

// Within an image the kernels count in int.
inline cudaError_t fits_int(std::int64_t size) {
  return size <= std::numeric_limits<std::int32_t>::max() ? cudaSuccess : cudaErrorInvalidValue;
}

template <class... Pointers>
bool aligned(std::uintptr_t bytes, Pointers... pointers) {
  return (... && (reinterpret_cast<std::uintptr_t>(pointers) % bytes == 0));
}

}  // namespace bre::cuda
