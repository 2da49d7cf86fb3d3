#include <algorithm>
#include <cstring>

#include "bre_cpu.h"
#include "isa.h"
#include "parallel.h"
#include "stream.h"

namespace bre::cpu {
namespace {

// What an instruction set brings: widen(bytes), the next vector of bytes as floats, and how many templates fit its
// registers. The instructions are named in assembler because gcc would widen byte by byte, and an intrinsic may not
// stand in a template that serves several instruction sets.
struct Portable {
  typedef float Floats __attribute__((vector_size(16), aligned(4), may_alias));
  typedef std::uint8_t Bytes __attribute__((vector_size(4)));
  static constexpr int kLanes = 4, kTemplates = 2;
  template <class Kernel, class... Args>
  static void run(const Kernel& kernel, Args... args) {
    kernel(args...);
  }
  BRE_INLINE static void widen(const std::uint8_t* x, Floats& floats) {
    Bytes bytes;
    std::memcpy(&bytes, x, sizeof bytes);
    floats = __builtin_convertvector(bytes, Floats);
  }
};

#if BRE_X86
struct Avx2 {
  typedef float Floats __attribute__((vector_size(32), aligned(4), may_alias));
  typedef std::int32_t Ints __attribute__((vector_size(32)));
  static constexpr int kLanes = 8, kTemplates = 2;
  template <class Kernel, class... Args>
  static void run(const Kernel& kernel, Args... args) {
    run_avx2(kernel, args...);
  }
  BRE_INLINE static void widen(const std::uint8_t* x, Floats& floats) {
    Ints ints;
    asm("vpmovzxbd %1, %0" : "=x"(ints) : "m"(*reinterpret_cast<const std::uint8_t (*)[kLanes]>(x)));
    floats = __builtin_convertvector(ints, Floats);
  }
};

struct Avx512 {
  typedef float Floats __attribute__((vector_size(64), aligned(4), may_alias));
  typedef std::int32_t Ints __attribute__((vector_size(64)));
  static constexpr int kLanes = 16, kTemplates = 4;
  template <class Kernel, class... Args>
  static void run(const Kernel& kernel, Args... args) {
    run_avx512(kernel, args...);
  }
  BRE_INLINE static void widen(const std::uint8_t* x, Floats& floats) {
    Ints ints;
    asm("vpmovzxbd %1, %0" : "=v"(ints) : "m"(*reinterpret_cast<const std::uint8_t (*)[kLanes]>(x)));
    floats = __builtin_convertvector(ints, Floats);
  }
};
#endif

// kImages images against kTemplates templates. A vector of bytes becomes floats once for all the templates, a vector of
// a template serves all the images, and the independent sums hide the latency of an addition. The loops over the sums
// are flat and unrolled by order: only then does gcc keep the sums out of memory.
template <class I, int kImages, int kTemplates>
struct Products {
  static constexpr std::int64_t kColumns = 1024;  // summed on their own, since long sums lose digits
  static constexpr std::int64_t kLine = 64;
  static constexpr int kSums = kImages * kTemplates;

  BRE_INLINE void operator()(const std::uint8_t* images, std::int64_t D, const float* templates, std::int64_t P,
                             float* out) const {
    using Floats = typename I::Floats;
    Floats total[kSums] = {};
    const std::int64_t whole = D / I::kLanes * I::kLanes;
    for (std::int64_t d = 0; d < whole;) {
      Floats sum[kSums] = {};
      for (const std::int64_t end = std::min(d + kColumns, whole); d < end; d += I::kLanes) {
        if (d % kLine == 0) {  // the images after these; the hardware does not read ahead across their ends
          for (int i = 0; i < kImages; ++i) prefetch<kLine>(images + (kImages + i) * D + d);
        }
        Floats x[kImages];
#pragma GCC unroll 8
        for (int i = 0; i < kImages; ++i) I::widen(images + i * D + d, x[i]);
#pragma GCC unroll 32
        for (int k = 0; k < kSums; ++k) {
          sum[k] += x[k % kImages] * *reinterpret_cast<const Floats*>(templates + k / kImages * D + d);
        }
      }
#pragma GCC unroll 32
      for (int k = 0; k < kSums; ++k) total[k] += sum[k];
    }
    for (int k = 0; k < kSums; ++k) {
      const std::uint8_t* x = images + k % kImages * D;
      const float* w = templates + k / kImages * D;
      float product = 0;
      for (std::int64_t d = whole; d < D; ++d) product += x[d] * w[d];
      for (int j = 0; j < I::kLanes; ++j) product += total[k][j];
      out[k % kImages * P + k / kImages] = product / 255.0f;
    }
  }
};

// All templates, so many at a time as registers hold, then one by one.
template <class I, int kImages>
struct AllProducts {
  BRE_INLINE void operator()(const std::uint8_t* images, std::int64_t D, const float* templates, std::int64_t P,
                             float* out) const {
    std::int64_t p = 0;
    for (; p + I::kTemplates <= P; p += I::kTemplates) {
      Products<I, kImages, I::kTemplates>{}(images, D, templates + p * D, P, out + p);
    }
    for (; p < P; ++p) Products<I, kImages, 1>{}(images, D, templates + p * D, P, out + p);
  }
};

template <class I>
void project_on(const std::uint8_t* images, std::int64_t M, std::int64_t D, const float* templates, std::int64_t P,
                float* out, int threads) {
  constexpr std::int64_t kImages = 4, kTask = 64;  // a task's images are read ahead of, so there are many
  parallel_for(ceil_div(M, kTask), threads, [&](std::int64_t task) {
    std::int64_t m = task * kTask;
    const std::int64_t end = std::min(m + kTask, M);
    for (; m + kImages <= end; m += kImages) {
      I::run(AllProducts<I, kImages>{}, images + m * D, D, templates, P, out + m * P);
    }
    for (; m < end; ++m) I::run(AllProducts<I, 1>{}, images + m * D, D, templates, P, out + m * P);
  });
}

}  // namespace

void project(const std::uint8_t* images, std::int64_t M, std::int64_t D, const float* templates, std::int64_t P,
             float* out, int threads) {
  const Isa isa = current_isa();
#if BRE_X86
  if (isa == Isa::avx512) return project_on<Avx512>(images, M, D, templates, P, out, threads);
  if (isa == Isa::avx2) return project_on<Avx2>(images, M, D, templates, P, out, threads);
#endif
  (void)isa;
  project_on<Portable>(images, M, D, templates, P, out, threads);
}

}  // namespace bre::cpu
