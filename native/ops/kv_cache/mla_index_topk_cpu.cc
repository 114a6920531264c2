// A query's 64 heads meet 32 keys at a time; of the scores only candidates for the topk are kept, and thinned out when twice as
// many have come together.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "backends/cpu/thread_pool.h"
#include "ops/kv_cache/mla_index_topk.h"
#include "ops/attention/top_keys.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/kv_cache/mla_index_topk_cpu.cc"
#include "backends/cpu/simd.h"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "ops/attention/query_tile-inl.h"

HWY_BEFORE_NAMESPACE();
namespace culebra::cpu::HWY_NAMESPACE {

class Candidates {
 public:
  explicit Candidates(int64_t topk) : topk_(static_cast<size_t>(topk)) { all_.reserve(2 * topk_); }

  void clear() {
    all_.clear();
    least_ = 0;
  }
  // Positions come in ascending order: an equal of the least kept one is too late.
  HWY_INLINE void offer(float score, int64_t position) {
    const uint32_t key = order_key(score);
    if (full_ && key <= least_) return;
    all_.push_back({key, static_cast<int32_t>(position)});
    if (all_.size() == 2 * topk_) thin();
  }
  // The topk best, by position.
  const auto& finish() {
    if (all_.size() > topk_) thin();
    std::sort(all_.begin(), all_.end(), [](const Entry& a, const Entry& b) { return a.position < b.position; });
    full_ = false;
    return all_;
  }

 private:
  struct Entry {
    uint32_t key;
    int32_t position;
  };
  void thin() {
    std::nth_element(all_.begin(), all_.begin() + static_cast<std::ptrdiff_t>(topk_) - 1, all_.end(),
                     [](const Entry& a, const Entry& b) {
                       return a.key != b.key ? a.key > b.key : a.position < b.position;
                     });
    all_.resize(topk_);
    least_ = all_.back().key;
    full_ = true;
  }

  size_t topk_;
  std::vector<Entry> all_;
  uint32_t least_ = 0;
  bool full_ = false;
};

void index_query(const IndexTopkParams& p, int64_t b, int64_t token, QueryTile& tile, Candidates& candidates) {
  const int64_t end = p.visible(b, token);
  for (int64_t h = 0; h < kIndexHeads; ++h) tile.query(h, p.q.at<const float8_e4m3_t>(0, token, h), 1.0f);
  const float* weights = p.weights + token * p.weights_stride;
  candidates.clear();
  for (int64_t first = 0; first < end; first += QueryTile::kKeys) {
    const int64_t n = std::min(QueryTile::kKeys, end - first);
    alignas(64) float scales[QueryTile::kKeys + kRowPad] = {}, sums[QueryTile::kKeys + kRowPad] = {};
    for (int64_t j = 0; j < n; ++j) {
      const int64_t slot = p.slot(b, first + j);
      const auto* key = p.keys.at<const uint8_t>(slot / p.page_size, slot % p.page_size, 0);
      tile.load_key<float8_e4m3_t>(j, reinterpret_cast<const float8_e4m3_t*>(key), nullptr);
      std::memcpy(scales + j, key + kIndexDim, 4);
    }
    for (int64_t h = 0; h < kIndexHeads; ++h) {
      alignas(64) float products[QueryTile::kKeys + kRowPad];
      tile.scores(h, n, products);
      const F32 w = hn::Set(F32Tag(), weights[h]), zero = hn::Zero(F32Tag());
      for (int64_t j = 0; j < n; j += kLanes) {
        const F32 x = hn::Mul(load(products + j), load(scales + j));
        const F32 positive = hn::IfThenElse(hn::Lt(x, zero), zero, x);
        store_f32(hn::MulAdd(w, positive, load(sums + j)), sums + j);
      }
    }
    for (int64_t j = 0; j < n; ++j) candidates.offer(sums[j], first + j);
  }
  int32_t* idx = p.idx + token * p.idx_stride;
  int64_t chosen = 0;
  for (const auto& entry : candidates.finish())
    idx[chosen++] = static_cast<int32_t>(p.slots ? p.slot(b, entry.position) : entry.position);
  for (; chosen < p.topk; ++chosen) idx[chosen] = -1;
}

// Queries [begin, end) of those that belong to a sequence.
void index_queries(const IndexTopkParams& p, int64_t begin, int64_t end) {
  static thread_local std::vector<float> memory;
  QueryTile tile(memory, kIndexDim, kIndexDim, kIndexHeads);
  Candidates candidates(p.topk);
  int64_t b = std::upper_bound(p.cu_q, p.cu_q + p.sequences + 1, begin) - p.cu_q - 1;
  for (int64_t token = begin; token < end; ++token) {
    while (token >= p.cu_q[b + 1]) ++b;
    index_query(p, b, token, tile, candidates);
  }
}

}  // namespace culebra::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace culebra::cpu {

HWY_EXPORT(index_queries);

void mla_index_topk(const IndexTopkParams& p, ThreadPool& pool) {
  require_valid("mla_index_topk", p);
  const auto run = HWY_DYNAMIC_DISPATCH(index_queries);
  pool.parallel_for(p.cu_q[p.sequences], 1, [&](int64_t begin, int64_t end) { run(p, begin, end); });
}

}  // namespace culebra::cpu
#endif
