// The recurrences token by token: decoding, f32 operands, and short sequences.
#include "device/barrier.h"
#include "device/vector.h"
#include "ops/linear_attention/recurrence.cuh"

namespace culebra::CUL_DEVICE_NS {
namespace {

using Params = RecurrenceParams;

constexpr int kStage = 8;                  // tokens in shared memory at once
constexpr int kRows = 8, kColumns = 8;     // of the state, a thread
constexpr int kMaxWarps = 4;

struct Launched {
  int64_t items, slices, longest;
  bool aligned;        // q, k, channel gates: four elements at once
  bool state_aligned;  // states: 16 bytes at once
};

// kLanes lanes share kRows rows of the state: K up to 8 kLanes.
template <int kLanes>
struct Geometry {
  static constexpr int kRowsPerWarp = 32 / kLanes * kRows;
  static constexpr int kMaxRows = kMaxWarps * kRowsPerWarp;
  // The columns of a lane: four from 4 lane on, four from 4 (kLanes + lane) on.
  CUL_DEVICE_FN static int column(int lane, int half) { return 4 * (half * kLanes + lane); }
};

template <int kLanes>
struct Stage {
  float q[kStage][kLanes * kColumns];  // scaled
  float k[kStage][kLanes * kColumns];
  float decay[kStage][kLanes * kColumns];
  float v[kStage][Geometry<kLanes>::kMaxRows];
  float o[kStage][Geometry<kLanes>::kMaxRows];
  float beta[kStage], kq[kStage];
};

// This thread's part of a head's state.
struct Cells {
  float s[kRows][kColumns];
};

// f(cells of four, address, element stride 1 along columns): the state in 16-byte accesses along whichever axis is contiguous.
template <int kLanes, bool kLoad>
CUL_DEVICE_FN void move_state(const Params& p, const Launched& l, const Params::States& where, float* state, int64_t row0,
                              int lane, Cells& c) {
  using G = Geometry<kLanes>;
  if (row0 >= p.value_dim) return;
  if (where.k_stride == 1 && l.state_aligned) {
#pragma unroll
    for (int r = 0; r < kRows; ++r)
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int column = G::column(lane, half);
        if (column >= p.key_dim) continue;
        float* at = state + (row0 + r) * where.v_stride + column;
        float* s = &c.s[r][4 * half];
        if constexpr (kLoad) {
          const float4 x = *reinterpret_cast<const float4*>(at);
          s[0] = x.x, s[1] = x.y, s[2] = x.z, s[3] = x.w;
        } else {
          *reinterpret_cast<float4*>(at) = make_float4(s[0], s[1], s[2], s[3]);
        }
      }
    return;
  }
  const bool along_rows = where.v_stride == 1 && l.state_aligned;
#pragma unroll
  for (int i = 0; i < kColumns; ++i) {
    const int column = G::column(lane, i / 4) + i % 4;
    if (column >= p.key_dim) continue;
    float* at = state + row0 * where.v_stride + column * where.k_stride;
    if (along_rows) {
#pragma unroll
      for (int r = 0; r < kRows; r += 4) {
        if constexpr (kLoad) {
          const float4 x = *reinterpret_cast<const float4*>(at + r);
          c.s[r][i] = x.x, c.s[r + 1][i] = x.y, c.s[r + 2][i] = x.z, c.s[r + 3][i] = x.w;
        } else {
          *reinterpret_cast<float4*>(at + r) = make_float4(c.s[r][i], c.s[r + 1][i], c.s[r + 2][i], c.s[r + 3][i]);
        }
      }
    } else {
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        if constexpr (kLoad)
          c.s[r][i] = at[r * where.v_stride];
        else
          at[r * where.v_stride] = c.s[r][i];
      }
    }
  }
}

