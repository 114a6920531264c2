// Where nsa_attention keeps what its steps hand on.
#pragma once
#include "ops/sparse_attention/nsa.h"

namespace culebra {

// cpu: the averaged keys and values in f32, in the mean dialect; everything else stays in a thread's tile. Kernels: those in
// dtype, where they begin, the results and lse of the three branches in f32, and idx unless the caller wants it.
struct NsaWorkspace {
  uint64_t k_cmp = 0, v_cmp = 0, cu_cmp = 0, lse = 0, idx = 0, results = 0, selected = 0;  // offsets in bytes
  uint64_t bytes = 0;
  int64_t cmp_rows = 0;  // of the averages: all sequences together have no more

  NsaWorkspace(const NsaParams& p, bool cpu) {
    const auto heads = static_cast<uint64_t>(p.kv_heads), queries = static_cast<uint64_t>(p.query_rows);
    if (p.mean) {
      cmp_rows = p.key_rows / p.l;
      const uint64_t element = cpu ? 4 : size_of(p.dtype), rows = static_cast<uint64_t>(cmp_rows) * heads;
      k_cmp = take(rows * static_cast<uint64_t>(p.dim) * element);
      v_cmp = take(rows * static_cast<uint64_t>(p.value_dim) * element);
      cu_cmp = take(static_cast<uint64_t>(p.sequences + 1) * 4);
    }
    if (cpu) return;
    const uint64_t rows = queries * static_cast<uint64_t>(p.query_heads);
    lse = take(3 * rows * 4);
    if (!p.idx) idx = take(heads * queries * static_cast<uint64_t>(p.topk) * 4);
    selected = take(p.selected.bytes);
    results = take(3 * rows * static_cast<uint64_t>(p.value_dim) * 4);
  }

 private:
  uint64_t take(uint64_t size) {
    const uint64_t at = bytes;
    bytes = (bytes + size + 255) / 256 * 256;
    return at;
  }
};

}  // namespace culebra
