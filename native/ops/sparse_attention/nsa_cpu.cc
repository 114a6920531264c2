// The steps of native sparse attention for a tile of rows: (query, head of the group). Queries of a tile share the compressed
// keys and the window; the selected blocks are each query's own, shared by its group. nsa_attention runs all steps on one
// tile, so that neither scores nor branches leave the thread.
#include <algorithm>
#include <numeric>
#include <vector>

#include "backends/cpu/thread_pool.h"
#include "ops/sparse_attention/nsa.h"
#include "ops/sparse_attention/nsa_compress.h"
#include "ops/sparse_attention/nsa_cpu.h"
#include "ops/sparse_attention/nsa_workspace.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/sparse_attention/nsa_cpu.cc"
#include "backends/cpu/simd.h"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "ops/attention/query_tile-inl.h"

HWY_BEFORE_NAMESPACE();
namespace culebra::cpu::HWY_NAMESPACE {

using Params = NsaParams;

struct NsaMemory {
  std::vector<float> tile, probabilities, lse, sum;
  std::vector<int32_t> idx;
};

// C: of compressed keys and values.
template <class T, class C>
class NsaTile {
 public:
  NsaTile(const Params& p, NsaMemory& memory)
      : p_(p), memory_(memory), group_(p.group()),
        tile_(memory.tile, p.dim, p.value_dim, std::max(QueryTile::kRows, p.group())) {}

  // Queries [first, first + count) of sequence b, and their heads of KV head `head`.
  void start(int64_t b, int64_t head, int64_t first, int64_t count) {
    b_ = b;
    head_ = head;
    query_ = p_.cu_q[b] + first;
    count_ = count;
    position_ = first + (p_.cu_k[b + 1] - p_.cu_k[b]) - (p_.cu_q[b + 1] - p_.cu_q[b]);
    compressed_ = p_.cu_cmp ? p_.cu_cmp[b + 1] - p_.cu_cmp[b] : 0;
    for (int64_t r = 0; r < rows(); ++r) tile_.query(r, p_.q.at<const T>(query(r), query_head(r)), p_.scale);
  }

  void compressed() {
    tile_.by_matrix(true);
    tile_.reset(rows());
    int64_t most = 0;
    for (int64_t r = 0; r < rows(); ++r) {
      tile_.visible(r) = {0, p_.compressed_seen(position(r), compressed_)};
      most = std::max(most, tile_.visible(r).end);
    }
    tile_.template meet<C>(0, rows(), {0, most}, [&](int64_t j) {
      return std::pair{p_.k_cmp.template at<const C>(p_.cu_cmp[b_] + j, head_),
                       p_.v_cmp.template at<const C>(p_.cu_cmp[b_] + j, head_)};
    });
  }

  // lse(r) of the compressed attention -> idx(i, entries) for each query.
  template <class Lse, class Idx>
  void select(Lse&& lse, Idx&& idx) {
    const int64_t most = p_.compressed_seen(position(rows() - 1), compressed_);
    const int64_t pitch = std::max<int64_t>(most, 1);
    std::vector<float>& sums = memory_.probabilities;
    sums.assign(static_cast<size_t>(count_ * pitch), 0.0f);
    for (int64_t j0 = 0; j0 < most; j0 += QueryTile::kKeys) {
      const int64_t n = std::min(QueryTile::kKeys, most - j0);
      for (int64_t j = 0; j < n; ++j)
        tile_.template load_key<C>(j, p_.k_cmp.template at<const C>(p_.cu_cmp[b_] + j0 + j, head_), nullptr);
      for (int64_t r = 0; r < rows(); ++r) {
        const int64_t seen = std::min(p_.compressed_seen(position(r), compressed_) - j0, n);
        if (seen <= 0) continue;
        alignas(64) float scores[QueryTile::kKeys + kRowPad];
        tile_.scores(r, seen, scores);
        add_exponentials(scores, lse(r), seen, &sums[static_cast<size_t>(r / group_ * pitch + j0)]);
      }
    }
    memory_.idx.resize(static_cast<size_t>(p_.topk));
    for (int64_t i = 0; i < count_; ++i) {
      const int64_t at = position_ + i;
      const int64_t chosen = choose_blocks(p_, &sums[static_cast<size_t>(i * pitch)], p_.compressed_seen(at, compressed_),
                                           p_.candidates(at), memory_.idx.data());
      idx(query_ + i, memory_.idx.data(), chosen);
    }
  }