// What token t of the sequence contributes, into slot i of the stage; by one warp.
template <int kLanes>
CUL_DEVICE_FN void stage_keys(const Params& p, const Launched& l, const SequenceSpan& seq, int64_t t, int64_t head, int i,
                              Stage<kLanes>& stage) {
  constexpr int kPieces = (kLanes * kColumns + 127) / 128;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int64_t key_head = divide(head, divide(p.value_heads, p.key_heads)), token = seq.begin + t;
  const int64_t q_at = seq.batch * p.q.batch + token * p.q.token + key_head * p.q.head;
  const int64_t k_at = seq.batch * p.k.batch + token * p.k.token + key_head * p.k.head;
  const int64_t gate_at = seq.batch * p.gate.batch + token * p.gate.token + head * p.gate.head;
  float q[kPieces][4], k[kPieces][4];
  float qq = 0, kk = 0;
#pragma unroll
  for (int piece = 0; piece < kPieces; ++piece) {
    const int column = 128 * piece + 4 * lane;
    if (column < p.key_dim) {
      load_four(p.dtype, p.q.data, q_at + column, l.aligned, q[piece]);
      load_four(p.dtype, p.k.data, k_at + column, l.aligned, k[piece]);
    }
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      if (column >= p.key_dim) q[piece][j] = k[piece][j] = 0;
      qq = fmaf(q[piece][j], q[piece][j], qq);
      kk = fmaf(k[piece][j], k[piece][j], kk);
    }
  }
  float q_factor = p.scale, k_factor = 1;
  if (p.l2norm) {
    q_factor /= sqrtf(warp_sum(qq) + kL2NormEps);
    k_factor /= sqrtf(warp_sum(kk) + kL2NormEps);
  }
  if (p.key_factor) k_factor *= p.key_factor[p.factor_at(seq.batch, token, key_head)];
  if (p.query_factor) q_factor *= p.query_factor[p.factor_at(seq.batch, token, key_head)];
  float decay = 1;
  if (p.decay == Decay::head || p.decay == Decay::token)
    decay = expf(LogGate<false>(p, head, 0)(load_one(gate_type(p), p.gate.data, gate_at)));
  float kq = 0;
#pragma unroll
  for (int piece = 0; piece < kPieces; ++piece) {
    const int column = 128 * piece + 4 * lane;
    if (column >= kLanes * kColumns) break;
    float e[4] = {decay, decay, decay, decay};
    if (p.decay == Decay::channel && column < p.key_dim) {
      load_four(gate_type(p), p.gate.data, gate_at + column, l.aligned, e);
#pragma unroll
      for (int j = 0; j < 4; ++j) e[j] = expf(LogGate<false>(p, head, column + j)(e[j]));
    }
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      q[piece][j] *= q_factor;
      k[piece][j] *= k_factor;
      kq = fmaf(k[piece][j], q[piece][j], kq);
    }
    *reinterpret_cast<float4*>(&stage.q[i][column]) = make_float4(q[piece][0], q[piece][1], q[piece][2], q[piece][3]);
    *reinterpret_cast<float4*>(&stage.k[i][column]) = make_float4(k[piece][0], k[piece][1], k[piece][2], k[piece][3]);
    *reinterpret_cast<float4*>(&stage.decay[i][column]) = make_float4(e[0], e[1], e[2], e[3]);
  }
  kq = warp_sum(kq);
  if (lane == 0) {
    stage.kq[i] = kq;
    stage.beta[i] = p.beta.data ? *head_row<const float>(p.beta, seq.batch, token, head) : 1.0f;
  }
}

// x[2 r + s] of all kLanes lanes summed: the lane of row r (lane_of_row) gets sums s = 0, its partner s = 1; with 8 lanes one has both.
template <int kLanes>
struct RowSums {
  static constexpr int kLanesPerRow = kLanes / kRows;  // 1, 2 or 4
  static constexpr int kPartner = kLanes == 16 ? 1 : kLanes == 32 ? 2 : 0;

  float first, second;  // with more than 8 lanes `first` is the sum that this lane has

  CUL_DEVICE_FN RowSums(const float (&x)[2 * kRows], int lane) {
    float eight[8], four[4], two[2];
    fold_lanes<kLanes / 2>(x, eight, lane);
    fold_lanes<kLanes / 4>(eight, four, lane);
    fold_lanes<kLanes / 8>(four, two, lane);
    first = two[0];
    second = two[1];
    if constexpr (kLanes > 8) {
      const bool upper = lane & kLanes / 16;
      const float kept = upper ? two[1] : two[0], sent = upper ? two[0] : two[1];
      first = kept + __shfl_xor_sync(kFullMask, sent, kLanes / 16);
      if constexpr (kLanes == 32) first += __shfl_xor_sync(kFullMask, first, 1);
      second = __shfl_xor_sync(kFullMask, first, kPartner);
    }
  }
};

