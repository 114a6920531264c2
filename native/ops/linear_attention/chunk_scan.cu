// The second kernel of the chunkwise form: from chunk to chunk, the state in registers.
#include "ops/linear_attention/chunk.cuh"
#include "ops/linear_attention/chunk_run.h"

namespace culebra::CUL_DEVICE_NS {
namespace {

using Params = RecurrenceParams;

constexpr int kMaxWarps = 4;
constexpr int kTileBytes = kChunk * kChunkPitch * 2;  // a triangle

// A chunk in shared memory, `values` columns of v. Offsets in bytes.
struct ScanTiles {
  int keys, values;
  bool delta, split, own_keys;  // own_keys: keys that read the state are not those that it gains

  CUL_NUMERIC int key_bytes() const { return kChunk * (keys + 8) * 2; }
  CUL_NUMERIC int queries() const { return 0; }
  CUL_NUMERIC int gains() const { return key_bytes(); }
  CUL_NUMERIC int reads() const { return own_keys ? 2 * key_bytes() : gains(); }
  CUL_NUMERIC int scores() const { return (own_keys ? 3 : 2) * key_bytes(); }
  CUL_NUMERIC int inverse(int part) const { return scores() + (1 + part) * kTileBytes; }
  CUL_NUMERIC int v() const { return inverse(delta ? split ? 2 : 1 : 0); }
  CUL_NUMERIC int factors() const { return v() + kChunk * (values + 8) * 2; }
  CUL_NUMERIC int decay() const { return factors() + 3 * kChunk * 4; }
  CUL_NUMERIC int bytes() const { return decay() + keys * 4; }
};

struct ScanRun {
  ChunkLayout layout;
  const unsigned char* records;
  int64_t items, slices;
  ScanTiles tiles;
  int stages;
  bool keys_aligned, v_aligned, o_aligned;
};

// A record's bytes as they are; a multiple of 16.
CUL_DEVICE_FN void copy_bytes(unsigned char* to, const unsigned char* from, int bytes, int thread, int threads) {
  for (int i = thread * 16; i < bytes; i += threads * 16) cp_async_l2(shared_address(to + i), from + i);
}
// The blocks of a 64 x 64 matrix on and below the diagonal.
CUL_DEVICE_FN void copy_triangle(unsigned char* to, const unsigned char* from, int thread, int threads) {
  for (int i = thread; i < kChunk * 8; i += threads) {
    const int row = i / 8, column = i % 8 * 8;
    if (column <= row / 16 * 16 + 15)
      cp_async_l2(shared_address(to + (row * kChunkPitch + column) * 2), from + (row * kChunk + column) * 2);
  }
}

template <class T>
CUL_DEVICE_FN void copy_chunk(const Params& p, const ScanRun& run, const SequenceSpan& seq, int64_t n, int64_t head,
                              int64_t first_row, int64_t chunk, int count, unsigned char* stage, int thread, int threads) {
  const ScanTiles& t = run.tiles;
  const ChunkLayout& layout = run.layout;
  const int64_t token = seq.begin + chunk * kChunk;
  const unsigned char* const record =
      run.records + ((first_slot(p.sequences, n) + chunk) * p.value_heads + head) * layout.record_bytes();
  T* const queries = reinterpret_cast<T*>(stage + t.queries());
  T* const gains = reinterpret_cast<T*>(stage + t.gains());
  if (layout.channel) {
    const auto dense = [&](int to, int64_t from) {
      copy_tokens(reinterpret_cast<T*>(stage + to), reinterpret_cast<const T*>(record + from), int64_t{layout.keys}, kChunk, layout.keys,
                  layout.keys, true, thread, threads);
    };
    dense(t.queries(), layout.queries_at());
    dense(t.gains(), layout.gains_at());
    if (t.own_keys) dense(t.reads(), layout.keys_at());
  } else {
    const int64_t key_head = divide(head, divide(p.value_heads, p.key_heads));
    copy_tokens(queries, head_row<const T>(p.q, seq.batch, token, key_head), p.q.token, count, layout.keys, p.key_dim, run.keys_aligned,
                thread, threads);
    copy_tokens(gains, head_row<const T>(p.k, seq.batch, token, key_head), p.k.token, count, layout.keys, p.key_dim, run.keys_aligned,
                thread, threads);
  }
  copy_triangle(stage + t.scores(), record + layout.scores_at(), thread, threads);
  if (t.delta) copy_triangle(stage + t.inverse(0), record + layout.inverse_at(0), thread, threads);
  if (t.split) copy_triangle(stage + t.inverse(1), record + layout.inverse_at(1), thread, threads);
  copy_tokens(reinterpret_cast<T*>(stage + t.v()), head_row<const T>(p.v, seq.batch, token, head) + first_row, p.v.token, count, t.values,
              p.value_dim - first_row, run.v_aligned, thread, threads);
  copy_bytes(stage + t.factors(), record + layout.factors_at(), 3 * kChunk * 4 + layout.keys * 4, thread, threads);
  cp_async_commit();
}

// Sums of m16n8k16 become operand A of the next product: two tiles of 8 columns are 16 of k.
template <class T>
CUL_DEVICE_FN void operand_of(const float (&low)[4], const float (&high)[4], uint32_t (&a)[4]) {
  a[0] = pack2<T>(low[0], low[1]);
  a[1] = pack2<T>(low[2], low[3]);
  a[2] = pack2<T>(high[0], high[1]);
  a[3] = pack2<T>(high[2], high[3]);
}

// x[16 rows of the state][64 tokens] = state tile^T.
template <class T, int kKeys>
CUL_DEVICE_FN void read_state(const float (&s)[kKeys / 8][4], const T* tile, int lane, float (&x)[8][4]) {
#pragma unroll
  for (int j = 0; j < 8; ++j)
#pragma unroll
    for (int i = 0; i < 4; ++i) x[j][i] = 0;
#pragma unroll
  for (int step = 0; step < kKeys / 16; ++step) {
    uint32_t a[4];
    operand_of<T>(s[2 * step], s[2 * step + 1], a);
#pragma unroll
    for (int pair = 0; pair < 4; ++pair) {
      uint32_t b[4];
      ldmatrix_x4(b, shared_address(tile + (16 * pair + pair_row(lane)) * pitch_of(kKeys) + 16 * step + pair_column(lane)));
      mma_m16n8k16<T>(x[2 * pair], a, b[0], b[1]);
      mma_m16n8k16<T>(x[2 * pair + 1], a, b[2], b[3]);
    }
  }
}

// y[rows][i] += sum over j <= i of x[rows][j] lower[i][j].
template <class T>
CUL_DEVICE_FN void times_triangle(const uint32_t (&x)[4][4], const T* lower, int lane, float (&y)[8][4]) {
#pragma unroll
  for (int step = 0; step < 4; ++step)
#pragma unroll
    for (int pair = step; pair < 4; ++pair) {
      uint32_t b[4];
      ldmatrix_x4(b, shared_address(lower + (16 * pair + pair_row(lane)) * kChunkPitch + 16 * step + pair_column(lane)));
      mma_m16n8k16<T>(y[2 * pair], x[step], b[0], b[1]);
      mma_m16n8k16<T>(y[2 * pair + 1], x[step], b[2], b[3]);
    }
}

// This warp's rows row, row + 8 of a state, columns 8 j + 2 (lane % 4) and the next.
template <int kKeys, bool kLoad>
CUL_DEVICE_FN void move_rows(const Params& p, const Params::States& where, float* state, int64_t row, int lane, float (&s)[kKeys / 8][4]) {
#pragma unroll
  for (int j = 0; j < kKeys / 8; ++j)
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int64_t v = row + i / 2 * 8, k = 8 * j + lane % 4 * 2 + i % 2;
      const bool inside = v < p.value_dim && k < p.key_dim;
      float* const cell = state + v * where.v_stride + k * where.k_stride;
      if constexpr (kLoad)
        s[j][i] = inside ? *cell : 0.0f;
      else if (inside)
        *cell = s[j][i];
    }
}

// One chunk on 16 rows of the state.
template <class T, int kKeys>
CUL_DEVICE_FN void run_chunk(const ScanTiles& t, unsigned char* stage, int warp, int lane, float (&s)[kKeys / 8][4]) {
  const float* const factors = reinterpret_cast<const float*>(stage + t.factors()) + lane % 4 * 2;
  const T* const gains = reinterpret_cast<const T*>(stage + t.gains());
  T* const v = reinterpret_cast<T*>(stage + t.v()) + 16 * warp;
  const int v_pitch = t.values + 8;

  // v of this warp's rows as operand A: [rows][tokens].
  uint32_t values[4][4];
#pragma unroll
  for (int step = 0; step < 4; ++step)
    ldmatrix_x4_trans(values[step], shared_address(v + (16 * step + lane / 16 * 8 + lane % 8) * v_pitch + lane / 8 % 2 * 8));

  float r[8][4];
  if (t.delta) {
    read_state<T, kKeys>(s, reinterpret_cast<const T*>(stage + t.reads()), lane, r);
    uint32_t x[4][4];  // v - e^b S k
#pragma unroll
    for (int step = 0; step < 4; ++step) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        float (&sums)[4] = r[2 * step + half];
        const float2 f = *reinterpret_cast<const float2*>(factors + 16 * step + 8 * half);
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          const uint32_t pair = values[step][2 * half + i];
          sums[2 * i] = fmaf(-f.x, sums[2 * i], low_float<T>(pair));
          sums[2 * i + 1] = fmaf(-f.y, sums[2 * i + 1], high_float<T>(pair));
        }
      }
      operand_of<T>(r[2 * step], r[2 * step + 1], x[step]);
    }
