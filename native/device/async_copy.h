// cp.async: copies from global to shared memory that run beside the thread.
//
//   cp_async<16>(shared_address(tile + i), source, i < n);   // a false predicate writes zeros and reads nothing
//   cp_async_commit();                                       // closes a group; groups may be empty
//   cp_async_wait<1>();                                      // all but the newest group have landed, for this thread
//   __syncthreads();                                         // now for the others too
//
// Source and destination are aligned to the size. The emulation lets a copy land only at the wait.
#pragma once

#include "device/portable.h"

namespace culebra::CUL_DEVICE_NS {

#if CUL_EMULATED

template <int kBytes>
void cp_async(uint32_t destination, const void* source, bool predicate = true, Here here = Here::current()) {
  static_assert(kBytes == 4 || kBytes == 8 || kBytes == 16, "cp.async copies 4, 8 or 16 bytes");
  cp_async(destination, source, kBytes, predicate ? kBytes : 0, here);
}
// Past L1, which only 16-byte copies can skip; the second for data that is read once (weights): first to leave L2.
inline void cp_async_l2(uint32_t destination, const void* source, bool predicate = true, Here here = Here::current()) {
  cp_async(destination, source, 16, predicate ? 16 : 0, here);
}
inline void cp_async_stream(uint32_t destination, const void* source, bool predicate = true,
                            Here here = Here::current()) {
  cp_async(destination, source, 16, predicate ? 16 : 0, here);
}
template <int kGroups>
void cp_async_wait(Here here = Here::current()) {
  cp_async_wait(kGroups, here);
}

#else

template <int kBytes>
CUL_DEVICE_FN void cp_async(uint32_t destination, const void* source, bool predicate = true) {
  static_assert(kBytes == 4 || kBytes == 8 || kBytes == 16, "cp.async copies 4, 8 or 16 bytes");
  asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(destination),
               "l"(__cvta_generic_to_global(source)), "n"(kBytes), "r"(predicate ? kBytes : 0)
               : "memory");
}
CUL_DEVICE_FN void cp_async_l2(uint32_t destination, const void* source, bool predicate = true) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(destination),
               "l"(__cvta_generic_to_global(source)), "r"(predicate ? 16 : 0)
               : "memory");
}
CUL_DEVICE_FN void cp_async_stream(uint32_t destination, const void* source, bool predicate = true) {
  asm volatile(
      "{\n"
      ".reg .b64 policy;\n"
      "createpolicy.fractional.L2::evict_first.b64 policy, 1.0;\n"
      "cp.async.cg.shared.global.L2::cache_hint [%0], [%1], 16, %2, policy;\n"
      "}" ::"r"(destination),
      "l"(__cvta_generic_to_global(source)), "r"(predicate ? 16 : 0)
      : "memory");
}
CUL_DEVICE_FN void cp_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int kGroups>
CUL_DEVICE_FN void cp_async_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kGroups) : "memory");
}

#endif

}  // namespace culebra::CUL_DEVICE_NS
