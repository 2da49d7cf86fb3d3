#pragma once

#include <omp.h>

#include <algorithm>
#include <cstdint>

namespace bre::cpu {

constexpr std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

// body(i) for i in [0, n). Each i is done whole, by one thread, so what it computes cannot depend on `threads`.
// body must not throw: allocate before.
template <class Body>
void parallel_for(std::int64_t n, int threads, const Body& body) {
  const int team = static_cast<int>(std::min<std::int64_t>(n, std::max(threads, 1)));
  if (team <= 1) {
    for (std::int64_t i = 0; i < n; ++i) body(i);
    return;
  }
#pragma omp parallel for schedule(dynamic) num_threads(team)
  for (std::int64_t i = 0; i < n; ++i) body(i);
}

// The same with a worker's number below `threads` as second argument: bodies of one number never run at once.
template <class Body>
void parallel_for_workers(std::int64_t n, int threads, const Body& body) {
  const int team = static_cast<int>(std::min<std::int64_t>(n, std::max(threads, 1)));
  if (team <= 1) {
    for (std::int64_t i = 0; i < n; ++i) body(i, 0);
    return;
  }
#pragma omp parallel for schedule(dynamic) num_threads(team)
  for (std::int64_t i = 0; i < n; ++i) body(i, omp_get_thread_num());
}

}  // namespace bre::cpu
