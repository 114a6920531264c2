// The operators of the family, each timed on one layer.
#pragma once
#include "harness.h"

namespace bench {

void bench_dense(Bench& b);   // gemm
void bench_packed(Bench& b);  // half activations, packed weights

}  // namespace bench
