// Exact attention with an online softmax (query_tile-inl.h). What a row sees is an interval of keys, so masks are loop
// bounds.
#include <algorithm>
#include <cstring>
#include <vector>

#include "backends/cpu/thread_pool.h"
#include "ops/attention/mla_attention.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/attention/attention_cpu.cc"
#include "backends/cpu/simd.h"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "ops/attention/query_tile-inl.h"

HWY_BEFORE_NAMESPACE();
namespace culebra::cpu::HWY_NAMESPACE {

using Params = AttentionParams;

constexpr int64_t kQueryTile = QueryTile::kRows;

// A byte of a u8 latent cache (mla_attention.h).
struct LatentByte {
  uint8_t bits;
};
// The first n channels of a token there: 512 or all.
template <>
HWY_INLINE void load_row(const LatentByte* from, int64_t n, float* to) {
  const F32Tag d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  for (int64_t c = 0; c < kLatentValueDim; c += lanes) {
    float scale;
    std::memcpy(&scale, from + kLatentScalesAt + c / kLatentScaleChannels * 4, sizeof scale);
    store_f32(hn::Mul(hn::Set(d, scale), load(reinterpret_cast<const float8_e4m3_t*>(from) + c)), to + c);
  }
  if (n <= kLatentValueDim) return;
  bfloat16_t tail[kLatentDim - kLatentValueDim];  // rows of bytes may begin at an odd address
  std::memcpy(tail, from + kLatentTailAt, sizeof tail);
  for (int64_t c = kLatentValueDim; c < n; c += lanes) store_f32(load(tail + (c - kLatentValueDim)), to + c);
}

// Rows [first, first + count) of the query rows that share KV head `head` in sequence b; row r is query r / G, head r %
// G of the group.
template <class T, class C>
void run_tile(const Params& p, int64_t b, int64_t head, int64_t first, int64_t count, QueryTile& tile) {
  const int64_t group = p.group(), queries = p.query_count(b), keys = p.key_count(b);
  const float q_scale = p.scale * (p.k_scale ? p.k_scale[head] : 1.0f);
  auto at = [&](const Params::Rows& x, int64_t r) {
    return b * x.batch + (p.query_begin(b) + r / group) * x.row + (head * group + r % group) * x.head;
  };
  KeyRange all{keys, 0};
  tile.reset(count);
  for (int64_t r = 0; r < count; ++r) {
    tile.query(r, static_cast<const T*>(p.q.data) + at(p.q, first + r), q_scale);
    const KeyRange seen = p.visible((first + r) / group, queries, keys);
    tile.visible(r) = seen;
    if (seen.begin < seen.end) {
      all.begin = std::min(all.begin, seen.begin);
      all.end = std::max(all.end, seen.end);
    }
  }
  tile.meet<C>(0, count, all, [&](int64_t j) {
    int64_t page = 0, offset = j;
    if (p.tokens) {
      const int64_t token = p.tokens[b * p.tokens_stride + j];
      page = token / p.page_size;
      offset = token % p.page_size;
    } else if (p.page_table) {
      page = p.page_table[b * p.page_table_stride + j / p.page_size];
      offset = j % p.page_size;
    } else {
      offset += p.cu_k[b];
    }
    auto row = [&](const Params::Rows& x) {
      return static_cast<const C*>(x.data) + page * x.batch + offset * x.row + head * x.head;
    };
    return std::pair{row(p.k), row(p.v)};
  });
  for (int64_t r = 0; r < count; ++r) {
    const float sink = p.sink ? p.sink[head * group + (first + r) % group] : -INFINITY;
    const float lse = tile.finish(r, sink, p.v_scale ? p.v_scale[head] : 1.0f);
    store_row(tile.output(r), p.value_dim, static_cast<T*>(p.o.data) + at(p.o, first + r));
    if (p.lse.data) static_cast<float*>(p.lse.data)[at(p.lse, first + r)] = lse;
  }
}

// Work items: (sequence, KV head, kQueryTile query rows), those of the first sequence first.
void attention_items(const Params& p, int64_t begin, int64_t end) {
  static thread_local std::vector<float> memory;
  QueryTile tile(memory, p.dim, p.value_dim, kQueryTile, p.softcap);
  int64_t item = 0;
  for (int64_t b = 0; b < p.sequences && item < end; ++b) {
    const int64_t rows = p.query_count(b) * p.group(), tiles = (rows + kQueryTile - 1) / kQueryTile;
    const int64_t items = tiles * p.kv_heads;
    tile.by_matrix(p.batch_invariant || rows >= QueryTile::kMatrixRows);
    for (int64_t i = std::max<int64_t>(begin - item, 0); i < std::min(items, end - item); ++i) {
      const int64_t head = i / tiles, first = i % tiles * kQueryTile, count = std::min(kQueryTile, rows - first);
      with_float_type(p.dtype, [&](auto type) {
        using T = decltype(type);
        if (p.cache_dtype == DType::f8e4m3) {
          run_tile<T, float8_e4m3_t>(p, b, head, first, count, tile);
        } else if (p.cache_dtype == DType::u8) {
          run_tile<T, LatentByte>(p, b, head, first, count, tile);
        } else {
          run_tile<T, T>(p, b, head, first, count, tile);
        }
      });
    }
    item += items;
  }
}

int64_t attention_item_count(const Params& p) {
  int64_t items = 0;
  for (int64_t b = 0; b < p.sequences; ++b)
    items += (p.query_count(b) * p.group() + kQueryTile - 1) / kQueryTile * p.kv_heads;
  return items;
}

}  // namespace culebra::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace culebra::cpu {

HWY_EXPORT(attention_items);
HWY_EXPORT(attention_item_count);

void attention(const AttentionParams& p, ThreadPool& pool) {
  require_valid(p.op, p);
  const int64_t items = HWY_DYNAMIC_DISPATCH(attention_item_count)(p);
  if (items == 0) return;
  int64_t pairs = 0;  // of queries and keys, at most
  for (int64_t b = 0; b < p.sequences; ++b) pairs += p.query_count(b) * p.key_count(b);
  const int64_t work_per_item = pairs * p.query_heads * (p.dim + p.value_dim) / items;
  const auto run = HWY_DYNAMIC_DISPATCH(attention_items);
  pool.parallel_for(items, 131072 / (work_per_item + 1) + 1, [&](int64_t begin, int64_t end) { run(p, begin, end); });
}

}  // namespace culebra::cpu
#endif
