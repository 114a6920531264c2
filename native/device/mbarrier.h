// mbarrier: a barrier in shared memory that counts arrivals of threads and bytes of bulk copies. sm_90 and up.
//
//   CUL_SHARED(uint64_t, full, [kStages]);
//   if (threadIdx.x == 0) { mbarrier_init(shared_address(&full[s]), 1); mbarrier_init_fence(); }
//   __syncthreads();
//   producer:  mbarrier_arrive_expect_bytes(full_s, bytes);  bulk_copy(tile, source, bytes, full_s);
//   consumer:  mbarrier_wait(full_s, phase);                 // phase = 0, 1, 0, 1, ...: the parity of the phase it waits for
//
// A phase is complete when as many threads have arrived as the barrier was made for and as many bytes have landed as were announced;
// the next one begins at once. mbarrier_wait(b, p) returns when the last phase of parity p is complete: on a new barrier, a wait
// with parity 1 returns at once. Arrivals release what their thread did before, a wait acquires it.
//
// fence_async_proxy: what this thread wrote to shared memory by ordinary stores may now be read by wgmma and the copy engine, once
// their issuer is ordered after it. Every writing thread calls it, before the barrier.
#pragma once

#include "device/portable.h"

namespace culebra::CUL_DEVICE_NS {

#if !CUL_EMULATED && CUL_HAS_SM90

CUL_DEVICE_FN void mbarrier_init(uint32_t barrier, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals) : "memory");
}
// After the last mbarrier_init, by the thread that made them, before anybody else can see them.
CUL_DEVICE_FN void mbarrier_init_fence() { asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory"); }

CUL_DEVICE_FN void mbarrier_arrive(uint32_t barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}
// Announces the bytes of copies that will complete on this phase, and arrives.
CUL_DEVICE_FN void mbarrier_arrive_expect_bytes(uint32_t barrier, uint32_t bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes) : "memory");
}
CUL_DEVICE_FN void mbarrier_wait(uint32_t barrier, uint32_t parity) {
  uint32_t complete;
  do {
    asm volatile(
        "{\n"
        ".reg .pred p;\n"
        "mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\n"
        "selp.b32 %0, 1, 0, p;\n"
        "}"
        : "=r"(complete)
        : "r"(barrier), "r"(parity)
        : "memory");
  } while (!complete);
}

CUL_DEVICE_FN void fence_async_proxy() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

#endif

}  // namespace culebra::CUL_DEVICE_NS
