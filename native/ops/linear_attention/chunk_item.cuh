// The second kernel of the chunkwise form: what a block is to do, whichever instructions it does it with.
#pragma once
#include "ops/linear_attention/chunk.cuh"

namespace culebra::CUL_DEVICE_NS {

// Where a chunk's bytes come from.
struct ScanSource {
  ChunkLayout layout;
  ScanTiles tiles;
  const unsigned char* records;
  bool keys_aligned, v_aligned, o_aligned;
};

struct ScanRun : ScanSource {
  ScanPlan plan;
  float* partials;  // of segments
  bool gather;      // what segments do to a state; else outputs
  int64_t slices;   // with gather also those of the transition
};

// This warp's rows row, row + 8 of a state of rows x columns, columns 8 j + 2 (lane % 4) and the next.
template <int kKeys, bool kLoad>
CUL_DEVICE_FN void move_rows(const RecurrenceParams::States& where, float* state, int64_t row, int64_t rows, int64_t columns, int lane,
                             float (&s)[kKeys / 8][4]) {
#pragma unroll
  for (int j = 0; j < kKeys / 8; ++j) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int64_t v = row + i / 2 * 8, k = 8 * j + lane % 4 * 2 + i % 2;
      const bool inside = v < rows && k < columns;
      float* const cell = state + v * where.v_stride + k * where.k_stride;
      if constexpr (kLoad)
        s[j][i] = inside ? *cell : 0.0f;
      else if (inside)
        *cell = s[j][i];
    }
    if (j % 4 == 3) __syncwarp();  // no more accesses under way than there are registers for addresses
  }
}

// Sums of m16n8k16 become operand A of the next product: two tiles of 8 columns are 16 of k.
template <class T>
CUL_DEVICE_FN void operand_of(const float (&low)[4], const float (&high)[4], uint32_t (&a)[4]) {
  a[0] = pack2<T>(low[0], low[1]);
  a[1] = pack2<T>(low[2], low[3]);
  a[2] = pack2<T>(high[0], high[1]);
  a[3] = pack2<T>(high[2], high[3]);
}

// One head of one sequence or segment, and a slice of the state's rows; or, with gather, behind those of the state, rows of the
// transition: what becomes of the unit vectors where nothing is added.
struct ScanItem {
  SequenceSpan seq;
  int64_t n, head, key_head, unit, slot0, first_row, begin_chunk, end_chunk, all_chunks, checkpoint0;
  bool transition, nothing;

  CUL_DEVICE_FN ScanItem(const RecurrenceParams& p, const ScanRun& run) {
    const int64_t cut = run.plan.segment_chunks;
    unit = divide(blockIdx.x, run.slices);
    const int64_t slot = divide(unit, p.value_heads), slice = blockIdx.x - unit * run.slices;
    head = unit - slot * p.value_heads;
    key_head = divide(head, divide(p.value_heads, p.key_heads));
    n = cut ? sequence_of_slot(p.sequences, slot, cut * kChunk) : slot;
    seq = sequence_at(p.sequences, n);
    slot0 = first_slot(p.sequences, n, kChunk);
    all_chunks = (seq.length + kChunk - 1) / kChunk;
    begin_chunk = cut ? (slot - first_slot(p.sequences, n, cut * kChunk)) * cut : 0;
    end_chunk = cut && begin_chunk + cut < all_chunks ? begin_chunk + cut : all_chunks;
    transition = slice >= run.plan.slices;
    first_row = (transition ? slice - run.plan.slices : slice) * run.tiles.values;
    checkpoint0 = first_checkpoint(p, n);
    // What the last segment does to the state nobody asks. A skipped sequence is cleared once.
    nothing = seq.length <= p.plan.recurrent_tokens || begin_chunk >= all_chunks || (run.gather && end_chunk == all_chunks) ||
              (seq.skipped && (run.gather || begin_chunk > 0));
  }
  // Columns of v that exist.
  CUL_DEVICE_FN int64_t columns(const RecurrenceParams& p) const { return transition ? 0 : p.value_dim - first_row; }
  CUL_DEVICE_FN int count(int64_t chunk) const {
    const int64_t left = seq.length - chunk * kChunk;
    return left < kChunk ? static_cast<int>(left) : kChunk;
  }

