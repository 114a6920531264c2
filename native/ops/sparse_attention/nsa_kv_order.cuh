// The selected attention with blocks outside: what each step keeps in the workspace.
#pragma once
#include "device/launch.h"
#include "ops/sparse_attention/nsa.cuh"

namespace culebra::CUL_DEVICE_NS {

void nsa_selected_by_blocks(const NsaParams& p, NsaPartial partial, char* workspace, NativeStream stream);

}  // namespace culebra::CUL_DEVICE_NS
