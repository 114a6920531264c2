#include "culebra/sparse_attention.h"

#include "abi/registry.h"
#include "ops/sparse_attention/block_sparse_attention.h"
#include "ops/sparse_attention/estimated_sparse_attention.h"
#include "ops/sparse_attention/neighborhood_attention.h"
#include "ops/sparse_attention/nsa.h"
#include "ops/sparse_attention/nsa_compress.h"
#include "ops/sparse_attention/sparse_linear_attention.h"

namespace culebra {
namespace {

constexpr const char* kFloats = "f32 f16 bf16";

// `fn` names the op and its columns.
#define CUL_SPARSE_OP(Params, fn) \
  Op<Params> { #fn, "sparse_attention", kFloats, cpu::fn, CUL_CUDA(fn), CUL_SIMT(fn) }

constexpr Op<BlockSparseParams> kBlockSparseAttention{"block_sparse_attention", "sparse_attention", kFloats, cpu::block_sparse_attention,
                                                      CUL_CUDA(block_sparse_attention), CUL_SIMT(block_sparse_attention), CUL_KERNELS_80 | CUL_KERNELS_90};
constexpr auto kNeighborhoodAttention = CUL_SPARSE_OP(NeighborhoodParams, neighborhood_attention);
constexpr auto kNsaCompress = CUL_SPARSE_OP(NsaCompressParams, nsa_compress);
constexpr auto kNsaCompressedAttention = CUL_SPARSE_OP(NsaParams, nsa_compressed_attention);
constexpr auto kNsaSelect = CUL_SPARSE_OP(NsaParams, nsa_select);
constexpr auto kNsaSelectedAttention = CUL_SPARSE_OP(NsaParams, nsa_selected_attention);
constexpr auto kNsaAttention = CUL_SPARSE_OP(NsaParams, nsa_attention);
constexpr Op<SparseLinearParams> kSparseLinearAttention{"sparse_linear_attention", "sparse_attention", kFloats, cpu::sparse_linear_attention,
                                                        CUL_CUDA(sparse_linear_attention), CUL_SIMT(sparse_linear_attention), CUL_KERNELS_80 | CUL_KERNELS_90};
constexpr Op<EstimatedParams> kEstimatedSparseAttention{"estimated_sparse_attention", "sparse_attention", kFloats, cpu::estimated_sparse_attention,
                                                        CUL_CUDA(estimated_sparse_attention), CUL_SIMT(estimated_sparse_attention),
                                                      CUL_KERNELS_80 | CUL_KERNELS_90};

constexpr const OpRecord* kOps[] = {
    &kBlockSparseAttention,
    &kNeighborhoodAttention,
    &kNsaCompress,
    &kNsaCompressedAttention,
    &kNsaSelect,
    &kNsaSelectedAttention,
    &kNsaAttention,
    &kSparseLinearAttention,
    &kEstimatedSparseAttention,
};

}  // namespace

const OpList kSparseAttentionOps{kOps, static_cast<int>(std::size(kOps))};

}  // namespace culebra

using namespace culebra;

extern "C" {

cul_status cul_block_sparse_attention(cul_stream* stream, const cul_block_sparse_attention_args* args) {
  return run_op(kBlockSparseAttention, stream, args, check_block_sparse_attention);
}
cul_status cul_neighborhood_attention(cul_stream* stream, const cul_neighborhood_attention_args* args) {
  return run_op(kNeighborhoodAttention, stream, args, check_neighborhood_attention);
}
cul_status cul_neighborhood_tiles(const cul_neighborhood_axis* axes, int32_t count, double* visited, double* all) {
  return fence([&] {
    constexpr const char* kName = "cul_neighborhood_tiles";
    if (!axes || !visited || !all) refuse(CUL_NULL_POINTER, "%s: an argument is null", kName);
    if (count < 1 || count > kMaxAxes) refuse(CUL_RANGE, "%s: count is %d; it must be 1 to %d axes", kName, count, kMaxAxes);
    NeighborhoodAxis list[kMaxAxes];
    int32_t query_tile[kMaxAxes], key_tile[kMaxAxes];
    for (int a = 0; a < count; ++a) {
      const cul_neighborhood_axis& x = axes[a];
      if (x.length < 1 || x.window < 1 || x.stride < 1 || x.stride > x.window || x.dilation < 1 ||
          int64_t{x.window} * x.dilation > x.length || x.query_tile < 1 || x.key_tile < 1 || (x.causal != 0 && x.causal != 1))
        refuse(CUL_RANGE,
               "%s: axis %d has length %d, window %d, stride %d, dilation %d, causal %d, tiles of %d and %d; 1 <= stride <= window, window "
               "* dilation <= length",
               kName, a, x.length, x.window, x.stride, x.dilation, x.causal, x.query_tile, x.key_tile);
      list[a] = {x.length, x.window, x.stride, x.dilation, x.causal != 0};
      query_tile[a] = x.query_tile;
      key_tile[a] = x.key_tile;
    }
    const TileCount tiles = count_tiles(list, count, query_tile, key_tile);
    *visited = tiles.visited;
    *all = tiles.all;
  });
}
cul_status cul_nsa_compress(cul_stream* stream, const cul_nsa_compress_args* args) {
  return run_op(kNsaCompress, stream, args, check_nsa_compress);
}
cul_status cul_nsa_compressed_attention(cul_stream* stream, const cul_nsa_compressed_attention_args* args) {
  return run_op(kNsaCompressedAttention, stream, args, check_nsa_compressed_attention);
}
cul_status cul_nsa_select(cul_stream* stream, const cul_nsa_select_args* args) {
  return run_op(kNsaSelect, stream, args, check_nsa_select);
}
cul_status cul_nsa_selected_attention(cul_stream* stream, const cul_nsa_selected_attention_args* args) {
  return run_op(kNsaSelectedAttention, stream, args, check_nsa_selected_attention);
}
cul_status cul_nsa_attention(cul_stream* stream, const cul_nsa_attention_args* args) {
  return run_op(kNsaAttention, stream, args, check_nsa_attention);
}
cul_status cul_sparse_linear_attention(cul_stream* stream, const cul_sparse_linear_attention_args* args) {
  return run_op(kSparseLinearAttention, stream, args, check_sparse_linear_attention);
}
cul_status cul_estimated_sparse_attention(cul_stream* stream, const cul_estimated_sparse_attention_args* args) {
  return run_op(kEstimatedSparseAttention, stream, args, check_estimated_sparse_attention);
}

}  // extern "C"
