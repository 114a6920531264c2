#include <algorithm>
#include <cstring>

#include "backends/cpu/thread_pool.h"
#include "ops/gemm/cpu_layout.h"
#include "ops/gemm/packed_weights_device.h"

namespace culebra::cpu {
namespace {

int read_packed(const PackParams& p, int64_t n, int64_t j) {
  if (p.checkpoint.bits != 4) return p.packed[n * p.k_padded + j];
  uint32_t word;
  std::memcpy(&word, p.packed + CpuLayout::word(n, j, p.n_padded, p.k_padded) * 4, sizeof word);
  return static_cast<int>(word >> (4 * CpuLayout::nibble(n, j)) & 15u);
}

// A tile of kNTile columns owns its words: tiles are packed in parallel, each starting from zeros.
void pack_tile(const PackParams& p, int64_t tile) {
  const int64_t first = tile * CpuLayout::kNTile;
  uint32_t* const words = reinterpret_cast<uint32_t*>(p.packed);
  std::fill_n(words + CpuLayout::word(first, 0, p.n_padded, p.k_padded), CpuLayout::kNTile * p.k_padded / 8, 0u);
  for (int64_t j = 0; j < p.k_padded; ++j)
    for (int64_t n = first; n < first + CpuLayout::kNTile; ++n)
      words[CpuLayout::word(n, j, p.n_padded, p.k_padded)] |= static_cast<uint32_t>(packed_weight(p, n, j))
                                                              << (4 * CpuLayout::nibble(n, j));
}

}  // namespace

void pack_weights(const PackParams& p, ThreadPool& pool) {
  if (p.checkpoint.bits == 4) {
    pool.parallel_for(p.n_padded / CpuLayout::kNTile, 1, [&](int64_t begin, int64_t end) {
      for (int64_t tile = begin; tile < end; ++tile) pack_tile(p, tile);
    });
  } else {
    pool.parallel_for(p.n_padded, 1, [&](int64_t begin, int64_t end) {
      for (int64_t n = begin; n < end; ++n)
        for (int64_t j = 0; j < p.k_padded; ++j) p.packed[n * p.k_padded + j] = static_cast<uint8_t>(packed_weight(p, n, j));
    });
  }
  pool.parallel_for(p.groups, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      for (int64_t n = 0; n < p.n_padded; ++n) pack_group_entry(p, i, n);
  });
}

void unpack_weights(const UnpackParams& p, ThreadPool& pool) {
  const PackParams& q = p.packing;
  const Checkpoint& c = q.checkpoint;
  if (q.perm)
    for (int64_t j = 0; j < q.k_padded; ++j) invert_entry(p, j);
  const Extent2 words = weight_words(c);
  pool.parallel_for(words.rows, 1, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row)
      for (int64_t column = 0; column < words.columns; ++column)
        unpack_weight_word(p, row, column, [&](int64_t n, int64_t j) { return read_packed(q, n, j); });
  });
  const Extent2 zeros = zero_words(c);
  if (c.zeros)
    for (int64_t row = 0; row < zeros.rows; ++row)
      for (int64_t column = 0; column < zeros.columns; ++column) unpack_zero_word(p, row, column);
  for (int64_t g = 0; g < c.groups; ++g)
    for (int64_t n = 0; n < c.n; ++n) unpack_scale(p, n, g);
  if (c.g_idx)
    for (int64_t k = 0; k < c.k; ++k) unpack_g_idx(p, k);
}

}  // namespace culebra::cpu
