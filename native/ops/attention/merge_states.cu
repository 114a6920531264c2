#include "ops/attention/merge_states.h"

#include "ops/attention/tile/merge.cuh"

namespace culebra::CUL_DEVICE_NS {

void merge_states(const MergeStatesParams& p, NativeStream stream) {
  const auto rows = [](const MergeStatesParams::Rows& x, size_t element_bytes) {
    const auto bytes = static_cast<int64_t>(element_bytes);
    ByteRows to;
    to.data = static_cast<char*>(x.data);
    to.row = x.row * bytes;
    to.head = x.head * bytes;
    return to;
  };
  const auto element_bytes = size_of(p.dtype);
  MergeRows merge{};
  merge.in_o = rows(p.o, element_bytes);
  merge.in_lse = rows(p.lse, sizeof(float));
  merge.o = rows(p.merged_o, element_bytes);
  merge.lse = rows(p.merged_lse, sizeof(float));
  merge.o_state = p.o.state * static_cast<int64_t>(element_bytes);
  merge.lse_state = p.lse.state * static_cast<int64_t>(sizeof(float));
  merge.rows = p.tokens * p.heads;
  merge.count = p.tokens;
  merge.heads = p.heads;
  merge.states = static_cast<int32_t>(p.states);
  merge.dim = static_cast<int32_t>(p.dim);
  merge.aligned = p.aligned;
  if (p.dtype == DType::f16)
    launch_merge<half_t, half_t>(merge, stream);
  else if (p.dtype == DType::bf16)
    launch_merge<bfloat16_t, bfloat16_t>(merge, stream);
  else
    launch_merge<float, float>(merge, stream);
}

}  // namespace culebra::CUL_DEVICE_NS
