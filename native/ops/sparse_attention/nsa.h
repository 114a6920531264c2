// nsa_compressed_attention, nsa_select, nsa_selected_attention and nsa_attention: their plans and their columns. All four
// are steps of one computation over the same queries.
#pragma once
#include <string>

#include "culebra/sparse_attention.h"
#include "ops/sparse_attention/packed.h"

namespace culebra {

// nsa_select's kernel: how many queries share a tile of compressed keys, and how many blocks of each have a score in shared memory.
struct SelectPlan {
  int32_t queries = 1;
  int64_t slots = 0;
};

// nsa_selected_attention's order, and the workspace of the one that has blocks outside.
// Queries pass in chunks: each (query, entry of idx) of a chunk has a partial result per query head.
struct SelectedPlan {
  static constexpr uint64_t kChunkBytes = uint64_t{1} << 30;  // of partial results

  bool by_blocks = false;
  int64_t chunk = 0;   // queries
  int64_t blocks = 0;  // slots of all sequences' blocks, one KV head's
  int64_t tiles = 0;   // that a chunk has at most
  int32_t tile_queries = 1;
  // Offsets in bytes.
  uint64_t o = 0, lse = 0, counts = 0, cursors = 0, offsets = 0, tile_starts = 0, list = 0, bytes = 0;
};
struct NsaParams : PackedHeads {
  const char* op = "";
  TokenRows k_cmp, v_cmp;  // [Tc,Hkv,D], of dtype
  int64_t cmp_rows = 0;    // Tc
  const int32_t* cu_cmp = nullptr;
  int64_t l = 1, d = 1, block = 1;
  int64_t topk = 0, init = 0, local = 0;  // topk: entries of a row of idx
  int64_t window = 0;
  int32_t order = CUL_NSA_ORDER_AUTO;
  bool mean = false;           // k_cmp, v_cmp and cu_cmp are made here
  int32_t* idx = nullptr;      // [Hkv,Tq,topk]: data[head idx_head + query idx_row + i]; null where not wanted
  int64_t idx_head = 0, idx_row = 0;
  int32_t* count = nullptr;  // [Hkv,Tq]
  int64_t count_head = 0;
  TokenRows gates;  // [Tq,Hq,3]
  void* workspace = nullptr;
  SelectPlan select;
  SelectedPlan selected;
  bool batch_invariant = false;

  // How many compressed keys of a sequence the query at `position` sees, of `rows`.
  CUL_NUMERIC int64_t compressed_seen(int64_t position, int64_t rows) const {
    const int64_t seen = position + 1 < l ? 0 : (position + 1 - l) / d + 1;
    return seen < rows ? seen : rows;
  }
  // Blocks that the query at `position` can choose from; 0 before the first key.
  CUL_NUMERIC int64_t candidates(int64_t position) const { return position < 0 ? 0 : position / block + 1; }
  // Of the candidates, block b is chosen whatever its score.
  CUL_NUMERIC bool forced(int64_t b, int64_t candidates) const { return b < init || b >= candidates - local; }
  // W[o] of the score, o = 0 .. l/d + block/d - 2.
  CUL_NUMERIC int64_t score_terms() const { return l / d + block / d - 1; }
  CUL_NUMERIC int64_t score_weight(int64_t o) const {
    const int64_t a = l / d, b = block / d, rising = o + 1, falling = a + b - 1 - o;
    const int64_t least = a < b ? a : b, weight = rising < falling ? rising : falling;
    return weight < least ? weight : least;
  }
  CUL_NUMERIC int32_t* idx_of(int64_t head, int64_t query) const { return idx + head * idx_head + query * idx_row; }

  // idx is an input, not an output.
  CUL_NUMERIC bool reads_idx() const { return idx && !count && window == 0; }
  CUL_NUMERIC bool sequence_valid(int64_t b) const {
    if (!starts_valid(cu_q, b, query_rows) || !starts_valid(cu_k, b, key_rows)) return false;
    if (cu_cmp && !starts_valid(cu_cmp, b, cmp_rows)) return false;
    for (int64_t h = 0; reads_idx() && h < kv_heads; ++h)
      for (int64_t t = cu_q[b]; t < cu_q[b + 1]; ++t)
        for (int64_t i = 0; i < topk; ++i)
          if (idx_of(h, t)[i] < -1) return false;
    return true;
  }
  // Throws DeviceError where the index tensors would lead outside the others. Reads them: call it when the op runs.
  void require_valid() const;
};

// shared_bytes: what a block may have. queries 0: the scores of one query do not fit.
SelectPlan plan_select(const NsaParams& p, int64_t shared_bytes);
// order CUL_NSA_ORDER_AUTO: by_blocks where the group is so small that a tile of one query's heads would be mostly empty, and the
// queries so many that blocks are chosen often.
SelectedPlan plan_selected(const NsaParams& p, std::string* reason);


NsaParams check_nsa_compressed_attention(const Call& call, const cul_nsa_compressed_attention_args& args);
NsaParams check_nsa_select(const Call& call, const cul_nsa_select_args& args);
NsaParams check_nsa_selected_attention(const Call& call, const cul_nsa_selected_attention_args& args);
NsaParams check_nsa_attention(const Call& call, const cul_nsa_attention_args& args);
CUL_DECLARE_COLUMNS(nsa_compressed_attention, NsaParams)
CUL_DECLARE_COLUMNS(nsa_select, NsaParams)
CUL_DECLARE_COLUMNS(nsa_selected_attention, NsaParams)
CUL_DECLARE_COLUMNS(nsa_attention, NsaParams)

}  // namespace culebra
