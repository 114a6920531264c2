#include "culebra/kv_cache.h"

#include "abi/registry.h"
#include "ops/kv_cache/bitmap_kv_attention.h"
#include "ops/kv_cache/bitmap_kv_compress.h"
#include "ops/kv_cache/cca_qkv.h"
#include "ops/kv_cache/kv_merge.h"
#include "ops/kv_cache/kv_page_stats.h"
#include "ops/kv_cache/kv_select.h"
#include "ops/kv_cache/mla_index_topk.h"

namespace culebra {

static constexpr Op<BitmapCompressParams> kBitmapKvCompress{"bitmap_kv_compress", "kv_cache", "f32 f16 bf16", cpu::bitmap_kv_compress, CUL_CUDA(bitmap_kv_compress), CUL_SIMT(bitmap_kv_compress)};
static constexpr Op<BitmapAttentionParams> kBitmapKvAttention{"bitmap_kv_attention", "kv_cache", "f32 f16 bf16", cpu::bitmap_kv_attention, CUL_CUDA(bitmap_kv_attention), CUL_SIMT(bitmap_kv_attention)};
static constexpr Op<PageStatsParams> kKvPageStats{"kv_page_stats", "kv_cache", "f32 f16 bf16", cpu::kv_page_stats, CUL_CUDA(kv_page_stats), CUL_SIMT(kv_page_stats)};
static constexpr Op<KvSelectParams> kKvSelect{"kv_select", "kv_cache", "f32 f16 bf16", cpu::kv_select, CUL_CUDA(kv_select), CUL_SIMT(kv_select)};
static constexpr Op<KvMergeParams> kKvMerge{"kv_merge", "kv_cache", "f32 f16 bf16", cpu::kv_merge, CUL_CUDA(kv_merge), CUL_SIMT(kv_merge)};
static constexpr Op<IndexTopkParams> kMlaIndexTopk{"mla_index_topk", "kv_cache", "f8e4m3", cpu::mla_index_topk, CUL_CUDA(mla_index_topk), CUL_SIMT(mla_index_topk)};
static constexpr Op<CcaParams> kCcaQkv{"cca_qkv", "kv_cache", "f32 f16 bf16", cpu::cca_qkv, CUL_CUDA(cca_qkv), CUL_SIMT(cca_qkv)};

static constexpr const OpRecord* kOps[] = {&kBitmapKvCompress, &kBitmapKvAttention, &kKvPageStats, &kKvSelect,
                                           &kKvMerge,          &kMlaIndexTopk,      &kCcaQkv};
const OpList kKvCacheOps{kOps, static_cast<int>(std::size(kOps))};

}  // namespace culebra

using namespace culebra;

extern "C" {

cul_status cul_bitmap_kv_compress(cul_stream* stream, const cul_bitmap_kv_compress_args* args) {
  return run_op(kBitmapKvCompress, stream, args, check_bitmap_kv_compress);
}
cul_status cul_bitmap_kv_attention(cul_stream* stream, const cul_bitmap_kv_attention_args* args) {
  return run_op(kBitmapKvAttention, stream, args, check_bitmap_kv_attention);
}
cul_status cul_kv_page_stats(cul_stream* stream, const cul_kv_page_stats_args* args) {
  return run_op(kKvPageStats, stream, args, check_kv_page_stats);
}
cul_status cul_kv_select(cul_stream* stream, const cul_kv_select_args* args) {
  return run_op(kKvSelect, stream, args, check_kv_select);
}
cul_status cul_kv_merge(cul_stream* stream, const cul_kv_merge_args* args) {
  return run_op(kKvMerge, stream, args, check_kv_merge);
}
cul_status cul_mla_index_topk(cul_stream* stream, const cul_mla_index_topk_args* args) {
  return run_op(kMlaIndexTopk, stream, args, check_mla_index_topk);
}
cul_status cul_cca_qkv(cul_stream* stream, const cul_cca_qkv_args* args) {
  return run_op(kCcaQkv, stream, args, check_cca_qkv);
}

}  // extern "C"
