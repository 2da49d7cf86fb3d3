#include <algorithm>
#include <memory>
#include <numeric>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "cuda_runtime.h"
#include "fiber.h"

#if defined(__x86_64__)
// void change(void** from, void** to): keeps what a call must preserve, changes stacks, returns there.
asm(R"(
.text
.type emulation_change, @function
emulation_change:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq (%rsi), %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size emulation_change, .-emulation_change
)");
extern "C" void emulation_change(void** from, void** to);
void emulation::Fiber::change(Context& from, Context& to) { emulation_change(&from, &to); }
#endif

// The linker's names for the ends of the section that __shared__ puts arrays into; absent when there is none.
extern "C" char __start_emulated_shared[] __attribute__((weak, visibility("hidden")));
extern "C" char __stop_emulated_shared[] __attribute__((weak, visibility("hidden")));

dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace emulation {

Fiber* Fiber::current = nullptr;

namespace {

enum class State { ready, at_barrier, at_warp, gone };

struct Thread {
  State state = State::ready;
  Site site{};
  unsigned mask = 0;
  std::uint64_t value = 0;
  int source = 0;
  std::uint64_t answer = 0;
};

enum class Order { forward, reverse, random };
Order order = Order::forward;
std::mt19937 generator;

const std::function<void()>* body;
std::vector<Thread> threads;  // of the running block
std::vector<std::unique_ptr<Fiber>> fibers;
std::size_t running;  // index of the running thread
std::string failure;  // what the running thread did wrong

// 0 .. n-1 in the schedule's order.
std::vector<unsigned> sequence_of(unsigned n) {
  std::vector<unsigned> sequence(n);
  std::iota(sequence.begin(), sequence.end(), 0u);
  if (order == Order::reverse) std::reverse(sequence.begin(), sequence.end());
  if (order == Order::random) std::shuffle(sequence.begin(), sequence.end(), generator);
  return sequence;
}

std::string text(const Site& site) {
  return std::string(site.what) + " at " + site.file + ":" + std::to_string(site.line);
}

bool same(const Site& a, const Site& b) {
  return a.line == b.line && std::strcmp(a.file, b.file) == 0 && std::strcmp(a.what, b.what) == 0;
}

void wait(State state) {
  threads[running].state = state;
  fibers[running]->leave();
}

void fail(const std::string& message) {
  failure = message;
  wait(State::gone);  // never entered again
}

void run_thread() {
  (*body)();
  threads[running].state = State::gone;
  fibers[running]->leave_for_good();
}

bool release_barrier() {
  for (const Thread& thread : threads) {
    if (thread.state != State::at_barrier || !same(thread.site, threads[0].site)) return false;
  }
  for (Thread& thread : threads) thread.state = State::ready;
  return true;
}

bool waits_with(const Thread& other, const Thread& thread) {
  return other.state == State::at_warp && other.mask == thread.mask && same(other.site, thread.site);
}

// Answers every lane of one warp whose whole mask has come.
bool release_warp(std::size_t first) {
  bool any = false;
  const std::size_t end = std::min(first + 32, threads.size());
  for (std::size_t i = first; i < end; ++i) {
    if (threads[i].state != State::at_warp) continue;
    const unsigned mask = threads[i].mask;
    bool all = true;
    unsigned flags = 0;
    for (std::size_t j = 0; j < 32; ++j) {
      if (!(mask >> j & 1)) continue;
      all = all && first + j < end && waits_with(threads[first + j], threads[i]);
      if (all && threads[first + j].value) flags |= 1u << j;
    }
    if (!all) continue;
    for (std::size_t j = 0; j < 32; ++j) {
      if (!(mask >> j & 1)) continue;
      Thread& lane = threads[first + j];
      lane.answer = lane.source < 0 ? flags : threads[first + static_cast<std::size_t>(lane.source)].value;
    }
    for (std::size_t j = 0; j < 32; ++j) {
      if (mask >> j & 1) threads[first + j].state = State::ready;
    }
    any = true;
  }
  return any;
}

[[noreturn]] void report_stuck() {
  for (std::size_t i = 0; i < threads.size(); ++i) {
    const Thread& thread = threads[i];
    if (thread.state == State::gone) continue;
    for (std::size_t j = 0; j < threads.size(); ++j) {
      const Thread& other = threads[j];
      const bool expected = thread.state == State::at_barrier || (j / 32 == i / 32 && thread.mask >> j % 32 & 1);
      const bool together = other.state == thread.state && same(other.site, thread.site) && other.mask == thread.mask;
      if (!expected || together) continue;
      throw std::runtime_error("thread " + std::to_string(i) + " waits in " + text(thread.site) + " for thread " +
                               std::to_string(j) + ", which " +
                               (other.state == State::gone ? "has left the kernel" : "waits in " + text(other.site)));
    }
    throw std::runtime_error("thread " + std::to_string(i) + " waits in " + text(thread.site) +
                             " for a lane beyond the block");
  }
  throw std::logic_error("stuck with every thread gone");
}

// All bits set: a NaN as float or double, -1 as an integer. Not the sanitizer's business: it writes the fences too.
__attribute__((no_sanitize_address)) void forget_shared_memory() {
  volatile char* const end = __stop_emulated_shared;
  for (volatile char* byte = __start_emulated_shared; byte != end; ++byte) *byte = static_cast<char>(0xff);
}

// Every thread of one warp goes as far as it can alone; whether shuffles or votes then let some go on.
bool step_warp(std::size_t first) {
  for (const unsigned lane : sequence_of(static_cast<unsigned>(std::min<std::size_t>(32, threads.size() - first)))) {
    if (threads[first + lane].state != State::ready) continue;
    running = first + lane;
    threadIdx = dim3(static_cast<unsigned>(running), 0, 0);
    fibers[running]->enter();
    if (!failure.empty()) throw std::runtime_error(failure);
  }
  return release_warp(first);
}

// Between two barriers, forward and reverse bring one warp to the next barrier before another starts: the fastest and
// the slowest that a warp can be. Random lets them overtake each other at every step.
void run_block(unsigned n) {
  threads.assign(n, Thread{});
  while (fibers.size() < n) fibers.push_back(std::make_unique<Fiber>());
  for (unsigned i = 0; i < n; ++i) fibers[i]->start(run_thread);
  forget_shared_memory();
  do {
    std::vector<unsigned> warps = sequence_of((n + 31) / 32);
    while (!warps.empty()) {
      const std::size_t next = order == Order::random ? generator() % warps.size() : 0;
      if (!step_warp(warps[next] * 32)) warps.erase(warps.begin() + static_cast<std::ptrdiff_t>(next));
    }
    if (std::all_of(threads.begin(), threads.end(), [](const Thread& t) { return t.state == State::gone; })) return;
  } while (release_barrier());
  report_stuck();
}

}  // namespace

void run(dim3 grid, dim3 block, const std::function<void()>& kernel) {
  body = &kernel;
  failure.clear();
  blockDim = block;
  gridDim = grid;
  for (const unsigned i : sequence_of(grid.x)) {
    blockIdx = dim3(i, 0, 0);
    run_block(block.x);
  }
}

int lane() { return static_cast<int>(running % 32); }

void barrier(const Site& site) {
  threads[running].site = site;
  wait(State::at_barrier);
}

std::uint64_t exchange(const Site& site, unsigned mask, std::uint64_t value, int source) {
  if (!(mask >> lane() & 1)) fail("lane " + std::to_string(lane()) + " is not in the mask of " + text(site));
  if (source >= 0 && (source > 31 || !(mask >> source & 1))) {
    fail("lane " + std::to_string(source) + ", asked for by " + text(site) + ", is not in its mask");
  }
  Thread& thread = threads[running];
  thread.site = site;
  thread.mask = mask;
  thread.value = value;
  thread.source = source;
  wait(State::at_warp);
  return threads[running].answer;
}

unsigned vote(const Site& site, unsigned mask, bool flag) {
  return static_cast<unsigned>(exchange(site, mask, flag, -1));
}

}  // namespace emulation

// For the tests, through ctypes: 0 forward, 1 reverse, 2 random from `seed`.
extern "C" __attribute__((visibility("default"))) void emulation_schedule(int schedule, unsigned seed) {
  emulation::order = static_cast<emulation::Order>(schedule);
  emulation::generator.seed(seed);
}

// Likewise: the launches since the last `emulation_forget`, part 0 of each its device, part 1 its stream.
extern "C" __attribute__((visibility("default"))) std::size_t emulation_launches() {
  return emulation::launches.size();
}
extern "C" __attribute__((visibility("default"))) std::size_t emulation_launch(std::size_t i, int part) {
  const emulation::Launch& launch = emulation::launches.at(i);
  return part == 0 ? static_cast<std::size_t>(launch.device) : reinterpret_cast<std::size_t>(launch.stream);
}
extern "C" __attribute__((visibility("default"))) void emulation_forget() { emulation::launches.clear(); }