#pragma unroll
    for (int j = 0; j < 8; ++j)
#pragma unroll
      for (int i = 0; i < 4; ++i) r[j][i] = 0;
    times_triangle<T>(x, reinterpret_cast<const T*>(stage + t.inverse(0)), lane, r);
    if (t.split) times_triangle<T>(x, reinterpret_cast<const T*>(stage + t.inverse(1)), lane, r);
#pragma unroll
    for (int step = 0; step < 4; ++step) operand_of<T>(r[2 * step], r[2 * step + 1], values[step]);
  } else {
#pragma unroll
    for (int step = 0; step < 4; ++step)
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        r[2 * step + i / 2][i % 2 * 2] = low_float<T>(values[step][i]);
        r[2 * step + i / 2][i % 2 * 2 + 1] = high_float<T>(values[step][i]);
      }
  }

  float o[8][4];
  read_state<T, kKeys>(s, reinterpret_cast<const T*>(stage + t.queries()), lane, o);
#pragma unroll
  for (int j = 0; j < 8; ++j) {
    const float2 f = *reinterpret_cast<const float2*>(factors + kChunk + 8 * j);
    o[j][0] *= f.x, o[j][1] *= f.y, o[j][2] *= f.x, o[j][3] *= f.y;
  }
  times_triangle<T>(values, reinterpret_cast<const T*>(stage + t.scores()), lane, o);

  // The state: its decay, then what the chunk adds.
  const float* const decay = reinterpret_cast<const float*>(stage + t.decay()) + lane % 4 * 2;
