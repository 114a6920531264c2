// Compiled kernels (-fsanitize=thread) call these before every plain load and store. They take the place of ThreadSanitizer's
// runtime, which must not be linked: this library's own copies are hidden. GCC 12 and Clang 19 emit the names below.
#include <cstring>

#include "backends/simt/emulator/state.h"

namespace culebra::simt {

bool hooks_linked() { return true; }

namespace {

inline void access(const void* pointer, size_t bytes, Access kind, Op op, const void* program_counter) {
  if (!current.in_kernel) return;  // host code of an instrumented file, or the emulator itself
  EmulatorScope scope;
  const Site site(op, program_counter);
  if (scope.self.fiber.on_stack(reinterpret_cast<uintptr_t>(pointer))) {
    if (scope.self.registers)
      watch_registers(scope.self, reinterpret_cast<uintptr_t>(pointer), bytes, kind, site);
    return;
  }
  // The compiler promises the natural alignment of what it loads as one piece; a device traps where it does not hold.
  if (op != Op::memory_function && bytes <= 16 && reinterpret_cast<uintptr_t>(pointer) % bytes)
    fail(site, "%zu bytes at %p, which is not aligned to %zu bytes", bytes, pointer, bytes);
  access_memory(scope.self, pointer, bytes, kind, site);
}

}  // namespace
}  // namespace culebra::simt

using culebra::simt::Access;
using culebra::simt::access;
using culebra::simt::Op;

#define CUL_HOOK extern "C" __attribute__((visibility("hidden")))
#define CUL_CALLER __builtin_return_address(0)

#define CUL_SIZED_HOOKS(bytes)                                                                                    \
  CUL_HOOK void __tsan_read##bytes(void* p) { access(p, bytes, Access::read, Op::load, CUL_CALLER); }             \
  CUL_HOOK void __tsan_write##bytes(void* p) { access(p, bytes, Access::write, Op::store, CUL_CALLER); }          \
  CUL_HOOK void __tsan_volatile_read##bytes(void* p) { access(p, bytes, Access::read, Op::load, CUL_CALLER); }    \
  CUL_HOOK void __tsan_volatile_write##bytes(void* p) { access(p, bytes, Access::write, Op::store, CUL_CALLER); } \
  CUL_HOOK void __tsan_read_write##bytes(void* p) {                                                               \
    access(p, bytes, Access::read, Op::load, CUL_CALLER);                                                         \
    access(p, bytes, Access::write, Op::store, CUL_CALLER);                                                       \
  }
CUL_SIZED_HOOKS(1)
CUL_SIZED_HOOKS(2)
CUL_SIZED_HOOKS(4)
CUL_SIZED_HOOKS(8)
CUL_SIZED_HOOKS(16)

// Packed structures and copies of whole objects: no alignment is promised.
#define CUL_UNALIGNED_HOOKS(bytes)                                    \
  CUL_HOOK void __tsan_unaligned_read##bytes(void* p) {               \
    access(p, bytes, Access::read, Op::memory_function, CUL_CALLER);  \
  }                                                                   \
  CUL_HOOK void __tsan_unaligned_write##bytes(void* p) {              \
    access(p, bytes, Access::write, Op::memory_function, CUL_CALLER); \
  }
CUL_UNALIGNED_HOOKS(2)
CUL_UNALIGNED_HOOKS(4)
CUL_UNALIGNED_HOOKS(8)
CUL_UNALIGNED_HOOKS(16)

CUL_HOOK void __tsan_read_range(void* p, size_t bytes) {
  access(p, bytes, Access::read, Op::memory_function, CUL_CALLER);
}
CUL_HOOK void __tsan_write_range(void* p, size_t bytes) {
  access(p, bytes, Access::write, Op::memory_function, CUL_CALLER);
}

CUL_HOOK void* __tsan_memcpy(void* to, const void* from, size_t bytes) {
  if (bytes) access(from, bytes, Access::read, Op::memory_function, CUL_CALLER);
  if (bytes) access(to, bytes, Access::write, Op::memory_function, CUL_CALLER);
  return std::memcpy(to, from, bytes);
}
CUL_HOOK void* __tsan_memmove(void* to, const void* from, size_t bytes) {
  if (bytes) access(from, bytes, Access::read, Op::memory_function, CUL_CALLER);
  if (bytes) access(to, bytes, Access::write, Op::memory_function, CUL_CALLER);
  return std::memmove(to, from, bytes);
}
CUL_HOOK void* __tsan_memset(void* to, int value, size_t bytes) {
  if (bytes) access(to, bytes, Access::write, Op::memory_function, CUL_CALLER);
  return std::memset(to, value, bytes);
}

