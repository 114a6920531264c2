// Act-order: the columns of a in the order of the packed rows.
#pragma once
#include "device/launch.h"

namespace culebra::CUL_DEVICE_NS {

// out[m][j] = a[m][perm[j]], 0 where perm[j] < 0, for j < k_padded; elements of 16 bits (gather_columns.cu).
void gather_columns(const void* a, int64_t lda, const int32_t* perm, void* out, int64_t m, int64_t k_padded, NativeStream stream);

}  // namespace culebra::CUL_DEVICE_NS
