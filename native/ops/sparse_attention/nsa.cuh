// The steps of native sparse attention on the stream. Each takes what it reads and writes from `p`; a step with `partial` writes
// f32 results [rows, Dv] and lse [rows] there, rows (query, query head), instead of o and lse.
#pragma once
#include "device/launch.h"
#include "ops/sparse_attention/nsa.h"

namespace culebra::CUL_DEVICE_NS {

struct NsaPartial {
  float* o = nullptr;
  float* lse = nullptr;
};

void nsa_compressed_step(const NsaParams& p, NsaPartial partial, NativeStream stream);
void nsa_window_step(const NsaParams& p, NsaPartial partial, NativeStream stream);
// workspace: what p.selected wants.
void nsa_selected_step(const NsaParams& p, NsaPartial partial, char* workspace, NativeStream stream);
// idx of p.lse; count where p has it.
void nsa_select_step(const NsaParams& p, NativeStream stream);

}  // namespace culebra::CUL_DEVICE_NS