// One token. With the decayed state S: u = S k, d = beta (v - u), o = S q + d (k q), S + d k^T: one pass gives both products.
// The plain update has d = v.
template <int kLanes, bool kDelta>
CUL_DEVICE_FN void step(const Stage<kLanes>& stage, Stage<kLanes>& out, int i, int row, int lane, Cells& c) {
  using G = Geometry<kLanes>;
  using Sums = RowSums<kLanes>;
  float k[kColumns], x[2 * kRows];
#pragma unroll
  for (int r = 0; r < 2 * kRows; ++r) x[r] = 0;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int column = G::column(lane, half);
    const float4 q4 = *reinterpret_cast<const float4*>(&stage.q[i][column]);
    const float4 k4 = *reinterpret_cast<const float4*>(&stage.k[i][column]);
    const float4 e4 = *reinterpret_cast<const float4*>(&stage.decay[i][column]);
    const float q[4] = {q4.x, q4.y, q4.z, q4.w}, e[4] = {e4.x, e4.y, e4.z, e4.w};
    k[4 * half] = k4.x, k[4 * half + 1] = k4.y, k[4 * half + 2] = k4.z, k[4 * half + 3] = k4.w;
#pragma unroll
    for (int r = 0; r < kRows; ++r)
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        float& s = c.s[r][4 * half + j];
        s *= e[j];
        if constexpr (kDelta) x[2 * r] = fmaf(s, k[4 * half + j], x[2 * r]);
        x[2 * r + 1] = fmaf(s, q[j], x[2 * r + 1]);
      }
  }
  const Sums sums(x, lane);
  const int own_row = lane / Sums::kLanesPerRow;
  const bool has_k = kLanes == 8 || !(lane & Sums::kPartner);
  const float sk = has_k ? sums.first : sums.second, sq = has_k ? sums.second : sums.first;
  const float v = stage.v[i][row + own_row];
  const float d = kDelta ? stage.beta[i] * (v - sk) : v;
  if (lane % Sums::kLanesPerRow == 0) out.o[i][row + own_row] = fmaf(d, stage.kq[i], sq);
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    const float row_d = __shfl_sync(kFullMask, d, r * Sums::kLanesPerRow, kLanes);
#pragma unroll
    for (int j = 0; j < kColumns; ++j) c.s[r][j] = fmaf(row_d, k[j], c.s[r][j]);
  }
}

