// The tiled form, second half: outputs, all blocks of tokens at once.
#include "ops/linear_attention/chunk_run.h"
#include "ops/linear_attention/tiled.cuh"

namespace culebra::CUL_DEVICE_NS {
namespace {

using Params = RecurrenceParams;

constexpr int kWarps = 8;
constexpr int kThreads = 32 * kWarps;
constexpr int kValues = TiledPlan::kValueTile;
constexpr int kStage = TiledPlan::kStageBytes;
constexpr int kSpanChunks = kSpan / kChunk;
constexpr int kRowTile = kQueryRows * 128;  // bytes of 64 columns of q, and of the scores

// What a block is to do: kQueryRows tokens of one head, kValues columns of their outputs.
struct OutputTile {
  SequenceSpan seq;
  int64_t head, key_head, slot, state_slot, begin, first_column;
  int first_chunk;   // of the queries, counted in the span
  int chunks;        // of keys, from the span's first on
  int state_pieces;  // 64 columns of the state before the span each; 0: it is zero

  CUL_DEVICE_FN OutputTile(const Params& p, int64_t column_tiles) {
    const int64_t unit = divide(blockIdx.x, column_tiles);
    first_column = (blockIdx.x - unit * column_tiles) * kValues;
    const int64_t block = divide(unit, p.value_heads);
    head = unit - block * p.value_heads;
    key_head = divide(head, divide(p.value_heads, p.key_heads));
    const int64_t n = sequence_of_slot(p.sequences, block, kQueryRows);
    seq = sequence_at(p.sequences, n);
    begin = (block - first_slot(p.sequences, n, kQueryRows)) * kQueryRows;
    const int64_t span = begin / kSpan, left = seq.length - begin;
    first_chunk = static_cast<int>(begin - span * kSpan) / kChunk;
    chunks = first_chunk + (left > kChunk ? 2 : 1);
    slot = first_slot(p.sequences, n, kChunk) + span * kSpanChunks;
    state_slot = first_slot(p.sequences, n, kSpan) + span;
    state_pieces = span > 0 || p.initial.data ? p.plan.tiles.keys / 64 : 0;
  }
};

// The block's tile in shared memory, where it takes no registers from the products. All threads call.
CUL_DEVICE_FN const OutputTile& shared_tile(const Params& p, int64_t column_tiles) {
  CUL_SHARED(unsigned char, storage, [sizeof(OutputTile)]);
  if (threadIdx.x == 0) *reinterpret_cast<OutputTile*>(storage) = OutputTile(p, column_tiles);
  __syncthreads();
  return *reinterpret_cast<const OutputTile*>(storage);
}

// x[64 rows][64 columns] += a[rows][64] b, b's columns as rows (kTransposed: rows). Within a chunk's own scores the blocks above the
// diagonal are skipped.
template <class T, bool kTransposed>
CUL_DEVICE_FN void multiply(uint32_t a_tile, uint32_t b_tile, int lane, bool triangle, float (&x)[4][8][4]) {
#pragma unroll
  for (int step = 0; step < 4; ++step) {
    uint32_t a[4][4];
#pragma unroll
    for (int m = 0; m < 4; ++m) ldmatrix_x4(a[m], piece_at(a_tile, 16 * m + lane % 16, 2 * step + lane / 16));
#pragma unroll
    for (int pair = 0; pair < 4; ++pair) {
      uint32_t b[4];
      if constexpr (kTransposed)
        ldmatrix_x4_trans(b, piece_at(b_tile, 16 * step + lane % 16, 2 * pair + lane / 16));
      else
        ldmatrix_x4(b, piece_at(b_tile, 16 * pair + pair_row(lane), 2 * step + lane / 8 % 2));
#pragma unroll
      for (int m = 0; m < 4; ++m) {
        if (kTransposed && triangle && m < step) continue;
        mma_m16n8k16<T>(x[m][2 * pair], a[m], b[0], b[1]);
        mma_m16n8k16<T>(x[m][2 * pair + 1], a[m], b[2], b[3]);
      }
    }
  }
}

// The scores of 32 queries and 32 keys, decayed and rounded. `before`: of the chunks between, the decay.
template <class T>
CUL_DEVICE_FN void make_scores(uint32_t q_tile, uint32_t k_tile, int key_tiles, const TiledRecord& rows, const TiledRecord& columns, int row0,
                               int column0, float between, bool own, int lane, unsigned char* scores) {
  float x[2][4][4];
#pragma unroll
  for (int m = 0; m < 2; ++m)
#pragma unroll
    for (int j = 0; j < 4; ++j)
#pragma unroll
      for (int i = 0; i < 4; ++i) x[m][j][i] = 0;
  if (!own || column0 <= row0) {
    for (int tile = 0; tile < key_tiles; ++tile, q_tile += kRowTile, k_tile += kChunk * 128) {
#pragma unroll
      for (int step = 0; step < 4; ++step) {
        uint32_t a[2][4];
#pragma unroll
        for (int m = 0; m < 2; ++m) ldmatrix_x4(a[m], piece_at(q_tile, row0 + 16 * m + lane % 16, 2 * step + lane / 16));
#pragma unroll
        for (int pair = 0; pair < 2; ++pair) {
          uint32_t b[4];
          ldmatrix_x4(b, piece_at(k_tile, column0 + 16 * pair + pair_row(lane), 2 * step + lane / 8 % 2));
#pragma unroll
          for (int m = 0; m < 2; ++m) {
            mma_m16n8k16<T>(x[m][2 * pair], a[m], b[0], b[1]);
            mma_m16n8k16<T>(x[m][2 * pair + 1], a[m], b[2], b[3]);
          }
        }
      }
    }
  }
#pragma unroll
  for (int m = 0; m < 2; ++m)
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int i = row0 + 16 * m + 8 * half + lane / 4;
      const float row = own ? rows.queries[i] : rows.rows[i] * between, sum = rows.sums[i];
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const int k = column0 + 8 * j + lane % 4 * 2;
        float score[2];
#pragma unroll
        for (int c = 0; c < 2; ++c) {
          const float product = x[m][j][2 * half + c];
          if (own)
            score[c] = i >= k + c ? product * row * (expf(sum - columns.sums[k + c]) * columns.keys[k + c]) : 0.0f;
          else
            score[c] = product * row * columns.gains[k + c];
        }
        *reinterpret_cast<uint32_t*>(scores + i * 128 + (k / 8 ^ (i & 7)) * 16 + k % 8 * 2) = pack2<T>(score[0], score[1]);
      }
    }
}

