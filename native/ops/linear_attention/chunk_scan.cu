// The second kernel of the chunkwise form: from chunk to chunk, the state in registers.
#include "ops/linear_attention/chunk_run.h"
#include "ops/linear_attention/chunk_scan.cuh"

namespace culebra::CUL_DEVICE_NS {
namespace {

using Params = RecurrenceParams;

constexpr int kMaxWarps = 4;

// Computes: chunk by chunk R = M (V - e^b K S) or V; O = e^b Q S + P R; S = e^(b_C) S + (e^(b_C - b) K)^T R
// Shapes:   the records of prepare_kernel; q, k [B,T,H,K], v, o [B,T,HV,V]; states [N,HV,V,K] or [N,HV,K,V]; K <= kKeys, any V
// Layouts:  inner stride 1; 16-byte copies where rows are aligned
// Tiles:    a block has one head of one sequence or segment and 16 rows of its state a warp (1, 2 or 4 warps); products are transposed,
//           so that sums of one are operand A of the next, and every operand B comes from shared memory by ldmatrix
// Shared:   1 or 2 chunks: q and k [64][K + 8], P and M [64][72], v [64][V of the block + 8], row factors
// Order:    k order of mma; the same for every block size
// Numerics: f32 state in registers; operands (state, v - S k, R) rounded once; M in two parts for bf16
// Needs:    sm_80. Limit: README.md
// Source:   Yang et al., arXiv:2412.06464; V - e^b K S before M as in FlashKDA (github.com/MoonshotAI/FlashKDA)
// kGather: what segments do to a state; otherwise outputs.
template <class T, int kKeys, bool kGather>
__global__ void __launch_bounds__(32 * kMaxWarps, 1) scan_kernel(Params p, ScanRun run) {
  CUL_DYNAMIC_SHARED(unsigned char, shared, 128);
  const int thread = static_cast<int>(threadIdx.x), threads = static_cast<int>(blockDim.x), warp = thread / 32, lane = thread % 32;
  const ScanItem& item = shared_item(p, run);
  if (item.nothing) return;
  if (item.seq.skipped) return clear_sequence<T>(p, item, run.tiles.values);
  const int64_t row = item.first_row + 16 * warp + lane / 4;
  float s[kKeys / 8][4];
  item.load<kKeys>(p, run, row, lane, s);

  const auto stage_of = [&](int64_t chunk) { return shared + (run.plan.stages == 2 ? chunk % 2 : 0) * run.tiles.bytes(); };
  const auto fetch = [&](int64_t chunk) { copy_chunk<T>(p, run, item, chunk, stage_of(chunk), thread, threads); };
  // One chunk ahead with two stages. There is one place that fetches: each would keep addresses in registers.
  const int ahead = run.plan.stages - 1;
  for (int chunk = static_cast<int>(item.begin_chunk) - ahead; chunk < static_cast<int>(item.end_chunk); ++chunk) {
    const bool more = chunk + ahead < static_cast<int>(item.end_chunk);
    if (more) fetch(chunk + ahead);
    if (chunk < static_cast<int>(item.begin_chunk)) continue;
    unsigned char* const stage = stage_of(chunk);
    if (more && ahead)
      cp_async_wait<1>();
    else
      cp_async_wait<0>();
    __syncthreads();
    run_chunk<T, kKeys, !kGather>(run.tiles, stage, warp, lane, s);
    if constexpr (!kGather) {
      const int64_t first_row = item.first_row + 16 * warp;
      store_output<T>(p, run.o_aligned, reinterpret_cast<const T*>(stage + run.tiles.v()) + 16 * warp, run.tiles.values + 8, item, chunk,
                      first_row, lane);
      if (const int64_t at = item.checkpoint(p, chunk); at >= 0) {
        __syncthreads();  // nobody reads the stage any more
        store_checkpoint<kKeys>(p, item, at, first_row, reinterpret_cast<float*>(stage) + warp * 16 * (kKeys + 4), lane, s);
      }
    }
    __syncthreads();  // the stage is free
  }
  item.store<kKeys>(p, run, row, lane, s);
}

constexpr int kCombinedRows = 16;

// Computes: the state at each segment's begin: S_0 = initial, S_(i+1) = S_i A_i + B_i, in the place of B_i
// Shapes:   B [V][keys], A [keys][keys] a segment and head; without the delta rule A is the product of the chunks' decays
// Layouts:  the partials of scan_kernel
// Tiles:    a block has a head of a sequence and 16 rows of its state; a thread one column of them
// Shared:   the rows, transposed
// Order:    segments one after the other; columns of S ascending, one FMA chain
// Numerics: f32
// Needs:    sm_80. Limit: the chain of segments, each 16 K^2 multiplications a block and K^2 f32 from L2
// Source:   the recurrence is associative: Blelloch, "Prefix sums and their applications"
template <int kKeys>
__global__ void __launch_bounds__(kKeys) combine_kernel(Params p, ScanRun run, int64_t row_blocks) {
  CUL_SHARED(float, state, [kKeys][kCombinedRows]);
  const int k = static_cast<int>(threadIdx.x);
  const int64_t unit = divide(blockIdx.x, row_blocks), first_row = (blockIdx.x - unit * row_blocks) * kCombinedRows;
  const int64_t n = divide(unit, p.value_heads), head = unit - n * p.value_heads;
  const SequenceSpan seq = sequence_at(p.sequences, n);
  if (seq.skipped || seq.length <= p.plan.recurrent_tokens) return;
  const int64_t chunks = (seq.length + kChunk - 1) / kChunk, chunk0 = first_slot(p.sequences, n, kChunk);
  const int64_t slot0 = first_slot(p.sequences, n, run.plan.segment_chunks * kChunk);
  const float* const initial = state_of(p.initial, seq.read_row, head);
#pragma unroll
  for (int r = 0; r < kCombinedRows; ++r) {
    const bool inside = initial && first_row + r < p.value_dim && k < p.key_dim;
    state[k][r] = inside ? initial[(first_row + r) * p.initial.v_stride + k * p.initial.k_stride] : 0.0f;
  }
  __syncthreads();
  for (int64_t segment = 0; segment * run.plan.segment_chunks < chunks; ++segment) {
    const int64_t begin = segment * run.plan.segment_chunks, end = begin + run.plan.segment_chunks;
    float* const added =
        run.partials + ((slot0 + segment) * p.value_heads + head) * (p.value_dim + (run.layout.delta ? kKeys : 0)) * kKeys;
    float next[kCombinedRows];
#pragma unroll
    for (int r = 0; r < kCombinedRows; ++r) {
      next[r] = 0;
      if (first_row + r >= p.value_dim) continue;
      float& cell = added[(first_row + r) * kKeys + k];
      if (end < chunks) next[r] = cell;
      cell = state[k][r];
    }
    if (end >= chunks) return;
    if (run.layout.delta) {
      const float* const transition = added + p.value_dim * kKeys + k;
#pragma unroll 4
      for (int c = 0; c < kKeys; ++c) {
        const float a = transition[c * kKeys];
#pragma unroll
        for (int r = 0; r < kCombinedRows; ++r) next[r] = fmaf(state[c][r], a, next[r]);
      }
    } else {
      float decay = 1;
      for (int64_t chunk = begin; chunk < end; ++chunk)
        decay *= reinterpret_cast<const float*>(
            run.records + ((chunk0 + chunk) * p.value_heads + head) * run.layout.record_bytes() + run.layout.decay_at())[k];
#pragma unroll
      for (int r = 0; r < kCombinedRows; ++r) next[r] = fmaf(state[k][r], decay, next[r]);
    }
    __syncthreads();
#pragma unroll
    for (int r = 0; r < kCombinedRows; ++r) state[k][r] = next[r];
    __syncthreads();
  }
}

template <class T, int kKeys>
void run_scan(const Params& p, ScanRun run, NativeStream stream) {
  const ScanPlan& plan = run.plan;
  const size_t shared = static_cast<size_t>(plan.stages * run.tiles.bytes());
  const dim3 block(32 * static_cast<unsigned>(plan.warps));
  const int64_t units = (plan.segment_chunks ? plan.segments : p.sequences.count) * p.value_heads;
  const auto scan = [&](auto kernel) {
    launch(kernel, dim3(static_cast<unsigned>(units * run.slices)), block, shared, stream, p, run);
  };
  if (plan.segment_chunks) {
    run.gather = true;
    run.slices = plan.slices + (run.layout.delta ? kKeys / run.tiles.values : 0);
    scan(scan_kernel<T, kKeys, true>);
    const int64_t row_blocks = (p.value_dim + kCombinedRows - 1) / kCombinedRows;
    launch(combine_kernel<kKeys>, dim3(static_cast<unsigned>(p.sequences.count * p.value_heads * row_blocks)), dim3(kKeys), 0, stream, p, run,
           row_blocks);
  }
  run.gather = false;
  run.slices = plan.slices;
  scan(scan_kernel<T, kKeys, false>);
}

}  // namespace

void scan_chunks(const Params& p, NativeStream stream) {
  ScanRun run{};
  run.layout = p.plan.chunks;
  run.plan = p.plan.scan;
  run.tiles = p.plan.scan.tiles;
  run.records = static_cast<const unsigned char*>(p.plan.workspace);
  run.partials = reinterpret_cast<float*>(static_cast<unsigned char*>(p.plan.workspace) + p.plan.scan.partials_at);
  const auto aligned = [](const Params::Heads& x) { return x.batch % 8 == 0 && x.token % 8 == 0 && x.head % 8 == 0; };
  run.keys_aligned = aligned(p.q) && aligned(p.k);
  run.v_aligned = aligned(p.v);
  run.o_aligned = aligned(p.o);
  const bool wide = run.layout.keys == 128;
  if (p.dtype == DType::f16)
    wide ? run_scan<half_t, 128>(p, run, stream) : run_scan<half_t, 64>(p, run, stream);
  else
    wide ? run_scan<bfloat16_t, 128>(p, run, stream) : run_scan<bfloat16_t, 64>(p, run, stream);
}

}  // namespace culebra::CUL_DEVICE_NS
