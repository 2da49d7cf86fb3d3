// Kernels that are wrong, each in one way, and a sound twin: what the emulation must and must not complain about.
#include <exception>
#include <string>

#include "../../../csrc/cuda/launch.h"

namespace {

constexpr int kThreads = 64;

__global__ void reverses(float* out) {
  __shared__ float all[kThreads];
  all[threadIdx.x] = threadIdx.x;
  __syncthreads();
  out[threadIdx.x] = all[kThreads - 1 - threadIdx.x];
}

__global__ void forgets_barrier(float* out) {
  __shared__ float all[kThreads];
  all[threadIdx.x] = threadIdx.x;
  out[threadIdx.x] = all[kThreads - 1 - threadIdx.x];
}

__global__ void forgets_second_barrier(float* out) {  // a slot is written again while others may still read it
  __shared__ float slot;
  float sum = 0;
  for (unsigned i = 0; i < kThreads; ++i) {
    if (threadIdx.x == i) slot = i;
    __syncthreads();
    sum += slot;
  }
  out[threadIdx.x] = sum;
}

__global__ void reuses_slots(float* out) {  // a fast warp brings its second value before a slow one has read the first
  __shared__ float slots[kThreads / 32];
  const int warp = threadIdx.x / 32;
  float sum = 0;
  for (int round = 0; round < 2; ++round) {
    if (threadIdx.x % 32 == 0) slots[warp] = 10 * round + warp + 1;
    __syncthreads();
    sum += __shfl_sync(0xffffffffu, slots[1 - warp], 0);
  }
  out[threadIdx.x] = sum;
}

__global__ void skips_barrier(float* out) {
  if (threadIdx.x == 5) return;
  __syncthreads();
  out[threadIdx.x] = 1;
}

__global__ void parts_at_barriers(float* out) {
  if (threadIdx.x < 32) {
    __syncthreads();
  } else {
    __syncthreads();
  }
  out[threadIdx.x] = 1;
}

__global__ void skips_shuffle(float* out) {
  float x = threadIdx.x;
  if (threadIdx.x != 3) x += __shfl_xor_sync(0xffffffffu, x, 1);
  out[threadIdx.x] = x;
}

__global__ void asks_absent_lane(float* out) {
  float x = threadIdx.x;
  if (threadIdx.x % 32 < 16) x += __shfl_xor_sync(0x0000ffffu, x, 16);
  out[threadIdx.x] = x;
}

__global__ void runs_past_shared(float* out) {
  __shared__ float all[kThreads];
  all[threadIdx.x] = threadIdx.x;
  __syncthreads();
  const float* p = all;
  out[threadIdx.x] = p[threadIdx.x + 1];
}

__global__ void reads_unset_shared(float* out) {
  __shared__ float all[kThreads];
  if (threadIdx.x % 2) all[threadIdx.x] = 1;
  __syncthreads();
  out[threadIdx.x] = all[threadIdx.x];
}

__global__ void uses_everything(float* out) {
  const int lane = threadIdx.x % 32;
  const unsigned odd = __ballot_sync(0xffffffffu, lane % 2 == 1);
  const bool any = __any_sync(0xffffffffu, lane == 7), all = __all_sync(0xffffffffu, lane == 7);
  const int down = __shfl_down_sync(0xffffffffu, lane, 4), first = __shfl_sync(0xffffffffu, lane + 100, 0);
  __syncwarp();
  const double other = __shfl_xor_sync(0xffffffffu, lane + 0.5, 3);
  out[threadIdx.x] = odd == 0xaaaaaaaau && any && !all && down == (lane < 28 ? lane + 4 : lane) && first == 100 &&
                     other == (lane ^ 3) + 0.5;
}

struct {
  const char* name;
  void (*kernel)(float*);
} const kKernels[] = {
    {"reverses", reverses},
    {"forgets_barrier", forgets_barrier},
    {"forgets_second_barrier", forgets_second_barrier},
    {"reuses_slots", reuses_slots},
    {"skips_barrier", skips_barrier},
    {"parts_at_barriers", parts_at_barriers},
    {"skips_shuffle", skips_shuffle},
    {"asks_absent_lane", asks_absent_lane},
    {"runs_past_shared", runs_past_shared},
    {"reads_unset_shared", reads_unset_shared},
    {"uses_everything", uses_everything},
};

}  // namespace

// Runs a kernel by its name on 64 floats; the error's text, or null.
extern "C" __attribute__((visibility("default"))) const char* emulation_run(const char* name, float* out) {
  static std::string error;
  try {
    for (const auto& [known, kernel] : kKernels) {
      if (std::string(known) != name) continue;
      BRE_CHECK(bre::cuda::launch(kernel, 1, kThreads, nullptr, out));
      return nullptr;
    }
    error = "no kernel has this name";
  } catch (const std::exception& caught) {
    error = caught.what();
  }
  return error.c_str();
}
