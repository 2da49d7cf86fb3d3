// What the integer products take of an instruction set: registers of int32 sums, how many lanes they have, a way to run
// a kernel compiled for it, and where all products are of int16 the dot itself. Kernels add the shape of their tiles.
// Dots are named in assembler because an intrinsic may not stand in a template that serves several instruction sets;
// all else is plain vectors.
#pragma once

#include <cstdint>

#include "isa.h"

namespace bre::cpu {

struct PortableVectors {
  typedef std::int32_t Sums __attribute__((vector_size(16), aligned(4), may_alias));
  static constexpr int kLanes = 4;
  template <class Kernel, class... Args>
  static void run(const Kernel& kernel, Args... args) {
    kernel(args...);
  }
};

#if BRE_X86
struct Avx2Vectors {
  typedef std::int32_t Sums __attribute__((vector_size(32), aligned(4), may_alias));
  static constexpr int kLanes = 8;
  template <class Kernel, class... Args>
  static void run(const Kernel& kernel, Args... args) {
    run_avx2(kernel, args...);
  }
  // To each lane the product of two int16 of u, the lane's, with two of w.
  BRE_INLINE static void dot(Sums& sum, const Sums& u, const Sums& w) {
    Sums product;
    asm("vpmaddwd %2, %1, %0" : "=x"(product) : "x"(u), "x"(w));
    sum += product;
  }
};

struct Avx512Vectors {
  typedef std::int32_t Sums __attribute__((vector_size(64), aligned(4), may_alias));
  static constexpr int kLanes = 16;
  template <class Kernel, class... Args>
  static void run(const Kernel& kernel, Args... args) {
    run_avx512(kernel, args...);
  }
};
#endif

}  // namespace bre::cpu
