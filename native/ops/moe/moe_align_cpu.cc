// A stable counting sort: chunks of slots are counted side by side, their counts summed in order, then every chunk places its own.
#include <algorithm>
#include <utility>

#include "backends/cpu/thread_pool.h"
#include "ops/moe/moe_align.h"

namespace culebra::cpu {
namespace {

void count(const MoeAlignParams& p, int64_t chunk) {
  int32_t* const counts = p.counts(chunk);
  std::fill(counts, counts + p.local_experts, 0);
  const int64_t end = std::min((chunk + 1) * p.chunk, p.slots());
  for (int64_t slot = chunk * p.chunk; slot < end; ++slot)
    if (const int32_t e = p.local_expert(slot); e >= 0) ++counts[e];
}

// Counts become the number of an expert's slots before the chunk.
void sum(const MoeAlignParams& p) {
  int64_t begin = 0;
  int32_t padded = 0;
  for (int32_t e = 0; e < p.local_experts; ++e) {
    int32_t before = 0;
    for (int64_t c = 0; c < p.chunks; ++c) before += std::exchange(p.counts(c)[e], before);
    p.offsets[e] = begin;
    p.padded_offsets()[e] = padded;
    begin += before;
    std::fill(p.sorted + padded + before, p.sorted + padded + (before + p.block - 1) / p.block * p.block,
              static_cast<int32_t>(p.slots()));
    std::fill_n(p.block_expert + padded / p.block, (before + p.block - 1) / p.block, e);
    padded += (before + p.block - 1) / p.block * p.block;
  }
  p.offsets[p.local_experts] = begin;
  p.n_padded[0] = padded;
  std::fill(p.sorted + padded, p.sorted + p.capacity, static_cast<int32_t>(p.slots()));
  std::fill(p.block_expert + padded / p.block, p.block_expert + p.blocks, -1);
}

void place(const MoeAlignParams& p, int64_t chunk) {
  int32_t* const before = p.counts(chunk);
  const int64_t end = std::min((chunk + 1) * p.chunk, p.slots());
  for (int64_t slot = chunk * p.chunk; slot < end; ++slot) {
    const int32_t e = p.local_expert(slot);
    if (e < 0) {
      p.inverse[slot] = -1;
      continue;
    }
    const int32_t at = before[e]++;
    p.inverse[slot] = static_cast<int32_t>(p.offsets[e]) + at;
    p.sorted[p.padded_offsets()[e] + at] = static_cast<int32_t>(slot);
  }
}

}  // namespace

void moe_align(const MoeAlignParams& p, ThreadPool& pool) {
  if (p.validate) require_valid("moe_align", p);
  const auto each_chunk = [&](void (*step)(const MoeAlignParams&, int64_t)) {
    pool.parallel_for(p.chunks, 1, [&](int64_t begin, int64_t end) {
      for (int64_t chunk = begin; chunk < end; ++chunk) step(p, chunk);
    });
  };
  each_chunk(count);
  sum(p);
  each_chunk(place);
}

}  // namespace culebra::cpu
