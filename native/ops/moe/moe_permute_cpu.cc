#include <cstring>

#include "backends/cpu/thread_pool.h"
#include "ops/glue/rows.h"
#include "ops/moe/moe_permute.h"

namespace culebra::cpu {

void moe_permute(const MoePermuteParams& p, ThreadPool& pool) {
  if (p.validate) require_valid("moe_permute", p.indices());
  const int64_t row_bytes = p.width * p.element_bytes;
  if (row_bytes == 0) return;
  pool.parallel_for(p.tokens, glue::row_grain(row_bytes * p.k / 2), [&](int64_t begin, int64_t end) {
    for (int64_t slot = begin * p.k; slot < end * p.k; ++slot) {
      const int64_t row = p.inverse[slot];
      if (row < 0 || row >= p.row_count) continue;
      std::memcpy(static_cast<char*>(p.rows) + row * p.rows_stride * p.element_bytes,
                  static_cast<const char*>(p.x) + slot / p.k * p.x_stride * p.element_bytes, static_cast<size_t>(row_bytes));
    }
  });
}

}  // namespace culebra::cpu
