// Attention over a latent cache is attention of one KV head whose values are the keys' beginning. Listed tokens become a list without holes.
#include <vector>

#include "backends/cpu/thread_pool.h"
#include "ops/attention/mla_attention.h"

namespace culebra::cpu {

void mla_attention(const MlaParams& p, ThreadPool& pool) {
  require_valid(p.op, p);
  if (!p.indices) return attention(p, pool);
  // Queries have lists of their own: one call for the s-th query of every sequence.
  std::vector<int32_t> tokens(static_cast<size_t>(p.sequences * p.topk)), counts(static_cast<size_t>(p.sequences));
  for (int64_t s = 0; s < p.query_rows; ++s) {
    for (int64_t b = 0; b < p.sequences; ++b) {
      const int32_t* const entry = p.indices + b * p.indices_batch + s * p.indices_query;
      int32_t* const list = tokens.data() + b * p.topk;
      int32_t n = 0;
      for (int64_t i = 0; i < p.entries(b, s); ++i)
        if (entry[i] >= 0) list[n++] = entry[i];
      counts[static_cast<size_t>(b)] = n;
    }
    AttentionParams one = p;
    const auto at = [&](AttentionParams::Rows& x, size_t element_bytes) {
      if (x.data) x.data = static_cast<char*>(x.data) + s * x.row * static_cast<int64_t>(element_bytes);
    };
    at(one.q, size_of(p.dtype));
    at(one.o, size_of(p.dtype));
    at(one.lse, sizeof(float));
    one.query_rows = 1;
    one.tokens = tokens.data();
    one.tokens_stride = p.topk;
    one.kv_len = counts.data();
    attention(one, pool);
  }
}

}  // namespace culebra::cpu