#pragma unroll
  for (int j = 0; j < kKeys / 8; ++j) {
    const float2 e = *reinterpret_cast<const float2*>(decay + 8 * j);
    s[j][0] *= e.x, s[j][1] *= e.y, s[j][2] *= e.x, s[j][3] *= e.y;
  }
#pragma unroll
  for (int step = 0; step < 4; ++step) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const float2 f = *reinterpret_cast<const float2*>(factors + 2 * kChunk + 16 * step + 8 * half);
      float (&sums)[4] = r[2 * step + half];
      sums[0] *= f.x, sums[1] *= f.y, sums[2] *= f.x, sums[3] *= f.y;
    }
    uint32_t a[4];
    operand_of<T>(r[2 * step], r[2 * step + 1], a);
#pragma unroll
    for (int pair = 0; pair < kKeys / 16; ++pair) {
      uint32_t b[4];
      ldmatrix_x4_trans(b, shared_address(gains + (16 * step + lane % 16) * pitch_of(kKeys) + 16 * pair + lane / 16 * 8));
      mma_m16n8k16<T>(s[2 * pair], a, b[0], b[1]);
      mma_m16n8k16<T>(s[2 * pair + 1], a, b[2], b[3]);
    }
  }

  // o in the place of v: both are this warp's alone.
  __syncwarp();
