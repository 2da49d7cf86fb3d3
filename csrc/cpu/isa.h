// One wheel, several instruction sets. A kernel is a functor whose operator() is BRE_INLINE; on_isa(kernel, ...)
// inlines it into one function per instruction set and calls the best one this machine has.
#pragma once

#define BRE_INLINE [[gnu::always_inline]] inline
#define BRE_INLINE_LAMBDA __attribute__((always_inline))

#if defined(__x86_64__) && defined(__GNUC__)
#define BRE_X86 1
#define BRE_AVX2 [[gnu::target("avx2,fma")]]
#define BRE_AVX512 [[gnu::target("avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]]
#else
#define BRE_X86 0
#endif

namespace bre::cpu {

enum class Isa { baseline, avx2, avx512 };  // avx512 means F, BW, DQ, VL and VNNI

bool supported(Isa isa);  // by this processor and this build
Isa current_isa();        // the best supported one, unless use_isa chose another
void use_isa(Isa isa);    // for tests and benchmarks; throws std::invalid_argument when unsupported

#if BRE_X86
template <class Kernel, class... Args>
BRE_AVX2 void run_avx2(const Kernel& kernel, Args... args) {
  kernel(args...);
}

template <class Kernel, class... Args>
BRE_AVX512 void run_avx512(const Kernel& kernel, Args... args) {
  kernel(args...);
}
#endif

template <class Kernel, class... Args>
void on_isa(Isa isa, const Kernel& kernel, Args... args) {
#if BRE_X86
  if (isa == Isa::avx512) return run_avx512(kernel, args...);
  if (isa == Isa::avx2) return run_avx2(kernel, args...);
#endif
  (void)isa;
  kernel(args...);
}

}  // namespace bre::cpu
