#include "backends/cpu/thread_pool.h"
#include "ops/gemm/packing/packed_weights_device.h"

namespace culebra::cpu {

void pack_weights(const PackParams& p, ThreadPool& pool) {
  constexpr int64_t kWordsAtOnce = 4096;
  uint32_t* const packed = reinterpret_cast<uint32_t*>(p.packed);
  CpuLayouts::visit(p.kind, [&](auto layout) {
    pool.parallel_for(packed_bytes(p.kind, p.n_padded, p.k_padded) / 4, kWordsAtOnce, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i)
        packed[i] = layout.pack(i, {p.n_padded, p.k_padded}, [&](int64_t n, int64_t j) { return packed_weight(p, n, j); });
    });
  });
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
  CpuLayouts::visit(q.kind, [&](auto layout) {
    const auto load = [&](int64_t word) { return reinterpret_cast<const uint32_t*>(q.packed)[word]; };
    const auto get = [&](int64_t n, int64_t j) { return layout.unpack(n, j, {q.n_padded, q.k_padded}, load); };
    pool.parallel_for(words.rows, 1, [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row)
        for (int64_t column = 0; column < words.columns; ++column) unpack_weight_word(p, row, column, get);
    });
  });
  const Extent2 zeros = zero_words(c);
  if (c.zeros)
    for (int64_t row = 0; row < zeros.rows; ++row)
      for (int64_t column = 0; column < zeros.columns; ++column) unpack_zero_word(p, row, column);
  for (int64_t g = 0; g < c.groups; ++g)
    for (int64_t n = 0; n < scale_columns(c, c.n); ++n) unpack_scale(p, n, g);
  if (c.g_idx)
    for (int64_t k = 0; k < c.k; ++k) unpack_g_idx(p, k);
}

}  // namespace culebra::cpu
