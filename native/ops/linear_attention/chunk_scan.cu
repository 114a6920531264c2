// The second kernel of the chunkwise form: from chunk to chunk, the state in registers.
#include "ops/linear_attention/chunk_run.h"
#include "ops/linear_attention/chunk_scan.cuh"

namespace culebra::CUL_DEVICE_NS {
namespace {

using Params = RecurrenceParams;

constexpr int kMaxWarps = 4;

struct ScanRun : ScanSource {
  ScanPlan plan;
  float* partials;  // of segments
  bool gather;      // what segments do to a state; else outputs
  int64_t slices;   // with gather also those of the transition
};

// A skipped sequence: output and checkpoints 0.
template <class T>
CUL_DEVICE_FN void clear_sequence(const Params& p, const SequenceSpan& seq, int64_t head, int64_t first_row, int rows, int64_t checkpoint0) {
  const int thread = static_cast<int>(threadIdx.x), threads = static_cast<int>(blockDim.x);
  const int64_t used = p.value_dim - first_row < rows ? p.value_dim - first_row : rows;
  for (int64_t i = thread; i < seq.length * used; i += threads)
    head_row<T>(p.o, seq.batch, seq.begin + i / used, head)[first_row + i % used] = from_float<T>(0.0f);
  if (!p.checkpoint_every) return;
  for (int64_t c = 0; c < seq.length / p.checkpoint_every && checkpoint0 + c < p.checkpoint_count; ++c)
    for (int64_t i = thread; i < used * p.key_dim; i += threads)
      state_of(p.checkpoints, checkpoint0 + c, head)[(first_row + i / p.key_dim) * p.checkpoints.v_stride + i % p.key_dim * p.checkpoints.k_stride] = 0;
}

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
template <class T, int kKeys>
__global__ void __launch_bounds__(32 * kMaxWarps, 1) scan_kernel(Params p, ScanRun run) {
  CUL_DYNAMIC_SHARED(unsigned char, shared, 128);
  const int thread = static_cast<int>(threadIdx.x), threads = static_cast<int>(blockDim.x), warp = thread / 32, lane = thread % 32;
  const int64_t unit = divide(blockIdx.x, run.slices), slot = divide(unit, p.value_heads), head = unit - slot * p.value_heads;
  const int64_t slice = blockIdx.x - unit * run.slices;
  const bool cut = run.plan.segment_chunks > 0;
  const int64_t n = cut ? sequence_of_slot(p.sequences, slot, run.plan.segment_chunks * kChunk) : slot;
  const SequenceSpan seq = sequence_at(p.sequences, n);
  const int64_t all_chunks = (seq.length + kChunk - 1) / kChunk;
  const int64_t begin_chunk = cut ? (slot - first_slot(p.sequences, n, run.plan.segment_chunks * kChunk)) * run.plan.segment_chunks : 0;
  const int64_t end_chunk = cut && begin_chunk + run.plan.segment_chunks < all_chunks ? begin_chunk + run.plan.segment_chunks : all_chunks;
  // What the last segment does to the state nobody asks.
  if (seq.length <= kRecurrentTokens || begin_chunk >= all_chunks || (run.gather && end_chunk == all_chunks)) return;
  const int64_t checkpoint0 = first_checkpoint(p, n);
  if (seq.skipped) {
    if (begin_chunk == 0 && !run.gather) clear_sequence<T>(p, seq, head, slice * run.tiles.values, run.tiles.values, checkpoint0);
    return;
  }

  // Rows of the state; or, behind them, of the transition: what becomes of the unit vectors where nothing is added.
  const bool transition = slice >= run.plan.slices;
  const int64_t first_row = (transition ? slice - run.plan.slices : slice) * run.tiles.values, row = first_row + 16 * warp + lane / 4;
  const int64_t rows = transition ? kKeys : p.value_dim;
  const Params::States partial{run.partials, 0, 0, kKeys, 1, 0};
  float* const partial_state =
      run.partials + (unit * (p.value_dim + (run.layout.delta ? kKeys : 0)) + (transition ? p.value_dim : 0)) * kKeys;
  float s[kKeys / 8][4];
  if (cut && !run.gather) {
    move_rows<kKeys, true>(partial, partial_state, row, rows, kKeys, lane, s);
  } else if (!cut && p.initial.data) {
    move_rows<kKeys, true>(p.initial, state_of(p.initial, seq.read_row, head), row, rows, p.key_dim, lane, s);
  } else {
#pragma unroll
    for (int j = 0; j < kKeys / 8; ++j)
#pragma unroll
      for (int i = 0; i < 4; ++i) s[j][i] = transition && row + i / 2 * 8 == 8 * j + lane % 4 * 2 + i % 2 ? 1.0f : 0.0f;
  }

  const int64_t columns = transition ? 0 : p.value_dim - first_row;
  const auto stage_of = [&](int64_t chunk) { return shared + (run.plan.stages == 2 ? chunk % 2 : 0) * run.tiles.bytes(); };
  const auto fetch = [&](int64_t chunk) {
    const int64_t left = seq.length - chunk * kChunk;
    copy_chunk<T>(p, run, seq, n, head, first_row, columns, chunk, left < kChunk ? static_cast<int>(left) : kChunk, stage_of(chunk), thread,
                  threads);
  };
  fetch(begin_chunk);
  for (int64_t chunk = begin_chunk; chunk < end_chunk; ++chunk) {
    unsigned char* const stage = stage_of(chunk);
    if (run.plan.stages == 2 && chunk + 1 < end_chunk) {
      fetch(chunk + 1);
      cp_async_wait<1>();
    } else {
      cp_async_wait<0>();
    }
    __syncthreads();
    run_chunk<T, kKeys>(run.tiles, stage, !run.gather, warp, lane, s);
    const int64_t begin = chunk * kChunk, end = begin + kChunk;
    if (!run.gather)
      store_output<T>(p, run.o_aligned, reinterpret_cast<const T*>(stage + run.tiles.v()) + 16 * warp, run.tiles.values + 8,
                      head_row<T>(p.o, seq.batch, seq.begin + begin, head) + first_row + 16 * warp, p.value_dim - first_row - 16 * warp,
                      seq.length < end ? static_cast<int>(seq.length - begin) : kChunk, lane);
    if (!run.gather && p.checkpoint_every && end <= seq.length && end % p.checkpoint_every == 0) {
      const int64_t at = checkpoint0 + end / p.checkpoint_every - 1;
      if (at < p.checkpoint_count)
        move_rows<kKeys, false>(p.checkpoints, state_of(p.checkpoints, at, head), row, rows, p.key_dim, lane, s);
    }
    __syncthreads();  // the stage is free
    if (run.plan.stages == 1 && chunk + 1 < end_chunk) fetch(chunk + 1);
  }
  if (run.gather)
    move_rows<kKeys, false>(partial, partial_state, row, rows, kKeys, lane, s);
  else if (p.final.data && end_chunk == all_chunks)
    move_rows<kKeys, false>(p.final, state_of(p.final, seq.write_row, head), row, rows, p.key_dim, lane, s);
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
  if (seq.skipped || seq.length <= kRecurrentTokens) return;
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
  if (plan.segment_chunks) {
    run.gather = true;
    run.slices = plan.slices + (run.layout.delta ? kKeys / run.tiles.values : 0);
    launch(scan_kernel<T, kKeys>, dim3(static_cast<unsigned>(units * run.slices)), block, shared, stream, p, run);
    const int64_t row_blocks = (p.value_dim + kCombinedRows - 1) / kCombinedRows;
    launch(combine_kernel<kKeys>, dim3(static_cast<unsigned>(p.sequences.count * p.value_heads * row_blocks)), dim3(kKeys), 0, stream, p, run,
           row_blocks);
  }
  run.gather = false;
  run.slices = plan.slices;
  launch(scan_kernel<T, kKeys>, dim3(static_cast<unsigned>(units * run.slices)), block, shared, stream, p, run);
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
