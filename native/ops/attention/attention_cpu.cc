// Exact attention with an online softmax (query_tile-inl.h). What a row sees is an interval of keys, so masks are loop
// bounds.
#include <algorithm>
#include <cstring>
#include <vector>

#include "backends/cpu/thread_pool.h"
#include "ops/attention/attention_cpu.h"
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

// Element of row r of a KV head in sequence b.
HWY_INLINE int64_t row_at(const Params& p, const Params::Rows& x, int64_t b, int64_t head, int64_t r) {
  return b * x.batch + (p.query_begin(b) + r / p.group()) * x.row + (head * p.group() + r % p.group()) * x.head;
}

// The output of the tile's row i, which is row r of a KV head.
template <class T>
void finish_row(const Params& p, int64_t b, int64_t head, int64_t r, QueryTile& tile, int64_t i) {
  const float sink = p.sink ? p.sink[head * p.group() + r % p.group()] : -INFINITY;
  const float lse = tile.finish(i, sink, p.v_scale ? p.v_scale[head] : 1.0f);
  store_row(tile.output(i), p.value_dim, static_cast<T*>(p.o.data) + row_at(p, p.o, b, head, r));
  if (p.lse.data) static_cast<float*>(p.lse.data)[row_at(p, p.lse, b, head, r)] = lse;
}

template <class T, class C>
void run_item(const Params& p, const AttentionItem& item, float* states, QueryTile& tile) {
  const int64_t b = item.b, queries = p.query_count(b), keys = p.key_count(b), heads = item.head_end - item.head;
  KeyRange all{item.key_end, item.key};
  tile.by_matrix(item.by_matrix);
  tile.reset(heads * item.rows);
  for (int64_t i = 0; i < heads * item.rows; ++i) {
    const int64_t head = item.head + i / item.rows, r = item.row + i % item.rows;
    tile.query(i, static_cast<const T*>(p.q.data) + row_at(p, p.q, b, head, r), p.scale * (p.k_scale ? p.k_scale[head] : 1.0f));
    KeyRange seen = p.visible(r / p.group(), queries, keys);
    seen = {std::max(seen.begin, item.key), std::min(seen.end, item.key_end)};
    tile.visible(i) = seen;
    if (seen.begin < seen.end) {
      all.begin = std::min(all.begin, seen.begin);
      all.end = std::max(all.end, seen.end);
    }
  }
  // All heads meet a tile of keys before the next one, so that the cache is read as it lies. Its rows of the first head:
  struct Keys {
    const C *k[QueryTile::kKeys], *v[QueryTile::kKeys];
  } tiles[2];
  const auto find = [&](KeyRange range, Keys& to) {
    for (int64_t j = range.begin; j < range.end; ++j) {
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
      const auto row = [&](const Params::Rows& x) {
        return static_cast<const C*>(x.data) + page * x.batch + offset * x.row + item.head * x.head;
      };
      to.k[j % QueryTile::kKeys] = row(p.k);
      to.v[j % QueryTile::kKeys] = row(p.v);
    }
  };
  const auto tile_at = [&](int64_t key) {
    return KeyRange{std::max(key, all.begin), std::min(key / QueryTile::kKeys * QueryTile::kKeys + QueryTile::kKeys, all.end)};
  };
  find(tile_at(all.begin), tiles[0]);
  int64_t at = 0;
  for (KeyRange range = tile_at(all.begin); range.begin < range.end; at ^= 1) {
    const KeyRange next = tile_at(range.end);
    find(next, tiles[at ^ 1]);
    const Keys &here = tiles[at], &there = tiles[at ^ 1];
    const auto of = [&p](const Keys& x, int64_t key, int64_t head) {
      const int64_t slot = key % QueryTile::kKeys;
      return std::pair{x.k[slot] + head * p.k.head, x.v[slot] + head * p.v.head};
    };
    // Meanwhile the next tile comes, all heads of a key before the next key: in the order of the memory.
    int64_t soon = next.begin, soon_head = 0;
    for (int64_t h = 0; h < heads; ++h) {
      const auto ahead = [&](int64_t j) {
        const auto rows = soon < next.end ? of(there, soon, soon_head) : of(here, j, h);
        if (++soon_head == heads) soon_head = 0, ++soon;
        return rows;
      };
      tile.meet<C>(h * item.rows, item.rows, range, [&](int64_t j) { return of(here, j, h); }, ahead);
    }
    range = next;
  }
  for (int64_t i = 0; i < heads * item.rows; ++i) {
    if (item.state >= 0) tile.save(i, states + item.state + i / item.rows * item.pitch + i % item.rows * tile.state_size());
    else finish_row<T>(p, b, item.head + i / item.rows, item.row + i % item.rows, tile, i);
  }
}

void attention_items(const Params& p, int64_t max_rows, const AttentionItem* items, int64_t count, float* states) {
  static thread_local std::vector<float> memory;
  QueryTile tile(memory, p.dim, p.value_dim, max_rows, p.softcap);
  for (int64_t i = 0; i < count; ++i) {
    with_float_type(p.dtype, [&](auto type) {
      using T = decltype(type);
      if (p.cache_dtype == DType::f8e4m3) {
        run_item<T, float8_e4m3_t>(p, items[i], states, tile);
      } else if (p.cache_dtype == DType::u8) {
        run_item<T, LatentByte>(p, items[i], states, tile);
      } else {
        run_item<T, T>(p, items[i], states, tile);
      }
    });
  }
}

