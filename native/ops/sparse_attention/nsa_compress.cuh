// The steps of nsa_compress, which nsa_attention's mean dialect takes as well.
#pragma once
#include "device/launch.h"
#include "ops/sparse_attention/nsa_compress.h"

namespace culebra::CUL_DEVICE_NS {

// cu_out of cu_seqlens: where each sequence's compressed rows begin.
void compressed_starts(const int32_t* cu_seqlens, int32_t* cu_out, int64_t sequences, int64_t l, int64_t d, NativeStream stream);
// The rows, once cu_out is there.
void compress_rows(const NsaCompressParams& p, NativeStream stream);

}  // namespace culebra::CUL_DEVICE_NS
