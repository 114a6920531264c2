// The tiled form, first half: what gates mean within chunks, and the states before each span.
#include "ops/linear_attention/chunk_run.h"
#include "ops/linear_attention/tiled.cuh"

namespace culebra::CUL_DEVICE_NS {
namespace {

using Params = RecurrenceParams;

constexpr int kRecordWarps = 4;
constexpr int kTileRows = 128;      // of the state, V; columns are 16 state_warps
constexpr int kMaxStateWarps = 8;

// Computes: of a chunk: b = cumsum g; e^(b_C - b), scale e^b, 1, scale with the factors of keys and queries in them
// Shapes:   g [B,T,HV] or [HV]; factors [B,T,H]; records [slots,HV] of tiled_layout.h
// Layouts:  g any strides; the rest dense
// Tiles:    a warp has a chunk of one value head, two tokens a lane
// Shared:   none
// Order:    sums are a scan over the lanes; those of a token depend on no later one
// Numerics: f32
// Needs:    sm_80. Limit: the launch
// Source:   Beck et al., arXiv:2503.14376
__global__ void __launch_bounds__(32 * kRecordWarps) tiled_records_kernel(Params p, TiledRecord* records) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int64_t items = p.plan.tiles.chunks * p.value_heads;
  for (int64_t item = int64_t{blockIdx.x} * kRecordWarps + threadIdx.x / 32; item < items; item += int64_t{gridDim.x} * kRecordWarps) {
    const int64_t slot = divide(item, p.value_heads), head = item - slot * p.value_heads;
    const ChunkSpan chunk = chunk_of_slot(p, slot);
    if (chunk.count == 0) continue;
    const int64_t batch = chunk.sequence.batch, token = chunk.sequence.begin + chunk.begin;
    const int64_t key_head = divide(head, divide(p.value_heads, p.key_heads));
    float sum[2], before = 0;
    for (int half = 0; half < 2; ++half) {
      const int t = lane + 32 * half;
      float g = 0;
      if (t < chunk.count && p.decay != Decay::none)
        g = LogGate<false>(p, head, 0)(
            load_one(gate_type(p), p.gate.data, batch * p.gate.batch + (token + t) * p.gate.token + head * p.gate.head));
      sum[half] = before + warp_inclusive_sum(g);
      before = __shfl_sync(kFullMask, sum[half], 31);
    }
    TiledRecord& record = records[item];
    for (int half = 0; half < 2; ++half) {
      const int t = lane + 32 * half;
      const bool inside = t < chunk.count;
      const int64_t at = p.factor_at(batch, token + t, key_head);
      const float key = !inside ? 0.0f : p.key_factor ? p.key_factor[at] : 1.0f;
      const float query = !inside ? 0.0f : p.query_factor ? p.scale * p.query_factor[at] : p.scale;
      record.sums[t] = sum[half];
      record.gains[t] = key * expf(before - sum[half]);
      record.rows[t] = query * expf(sum[half]);
      record.keys[t] = key;
      record.queries[t] = query;
    }
    if (lane == 0) record.total = before, record.decay = expf(before), record.unused[0] = record.unused[1] = 0;
  }
}

// What a block of the states' kernel is to do: a tile of the state of one head of one sequence.
struct StateTile {
  SequenceSpan seq;
  int64_t n, head, key_head, first_row, first_column, chunks;

