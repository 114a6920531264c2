// One token a row from logits.
#pragma once
#include "culebra/glue.h"
#include "ops/glue/rows.h"

namespace culebra {

struct SampleParams {
  DType dtype;
  int64_t rows, columns;
  bool aligned;  // every row begins at a multiple of 16 bytes
  int shift;     // of the weights: sample_shift(columns)
  Rows logits;
  const float* temperature;
  const int32_t* top_k;
  const float* top_p;
  const float* min_p;
  const int64_t* seed;
  const int64_t* position;
  int32_t* ids;
  float* logprob;  // null where not asked for
};

SampleParams check_sample(const Call& call, const cul_sample_args& args);

CUL_DECLARE_COLUMNS(sample, SampleParams)

}  // namespace culebra
