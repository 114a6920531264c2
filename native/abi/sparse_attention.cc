#include "culebra/sparse_attention.h"

#include "abi/registry.h"

namespace culebra {

const OpList kSparseAttentionOps{nullptr, 0};

}  // namespace culebra

using namespace culebra;

extern "C" {

}  // extern "C"