#pragma unroll
  for (int j = 0; j < 8; ++j)
#pragma unroll
    for (int i = 0; i < 4; ++i) v[(8 * j + lane % 4 * 2 + i % 2) * v_pitch + lane / 4 + i / 2 * 8] = from_float<T>(o[j][i]);
  __syncwarp();
}

// `count` tokens of 16 columns of o from where run_chunk left them.
template <class T>
CUL_DEVICE_FN void store_output(const Params& p, bool aligned, const T* tile, int pitch, T* out, int64_t columns, int count, int lane) {
  const int column = lane % 2 * 8;
  if (column >= columns) return;
  for (int row = lane / 2; row < count; row += 16) {
    const Vector<T, 8> piece = load_vector<8>(tile + row * pitch + column);
    T* const to = out + row * p.o.token + column;
    if (aligned) {
      store_vector(to, piece);
    } else {
#pragma unroll
      for (int i = 0; i < 8; ++i) to[i] = piece[i];
    }
  }
}

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
// Tiles:    a block has one head of one sequence and 16 rows of its state a warp (1, 2 or 4 warps); products are transposed, so that sums
//           of one are operand A of the next, and every operand B comes from shared memory by ldmatrix
// Shared:   1 or 2 chunks: q and k [64][K + 8], P and M [64][72], v [64][V of the block + 8], row factors
// Order:    k order of mma; the same for every block size
// Numerics: f32 state in registers; operands (state, v - S k, R) rounded once; M in two parts for bf16
// Needs:    sm_80. Limit: per chunk and head 2 K V 64 x 3 + 64 64 V x 2 (half of it) multiplications; bytes: README.md
// Source:   Yang et al., arXiv:2412.06464; the products' order is FlashKDA's (github.com/MoonshotAI/FlashKDA)
template <class T, int kKeys>
__global__ void __launch_bounds__(32 * kMaxWarps, 1) scan_kernel(Params p, ScanRun run) {
  CUL_DYNAMIC_SHARED(unsigned char, shared, 128);
  const int thread = static_cast<int>(threadIdx.x), threads = static_cast<int>(blockDim.x), warp = thread / 32, lane = thread % 32;
  const int64_t head_item = divide(blockIdx.x, run.slices), first_row = (blockIdx.x - head_item * run.slices) * run.tiles.values;
  const int64_t n = divide(head_item, p.value_heads), head = head_item - n * p.value_heads;
  const SequenceSpan seq = sequence_at(p.sequences, n);
  if (seq.length <= kRecurrentTokens) return;
  const int64_t checkpoint0 = first_checkpoint(p, n);
  if (seq.skipped) return clear_sequence<T>(p, seq, head, first_row, run.tiles.values, checkpoint0);

  float s[kKeys / 8][4];
  const int64_t row = first_row + 16 * warp + lane / 4;
  if (p.initial.data) {
    move_rows<kKeys, true>(p, p.initial, state_of(p.initial, seq.read_row, head), row, lane, s);
  } else {
#pragma unroll
    for (int j = 0; j < kKeys / 8; ++j)
#pragma unroll
      for (int i = 0; i < 4; ++i) s[j][i] = 0;
  }

  const int64_t chunks = (seq.length + kChunk - 1) / kChunk;
  const auto fetch = [&](int64_t chunk) {
    const int64_t left = seq.length - chunk * kChunk;
    copy_chunk<T>(p, run, seq, n, head, first_row, chunk, left < kChunk ? static_cast<int>(left) : kChunk,
                  shared + (run.stages == 2 ? chunk % 2 : 0) * run.tiles.bytes(), thread, threads);
  };
  fetch(0);
  for (int64_t chunk = 0; chunk < chunks; ++chunk) {
    unsigned char* const stage = shared + (run.stages == 2 ? chunk % 2 : 0) * run.tiles.bytes();
    if (run.stages == 2 && chunk + 1 < chunks) {
      fetch(chunk + 1);
      cp_async_wait<1>();
    } else {
      cp_async_wait<0>();
    }
    __syncthreads();
    run_chunk<T, kKeys>(run.tiles, stage, warp, lane, s);
    const int64_t begin = chunk * kChunk, end = begin + kChunk;
    store_output<T>(p, run.o_aligned, reinterpret_cast<const T*>(stage + run.tiles.v()) + 16 * warp, run.tiles.values + 8,
                    head_row<T>(p.o, seq.batch, seq.begin + begin, head) + first_row + 16 * warp, p.value_dim - first_row - 16 * warp,
                    seq.length < end ? static_cast<int>(seq.length - begin) : kChunk, lane);
    if (p.checkpoint_every && end <= seq.length && end % p.checkpoint_every == 0) {
      const int64_t at = checkpoint0 + end / p.checkpoint_every - 1;
      if (at < p.checkpoint_count) move_rows<kKeys, false>(p, p.checkpoints, state_of(p.checkpoints, at, head), row, lane, s);
    }
    __syncthreads();  // the stage is free
    if (run.stages == 1 && chunk + 1 < chunks) fetch(chunk + 1);
  }
  if (p.final.data) move_rows<kKeys, false>(p, p.final, state_of(p.final, seq.write_row, head), row, lane, s);
}

}  // namespace

