#include "isa.h"

#include <atomic>
#include <stdexcept>

namespace bre::cpu {
namespace {

Isa best_isa() {
  if (supported(Isa::avx512)) return Isa::avx512;
  if (supported(Isa::avx2)) return Isa::avx2;
  return Isa::baseline;
}

std::atomic<Isa>& chosen() {
  static std::atomic<Isa> isa{best_isa()};
  return isa;
}

}  // namespace

bool supported(Isa isa) {
#if BRE_X86
  // __builtin_cpu_supports also asks whether the operating system saves the wide registers.
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  if (isa == Isa::avx2) return avx2;
  if (isa == Isa::avx512) {
    return avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512vnni");
  }
#endif
  return isa == Isa::baseline;
}

Isa current_isa() { return chosen().load(std::memory_order_relaxed); }

void use_isa(Isa isa) {
  if (!supported(isa)) throw std::invalid_argument("this processor does not support the instruction set asked for");
  chosen().store(isa, std::memory_order_relaxed);
}

}  // namespace bre::cpu
