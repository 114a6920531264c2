// One kernel source, two compilers. Under nvcc this header adds nothing but two macros; under the host compiler it turns CUDA
// C++ into calls of the emulator (native/backends/simt/emulator).
//
//   namespace culebra::CUL_DEVICE_NS {                     // culebra::cuda or culebra::simt: both live in one library
//   __global__ void __launch_bounds__(128) scale(float* y, const float* x, int n) {
//     CUL_SHARED(float, row, [4][32]);                     // instead of __shared__ float row[4][32]
//     CUL_DYNAMIC_SHARED(half_t, tile, 128);               // instead of extern __shared__: half_t* tile, 128-byte aligned
//     ...
//   }
//   }
//
// CUDA's own spellings stay: threadIdx, __syncthreads, __shfl_xor_sync, atomicAdd, __ldg, float4, rsqrtf, __expf. Only what CUDA
// C++ writes as inline PTX, and the three constructs that a host compiler cannot parse (__shared__, extern __shared__, <<<>>>),
// have names of ours. A kernel that spins on memory reads it through ld_acquire (atomic.h): a plain loop would never give way.
#pragma once

#include <cstddef>
#include <cstdint>

#include "device/numeric.h"

#if defined(__CUDACC__)

#define CUL_DEVICE_NS cuda
#define CUL_EMULATED 0
#define CUL_DEVICE_FN __device__ __forceinline__

#define CUL_SHARED(T, name, ...) __shared__ __align__(16) T name __VA_ARGS__
// Arrays of one name must agree in alignment across a translation unit: the alignment is part of the name.
#define CUL_DYNAMIC_SHARED(T, name, alignment)    \
  extern __shared__ __align__(alignment)          \
  unsigned char cul_dynamic_shared_##alignment[]; \
  T* const name = reinterpret_cast<T*>(cul_dynamic_shared_##alignment)

#else

#define CUL_DEVICE_NS simt
#define CUL_EMULATED 1
#define CUL_DEVICE_FN inline

#include "backends/simt/emulator/emulator.h"
#include "device/emulated.h"

#define __global__
#define __device__
#define __host__
#define __grid_constant__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __align__(n) alignas(n)
// A bare __shared__ would silently become a variable of each thread.
#define __shared__ CUL_ERROR_write_CUL_SHARED_or_CUL_DYNAMIC_SHARED

#define threadIdx (::culebra::simt::thread_index())
#define blockIdx (::culebra::simt::block_index())
#define blockDim (::culebra::simt::block_extent())
#define gridDim (::culebra::simt::grid_extent())

#define CUL_SHARED(T, name, ...)                                                                       \
  typedef T cul_shared_type_##name __VA_ARGS__;                                                        \
  cul_shared_type_##name& name = *static_cast<cul_shared_type_##name*>(::culebra::simt::static_shared( \
      [] {                                                                                             \
        static char key;                                                                               \
        return static_cast<const void*>(&key);                                                         \
      }(),                                                                                             \
      sizeof(cul_shared_type_##name), alignof(cul_shared_type_##name), #name))
#define CUL_DYNAMIC_SHARED(T, name, alignment) \
  T* const name = static_cast<T*>(::culebra::simt::dynamic_shared(alignment))

#endif

// What this pass of the compiler may use. The body of a kernel for 9.0 stands inside #if CUL_HAS_SM90 (mbarriers, bulk copies, clusters),
// or inside #if CUL_HAS_SM90A (wgmma and register reallocation, which no later device has): the other passes compile it empty, and
// plans never choose it there.
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
#define CUL_HAS_SM90 1
#else
#define CUL_HAS_SM90 0
#endif
#if !defined(__CUDA_ARCH__) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define CUL_HAS_SM90A 1
#else
#define CUL_HAS_SM90A 0
#endif

namespace culebra::CUL_DEVICE_NS {

// The 32-bit address in the shared window that ldmatrix, cp.async and mbarrier take.
#if CUL_EMULATED
CUL_DEVICE_FN uint32_t shared_address(const void* pointer, Here here = Here::current()) {
  return shared_offset(pointer, here);
}
#else
CUL_DEVICE_FN uint32_t shared_address(const void* pointer) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}
#endif

}  // namespace culebra::CUL_DEVICE_NS
