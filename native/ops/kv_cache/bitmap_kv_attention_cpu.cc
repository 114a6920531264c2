// Compressed rows are expanded to f32, vector by vector, once for all query rows of a tile (attention/query_tile-inl.h): the cache first,
// then the tail, in one softmax.
#include <algorithm>
#include <vector>

#include "backends/cpu/thread_pool.h"
#include "ops/kv_cache/bitmap_kv_attention.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/kv_cache/bitmap_kv_attention_cpu.cc"
#include "backends/cpu/simd.h"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "ops/attention/query_tile-inl.h"

HWY_BEFORE_NAMESPACE();
namespace culebra::cpu::HWY_NAMESPACE {

// Compressed rows as f32; one stays until kKeys others have come. Beyond `keep` the packed values are zeros, so that no bitmap leads outside.
class Expander {
 public:
  explicit Expander(int64_t dim)
      : dim_(dim), packed_(static_cast<size_t>(dim + 2 * kRowPad)), rows_(static_cast<size_t>(dim * QueryTile::kKeys)) {}

  template <class T>
  HWY_INLINE const float* operator()(const T* values, int64_t keep, const int64_t* bits) {
    load_row(values, keep, packed_.data());
    std::fill(packed_.begin() + keep, packed_.end(), 0.0f);
    float* const row = rows_.data() + at_ * dim_;
    at_ = (at_ + 1) % QueryTile::kKeys;
    const float* next = packed_.data();
#if HWY_TARGET == HWY_AVX3
    for (int64_t i = 0; i < dim_; i += 16) {
      const auto kept = static_cast<__mmask16>(static_cast<uint64_t>(bits[i / 64]) >> (i % 64));
      _mm512_storeu_ps(row + i, _mm512_maskz_expand_ps(kept, _mm512_loadu_ps(next)));
      next += __builtin_popcount(kept);
    }
#else
    std::fill(row, row + dim_, 0.0f);
    for (int64_t word = 0; word < dim_ / 64; ++word)
      for (auto kept = static_cast<uint64_t>(bits[word]); kept; kept &= kept - 1) row[64 * word + __builtin_ctzll(kept)] = *next++;
#endif
    return row;
  }

 private:
  int64_t dim_, at_ = 0;
  std::vector<float> packed_, rows_;
};

// Rows [first, first + count) of the query rows that share KV head `head` in sequence b; row r is query r / G, head r % G.
template <class T>
void bitmap_tile(const BitmapAttentionParams& p, int64_t b, int64_t head, int64_t first, int64_t count, QueryTile& tile,
                 Expander& key, Expander& value) {
  const int64_t group = p.group(), cached = p.kv_len[b], tokens = cached + p.tail_len[b];
  auto query = [&](int64_t r) { return (first + r) / group; };
  auto head_of = [&](int64_t r) { return head * group + (first + r) % group; };
  auto seen = [&](int64_t r) { return std::clamp<int64_t>(tokens - p.queries + query(r) + 1, 0, tokens); };
  tile.reset(count);
  for (int64_t r = 0; r < count; ++r) tile.query(r, p.q.at<const T>(b, query(r), head_of(r)), p.scale);
  for (int64_t r = 0; r < count; ++r) tile.visible(r) = {0, std::min(seen(r), cached)};
  tile.meet<float>(0, count, {0, std::min(seen(count - 1), cached)}, [&](int64_t j) {
    const int64_t page = p.page_table[b * p.page_table_stride + j / p.page_size], row = j % p.page_size;
    return std::pair{
        key(p.k_values.at<const T>(page, row, head), p.key_keep, p.k_bits.at<const int64_t>(page, row, head)),
        value(p.v_values.at<const T>(page, row, head), p.value_keep, p.v_bits.at<const int64_t>(page, row, head))};
  });
  for (int64_t r = 0; r < count; ++r) tile.visible(r) = {0, std::max<int64_t>(seen(r) - cached, 0)};
  tile.meet<T>(0, count, {0, std::max<int64_t>(seen(count - 1) - cached, 0)}, [&](int64_t j) {
    return std::pair{p.k_tail.at<const T>(b, j, head), p.v_tail.at<const T>(b, j, head)};
  });
  for (int64_t r = 0; r < count; ++r) {
    const float lse = tile.finish(r);
    store_row(tile.output(r), p.dim, p.o.at<T>(b, query(r), head_of(r)));
    if (p.lse.data) *p.lse.at<float>(b, query(r), head_of(r)) = lse;
  }
}

// Work items: (sequence, KV head, tile of query rows).
void bitmap_items(const BitmapAttentionParams& p, int64_t begin, int64_t end) {
  static thread_local std::vector<float> memory;
  QueryTile tile(memory, p.dim, p.dim);
  tile.by_matrix(p.group() >= QueryTile::kMatrixRows);  // however many queries: bits are the same
  Expander key(p.dim), value(p.dim);
  const int64_t rows = p.queries * p.group(), tiles = (rows + QueryTile::kRows - 1) / QueryTile::kRows;
  for (int64_t i = begin; i < end; ++i) {
    const int64_t first = i % tiles * QueryTile::kRows;
    with_float_type(p.dtype, [&](auto type) {
      bitmap_tile<decltype(type)>(p, i / tiles / p.kv_heads, i / tiles % p.kv_heads, first,
                                  std::min(QueryTile::kRows, rows - first), tile, key, value);
    });
  }
}

int64_t bitmap_item_count(const BitmapAttentionParams& p) {
  return (p.queries * p.group() + QueryTile::kRows - 1) / QueryTile::kRows * p.sequences * p.kv_heads;
}

}  // namespace culebra::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace culebra::cpu {

HWY_EXPORT(bitmap_items);
HWY_EXPORT(bitmap_item_count);

void bitmap_kv_attention(const BitmapAttentionParams& p, ThreadPool& pool) {
  require_valid("bitmap_kv_attention", p);
  const auto run = HWY_DYNAMIC_DISPATCH(bitmap_items);
  pool.parallel_for(HWY_DYNAMIC_DISPATCH(bitmap_item_count)(p), 1,
                    [&](int64_t begin, int64_t end) { run(p, begin, end); });
}

}  // namespace culebra::cpu
#endif
