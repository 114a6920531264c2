// mla_attention: paged or indexed attention of all heads over one latent cache.
#pragma once
#include "ops/attention/attention.h"

namespace culebra {

inline constexpr int64_t kLatentDim = 576, kLatentValueDim = 512;
// A token of a u8 cache: 512 e4m3, a scale for each 128 of them, 64 bf16.
inline constexpr int64_t kLatentBytes = 656, kLatentScalesAt = 512, kLatentTailAt = 528, kLatentScaleChannels = 128;

// k and v are the cache: rows (page, offset), in elements of cache_dtype; one KV head.
struct MlaParams : AttentionParams {
  const int32_t* indices = nullptr;  // entry i of query (b, s) at indices[b indices_batch + s indices_query + i]; null: pages
  int64_t indices_batch = 0, indices_query = 0, topk = 0;
  const int32_t* topk_len = nullptr;  // of query (b, s) at topk_len[b topk_len_batch + s]
  int64_t topk_len_batch = 0;

  CUL_NUMERIC int64_t entries(int64_t b, int64_t s) const { return topk_len ? topk_len[b * topk_len_batch + s] : topk; }

  // Given indices: queries (abi/indices.h).
  int64_t index_items() const { return indices ? sequences * query_rows : AttentionParams::index_items(); }
  CUL_NUMERIC bool valid(int64_t i) const {
    if (!indices) return AttentionParams::valid(i);
    const int64_t b = i / query_rows, s = i - b * query_rows, n = entries(b, s);
    if (n < 0 || n > topk) return false;
    return valid_pages(indices + b * indices_batch + s * indices_query, 0, n, pages * page_size, -1);
  }
  std::string invalid_text(int64_t i) const;
};

MlaParams check_mla_attention(const Call& call, const cul_mla_attention_args& args);
// Of a call without plan and workspace, on a device with kernels.
AttentionPlan plan_mla_attention(const MlaParams& p, const DeviceCaps& caps, std::string* reason);
CUL_DECLARE_COLUMNS(mla_attention, MlaParams)

}  // namespace culebra