  // Blocks of query i: entries(query) of them.
  template <class Entries>
  void selected(Entries&& entries) {
    tile_.by_matrix(group_ >= QueryTile::kMatrixRows);  // a query's blocks are its own
    tile_.reset(rows());
    for (int64_t i = 0; i < count_; ++i) {
      const int32_t* idx = entries(query_ + i);
      for (int64_t e = 0; e < p_.topk; ++e) {
        const int64_t begin = idx[e] * p_.block, end = std::min(begin + p_.block, position_ + i + 1);
        if (idx[e] < 0 || begin >= end) continue;
        for (int64_t g = 0; g < group_; ++g) tile_.visible(i * group_ + g) = {begin, end};
        tile_.template meet<T>(i * group_, group_, {begin, end}, token_keys());
      }
    }
  }

  void windowed() {
    tile_.by_matrix(true);
    tile_.reset(rows());
    for (int64_t r = 0; r < rows(); ++r) {
      const int64_t end = std::max<int64_t>(position(r) + 1, 0);
      tile_.visible(r) = {std::max<int64_t>(end - p_.window, 0), end};
    }
    tile_.template meet<T>(0, rows(), {tile_.visible(0).begin, tile_.visible(rows() - 1).end}, token_keys());
  }

  void store() {
    for (int64_t r = 0; r < rows(); ++r) {
      const float lse = tile_.finish(r);
      store_row(tile_.output(r), p_.value_dim, p_.o.template at<T>(query(r), query_head(r)));
      if (p_.lse.data) *p_.lse.template at<float>(query(r), query_head(r)) = lse;
    }
  }

  // All branches, each times its gate.
  void attend(int64_t b, int64_t head, int64_t first, int64_t count) {
    start(b, head, first, count);
    const int64_t pitch = padded(p_.value_dim);
    memory_.sum.assign(static_cast<size_t>(rows() * pitch), 0.0f);
    memory_.lse.resize(static_cast<size_t>(rows()));
    compressed();
    add_branch(0);
    // Where each query's entries lie: in the caller's idx, or one query after another.
    std::vector<int32_t> own(p_.idx ? 0 : static_cast<size_t>(count * p_.topk));
    auto entries = [&](int64_t query) {
      return p_.idx ? p_.idx_of(head_, query) : own.data() + (query - query_) * p_.topk;
    };
    select([&](int64_t r) { return memory_.lse[static_cast<size_t>(r)]; },
           [&](int64_t query, const int32_t* idx, int64_t) { std::copy(idx, idx + p_.topk, entries(query)); });
    selected(entries);
    add_branch(1);
    windowed();
    add_branch(2);
    for (int64_t r = 0; r < rows(); ++r)
      store_row(&memory_.sum[static_cast<size_t>(r * pitch)], p_.value_dim, p_.o.template at<T>(query(r), query_head(r)));
  }

 private:
  int64_t rows() const { return count_ * group_; }
  int64_t query(int64_t r) const { return query_ + r / group_; }
  int64_t query_head(int64_t r) const { return head_ * group_ + r % group_; }
  int64_t position(int64_t r) const { return position_ + r / group_; }
  auto token_keys() const {
    return [this](int64_t j) {
      return std::pair{p_.k.at<const T>(p_.cu_k[b_] + j, head_), p_.v.at<const T>(p_.cu_k[b_] + j, head_)};
    };
  }

  // sums[j] += e^(scores[j] - lse)
  static void add_exponentials(const float* scores, float lse, int64_t n, float* sums) {
    const F32Tag d;
    alignas(64) float weights[QueryTile::kKeys + kRowPad];
    for (int64_t j = 0; j < n; j += kLanes)
      store_f32(hn::Exp(d, hn::Sub(load(scores + j), hn::Set(d, lse))), weights + j);
    for (int64_t j = 0; j < n; ++j) sums[j] += weights[j];
  }

