// neighborhood_attention: its plan and its columns.
#pragma once
#include "abi/op.h"
#include "culebra/sparse_attention.h"
#include "ops/sparse_attention/neighborhood.h"

namespace culebra {

// A call with fewer axes than three has leading axes of length 1, window 1.
struct NeighborhoodParams {
  // Element (b, x, y, z, h, d) at data[b batch + x axis[0] + y axis[1] + z axis[2] + h head + d].
  struct Rows {
    void* data = nullptr;
    int64_t batch = 0, axis[kMaxAxes] = {}, head = 0;

    template <class T>
    CUL_NUMERIC T* at(int64_t b, int32_t x, int32_t y, int32_t z, int64_t h) const {
      return static_cast<T*>(data) + b * batch + x * axis[0] + y * axis[1] + z * axis[2] + h * head;
    }
  };

  DType dtype = DType::f32;
  int64_t batch = 0, query_heads = 0, kv_heads = 0, dim = 0, extra = 0;  // extra: E, keys that all queries see
  NeighborhoodAxis axes[kMaxAxes];
  Rows q, k, v, extra_k, extra_v, o, lse;  // extra_*: (b, 0, 0, e, h, d)
  float scale = 1;
  bool aligned = false;      // every row of q, k, v, the extra ones and o begins and ends at a multiple of 16 bytes

  CUL_NUMERIC int64_t group() const { return query_heads / kv_heads; }
  bool empty() const;
};

NeighborhoodParams check_neighborhood_attention(const Call& call, const cul_neighborhood_attention_args& args);
CUL_DECLARE_COLUMNS(neighborhood_attention, NeighborhoodParams)

}  // namespace culebra