// Computes: o_i = scale e^(b_i) q_i S + sum over j <= i of scale e^(b_i - b_j) (q_i . k_j) v_j, S the state before the span, with the factors
//           of keys and queries
// Shapes:   q, k [B,T,H,K], v, o [B,T,HV,V], K up to 256, any V; states and records of tiled_layout.h
// Layouts:  inner stride 1; 16-byte copies where rows are aligned
// Tiles:    a block has 128 tokens and 256 columns of o, a warp 64 x 64 of that; its keys are the span's up to it, 64 at a time
// Shared:   q and scores, 2 or 3 pieces under way: 64 columns of S, all of 64 keys, or 64 rows of v; the span's records
// Order:    S in k order of mma, then chunks in order; the same whatever else runs
// Numerics: operands S and scores rounded once, f32 sums; between chunks decays are products of factors at most 1, within one differences
//           enter, selected before exp
// Needs:    sm_80 with 163 KB of shared memory a block. Limit: README.md
// Source:   Beck et al., arXiv:2503.14376
template <class T>
__global__ void __launch_bounds__(kThreads, 1) tiled_outputs_kernel(Params p, int64_t column_tiles, bool aligned, bool v_aligned, bool o_aligned) {
  CUL_DYNAMIC_SHARED(unsigned char, shared, 128);
  const TiledPlan& plan = p.plan.tiles;
  const int thread = static_cast<int>(threadIdx.x), warp = thread / 32, lane = thread % 32;
  const OutputTile& tile = shared_tile(p, column_tiles);
  const int64_t left = tile.seq.length - tile.begin, used = p.value_dim - tile.first_column;
  if (tile.seq.length <= p.plan.recurrent_tokens || left <= 0) return;
  T* const out = head_row<T>(p.o, tile.seq.batch, tile.seq.begin + tile.begin, tile.head) + tile.first_column;
  if (tile.seq.skipped) {
    for (int row = warp; row < kQueryRows && row < left; row += kWarps)
      for (int column = lane; column < kValues && column < used; column += 32) out[row * p.o.token + column] = from_float<T>(0.0f);
    return;
  }

  const int key_tiles = plan.keys / 64, stages = plan.output_stages;
  unsigned char* const scores = shared + key_tiles * kRowTile;
  unsigned char* const ring = scores + kRowTile;
  const TiledRecord* const records = reinterpret_cast<const TiledRecord*>(ring + stages * kStage);
  const int64_t span_begin = tile.begin - tile.first_chunk * kChunk;
  const int pieces = tile.state_pieces + 2 * tile.chunks;
  const auto stage_of = [&](int piece) { return ring + static_cast<unsigned>(piece) % static_cast<unsigned>(stages) * kStage; };
  const auto fetch = [&](int piece) {
    if (piece < tile.state_pieces) {
      const T* const state = span_state<T>(p, tile.state_slot, tile.head) + tile.first_column * plan.keys + piece * 64;
      copy_tiles(stage_of(piece), state, plan.keys, kValues, 1, used, 64, true, thread, kThreads);
    } else if (piece < pieces) {
      const int chunk = (piece - tile.state_pieces) / 2;
      const int64_t begin = span_begin + chunk * kChunk, token = tile.seq.begin + begin, rows = tile.seq.length - begin;
      if ((piece - tile.state_pieces) % 2 == 0)
        copy_tiles(stage_of(piece), head_row<const T>(p.k, tile.seq.batch, token, tile.key_head), p.k.token, kChunk, key_tiles, rows, p.key_dim,
                   aligned, thread, kThreads);
      else
        copy_tiles(stage_of(piece), head_row<const T>(p.v, tile.seq.batch, token, tile.head) + tile.first_column, p.v.token, kChunk,
                   kValues / 64, rows, used, v_aligned, thread, kThreads);
    }
    cp_async_commit();
  };
  copy_tiles(shared, head_row<const T>(p.q, tile.seq.batch, tile.seq.begin + tile.begin, tile.key_head), p.q.token, kQueryRows, key_tiles,
             left, p.key_dim, aligned, thread, kThreads);
  for (int chunk = 0; chunk < tile.chunks; ++chunk)
    for (int i = thread; i < static_cast<int>(sizeof(TiledRecord)) / 16; i += kThreads)
      cp_async_l2(shared_address(records + chunk) + static_cast<uint32_t>(i * 16),
                  reinterpret_cast<const unsigned char*>(record_at(p, tile.slot + chunk, tile.head)) + i * 16);
  for (int ahead = 0; ahead + 1 < stages; ++ahead) fetch(ahead);

  // The warp's 64 rows are one chunk's, `own`, and its columns may be beyond v's.
  const int group = warp / 4, own = tile.first_chunk + group, columns = warp % 4;
  const bool works = own < tile.chunks && columns * 64 < used;
  const TiledRecord& rows = records[own];
  float o[4][8][4];
#pragma unroll
  for (int m = 0; m < 4; ++m)
#pragma unroll
    for (int j = 0; j < 8; ++j)
#pragma unroll
      for (int i = 0; i < 4; ++i) o[m][j][i] = 0;
  for (int piece = 0; piece < pieces; ++piece) {
    if (stages == 3)
      cp_async_wait<1>();
    else
      cp_async_wait<0>();
    __syncthreads();  // this piece is there for all, and the one before is no longer read
    fetch(piece + stages - 1);
    unsigned char* const stage = stage_of(piece);
    if (piece < tile.state_pieces) {
      if (works)
        multiply<T, false>(shared_address(shared + piece * kRowTile + group * kChunk * 128), shared_address(stage + columns * kChunk * 128), lane,
                           false, o);
      if (piece + 1 < tile.state_pieces) continue;
      float before = 0;
      for (int chunk = 0; chunk < own && own < tile.chunks; ++chunk) before += records[chunk].total;
      before = expf(before);
#pragma unroll
      for (int m = 0; m < 4; ++m)
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const float factor = own < tile.chunks ? rows.rows[16 * m + 8 * half + lane / 4] * before : 0.0f;
#pragma unroll
          for (int j = 0; j < 8; ++j) o[m][j][2 * half] *= factor, o[m][j][2 * half + 1] *= factor;
        }
      continue;
    }
    const int chunk = (piece - tile.state_pieces) / 2;
    if (own >= tile.chunks || chunk > own) continue;
    if ((piece - tile.state_pieces) % 2 == 0) {
      float between = 0;
      for (int c = chunk + 1; c < own; ++c) between += records[c].total;
      make_scores<T>(shared_address(shared + group * kChunk * 128), shared_address(stage), key_tiles, rows, records[chunk], warp % 4 / 2 * 32,
                     warp % 2 * 32, expf(between), chunk == own, lane, scores + group * kChunk * 128);
    } else if (works) {
      multiply<T, true>(shared_address(scores + group * kChunk * 128), shared_address(stage + columns * kChunk * 128), lane, chunk == own, o);
    }
  }
  cp_async_wait<0>();
  __syncthreads();  // the ring is free
  if (!works) return;

  // The warp's outputs by way of shared memory, a tile of its own.
  unsigned char* const mine = scores + warp * kChunk * 128;  // scores and ring: 8 tiles at least
