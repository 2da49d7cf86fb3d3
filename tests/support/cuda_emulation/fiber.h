// Two contexts in one thread that hand control to each other: ucontext's meaning without its system calls on x86-64,
// and known to AddressSanitizer.
#pragma once

#include <sys/mman.h>
#include <ucontext.h>

#include <cstddef>
#include <cstdint>
#include <new>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#define EMULATED_ASAN 1
#else
#define EMULATED_ASAN 0
#endif

namespace emulation {

class Fiber {
 public:
  static constexpr std::size_t kStack = 256 << 10;  // bytes, with a page below that may not be touched

  Fiber() {
    memory_ = static_cast<char*>(
        mmap(nullptr, kStack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
    if (memory_ == MAP_FAILED) throw std::bad_alloc();
    mprotect(memory_, 4096, PROT_NONE);
  }
  ~Fiber() { munmap(memory_, kStack); }
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  // The next enter() calls entry(), which must end by leave_for_good() and never return.
  void start(void (*entry)()) {
    entry_ = entry;
#if defined(__x86_64__)
    auto** top = reinterpret_cast<void**>(memory_ + kStack) - 1;  // as after a call: 8 bytes off a multiple of 16
    *top = nullptr;
    *--top = reinterpret_cast<void*>(&Fiber::begin);
    inside_ = top - 6;  // six registers that hold nothing yet
#else
    getcontext(&inside_);
    inside_.uc_stack = {memory_, 0, kStack};
    makecontext(&inside_, &Fiber::begin, 0);
#endif
  }

  void enter() {
    Fiber* before = current;
    current = this;
#if EMULATED_ASAN
    void* fake = nullptr;
    __sanitizer_start_switch_fiber(&fake, memory_, kStack);
    change(outside_, inside_);
    __sanitizer_finish_switch_fiber(fake, nullptr, nullptr);
#else
    change(outside_, inside_);
#endif
    current = before;
  }

  // From inside: back to who called enter().
  void leave() { leave(false); }
  void leave_for_good() { leave(true); }

 private:
#if defined(__x86_64__)
  using Context = void*;  // the stack pointer, with what a call preserves above it
  static void change(Context& from, Context& to);
#else
  using Context = ucontext_t;
  static void change(Context& from, Context& to) { swapcontext(&from, &to); }
#endif

  static void begin() {
#if EMULATED_ASAN
    __sanitizer_finish_switch_fiber(nullptr, &current->outside_stack_, &current->outside_size_);
#endif
    current->entry_();
  }

  void leave(bool for_good) {
#if EMULATED_ASAN
    void* fake = nullptr;
    __sanitizer_start_switch_fiber(for_good ? nullptr : &fake, outside_stack_, outside_size_);
    change(inside_, outside_);
    __sanitizer_finish_switch_fiber(fake, &outside_stack_, &outside_size_);
#else
    (void)for_good;
    change(inside_, outside_);
#endif
  }

  static Fiber* current;
  char* memory_;
  void (*entry_)() = nullptr;
  Context inside_{}, outside_{};
  const void* outside_stack_ = nullptr;
  std::size_t outside_size_ = 0;
};

}  // namespace emulation