  void add_branch(int gate) {
    const int64_t pitch = padded(p_.value_dim);
    for (int64_t r = 0; r < rows(); ++r) {
      const float lse = tile_.finish(r);
      if (gate == 0) memory_.lse[static_cast<size_t>(r)] = lse;
      const F32 factor = hn::Set(F32Tag(), p_.gates.at<const float>(query(r), query_head(r))[gate]);
      float* sum = &memory_.sum[static_cast<size_t>(r * pitch)];
      for (int64_t i = 0; i < pitch; i += kLanes)
        store_f32(hn::MulAdd(factor, load(tile_.output(r) + i), load(sum + i)), sum + i);
    }
  }

  const Params& p_;
  NsaMemory& memory_;
  int64_t group_, b_ = 0, head_ = 0, query_ = 0, count_ = 0, position_ = 0, compressed_ = 0;
  QueryTile tile_;
};

// Work items: (sequence, KV head, as many queries as fill a tile), those of the first sequence first.
template <class T, class C>
void run_items(const Params& p, NsaStep step, int64_t begin, int64_t end) {
  static thread_local NsaMemory memory;
  NsaTile<T, C> tile(p, memory);
  const int64_t queries = nsa_item_queries(p);
  int64_t item = 0;
  for (int64_t b = 0; b < p.sequences && item < end; ++b) {
    const int64_t length = p.cu_q[b + 1] - p.cu_q[b], tiles = (length + queries - 1) / queries, items = tiles * p.kv_heads;
    for (int64_t i = std::max<int64_t>(begin - item, 0); i < std::min(items, end - item); ++i) {
      const int64_t head = i / tiles, first = i % tiles * queries, count = std::min(queries, length - first);
      if (step == NsaStep::all) {
        tile.attend(b, head, first, count);
        continue;
      }
      tile.start(b, head, first, count);
      if (step == NsaStep::select) {
        const int64_t group = p.group(), query = p.cu_q[b] + first;
        tile.select(
            [&](int64_t r) { return *p.lse.at<const float>(query + r / group, head * group + r % group); },
            [&](int64_t at, const int32_t* idx, int64_t chosen) {
              std::copy(idx, idx + p.topk, p.idx_of(head, at));
              p.count[head * p.count_head + at] = static_cast<int32_t>(chosen);
            });
        continue;
      }
      if (step == NsaStep::compressed) tile.compressed();
      if (step == NsaStep::selected) tile.selected([&](int64_t at) { return p.idx_of(head, at); });
      tile.store();
    }
    item += items;
  }
}

void nsa_items(const Params& p, NsaStep step, int64_t begin, int64_t end) {
  with_float_type(p.dtype, [&](auto type) {
    using T = decltype(type);
    if (p.mean) {
      run_items<T, float>(p, step, begin, end);
    } else {
      run_items<T, T>(p, step, begin, end);
    }
  });
}

// Row j of a sequence of averages [begin, end) of blocks of l rows: to[j] for (j, head) items, heads fastest.
void average_items(const Params& p, int64_t begin, int64_t end) {
  with_float_type(p.dtype, [&](auto type) {
    using T = decltype(type);
    static thread_local std::vector<float> memory;
    memory.resize(static_cast<size_t>(padded(std::max(p.dim, p.value_dim))));
    for (int64_t item = begin; item < end; ++item) {
      const int64_t row = item / p.kv_heads, head = item % p.kv_heads;
      const int64_t b = std::upper_bound(p.cu_cmp, p.cu_cmp + p.sequences + 1, row) - p.cu_cmp - 1;
      const int64_t token = p.cu_k[b] + (row - p.cu_cmp[b]) * p.l;
      auto average = [&](const TokenRows& from, const TokenRows& to, int64_t n) {
        float* sum = to.at<float>(row, head);
        std::fill(sum, sum + n, 0.0f);
        for (int64_t i = 0; i < p.l; ++i) {
          load_row(from.at<const T>(token + i, head), n, memory.data());
          for (int64_t c = 0; c < n; ++c) sum[c] += memory[static_cast<size_t>(c)];
        }
        for (int64_t c = 0; c < n; ++c) sum[c] /= static_cast<float>(p.l);
      };
      average(p.k, p.k_cmp, p.dim);
      average(p.v, p.v_cmp, p.value_dim);
    }
  });
}

}  // namespace culebra::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace culebra::cpu {
namespace {

HWY_EXPORT(nsa_items);
HWY_EXPORT(average_items);

void run(const NsaParams& p, NsaStep step, ThreadPool& pool) {
  int64_t items = 0;
  const int64_t queries = nsa_item_queries(p);
  for (int64_t b = 0; b < p.sequences; ++b)
    items += (p.cu_q[b + 1] - p.cu_q[b] + queries - 1) / queries * p.kv_heads;
  const auto run = HWY_DYNAMIC_DISPATCH(nsa_items);
  pool.parallel_for(items, 1, [&](int64_t begin, int64_t end) { run(p, step, begin, end); });
}

}  // namespace