#pragma unroll
  for (int m = 0; m < 4; ++m)
#pragma unroll
    for (int j = 0; j < 8; ++j)
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int row = 16 * m + 8 * half + lane / 4;
        *reinterpret_cast<uint32_t*>(mine + row * 128 + (j ^ (row & 7)) * 16 + lane % 4 * 4) =
            pack2<T>(o[m][j][2 * half], o[m][j][2 * half + 1]);
      }
  __syncwarp();
  const int piece = lane % 8, column = columns * 64 + piece * 8;
  if (column >= used) return;
  for (int row = lane / 8; row < kChunk && group * kChunk + row < left; row += 4) {
    const Vector<T, 8> x = load_vector<8>(reinterpret_cast<const T*>(mine + row * 128 + (piece ^ (row & 7)) * 16));
    T* const to = out + (group * kChunk + row) * p.o.token + column;
    if (o_aligned) {
      store_vector(to, x);
    } else {
#pragma unroll
      for (int i = 0; i < 8; ++i) to[i] = x[i];
    }
  }
}

template <class T>
void run_outputs(const Params& p, NativeStream stream) {
  const TiledPlan& plan = p.plan.tiles;
  const int64_t column_tiles = (p.value_dim + kValues - 1) / kValues;
  launch(tiled_outputs_kernel<T>, dim3(static_cast<unsigned>(plan.blocks * p.value_heads * column_tiles)), dim3(kThreads),
         static_cast<size_t>(plan.output_bytes(plan.output_stages)), stream, p, column_tiles, rows_aligned(p.q) && rows_aligned(p.k),
         rows_aligned(p.v), rows_aligned(p.o));
}

}  // namespace

void tiled_outputs(const Params& p, NativeStream stream) {
  if (p.plan.tiles.blocks == 0) return;
  if (p.dtype == DType::f16)
    run_outputs<half_t>(p, stream);
  else
    run_outputs<bfloat16_t>(p, stream);
}

}  // namespace culebra::CUL_DEVICE_NS
