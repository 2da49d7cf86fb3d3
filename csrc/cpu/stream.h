// Memory beyond the caches: results written past them, and reads asked for before they are needed.
#pragma once

#include <cstdint>
#include <cstring>

#include "isa.h"

#if BRE_X86
#include <emmintrin.h>
#endif

namespace bre::cpu {

// A result of more bytes than this will not be in the caches when it is read.
constexpr std::int64_t kBeyondCache = std::int64_t{1} << 25;

// Writes past the caches, as memcpy does for large copies: an ordinary store first reads the line that it is about to
// overwrite, and drives out what somebody still needs. Both addresses and the size are multiples of kStreamed bytes.
// Whoever streams calls stream_end() before another thread may look.
constexpr std::int64_t kStreamed = 16;

template <class Number, std::int64_t kCount>
BRE_INLINE void stream(const Number (&from)[kCount], Number* to) {
#if BRE_X86
  static_assert(sizeof(from) % kStreamed == 0);
  for (std::size_t i = 0; i < sizeof(from) / kStreamed; ++i) {
    _mm_stream_si128(reinterpret_cast<__m128i*>(to) + i, _mm_load_si128(reinterpret_cast<const __m128i*>(from) + i));
  }
#else
  std::memcpy(to, from, sizeof(from));
#endif
}

inline void stream_end() {
#if BRE_X86
  _mm_sfence();
#endif
}

// Asks for kCount numbers. The hardware reads ahead within one array, and not from the end of one row of a batch to the
// next row that is wanted.
template <std::int64_t kCount, class Number>
BRE_INLINE void prefetch(const Number* from) {
  constexpr std::int64_t kLine = 64;
  for (std::int64_t i = 0; i < kCount * static_cast<std::int64_t>(sizeof(Number)); i += kLine) {
    __builtin_prefetch(reinterpret_cast<const char*>(from) + i);
  }
}

}  // namespace bre::cpu
