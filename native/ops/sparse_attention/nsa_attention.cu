#include "ops/glue/rows.h"
#include "ops/sparse_attention/nsa.cuh"
#include "ops/sparse_attention/nsa_compress.cuh"
#include "ops/sparse_attention/nsa_workspace.h"
#include "device/validate.h"

namespace culebra::CUL_DEVICE_NS {
namespace {

constexpr int kGateThreads = 256;

// Computes: o = sum over the branches of gate * result, of those that saw a key
// Shapes:   results f32 [3, rows, Dv], lse f32 [3, rows], gates f32 [Tq,Hq,3] -> o [Tq,Hq,Dv]
// Layouts:  results compact, o and gates in rows with inner stride 1
// Tiles:    a channel a thread
// Shared:   none
// Order:    branches in their order
// Numerics: f32, one rounding
// Needs:    sm_80. Limit: the bytes of the results
// Source:   Yuan et al., arXiv:2502.11089, equation 5
template <class T>
__global__ void __launch_bounds__(kGateThreads) gate_kernel(NsaParams p, const float* results, const float* lse) {
  const int64_t item = static_cast<int64_t>(blockIdx.x) * kGateThreads + threadIdx.x, rows = p.query_rows * p.query_heads;
  const int64_t row = divide(item, p.value_dim), c = item - row * p.value_dim;
  if (row >= rows) return;
  const int64_t query = divide(row, p.query_heads), head = row - query * p.query_heads;
  if (query >= p.cu_q[p.sequences]) return;  // a row of no sequence
  const float* const gates = p.gates.at<const float>(query, head);
  float sum = 0;
#pragma unroll
  for (int branch = 0; branch < 3; ++branch)
    if (lse[branch * rows + row] != -INFINITY) sum = fmaf(gates[branch], results[(branch * rows + row) * p.value_dim + c], sum);
  p.o.at<T>(query, head)[c] = from_float<T>(sum);
}

}  // namespace

void nsa_attention(const NsaParams& given, NativeStream stream) {
  if (given.validate) validate(given.op, given, stream);
  if (given.query_rows == 0 || given.sequences == 0) return;
  NsaParams p = given;
  const NsaWorkspace at(p, false);
  char* const base = static_cast<char*>(p.workspace);
  if (p.mean) {
    NsaCompressParams compress;
    compress.dtype = p.dtype;
    compress.sequences = p.sequences;
    compress.heads = p.kv_heads;
    compress.rows = p.key_rows;
    compress.out_rows = at.cmp_rows;
    compress.cu_seqlens = p.cu_k;
    compress.cu_out = reinterpret_cast<int32_t*>(base + at.cu_cmp);
    compress.l = p.l;
    compress.d = p.d;
    compress.aligned = p.aligned;
    compressed_starts(p.cu_k, compress.cu_out, p.sequences, p.l, p.d, stream);
    p.cu_cmp = compress.cu_out;
    p.cmp_rows = at.cmp_rows;
    p.k_cmp = {base + at.k_cmp, p.kv_heads * p.dim, p.dim};
    p.v_cmp = {base + at.v_cmp, p.kv_heads * p.value_dim, p.value_dim};
    compress.dim = p.dim;
    compress.x = p.k;
    compress.y = p.k_cmp;
    compress_rows(compress, stream);
    compress.dim = p.value_dim;
    compress.x = p.v;
    compress.y = p.v_cmp;
    compress_rows(compress, stream);
  }
  if (!p.idx) {
    p.idx = reinterpret_cast<int32_t*>(base + at.idx);
    p.idx_row = p.topk;
    p.idx_head = p.query_rows * p.topk;
  }
  const int64_t rows = p.query_rows * p.query_heads;
  float* const results = reinterpret_cast<float*>(base + at.results);
  float* const lse = reinterpret_cast<float*>(base + at.lse);
  const auto branch = [&](int i) { return NsaPartial{results + i * rows * p.value_dim, lse + i * rows}; };
  nsa_compressed_step(p, branch(0), stream);
  p.lse = {lse, p.query_heads, 1};
  nsa_select_step(p, stream);
  p.lse = {};
  nsa_selected_step(p, branch(1), base + at.selected, stream);
  nsa_window_step(p, branch(2), stream);
  const dim3 grid(static_cast<unsigned>((rows * p.value_dim + kGateThreads - 1) / kGateThreads)), threads(kGateThreads);
  with_float(p.dtype, [&](auto tag) {
    launch(gate_kernel<decltype(tag)>, grid, threads, 0, stream, p, static_cast<const float*>(results), static_cast<const float*>(lse));
  });
}

}  // namespace culebra::CUL_DEVICE_NS
