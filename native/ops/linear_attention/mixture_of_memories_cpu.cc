#include "ops/linear_attention/mixture_of_memories.h"

#include "ops/linear_attention/recurrence_cpu.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/linear_attention/mixture_of_memories_cpu.cc"
#include "backends/cpu/simd.h"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "ops/linear_attention/recurrence_cpu-inl.h"

HWY_BEFORE_NAMESPACE();
namespace culebra::cpu::HWY_NAMESPACE {

// Each slot's tensors as those of a recurrence of its own.
struct Slot {
  RecurrenceParams params;
  RecurrenceWork work;

  Slot(const MixtureOfMemoriesParams& p, int64_t j) : params(p) {
    const auto half = static_cast<int64_t>(size_of(p.dtype));
    auto move = [&](RecurrenceParams::Heads& x, int64_t stride, int64_t size) {
      x.data = static_cast<char*>(x.data) + j * stride * size;
    };
    move(params.q, p.slot.q, half);
    move(params.k, p.slot.k, half);
    move(params.v, p.slot.v, half);
    move(params.beta, p.slot.beta, sizeof(float));
    move(params.gate, p.slot.gate, p.gate_mode == GateMode::log ? int64_t{sizeof(float)} : half);
  }
};

// Rows [first, first + rows) of all memories of one head of one sequence: `tiles` in a row, one a memory.
template <class T>
void run_rows(const MixtureOfMemoriesParams& p, const std::vector<Slot>& slots, const Sequence& seq, int64_t head,
              int64_t first_checkpoint, const Tile& shape, float* tiles, std::vector<RecurrenceScratch>& scratch) {
  auto out = [&](int64_t t) { return element<T>(p.o, seq.batch, seq.begin + t, head) + shape.first; };
  auto tile = [&](int64_t m) {
    Tile s = shape;
    s.values = tiles + m * kRecurrenceRows * shape.pitch;
    return s;
  };
  auto store_checkpoint = [&](int64_t after, int64_t begin, int64_t end) {
    const int64_t row = first_checkpoint + after / p.checkpoint_every - 1;
    for (int64_t m = 0; m < p.memories; ++m) store_state(tile(m), begin, end, p.checkpoints, p.checkpoints.at(row, head, m));
  };
  for (int64_t m = 0; m < p.memories; ++m) {
    Tile s = tile(m);
    load_state(p.initial, seq.skipped ? nullptr : p.initial.at(seq.read_row, head, m), s);
  }
  if (seq.skipped) {
    for (int64_t t = 0; t < seq.length; ++t) std::fill(out(t), out(t) + shape.rows, T{});
    if (p.checkpoint_every)
      for (int64_t after = p.checkpoint_every; after <= seq.length; after += p.checkpoint_every)
        store_checkpoint(after, 0, shape.rows);
    return;
  }
  const Step step = step_of(p);
  float o[kBlock];
  for (int64_t begin = 0; begin < seq.length; begin += kRecurrenceChunk) {
    const int64_t count = std::min(kRecurrenceChunk, seq.length - begin);
    for (size_t j = 0; j < scratch.size(); ++j)
      load_chunk<T>(slots[j].work, seq.batch, seq.begin + begin, count, head, shape, scratch[j].chunk);
    float* const sums = scratch[0].chunk.o;
    std::fill(sums, sums + count * kRecurrenceRows, 0.0f);
    for (int64_t r = 0; r < shape.rows; r += kBlock)
      for (int64_t t = 0; t < count; ++t) {
        const int64_t token = seq.begin + begin + t;
        for (int64_t j = 0; j < p.slots; ++j) {
          const int32_t m = p.id(seq.batch, token, j);
          if (m < 0) continue;
          const Chunk& c = scratch[scratch.size() == 1 ? 0 : static_cast<size_t>(j)].chunk;
          step(tile(m).values + r * shape.pitch, shape.pitch, c, t, c.v + t * kRecurrenceRows + r, o);
          const float weight = p.weight(seq.batch, token, j);
          for (int64_t i = 0; i < kBlock; ++i) sums[t * kRecurrenceRows + r + i] += weight * o[i];
        }
        const int64_t after = begin + t + 1;
        if (p.checkpoint_every && after % p.checkpoint_every == 0) store_checkpoint(after, r, r + kBlock);
      }
    for (int64_t t = 0; t < count; ++t) store_row(sums + t * kRecurrenceRows, shape.rows, out(begin + t));
  }
  if (!p.final.data) return;
  for (int64_t m = 0; m < p.memories; ++m) store_state(tile(m), 0, shape.rows, p.final, p.final.at(seq.write_row, head, m));
}

// Work items: (sequence, value head, rows of the states).
void mixture_of_memories_items(const MixtureOfMemoriesParams& p, int64_t begin, int64_t end) {
  const bool shared = p.slot.q == 0 && p.slot.k == 0 && p.slot.v == 0 && p.slot.beta == 0 && p.slot.gate == 0;
  std::vector<Slot> slots;
  std::vector<RecurrenceScratch> scratch;
  for (int64_t j = 0; j < (shared ? 1 : p.slots); ++j) slots.emplace_back(p, j);
  for (Slot& s : slots) {
    s.work.p = &s.params;
    scratch.emplace_back(s.work, 0);
  }
  if (slots.empty()) return;
  const RecurrenceWork& w = slots[0].work;
  std::vector<float> tiles(static_cast<size_t>(p.memories * kRecurrenceRows * w.pitch()));
  const int64_t row_groups = w.row_groups(), per_sequence = p.value_heads * row_groups;
  Tile shape{nullptr, 0, 0, w.columns(), w.pitch()};
  int64_t counted = 0, checkpoints = 0;  // of the sequences before `counted`
  for (int64_t item = begin; item < end; ++item) {
    const int64_t n = item / per_sequence, head = item % per_sequence / row_groups;
    if (p.checkpoint_every)
      for (; counted < n; ++counted) checkpoints += p.sequences.at(counted).length / p.checkpoint_every;
    shape.first = item % row_groups * w.rows_per_item();
    shape.rows = std::min(w.rows_per_item(), p.value_dim - shape.first);
    with_float_type(p.dtype, [&](auto type) {
      run_rows<decltype(type)>(p, slots, p.sequences.at(n), head, checkpoints, shape, tiles.data(), scratch);
    });
  }
}

}  // namespace culebra::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace culebra::cpu {

HWY_EXPORT(mixture_of_memories_items);

void mixture_of_memories(const MixtureOfMemoriesParams& p, ThreadPool& pool) {
  require_valid(p.op, p);
  RecurrenceWork work;
  work.p = &p;
  const int64_t grain = 65536 / (work.rows_per_item() * work.columns() * (p.sequences.tokens + 1)) + 1;
  const auto run = HWY_DYNAMIC_DISPATCH(mixture_of_memories_items);
  pool.parallel_for(work.items(), grain, [&](int64_t begin, int64_t end) { run(p, begin, end); });
}

}  // namespace culebra::cpu
#endif