  CUL_DEVICE_FN StateTile(const Params& p, int64_t row_tiles, int64_t column_tiles) {
    int64_t unit = divide(blockIdx.x, column_tiles);
    first_column = (blockIdx.x - unit * column_tiles) * 16 * p.plan.tiles.state_warps;
    const int64_t item = divide(unit, row_tiles);
    first_row = (unit - item * row_tiles) * kTileRows;
    n = divide(item, p.value_heads);
    head = item - n * p.value_heads;
    key_head = divide(head, divide(p.value_heads, p.key_heads));
    seq = sequence_at(p.sequences, n);
    chunks = (seq.length + kChunk - 1) / kChunk;
  }
};

// The block's tile in shared memory, where it takes no registers from the products. All threads call.
CUL_DEVICE_FN const StateTile& shared_tile(const Params& p, int64_t row_tiles, int64_t column_tiles) {
  CUL_SHARED(unsigned char, storage, [sizeof(StateTile)]);
  if (threadIdx.x == 0) *reinterpret_cast<StateTile*>(storage) = StateTile(p, row_tiles, column_tiles);
  __syncthreads();
  return *reinterpret_cast<const StateTile*>(storage);
}

// The warp's 32 x 64 elements of a state in memory, 16 rows at a time by way of shared memory [16][kPitch]: registers hold no addresses, and
// accesses go along whichever axis is contiguous. `state` is the head's.
constexpr int kPitch = TiledPlan::kStatePitch;
template <bool kLoad>
CUL_DEVICE_FN void move_state(const Params& p, const Params::States& where, float* state, int64_t row, int64_t column, float* rows, int lane,
                              float (&s)[2][8][4]) {
  float* const mine = rows + lane / 4 * kPitch + lane % 4 * 2;
  const bool along_columns = where.k_stride == 1;
#pragma unroll
  for (int m = 0; m < 2; ++m) {
    if constexpr (!kLoad) {
#pragma unroll
      for (int j = 0; j < 8; ++j) {
        *reinterpret_cast<float2*>(mine + 8 * j) = make_float2(s[m][j][0], s[m][j][1]);
        *reinterpret_cast<float2*>(mine + 8 * j + 8 * kPitch) = make_float2(s[m][j][2], s[m][j][3]);
      }
      __syncwarp();
    }
#pragma unroll 1
    for (int i = lane; i < 16 * 64; i += 32) {
      const int r = along_columns ? i / 64 : i % 16, c = along_columns ? i % 64 : i / 16;
      const int64_t v = row + 16 * m + r, k = column + c;
      const bool inside = v < p.value_dim && k < p.key_dim;
      float* const cell = state + v * where.v_stride + k * where.k_stride;
      if constexpr (kLoad)
        rows[r * kPitch + c] = inside ? *cell : 0.0f;
      else if (inside)
        *cell = rows[r * kPitch + c];
    }
    __syncwarp();
    if constexpr (kLoad) {
#pragma unroll
      for (int j = 0; j < 8; ++j) {
        const float2 upper = *reinterpret_cast<const float2*>(mine + 8 * j), lower = *reinterpret_cast<const float2*>(mine + 8 * j + 8 * kPitch);
        s[m][j][0] = upper.x, s[m][j][1] = upper.y, s[m][j][2] = lower.x, s[m][j][3] = lower.y;
      }
      __syncwarp();
    }
  }
}

// The same elements, rounded, into the state before a span, [V][keys].
template <class T>
CUL_DEVICE_FN void store_span(const Params& p, T* state, int64_t row, int64_t column, float* rows, int lane, const float (&s)[2][8][4]) {
  T* const tile = reinterpret_cast<T*>(rows);
  constexpr int kHalves = 64 + 8;
  if (column >= p.plan.tiles.keys) return;
#pragma unroll
  for (int m = 0; m < 2; ++m) {
#pragma unroll
    for (int j = 0; j < 8; ++j)
#pragma unroll
      for (int half = 0; half < 2; ++half)
        *reinterpret_cast<uint32_t*>(tile + (lane / 4 + 8 * half) * kHalves + 8 * j + lane % 4 * 2) =
            pack2<T>(s[m][j][2 * half], s[m][j][2 * half + 1]);
    __syncwarp();
#pragma unroll 1
    for (int r = lane / 8; r < 16; r += 4) {
      const int64_t v = row + 16 * m + r;
      if (v < p.value_dim)
        *reinterpret_cast<uint4*>(state + v * p.plan.tiles.keys + column + lane % 8 * 8) =
            *reinterpret_cast<const uint4*>(tile + r * kHalves + lane % 8 * 8);
    }
    __syncwarp();
  }
}

// Computes: S = e^(b_C) S + (e^(b_C - b) v)^T k chunk by chunk; S before each span goes to the workspace
// Shapes:   k [B,T,H,K], v [B,T,HV,V]; states [N,HV,V,K] or [N,HV,K,V]; spans' [slots,HV,V,keys]
// Layouts:  inner stride 1; 16-byte copies where rows are aligned
// Tiles:    a block has 128 x 128 or 128 x 64 of a head's state, a warp 32 x 64 of that
// Shared:   2 or 3 chunks: v and k in tiles of 64 columns, the tokens' gains; 4 KB a warp for states on their way to memory
// Order:    tokens in k order of mma; the same for every block size
// Numerics: f32 state in registers; v times its gain is rounded to v's type; spans' states are rounded once
// Needs:    sm_80. Limit: per chunk and tile 16 KB of v and as much or half of k, mostly from L2
// Source:   Beck et al., arXiv:2503.14376
template <class T>
__global__ void __launch_bounds__(32 * kMaxStateWarps) tiled_states_kernel(Params p, int64_t row_tiles, int64_t column_tiles,
                                                                          bool aligned) {
  CUL_DYNAMIC_SHARED(unsigned char, shared, 128);
  const TiledPlan& plan = p.plan.tiles;
  const int thread = static_cast<int>(threadIdx.x), threads = static_cast<int>(blockDim.x), warp = thread / 32, lane = thread % 32;
  const StateTile& tile = shared_tile(p, row_tiles, column_tiles);
  if (tile.seq.length <= p.plan.recurrent_tokens) return;
  const int64_t row = tile.first_row + warp % 4 * 32, column = tile.first_column + warp / 4 * 64;
  float* const rows = reinterpret_cast<float*>(shared + plan.state_stages * plan.state_stage_bytes()) + warp * 16 * kPitch;
  const int64_t checkpoint0 = first_checkpoint(p, tile.n);
  float s[2][8][4];
#pragma unroll
  for (int m = 0; m < 2; ++m)
#pragma unroll
    for (int j = 0; j < 8; ++j)
#pragma unroll
      for (int i = 0; i < 4; ++i) s[m][j][i] = 0;
  if (tile.seq.skipped) {
    for (int64_t c = 0; p.checkpoint_every && c < tile.seq.length / p.checkpoint_every && checkpoint0 + c < p.checkpoint_count; ++c)
      move_state<false>(p, p.checkpoints, state_of(p.checkpoints, checkpoint0 + c, tile.head), row, column, rows, lane, s);
    return;
  }
  if (p.initial.data)
    move_state<true>(p, p.initial, state_of(p.initial, tile.seq.read_row, tile.head), row, column, rows, lane, s);

  const int stages = plan.state_stages, key_tiles = plan.state_warps / 4;
  const int64_t slot0 = first_slot(p.sequences, tile.n, kChunk), span0 = first_slot(p.sequences, tile.n, kSpan);
  const T* const values = head_row<const T>(p.v, tile.seq.batch, tile.seq.begin, tile.head) + tile.first_row;
  const T* const keys = head_row<const T>(p.k, tile.seq.batch, tile.seq.begin, tile.key_head) + tile.first_column;
  const auto stage_of = [&](int64_t chunk) { return shared + static_cast<uint32_t>(chunk) % static_cast<uint32_t>(stages) * plan.state_stage_bytes(); };
  const auto fetch = [&](int64_t chunk) {
    if (chunk < tile.chunks) {
      unsigned char* const stage = stage_of(chunk);
      const int64_t token = chunk * kChunk, left = tile.seq.length - token;
      copy_tiles(stage, values + token * p.v.token, p.v.token, kChunk, 2, left, p.value_dim - tile.first_row, aligned, thread, threads);
      copy_tiles(stage + 2 * kChunk * 128, keys + token * p.k.token, p.k.token, kChunk, key_tiles, left, p.key_dim - tile.first_column,
                 aligned, thread, threads);
      if (thread < 16)
        cp_async_l2(shared_address(stage + (2 + key_tiles) * kChunk * 128 + thread * 16),
                    record_at(p, slot0 + chunk, tile.head)->gains + thread * 4);
      if (thread == 16)
        cp_async_l2(shared_address(stage + (2 + key_tiles) * kChunk * 128 + kChunk * 4), &record_at(p, slot0 + chunk, tile.head)->total);
    }
    cp_async_commit();
  };
  for (int ahead = 0; ahead + 1 < stages; ++ahead) fetch(ahead);
  for (int64_t chunk = 0; chunk < tile.chunks; ++chunk) {
    if (stages == 3)
      cp_async_wait<1>();
    else
      cp_async_wait<0>();
    __syncthreads();  // this chunk is there for all, and the one before is no longer read
    fetch(chunk + stages - 1);
    if (chunk % (kSpan / kChunk) == 0 && (chunk > 0 || p.initial.data))
      store_span<T>(p, span_state<T>(p, span0 + chunk / (kSpan / kChunk), tile.head), row, column, rows, lane, s);
    const unsigned char* const stage = stage_of(chunk);
    const float decay = reinterpret_cast<const float*>(stage + (2 + key_tiles) * kChunk * 128)[kChunk + 1];
#pragma unroll
    for (int m = 0; m < 2; ++m)
#pragma unroll
      for (int j = 0; j < 8; ++j)
#pragma unroll
        for (int i = 0; i < 4; ++i) s[m][j][i] *= decay;
    const uint32_t v_tile = shared_address(stage) + static_cast<uint32_t>(warp % 4 / 2 * kChunk * 128);
    const uint32_t k_tile = shared_address(stage) + static_cast<uint32_t>((2 + warp / 4) * kChunk * 128);
    const float* const gains = reinterpret_cast<const float*>(stage + (2 + key_tiles) * kChunk * 128) + lane % 4 * 2;
#pragma unroll
    for (int step = 0; step < 4; ++step) {
      const float2 low = *reinterpret_cast<const float2*>(gains + 16 * step), high = *reinterpret_cast<const float2*>(gains + 16 * step + 8);
      uint32_t a[2][4];
#pragma unroll
      for (int m = 0; m < 2; ++m) {
        ldmatrix_x4_trans(a[m], piece_at(v_tile, 16 * step + lane / 16 * 8 + lane % 8, warp % 2 * 4 + 2 * m + lane / 8 % 2));
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const float2 f = i < 2 ? low : high;
          a[m][i] = pack2<T>(f.x * low_float<T>(a[m][i]), f.y * high_float<T>(a[m][i]));
        }
      }
#pragma unroll
      for (int pair = 0; pair < 4; ++pair) {
        uint32_t b[4];
        ldmatrix_x4_trans(b, piece_at(k_tile, 16 * step + lane % 16, 2 * pair + lane / 16));
#pragma unroll
        for (int m = 0; m < 2; ++m) {
          mma_m16n8k16<T>(s[m][2 * pair], a[m], b[0], b[1]);
          mma_m16n8k16<T>(s[m][2 * pair + 1], a[m], b[2], b[3]);
        }
      }
    }
    if (p.checkpoint_every && (chunk + 1) * kChunk <= tile.seq.length && (chunk + 1) * kChunk % p.checkpoint_every == 0) {
      const int64_t at = checkpoint0 + divide((chunk + 1) * kChunk, p.checkpoint_every) - 1;
      if (at < p.checkpoint_count)
        move_state<false>(p, p.checkpoints, state_of(p.checkpoints, at, tile.head), row, column, rows, lane, s);
    }
  }
  if (p.final.data)
    move_state<false>(p, p.final, state_of(p.final, tile.seq.write_row, tile.head), row, column, rows, lane, s);
}

