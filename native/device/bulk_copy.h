// cp.async.bulk: one thread has the copy engine move a run of bytes from global to shared memory; an mbarrier counts their arrival.
// sm_90 and up. Tiles of matrices: tensor_map.h.
//
//   mbarrier_arrive_expect_bytes(full, bytes);
//   bulk_copy_stream(shared_address(tile), weights, bytes, full);
//
// Source, destination and size are multiples of 16 bytes. Before a buffer is filled anew its readers arrive on another mbarrier,
// for which the issuer waits. The emulation lets a copy land only when no thread can go on without it.
#pragma once

#include "device/portable.h"

namespace culebra::CUL_DEVICE_NS {

#if CUL_EMULATED

inline void bulk_copy_stream(uint32_t destination, const void* source, uint32_t bytes, uint32_t barrier,
                             Here here = Here::current()) {
  bulk_copy(destination, source, bytes, barrier, here);
}

#elif CUL_HAS_SM90

namespace detail {
// An operand of copies whose data is read once: first to leave L2.
CUL_DEVICE_FN uint64_t evict_first_policy() {
  uint64_t policy;
  asm("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
  return policy;
}
}  // namespace detail

CUL_DEVICE_FN void bulk_copy(uint32_t destination, const void* source, uint32_t bytes, uint32_t barrier) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(destination),
      "l"(__cvta_generic_to_global(source)), "r"(bytes), "r"(barrier)
      : "memory");
}
// For data that is read once (weights): first to leave L2.
CUL_DEVICE_FN void bulk_copy_stream(uint32_t destination, const void* source, uint32_t bytes, uint32_t barrier) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint [%0], [%1], %2, [%3], %4;" ::
          "r"(destination),
      "l"(__cvta_generic_to_global(source)), "r"(bytes), "r"(barrier), "l"(detail::evict_first_policy())
      : "memory");
}

#endif

}  // namespace culebra::CUL_DEVICE_NS