int64_t choose_blocks(const NsaParams& p, const float* probabilities, int64_t seen, int64_t candidates, int32_t* idx) {
  std::fill(idx, idx + p.topk, -1);
  if (candidates <= p.topk) {
    std::iota(idx, idx + candidates, 0);
    return candidates;
  }
  struct Scored {
    float score;
    int32_t block;
  };
  static thread_local std::vector<Scored> free;
  free.clear();
  int64_t chosen = 0;
  for (int64_t b = 0; b < candidates; ++b) {
    if (p.forced(b, candidates)) {
      idx[chosen++] = static_cast<int32_t>(b);
      continue;
    }
    float score = 0;
    for (int64_t o = 0; o < p.score_terms(); ++o) {
      const int64_t j = b * (p.block / p.d) - (p.l / p.d - 1) + o;
      if (j >= 0 && j < seen) score += static_cast<float>(p.score_weight(o)) * probabilities[j];
    }
    free.push_back({score == score ? score : -INFINITY, static_cast<int32_t>(b)});
  }
  const int64_t wanted = p.topk - chosen;
  const auto last = free.begin() + wanted;
  std::nth_element(free.begin(), last, free.end(), [](const Scored& a, const Scored& b) {
    return a.score > b.score || (a.score == b.score && a.block < b.block);
  });
  for (auto at = free.begin(); at != last; ++at) idx[chosen++] = at->block;
  std::sort(idx, idx + chosen);
  return chosen;
}

void nsa_compressed_attention(const NsaParams& p, ThreadPool& pool) {
  require_valid(p.op, p);
  run(p, NsaStep::compressed, pool);
}
void nsa_select(const NsaParams& p, ThreadPool& pool) {
  require_valid(p.op, p);
  run(p, NsaStep::select, pool);
}
void nsa_selected_attention(const NsaParams& p, ThreadPool& pool) {
  require_valid(p.op, p);
  run(p, NsaStep::selected, pool);
}

void nsa_attention(const NsaParams& given, ThreadPool& pool) {
  NsaParams p = given;
  require_valid(p.op, p);
  if (p.mean) {
    const NsaWorkspace at(p, true);
    auto* base = static_cast<char*>(p.workspace);
    auto* cu_cmp = reinterpret_cast<int32_t*>(base + at.cu_cmp);
    p.k_cmp = {base + at.k_cmp, p.kv_heads * p.dim, p.dim};
    p.v_cmp = {base + at.v_cmp, p.kv_heads * p.value_dim, p.value_dim};
    cu_cmp[0] = 0;
    for (int64_t b = 0; b < p.sequences; ++b)
      cu_cmp[b + 1] = cu_cmp[b] + static_cast<int32_t>(compressed_rows(p.cu_k[b + 1] - p.cu_k[b], p.l, p.d));
    p.cu_cmp = cu_cmp;
    const auto average = HWY_DYNAMIC_DISPATCH(average_items);
    pool.parallel_for(cu_cmp[p.sequences] * p.kv_heads, 8, [&](int64_t begin, int64_t end) { average(p, begin, end); });
  }
  run(p, NsaStep::all, pool);
}

}  // namespace culebra::cpu
#endif