void scan_chunks(const Params& p, NativeStream stream) {
  ScanRun run{};
  run.layout = p.plan.chunks;
  run.records = static_cast<const unsigned char*>(p.plan.workspace);
  // Blocks as large as still fill the device: each reads its chunks' q, k, P and M anew.
  constexpr int64_t kBlocksWanted = 128;
  const int64_t heads = p.sequences.count * p.value_heads;
  int warps = kMaxWarps;
  const auto slices = [&] { return (p.value_dim + 16 * warps - 1) / (16 * warps); };
  while (warps > 1 && (heads * slices() < kBlocksWanted || 8 * warps >= p.value_dim)) warps /= 2;
  run.slices = slices();
  run.items = heads * run.slices;
  run.tiles = {run.layout.keys, 16 * warps, run.layout.delta, run.layout.split, run.layout.channel && run.layout.delta};
  run.stages = p.plan.scan_stages;
  const auto aligned = [](const Params::Heads& x) { return x.batch % 8 == 0 && x.token % 8 == 0 && x.head % 8 == 0; };
  run.keys_aligned = aligned(p.q) && aligned(p.k);
  run.v_aligned = aligned(p.v);
  run.o_aligned = aligned(p.o);
  const dim3 grid(static_cast<unsigned>(run.items)), block(32 * static_cast<unsigned>(warps));
  const size_t shared = static_cast<size_t>(run.stages * run.tiles.bytes());
  const auto start = [&](auto tag) {
    using T = decltype(tag);
    if (run.layout.keys == 64)
      launch(scan_kernel<T, 64>, grid, block, shared, stream, p, run);
    else
      launch(scan_kernel<T, 128>, grid, block, shared, stream, p, run);
  };
  if (p.dtype == DType::f16)
    start(half_t{});
  else
    start(bfloat16_t{});
}

}  // namespace culebra::CUL_DEVICE_NS