// The rows of one KV head, whose splits are added in the order of their keys.
void attention_merge(const Params& p, const AttentionMerge& merge, int64_t head, const float* states) {
  static thread_local std::vector<float> memory;
  QueryTile tile(memory, p.dim, p.value_dim, 1);
  for (int64_t r = 0; r < merge.rows; ++r) {
    tile.reset(1);
    for (int64_t split = 0; split < merge.splits; ++split)
      tile.add(0, states + merge.state + ((split * p.kv_heads + head) * merge.rows + r) * tile.state_size());
    with_float_type(p.dtype, [&](auto type) { finish_row<decltype(type)>(p, merge.b, head, r, tile, 0); });
  }
}

int64_t attention_state_size(const Params& p) { return kRowPad + padded(p.value_dim); }

// From which on a sequence's rows go by products of matrices: four rows at a time, which only wide vectors have the registers for, read a cache
// faster than that as long as they are no more than three times four.
int64_t attention_matrix_rows() { return kFewRows == 4 ? 16 : QueryTile::kMatrixRows; }

}  // namespace culebra::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace culebra::cpu {

HWY_EXPORT(attention_items);
HWY_EXPORT(attention_merge);
HWY_EXPORT(attention_state_size);
HWY_EXPORT(attention_matrix_rows);

namespace {

constexpr int64_t kTileRows = 32;     // of a sequence that has more of them
constexpr int64_t kSectionRows = 64;  // of all heads of an item
// Long sequences with few rows are split at multiples of so many keys, whatever the threads, where there are few sequences.
constexpr int64_t kSplitKeys = 512;
constexpr int64_t kManyHeads = 128;

struct Work {
  std::vector<AttentionItem> items;
  std::vector<AttentionMerge> merges;
  int64_t states = 0;    // numbers
  int64_t max_rows = 0;  // of an item
};

Work plan(const AttentionParams& p, int threads, int64_t state_size, int64_t matrix_rows) {
  Work work;
  const bool split = !p.batch_invariant && p.sequences * p.kv_heads < kManyHeads;
  std::vector<AttentionItem>& items = work.items;
  for (int64_t b = 0; b < p.sequences; ++b) {
    const int64_t queries = p.query_count(b), rows = queries * p.group(), keys = p.key_count(b);
    AttentionItem item{.b = b, .rows = rows, .key_end = keys, .by_matrix = p.batch_invariant || rows >= matrix_rows};
    if (rows > kTileRows) {
      for (int64_t head = 0; head < p.kv_heads; ++head) {
        for (item.row = 0; item.row < rows; item.row += kTileRows) {
          item.head = head, item.head_end = head + 1, item.rows = std::min(kTileRows, rows - item.row);
          items.push_back(item);
        }
      }
      continue;
    }
    if (rows == 0) continue;
    // What any of the rows sees.
    const int64_t begin = p.visible(0, queries, keys).begin / kSplitKeys * kSplitKeys, end = p.visible(queries - 1, queries, keys).end;
    const int64_t splits = split ? std::max<int64_t>((end - begin + kSplitKeys - 1) / kSplitKeys, 1) : 1;
    // Heads that follow each other in memory stay together as long as all threads have work.
    const int64_t wanted = (4 * threads + splits * p.sequences - 1) / (splits * p.sequences);
    const int64_t most = std::clamp<int64_t>(kSectionRows / rows, 1, p.kv_heads);
    const int64_t sections = std::clamp<int64_t>(wanted, (p.kv_heads + most - 1) / most, p.kv_heads);
    if (splits > 1) {
      work.merges.push_back({.b = b, .rows = rows, .splits = splits, .state = work.states});
      item.pitch = rows * state_size;
    }
    for (int64_t i = 0; i < splits; ++i) {
      if (splits > 1) {
        item.key = begin + i * kSplitKeys;
        item.key_end = std::min(item.key + kSplitKeys, end);
      }
      for (int64_t section = 0; section < sections; ++section) {
        item.head = p.kv_heads * section / sections;
        item.head_end = p.kv_heads * (section + 1) / sections;
        if (splits > 1) item.state = work.states + (i * p.kv_heads + item.head) * item.pitch;
        items.push_back(item);
      }
    }
    work.states += splits > 1 ? splits * p.kv_heads * item.pitch : 0;
  }
  for (const AttentionItem& item : items) work.max_rows = std::max(work.max_rows, (item.head_end - item.head) * item.rows);
  return work;
}

}  // namespace

void attention(const AttentionParams& p, ThreadPool& pool) {
  require_valid(p.op, p);
  const Work work = plan(p, pool.size(), HWY_DYNAMIC_DISPATCH(attention_state_size)(p), HWY_DYNAMIC_DISPATCH(attention_matrix_rows)());
  const auto items = static_cast<int64_t>(work.items.size());
  if (items == 0) return;
  static thread_local std::vector<float> states;  // the stream's worker keeps them from call to call
  states.resize(static_cast<size_t>(work.states));
  float* const to = states.data();
  int64_t pairs = 0;  // of queries and keys, at most
  for (int64_t b = 0; b < p.sequences; ++b) pairs += p.query_count(b) * p.key_count(b);
  const int64_t work_per_item = pairs * p.query_heads * (p.dim + p.value_dim) / items;
  const auto run = HWY_DYNAMIC_DISPATCH(attention_items);
  pool.parallel_for(items, 131072 / (work_per_item + 1) + 1,
                    [&](int64_t begin, int64_t end) { run(p, work.max_rows, work.items.data() + begin, end - begin, to); });
  const auto merge = HWY_DYNAMIC_DISPATCH(attention_merge);
  pool.parallel_for(static_cast<int64_t>(work.merges.size()) * p.kv_heads, 4, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) merge(p, work.merges[static_cast<size_t>(i / p.kv_heads)], i % p.kv_heads, to);
  });
}

}  // namespace culebra::cpu
#endif
