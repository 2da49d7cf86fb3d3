// Memory beyond the caches: results written past them, and reads asked for before they are needed.
#pragma once

#include <cstdint>
#include <cstring>

#include "isa.h"

#if BRE_X86
#include <xmmintrin.h>
#endif

namespace bre::cpu {

// A result of more bytes than this will not be in the caches when it is read.
constexpr std::int64_t kBeyondCache = std::int64_t{1} << 25;

// Bytes of the widest store past the caches that an instruction set has and that `to`, cut into pieces of so many
// bytes, is aligned for; 0 where there is none. A store of a whole line costs less than four of a quarter.
inline std::int64_t store_width(Isa isa, const void* to, std::int64_t piece) {
  const std::int64_t address = static_cast<std::int64_t>(reinterpret_cast<std::uintptr_t>(to));
  std::int64_t width = isa == Isa::avx512 ? 64 : isa == Isa::avx2 ? 32 : 16;
  while (address % width || piece % width) width /= 2;
  return width < 16 ? 0 : width;
}

// Writes past the caches, as memcpy does for large copies: an ordinary store first reads the line that it is about to
// overwrite, and drives out what somebody still needs. width: of a store; both addresses are multiples of it. In
// assembler because an intrinsic may not stand in code that serves several instruction sets. Whoever streams calls
// stream_end() before another thread may look.
template <class Number, std::int64_t kCount>
BRE_INLINE void stream(const Number (&from)[kCount], Number* to, std::int64_t width) {
#if BRE_X86
  static_assert(sizeof(from) % 64 == 0);
  const char* source = reinterpret_cast<const char*>(from);
  char* target = reinterpret_cast<char*>(to);
  for (const char* end = source + sizeof(from); source < end; source += width, target += width) {
    if (width == 64) {
      asm volatile("vmovaps (%0), %%zmm15\n\tvmovntps %%zmm15, (%1)" : : "r"(source), "r"(target) : "memory", "xmm15");
    } else if (width == 32) {
      asm volatile("vmovaps (%0), %%ymm15\n\tvmovntps %%ymm15, (%1)" : : "r"(source), "r"(target) : "memory", "xmm15");
    } else {
      asm volatile("movaps (%0), %%xmm15\n\tmovntps %%xmm15, (%1)" : : "r"(source), "r"(target) : "memory", "xmm15");
    }
  }
#else
  (void)width;
  std::memcpy(to, from, sizeof(from));
#endif
}

inline void stream_end() {
#if BRE_X86
  _mm_sfence();
#endif
}

// Asks for kCount numbers, which are to come as near as the second cache: the first is too small for what is asked for
// ahead. The hardware reads ahead within one array, and not from the end of one row of a batch to the next row that is
// wanted.
template <std::int64_t kCount, class Number>
BRE_INLINE void prefetch(const Number* from) {
  constexpr std::int64_t kLine = 64;
  for (std::int64_t i = 0; i < kCount * static_cast<std::int64_t>(sizeof(Number)); i += kLine) {
    __builtin_prefetch(reinterpret_cast<const char*>(from) + i, 0, 2);
  }
}

}  // namespace bre::cpu
