#include "backends/simt/emulator/fiber.h"

#include <sys/mman.h>
#include <unistd.h>

#include <vector>

#include "abi/status.h"
#include "backends/simt/emulator/address_sanitizer.h"

#if defined(__x86_64__)
// Saves what the System V ABI lets a callee keep, swaps stack pointers, returns on the other stack. The floating-point control
// words are not switched: kernels do not change them.
extern "C" __attribute__((visibility("hidden"))) void culebra_simt_switch(void** save_stack_pointer,
                                                                          void* stack_pointer);
asm(R"(
.text
.hidden culebra_simt_switch
.globl culebra_simt_switch
.type culebra_simt_switch,@function
culebra_simt_switch:
  endbr64
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp,(%rdi)
  movq %rsi,%rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size culebra_simt_switch,.-culebra_simt_switch
)");
#endif

namespace culebra::simt {
namespace {

// Stacks are kept for the next block; they go back to the system with the OS thread.
class StackPool {
 public:
  ~StackPool() {
    for (char* stack : free_) munmap(stack - page_bytes(), kStackBytes + page_bytes());
  }
  char* take() {
    if (!free_.empty()) {
      char* stack = free_.back();
      free_.pop_back();
      CUL_ASAN_UNPOISON(stack, kStackBytes);  // what its last owner left poisoned
      return stack;
    }
    void* base = mmap(nullptr, kStackBytes + page_bytes(), PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (base == MAP_FAILED || mprotect(base, page_bytes(), PROT_NONE) != 0)
      throw DeviceError("simt: no memory for the stacks of emulated threads");
    return static_cast<char*>(base) + page_bytes();
  }
  void give(char* stack) { free_.push_back(stack); }

 private:
  static size_t page_bytes() {
    static const size_t bytes = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    return bytes;
  }
  std::vector<char*> free_;
};

StackPool& stack_pool() {
  static thread_local StackPool pool;
  return pool;
}

}  // namespace

void Fiber::acquire_stack() {
  stack_ = stack_pool().take();
  bottom_ = stack_;
  bottom_bytes_ = kStackBytes;
}

Fiber::~Fiber() {
  if (stack_) stack_pool().give(stack_);
}

void Fiber::prepare(void (*entry)()) {
  fake_stack_ = nullptr;
#if defined(__x86_64__)
  void** top = reinterpret_cast<void**>(stack_ + kStackBytes);
  *--top = nullptr;  // the entry's return address slot: entry starts with the alignment of a called function
  *--top = reinterpret_cast<void*>(entry);
  for (int i = 0; i < 6; ++i) *--top = nullptr;
  stack_pointer_ = top;
#else
  getcontext(&context_);
  context_.uc_stack.ss_sp = stack_;
  context_.uc_stack.ss_size = kStackBytes;
  context_.uc_link = nullptr;
  makecontext(&context_, entry, 0);
#endif
}

void Fiber::switch_to(Fiber& from, Fiber& to, [[maybe_unused]] bool finished) {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(finished ? nullptr : &from.fake_stack_, to.bottom_, to.bottom_bytes_);
#endif
#if defined(__x86_64__)
  culebra_simt_switch(&from.stack_pointer_, to.stack_pointer_);
#else
  swapcontext(&from.context_, &to.context_);
#endif
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(from.fake_stack_, nullptr, nullptr);
#endif
}

void Fiber::entered([[maybe_unused]] Fiber& host) {
#if defined(__SANITIZE_ADDRESS__)
  const void* bottom = nullptr;
  size_t bytes = 0;
  __sanitizer_finish_switch_fiber(nullptr, &bottom, &bytes);
  if (!host.bottom_) {  // the first fibre is entered from the host
    host.bottom_ = bottom;
    host.bottom_bytes_ = bytes;
  }
#endif
}

}  // namespace culebra::simt
