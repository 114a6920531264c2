#include "backends/cpu/thread_pool.h"
#include "ops/moe/moe_dispatch.h"

namespace culebra::cpu {

void moe_dispatch(const MoeDispatchParams& p, ThreadPool& pool) {
  if (p.validate) require_valid("moe_dispatch", p);
  moe_align(p.align, pool);
  constexpr int64_t kGrain = 4096;
  pool.parallel_for(p.align.slots(), kGrain, [&](int64_t begin, int64_t end) {
    for (int64_t slot = begin; slot < end; ++slot) p.place_slot(slot);
  });
  for (int64_t rank = 0; rank < p.ranks(); ++rank) p.counts[rank] = static_cast<int32_t>(p.count(rank));
  pool.parallel_for(p.rows(), kGrain, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) p.clear_row(row);
  });
  moe_permute(p.permute, pool);
}

}  // namespace culebra::cpu