CUL_HOOK void __tsan_init() {}
CUL_HOOK void __tsan_func_entry(void*) {}
CUL_HOOK void __tsan_func_exit() {}
CUL_HOOK void __tsan_vptr_update(void**, void*) {}
CUL_HOOK void __tsan_vptr_read(void**) {}

// Atomics of the host code in instrumented files (std::shared_ptr, static initialisation).
#define CUL_ATOMIC_HOOKS(bits, T)                                                                                  \
  CUL_HOOK T __tsan_atomic##bits##_load(const volatile T* p, int) { return __atomic_load_n(p, __ATOMIC_SEQ_CST); } \
  CUL_HOOK void __tsan_atomic##bits##_store(volatile T* p, T v, int) { __atomic_store_n(p, v, __ATOMIC_SEQ_CST); } \
  CUL_HOOK T __tsan_atomic##bits##_exchange(volatile T* p, T v, int) {                                             \
    return __atomic_exchange_n(p, v, __ATOMIC_SEQ_CST);                                                            \
  }                                                                                                                \
  CUL_HOOK T __tsan_atomic##bits##_fetch_add(volatile T* p, T v, int) {                                            \
    return __atomic_fetch_add(p, v, __ATOMIC_SEQ_CST);                                                             \
  }                                                                                                                \
  CUL_HOOK T __tsan_atomic##bits##_fetch_sub(volatile T* p, T v, int) {                                            \
    return __atomic_fetch_sub(p, v, __ATOMIC_SEQ_CST);                                                             \
  }                                                                                                                \
  CUL_HOOK T __tsan_atomic##bits##_fetch_and(volatile T* p, T v, int) {                                            \
    return __atomic_fetch_and(p, v, __ATOMIC_SEQ_CST);                                                             \
  }                                                                                                                \
  CUL_HOOK T __tsan_atomic##bits##_fetch_or(volatile T* p, T v, int) {                                             \
    return __atomic_fetch_or(p, v, __ATOMIC_SEQ_CST);                                                              \
  }                                                                                                                \
  CUL_HOOK T __tsan_atomic##bits##_fetch_xor(volatile T* p, T v, int) {                                            \
    return __atomic_fetch_xor(p, v, __ATOMIC_SEQ_CST);                                                             \
  }                                                                                                                \
  CUL_HOOK int __tsan_atomic##bits##_compare_exchange_strong(volatile T* p, T* expected, T v, int, int) {          \
    return __atomic_compare_exchange_n(p, expected, v, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);                 \
  }                                                                                                                \
  CUL_HOOK int __tsan_atomic##bits##_compare_exchange_weak(volatile T* p, T* expected, T v, int, int) {            \
    return __atomic_compare_exchange_n(p, expected, v, true, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);                  \
  }
CUL_ATOMIC_HOOKS(8, uint8_t)
CUL_ATOMIC_HOOKS(16, uint16_t)
CUL_ATOMIC_HOOKS(32, uint32_t)
CUL_ATOMIC_HOOKS(64, uint64_t)
CUL_HOOK void __tsan_atomic_thread_fence(int) { __atomic_thread_fence(__ATOMIC_SEQ_CST); }

// -fsanitize=alignment,bounds beside it: misaligned pieces that the compiler would have split, overruns of local arrays.
namespace culebra::simt {
namespace {

struct UndefinedLocation {
  const char* file;
  uint32_t line, column;
};

void undefined(const UndefinedLocation& at, const char* what, const void* program_counter) {
  if (!current.in_kernel) return;
  EmulatorScope scope;
  fail(Site(Op::load, program_counter), "%s (line %u)", what, at.line);
}

}  // namespace
}  // namespace culebra::simt

CUL_HOOK void __ubsan_handle_type_mismatch_v1(culebra::simt::UndefinedLocation* at, uintptr_t) {
  culebra::simt::undefined(*at, "misaligned or null pointer: the access needs its type's alignment", CUL_CALLER);
}
CUL_HOOK void __ubsan_handle_out_of_bounds(culebra::simt::UndefinedLocation* at, uintptr_t) {
  culebra::simt::undefined(*at, "index outside the bounds of its array", CUL_CALLER);
}
