#include "ops/linear_attention/recurrence_cpu.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/linear_attention/recurrence_cpu.cc"
#include "backends/cpu/simd.h"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "ops/linear_attention/recurrence_cpu-inl.h"

HWY_BEFORE_NAMESPACE();
namespace culebra::cpu::HWY_NAMESPACE {

// o = S q of a token on kBlock rows, where the state has seen every token already.
HWY_INLINE void read_only(const float* state, int64_t pitch, const float* q, float* o) {
  for (int64_t r = 0; r < kBlock; ++r) o[r] = dot(state + r * pitch, q, pitch);
}

// Rows [s.first, s.first + s.rows) of one head of one sequence, from its first token to its last.
template <class T>
void run_rows(const RecurrenceWork& w, const Sequence& seq, int64_t head, int64_t first_checkpoint, Tile& s, Chunk& c) {
  const RecurrenceParams& p = *w.p;
  auto out = [&](int64_t t) { return element<T>(p.o, seq.batch, seq.begin + t, head) + s.first; };
  auto checkpoint = [&](int64_t after) {
    return p.checkpoints.at(first_checkpoint + after / p.checkpoint_every - 1, head);
  };
  if (seq.skipped) {
    for (int64_t t = 0; t < seq.length; ++t) std::fill(out(t), out(t) + s.rows, T{});
    if (p.checkpoint_every) {
      load_state({}, nullptr, s);
      for (int64_t after = p.checkpoint_every; after <= seq.length; after += p.checkpoint_every)
        store_state(s, 0, s.rows, p.checkpoints, checkpoint(after));
    }
    return;
  }
  load_state(p.initial, p.initial.data ? p.initial.at(seq.read_row, head) : nullptr, s);
  const Step step = step_of(p);
  auto store_outputs = [&](int64_t begin, int64_t count) {
    for (int64_t t = 0; t < count; ++t) {
      float* o = c.o + t * kRecurrenceRows;
      if (w.divisor) {
        const float divisor = w.divisor_at(seq.batch, seq.begin + begin + t, head);
        for (int64_t r = 0; r < s.rows; ++r) o[r] /= divisor;
      }
      store_row(o, s.rows, out(begin + t));
    }
  };
  const int64_t chunk = w.chunk();
  for (int64_t begin = 0; begin < seq.length; begin += chunk) {
    const int64_t count = std::min(chunk, seq.length - begin);
    load_chunk<T>(w, seq.batch, seq.begin + begin, count, head, s, c);
    for (int64_t r = 0; r < s.rows; r += kBlock)
      for (int64_t t = 0; t < count; ++t) {
        step(s.values + r * s.pitch, s.pitch, c, t, c.v + t * kRecurrenceRows + r, c.o + t * kRecurrenceRows + r);
        const int64_t after = begin + t + 1;
        if (p.checkpoint_every && after % p.checkpoint_every == 0)
          store_state(s, r, r + kBlock, p.checkpoints, checkpoint(after));
      }
    if (w.causal) store_outputs(begin, count);
  }
  if (!w.causal)
    for (int64_t begin = 0; begin < seq.length; begin += chunk) {
      const int64_t count = std::min(chunk, seq.length - begin);
      load_chunk<T>(w, seq.batch, seq.begin + begin, count, head, s, c);
      for (int64_t r = 0; r < s.rows; r += kBlock)
        for (int64_t t = 0; t < count; ++t)
          read_only(s.values + r * s.pitch, s.pitch, c.q + t * c.pitch, c.o + t * kRecurrenceRows + r);
      store_outputs(begin, count);
    }
  if (p.final.data) store_state(s, 0, s.rows, p.final, p.final.at(seq.write_row, head));
}

// Work items: (sequence, value head, rows of the state). Rows do not depend on each other.
void recurrence_items(const RecurrenceWork& w, int64_t begin, int64_t end) {
  const RecurrenceParams& p = *w.p;
  const int64_t row_groups = w.row_groups(), per_sequence = p.value_heads * row_groups;
  RecurrenceScratch scratch(w, 1);
  Tile tile{scratch.tiles, 0, 0, w.columns(), w.pitch()};
  int64_t counted = 0, checkpoints = 0;  // of the sequences before `counted`
  for (int64_t item = begin; item < end; ++item) {
    const int64_t n = item / per_sequence, head = item % per_sequence / row_groups;
    if (p.checkpoint_every)
      for (; counted < n; ++counted) checkpoints += p.sequences.at(counted).length / p.checkpoint_every;
    tile.first = item % row_groups * w.rows_per_item();
    tile.rows = std::min(w.rows_per_item(), p.value_dim - tile.first);
    with_float_type(p.dtype, [&](auto type) {
      run_rows<decltype(type)>(w, p.sequences.at(n), head, checkpoints, tile, scratch.chunk);
    });
  }
}

}  // namespace culebra::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace culebra::cpu {

HWY_EXPORT(recurrence_items);

void run_recurrence(const RecurrenceWork& w, ThreadPool& pool) {
  const Sequences& s = w.p->sequences;
  if (w.items() == 0) return;
  // A piece is worth waking a thread for from about 2^16 state updates on.
  const int64_t tokens = s.cu_seqlens ? s.tokens / s.count : s.tokens;
  const int64_t grain = 65536 / (w.rows_per_item() * w.columns() * (tokens + 1)) + 1;
  const auto run = HWY_DYNAMIC_DISPATCH(recurrence_items);
  pool.parallel_for(w.items(), grain, [&](int64_t begin, int64_t end) { run(w, begin, end); });
}

void recurrence(const RecurrenceParams& p, ThreadPool& pool) {
  require_valid(p.op, p);
  RecurrenceWork work;
  work.p = &p;
  run_recurrence(work, pool);
}

}  // namespace culebra::cpu
#endif
