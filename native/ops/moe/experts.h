// The matrices of the experts in their three forms, as they lie in the contract.
#pragma once
#include "abi/call.h"
#include "culebra/moe.h"

namespace culebra {

// E matrices [N,K] and how their numbers are stored.
struct ExpertMatrices {
  int32_t storage = CUL_EXPERTS_HALF;
  DType dtype = DType::bf16;  // of data
  const void* data = nullptr;  // row (e, n) at e expert_stride + n row_stride, in elements of data
  int64_t expert_stride = 0, row_stride = 0;
  int64_t experts = 0, rows = 0, columns = 0;  // E, N, K
  const void* scales = nullptr;   // f8: (e, n / 128, k / 128); int4: (e, n, k / group)
  int64_t scale_expert_stride = 0, scale_row_stride = 0;
  DType scale_dtype = DType::f32;
  const uint8_t* zeros = nullptr;  // int4: nibble n % 2 of (e, n / 2, k / group); null: 8
  int64_t zero_expert_stride = 0, zero_row_stride = 0;
  int64_t group = 0;  // int4: columns of a group
};

// Pairs of matrix rows of a cpu work item.
inline constexpr int64_t kExpertBlockPairs = 8;

// Refuses scales and zero points that the storage does not have, and scales that it lacks.
void check_expert_scales(const Call& call, int32_t storage, const View& scales, const View& zeros);

// p [E,N,K] in one of its three forms; `text` is its shape in letters.
ExpertMatrices check_experts(const Call& call, int32_t storage, int32_t group, DType half, const View& w, const View& scales,
                             const View& zeros, int64_t experts, int64_t rows, int64_t columns, const char* text);

}  // namespace culebra