  template <int kKeys>
  CUL_DEVICE_FN float* partial(const RecurrenceParams& p, const ScanRun& run) const {
    return run.partials + (unit * (p.value_dim + (run.layout.delta ? kKeys : 0)) + (transition ? p.value_dim : 0)) * kKeys;
  }
  template <int kKeys>
  CUL_DEVICE_FN void load(const RecurrenceParams& p, const ScanRun& run, int64_t row, int lane, float (&s)[kKeys / 8][4]) const {
    const RecurrenceParams::States dense{nullptr, 0, 0, kKeys, 1, 0};
    if (run.plan.segment_chunks && !run.gather) {
      move_rows<kKeys, true>(dense, partial<kKeys>(p, run), row, p.value_dim, kKeys, lane, s);
    } else if (!run.plan.segment_chunks && p.initial.data) {
      move_rows<kKeys, true>(p.initial, state_of(p.initial, seq.read_row, head), row, p.value_dim, p.key_dim, lane, s);
    } else {
#pragma unroll
      for (int j = 0; j < kKeys / 8; ++j)
#pragma unroll
        for (int i = 0; i < 4; ++i) s[j][i] = transition && row + i / 2 * 8 == 8 * j + lane % 4 * 2 + i % 2 ? 1.0f : 0.0f;
    }
  }
  template <int kKeys>
  CUL_DEVICE_FN void store(const RecurrenceParams& p, const ScanRun& run, int64_t row, int lane, float (&s)[kKeys / 8][4]) const {
    const RecurrenceParams::States dense{nullptr, 0, 0, kKeys, 1, 0};
    if (run.gather)
      move_rows<kKeys, false>(dense, partial<kKeys>(p, run), row, transition ? kKeys : p.value_dim, kKeys, lane, s);
    else if (p.final.data && end_chunk == all_chunks)
      move_rows<kKeys, false>(p.final, state_of(p.final, seq.write_row, head), row, p.value_dim, p.key_dim, lane, s);
  }
  // The row of checkpoints that the state behind `chunk` is, -1 where it is none.
  CUL_DEVICE_FN int64_t checkpoint(const RecurrenceParams& p, int64_t chunk) const {
    // In 32 bits: a division of 64 is a call, which has the state spilled.
    const uint32_t done = static_cast<uint32_t>(chunk + 1), every = static_cast<uint32_t>(p.checkpoint_every) / kChunk;
    if (every == 0 || (chunk + 1) * kChunk > seq.length || done % every) return -1;
    const int64_t at = checkpoint0 + done / every - 1;
    return at < p.checkpoint_count ? at : -1;
  }
};

// The block's item in shared memory, where it takes no registers from the products. All threads call.
CUL_DEVICE_FN const ScanItem& shared_item(const RecurrenceParams& p, const ScanRun& run) {
  CUL_SHARED(unsigned char, storage, [sizeof(ScanItem)]);
  const ScanItem item(p, run);
  if (threadIdx.x == 0) *reinterpret_cast<ScanItem*>(storage) = item;
  __syncthreads();
  return *reinterpret_cast<const ScanItem*>(storage);
}

// A warp's 16 rows of the state, from row `first` on, into row `at` of the checkpoints by way of shared memory [16][kKeys + 4]: within the
// loop over chunks there are no registers for the addresses of every element.
template <int kKeys>
CUL_DEVICE_FN void store_checkpoint(const RecurrenceParams& p, const ScanItem& item, int64_t at, int64_t first, float* rows, int lane,
                                    const float (&s)[kKeys / 8][4]) {
  constexpr int kPitch = kKeys + 4;
  float* const mine = rows + lane / 4 * kPitch + lane % 4 * 2;
#pragma unroll
  for (int j = 0; j < kKeys / 8; ++j) {
    *reinterpret_cast<float2*>(mine + 8 * j) = make_float2(s[j][0], s[j][1]);
    *reinterpret_cast<float2*>(mine + 8 * j + 8 * kPitch) = make_float2(s[j][2], s[j][3]);
  }
  __syncwarp();
  const RecurrenceParams::States& to = p.checkpoints;
  float* const state = state_of(to, at, item.head);
#pragma unroll 1
  for (int i = lane; i < 16 * kKeys; i += 32) {
    const int row = i / kKeys, k = i % kKeys;
    if (first + row < p.value_dim && k < p.key_dim) state[(first + row) * to.v_stride + k * to.k_stride] = rows[row * kPitch + k];
  }
}

// 16 columns of a chunk's output, from column first of o on, out of a tile [64][pitch]; by one warp.
template <class T>
CUL_DEVICE_FN void store_output(const RecurrenceParams& p, bool aligned, const T* tile, int pitch, const ScanItem& item, int64_t chunk,
                                int64_t first, int lane) {
  const int column = lane % 2 * 8, count = item.count(chunk);
  if (first + column >= p.value_dim) return;
  T* const out = head_row<T>(p.o, item.seq.batch, item.seq.begin + chunk * kChunk, item.head) + first + column;
  for (int row = lane / 2; row < count; row += 16) {
    const Vector<T, 8> piece = load_vector<8>(tile + row * pitch + column);
    T* const to = out + row * p.o.token;
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
CUL_DEVICE_FN void clear_sequence(const RecurrenceParams& p, const ScanItem& item, int rows) {
  const int thread = static_cast<int>(threadIdx.x), threads = static_cast<int>(blockDim.x);
  const int64_t used = p.value_dim - item.first_row < rows ? p.value_dim - item.first_row : rows;
  for (int64_t i = thread; i < item.seq.length * used; i += threads)
    head_row<T>(p.o, item.seq.batch, item.seq.begin + i / used, item.head)[item.first_row + i % used] = from_float<T>(0.0f);
  if (!p.checkpoint_every) return;
  const RecurrenceParams::States& to = p.checkpoints;
  for (int64_t c = 0; c < item.seq.length / p.checkpoint_every && item.checkpoint0 + c < p.checkpoint_count; ++c)
    for (int64_t i = thread; i < used * p.key_dim; i += threads)
      state_of(to, item.checkpoint0 + c, item.head)[(item.first_row + i / p.key_dim) * to.v_stride + i % p.key_dim * to.k_stride] = 0;
}

}  // namespace culebra::CUL_DEVICE_NS
