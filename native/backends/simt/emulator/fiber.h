// A stack of its own, entered and left at will. The host's stack is a fibre too, one that nobody prepares.
#pragma once

#include <cstddef>
#include <cstdint>

#if !defined(__x86_64__)
#include <ucontext.h>
#endif

namespace culebra::simt {

// Below the stack lies a guard page: an overrun faults instead of writing into a neighbour.
inline constexpr size_t kStackBytes = 256 << 10;  // of address space; pages are taken as they are touched

class Fiber {
 public:
  Fiber() = default;
  ~Fiber();
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  // Takes a stack from the calling OS thread's pool; throws DeviceError when the system gives none.
  void acquire_stack();

  // The next switch to this fibre calls entry, which must never return.
  void prepare(void (*entry)());

  // Leaves `from` (for good, if `finished`) and continues `to`.
  static void switch_to(Fiber& from, Fiber& to, bool finished);

  // What a fibre's entry calls first; the fibre that started it is passed as `from`. For AddressSanitizer alone.
  static void entered(Fiber& host);

  bool on_stack(uintptr_t address) const { return address - reinterpret_cast<uintptr_t>(stack_) < kStackBytes; }

 private:
#if defined(__x86_64__)
  void* stack_pointer_ = nullptr;
#else
  ucontext_t context_;
#endif
  char* stack_ = nullptr;
  // AddressSanitizer's view of the stack.
  const void* bottom_ = nullptr;
  size_t bottom_bytes_ = 0;
  void* fake_stack_ = nullptr;
};

}  // namespace culebra::simt
