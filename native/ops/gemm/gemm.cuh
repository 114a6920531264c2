// What the designs of gemm share.
#pragma once
#include "ops/gemm/tile/epilogue.cuh"
#include "ops/gemm/gemm.h"

namespace culebra::CUL_DEVICE_NS {

// gemm_hopper.cu
template <class T>
void gemm_hopper(const GemmParams& p, const Output& output, NativeStream stream);

}  // namespace culebra::CUL_DEVICE_NS
