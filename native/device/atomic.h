// Atomics, flags between blocks, and waiting for them.
//
// A block publishes its results with the fence before the flag, and reads others' with the fence after it:
//
//   writer:  data[i] = x;  __syncthreads();  if (thread 0) red_add_release(&arrived, 1);
//   reader:  if (thread 0) spin_until([&] { return ld_acquire(&arrived) == n; });  __syncthreads();  y = data[i];
//
// Every loop that waits for another thread polls with ld_acquire or an atomic: under the emulation those give way to the others.
#pragma once

#include <type_traits>

#include "device/portable.h"

namespace culebra::CUL_DEVICE_NS {

#if CUL_EMULATED

template <class T>
T atomicAdd(T* address, std::type_identity_t<T> value, Here here = Here::current()) {
  return atomic<T>(AtomicOp::add, address, value, T{}, here);
}
template <class T>
T atomicMin(T* address, std::type_identity_t<T> value, Here here = Here::current()) {
  return atomic<T>(AtomicOp::min, address, value, T{}, here);
}
template <class T>
T atomicMax(T* address, std::type_identity_t<T> value, Here here = Here::current()) {
  return atomic<T>(AtomicOp::max, address, value, T{}, here);
}
template <class T>
T atomicAnd(T* address, std::type_identity_t<T> value, Here here = Here::current()) {
  return atomic<T>(AtomicOp::bit_and, address, value, T{}, here);
}
template <class T>
T atomicOr(T* address, std::type_identity_t<T> value, Here here = Here::current()) {
  return atomic<T>(AtomicOp::bit_or, address, value, T{}, here);
}
template <class T>
T atomicXor(T* address, std::type_identity_t<T> value, Here here = Here::current()) {
  return atomic<T>(AtomicOp::bit_xor, address, value, T{}, here);
}
template <class T>
T atomicExch(T* address, std::type_identity_t<T> value, Here here = Here::current()) {
  return atomic<T>(AtomicOp::exchange, address, value, T{}, here);
}
template <class T>
T atomicCAS(T* address, std::type_identity_t<T> expected, std::type_identity_t<T> value, Here here = Here::current()) {
  return atomic<T>(AtomicOp::compare_exchange, address, value, expected, here);
}
inline void __threadfence() { thread_fence(); }
inline void __threadfence_block() { thread_fence(); }
inline void __nanosleep(unsigned, Here here = Here::current()) { yield_to_others(here); }

template <class T>
T ld_acquire(const T* address, Here here = Here::current()) {
  return load_acquire(address, here);
}
template <class T>
void st_release(T* address, std::type_identity_t<T> value, Here here = Here::current()) {
  store_release(address, value, here);
}
template <class T>
void red_add_release(T* address, std::type_identity_t<T> value, Here here = Here::current()) {
  reduce_add_release(address, value, here);
}

#else

// At gpu scope: between the blocks of one device. T is int or unsigned.
template <class T>
CUL_DEVICE_FN T ld_acquire(const T* address) {
  static_assert(std::is_integral_v<T> && sizeof(T) == 4);
  T value;
  asm volatile("ld.acquire.gpu.b32 %0, [%1];" : "=r"(value) : "l"(address) : "memory");
  return value;
}
template <class T>
CUL_DEVICE_FN void st_release(T* address, std::type_identity_t<T> value) {
  static_assert(std::is_integral_v<T> && sizeof(T) == 4);
  asm volatile("st.release.gpu.b32 [%0], %1;" ::"l"(address), "r"(value) : "memory");
}
template <class T>
CUL_DEVICE_FN void red_add_release(T* address, std::type_identity_t<T> value) {
  static_assert(std::is_integral_v<T> && sizeof(T) == 4);
  asm volatile("red.release.gpu.add.u32 [%0], %1;" ::"l"(address), "r"(value) : "memory");
}

#endif

// `ready` polls with ld_acquire or an atomic.
template <class Ready>
CUL_DEVICE_FN void spin_until(Ready ready) {
  while (!ready()) __nanosleep(32);
}

}  // namespace culebra::CUL_DEVICE_NS