template <class T>
void run_states(const Params& p, NativeStream stream) {
  const TiledPlan& plan = p.plan.tiles;
  const int64_t row_tiles = (p.value_dim + kTileRows - 1) / kTileRows, columns = 16 * plan.state_warps;
  const int64_t column_tiles = (plan.keys + columns - 1) / columns;
  launch(tiled_states_kernel<T>, dim3(static_cast<unsigned>(p.sequences.count * p.value_heads * row_tiles * column_tiles)),
         dim3(static_cast<unsigned>(32 * plan.state_warps)), static_cast<size_t>(plan.state_bytes(plan.state_stages)), stream, p,
         row_tiles, column_tiles, rows_aligned(p.k) && rows_aligned(p.v));
}

}  // namespace

void tiled_states(const Params& p, NativeStream stream) {
  const int64_t items = (p.plan.tiles.chunks * p.value_heads + kRecordWarps - 1) / kRecordWarps;
  if (items > 0)
    launch(tiled_records_kernel, dim3(static_cast<unsigned>(items < 0x7fffffff ? items : 0x7fffffff)), dim3(32 * kRecordWarps), 0, stream, p,
           static_cast<TiledRecord*>(p.plan.workspace));
  if (p.dtype == DType::f16)
    run_states<half_t>(p, stream);
  else
    run_states<bfloat16_t>(p, stream);
}

}  // namespace culebra::CUL_DEVICE_NS
