// The kernels that the tensor-core products choose between.
#pragma once
#include <cstdint>

namespace culebra {

enum class GemmDesign : int32_t {
  marlin,  // tile_gemm.cuh: cp.async and mma.sync, sm_80 and up
  hopper,  // hopper_gemm.cuh: bulk copies and wgmma, compute capability 9.0
  library, // cuBLASLt
};

}  // namespace culebra