// Computes: S = S diag(e^g); S += (beta (v - S k)) k^T, or v k^T; o = scale S q, token by token; states rows V, columns K
// Shapes:   q, k [B,T,H,K]; v, o [B,T,HV,V]; K, V multiples of 8, K <= 8 kLanes; states [N,HV,V,K] or [N,HV,K,V]
// Layouts:  inner stride 1, f32, f16 or bf16; 16-byte accesses of states along the contiguous axis
// Tiles:    a block has one head of one sequence and 8 rows of its state for every kLanes lanes; a thread 8 x 8 cells in registers
// Shared:   8 tokens of q, k and decay in f32, and the block's part of v and o
// Order:    of a row's products: 8 columns a lane, then a fixed tree over lanes; no row depends on which block has it
// Numerics: f32 throughout; log gates below -30 count as -30
// Needs:    sm_80. Limit: 8 K V bytes a head and call for the states; beyond some ten tokens the chain of steps
// Source:   Yang et al., arXiv:2412.06464 (gated delta rule); Kimi team, arXiv:2510.26692 (channel decay)
template <int kLanes, bool kDelta>
__global__ void __launch_bounds__(32 * kMaxWarps, 2) recurrent_kernel(Params p, Launched l) {
  using G = Geometry<kLanes>;
  CUL_SHARED(Stage<kLanes>, stage, [1]);
  const int thread = static_cast<int>(threadIdx.x), warp = thread / 32, warps = static_cast<int>(blockDim.x) / 32;
  const int lane = thread % kLanes, rows = warps * G::kRowsPerWarp, row = thread / kLanes * kRows;
  for (int64_t item = blockIdx.x; item < l.items; item += gridDim.x) {
    const int64_t head_item = divide(item, l.slices), first_row = (item - head_item * l.slices) * rows;
    const int64_t n = divide(head_item, p.value_heads), head = head_item - n * p.value_heads;
    const SequenceSpan seq = sequence_at(p.sequences, n);
    if (seq.length > l.longest) continue;
    const int64_t checkpoint0 = first_checkpoint(p, n);
    const int used = p.value_dim - first_row < rows ? static_cast<int>(p.value_dim - first_row) : rows;
    Cells cells;
#pragma unroll
    for (int r = 0; r < kRows; ++r)
#pragma unroll
      for (int j = 0; j < kColumns; ++j) cells.s[r][j] = 0;
    if (!seq.skipped && p.initial.data)
      move_state<kLanes, true>(p, l, p.initial, state_of(p.initial, seq.read_row, head), first_row + row, lane, cells);

    for (int64_t begin = 0; begin < seq.length; begin += kStage) {
      const int count = seq.length - begin < kStage ? static_cast<int>(seq.length - begin) : kStage;
      if (!seq.skipped) {
        for (int i = warp; i < count; i += warps) stage_keys(p, l, seq, begin + i, head, i, stage[0]);
        for (int i = thread; i < count * rows; i += 32 * warps) {
          const int t = i / rows, r = i - t * rows;
          const int64_t at = seq.batch * p.v.batch + (seq.begin + begin + t) * p.v.token + head * p.v.head + first_row + r;
          stage[0].v[t][r] = r < used ? load_one(p.dtype, p.v.data, at) : 0.0f;
        }
      }
      __syncthreads();
      for (int i = 0; i < count; ++i) {
        if (!seq.skipped) step<kLanes, kDelta>(stage[0], stage[0], i, row, lane, cells);
        const int64_t after = begin + i + 1;
        if (p.checkpoint_every && after % p.checkpoint_every == 0) {
          const int64_t at = checkpoint0 + after / p.checkpoint_every - 1;
          if (at < p.checkpoint_count)
            move_state<kLanes, false>(p, l, p.checkpoints, state_of(p.checkpoints, at, head), first_row + row, lane, cells);
        }
      }
      __syncthreads();
      for (int i = thread; i < count * rows; i += 32 * warps) {
        const int t = i / rows, r = i - t * rows;
        const int64_t at = seq.batch * p.o.batch + (seq.begin + begin + t) * p.o.token + head * p.o.head + first_row + r;
        if (r < used) store_one(p.dtype, p.o.data, at, seq.skipped ? 0.0f : stage[0].o[t][r]);
      }
    }
    if (!seq.skipped && p.final.data)
      move_state<kLanes, false>(p, l, p.final, state_of(p.final, seq.write_row, head), first_row + row, lane, cells);
    __syncthreads();  // the next item fills the stage
  }
}

template <int kLanes>
void launch_lanes(const Params& p, Launched l, NativeStream stream) {
  // Slices of the state so small that every multiprocessor has one, and no smaller: each reads q and k anew.
  constexpr int64_t kBlocksWanted = 264;
  const int64_t heads = p.sequences.count * p.value_heads;
  int warps = kMaxWarps;
  const auto slices_of = [&](int w) { return (p.value_dim + w * Geometry<kLanes>::kRowsPerWarp - 1) / (w * Geometry<kLanes>::kRowsPerWarp); };
  while (warps > 1 && (heads * slices_of(warps) < kBlocksWanted || slices_of(warps / 2) == slices_of(warps))) warps /= 2;
  l.slices = slices_of(warps);
  l.items = heads * l.slices;
  const dim3 grid(static_cast<unsigned>(l.items < 0x7fffffff ? l.items : 0x7fffffff)), block(32 * static_cast<unsigned>(warps));
  if (p.beta.data)
    launch(recurrent_kernel<kLanes, true>, grid, block, 0, stream, p, l);
  else
    launch(recurrent_kernel<kLanes, false>, grid, block, 0, stream, p, l);
}

}  // namespace

void run_recurrent(const Params& p, int64_t longest, NativeStream stream) {
  if (p.sequences.count == 0) return;
  Launched l{0, 0, longest, true, true};
  for (const Params::Heads* x : {&p.q, &p.k, &p.gate}) {
    if (x == &p.gate && p.decay != Decay::channel) continue;
    if (x->batch % 4 || x->token % 4 || x->head % 4) l.aligned = false;
  }
  for (const Params::States* s : {&p.initial, &p.final, &p.checkpoints})
    if (s->data && (s->row % 4 || s->head % 4 || (s->k_stride == 1 ? s->v_stride : s->k_stride) % 4)) l.state_aligned = false;
  if (p.key_dim <= 64) return launch_lanes<8>(p, l, stream);
  if (p.key_dim <= 128) return launch_lanes<16>(p, l, stream);
  launch_lanes<32>(p, l, stream);
}

}  // namespace culebra::CUL_DEVICE_NS
