#include <cstring>

#include "backends/cpu/thread_pool.h"
#include "ops/glue/embedding.h"

namespace culebra::cpu {

void embedding(const EmbeddingParams& p, ThreadPool& pool) {
  if (p.validate) require_valid("embedding", p);
  const int64_t row_bytes = p.columns * p.element_bytes;
  if (row_bytes == 0) return;
  pool.parallel_for(p.tokens, glue::row_grain(row_bytes / 2), [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      const int64_t id = p.id(t);
      char* to = static_cast<char*>(p.y.data) + t * p.y.stride * p.element_bytes;
      if (p.in_table(id)) {
        std::memcpy(to, static_cast<const char*>(p.table.data) + id * p.table.stride * p.element_bytes,
                    static_cast<size_t>(row_bytes));
      } else {
        std::memset(to, 0, static_cast<size_t>(row_bytes));
      }
    }
  });
}

}  // namespace culebra::cpu
