// Every operator of the library, one array a family, each next to its exported functions.
#pragma once
#include "abi/op.h"

namespace culebra {

struct OpList {
  const OpRecord* const* ops;
  int count;
};

extern const OpList kGemmOps, kGlueOps, kLinearAttentionOps, kAttentionOps, kKvCacheOps, kSparseAttentionOps, kMoeOps;

}  // namespace culebra
