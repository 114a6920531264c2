// A tile of queries is a box of one dilation group; it meets the box of all keys that they see, line by line along the last
// axis. A line's segments are packed into tiles of keys; what a query sees of a line is an interval or nothing.
#include <algorithm>
#include <vector>

#include "backends/cpu/thread_pool.h"
#include "ops/sparse_attention/neighborhood_attention.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/sparse_attention/neighborhood_attention_cpu.cc"
#include "backends/cpu/simd.h"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "ops/attention/query_tile-inl.h"

HWY_BEFORE_NAMESPACE();
namespace culebra::cpu::HWY_NAMESPACE {

using Params = NeighborhoodParams;

// A box of queries, in coordinates of one dilation group.
struct QueryBox {
  int64_t batch, head;          // of k
  int32_t group[kMaxAxes];      // residues
  int32_t length[kMaxAxes];     // of the group
  AxisRange queries[kMaxAxes];
};

// Queries of a box: those of one KV head fill a tile of rows. Boxes are long on the last axis, whose keys lie together.
struct BoxShape {
  explicit BoxShape(const Params& p) {
    int64_t room = std::max<int64_t>(QueryTile::kRows / p.group(), 1);
    const int axes = (p.axes[0].length > 1 ? 1 : 0) + (p.axes[1].length > 1 ? 1 : 0) + 1;
    const int32_t most[kMaxAxes] = {2, axes == 3 ? 2 : 4, 32};
    for (int a : {0, 1, 2}) {
      const int32_t longest = p.axes[a].group_length(0);
      const int64_t fair = a == 2 ? room : std::min<int64_t>(most[a], room);
      extent[a] = static_cast<int32_t>(std::clamp<int64_t>(fair, 1, longest));
      room = std::max<int64_t>(room / extent[a], 1);
    }
  }
  int32_t extent[kMaxAxes];
};

// Runs of keys on one line, gathered until the tile is full, then shown to each row that sees some of them.
template <class T>
void run_box(const Params& p, const QueryBox& box, QueryTile& tile) {
  const int64_t group = p.group();
  struct Query {
    int32_t at[kMaxAxes];  // token
    AxisRange seen[kMaxAxes];
  };
  std::vector<Query> queries;
  AxisRange keys[kMaxAxes];
  for (int a = 0; a < kMaxAxes; ++a)
    keys[a] = p.axes[a].seen_by(box.queries[a].begin, box.queries[a].end - 1, box.length[a]);
  for (int32_t x = box.queries[0].begin; x < box.queries[0].end; ++x)
    for (int32_t y = box.queries[1].begin; y < box.queries[1].end; ++y)
      for (int32_t z = box.queries[2].begin; z < box.queries[2].end; ++z) {
        Query query;
        const int32_t at[kMaxAxes] = {x, y, z};
        for (int a = 0; a < kMaxAxes; ++a) {
          query.at[a] = at[a] * p.axes[a].dilation + box.group[a];
          query.seen[a] = p.axes[a].seen(at[a], box.length[a]);
        }
        queries.push_back(query);
      }
  const int64_t rows = static_cast<int64_t>(queries.size()) * group;
  tile.reset(rows);
  for (int64_t r = 0; r < rows; ++r) {
    const Query& query = queries[static_cast<size_t>(r / group)];
    tile.query(r, p.q.at<const T>(box.batch, query.at[0], query.at[1], query.at[2], box.head * group + r % group), p.scale);
  }
  auto head_rows = [&](int64_t r, auto&& f) {  // all rows of one query
    for (int64_t g = 0; g < group; ++g) f(r * group + g);
  };

  // A run of a line in the present tile of keys: slots [slot, slot + count) hold z from `begin` on.
  struct Run {
    int32_t x, y, begin, count, slot;
  };
  Run runs[QueryTile::kKeys];
  int run_count = 0;
  int32_t filled = 0;
  auto show = [&] {
    uint8_t slots[QueryTile::kKeys];
    for (size_t i = 0; i < queries.size(); ++i) {
      const Query& query = queries[i];
      int64_t n = 0;
      for (int j = 0; j < run_count; ++j) {
        const Run& run = runs[j];
        if (run.x < query.seen[0].begin || run.x >= query.seen[0].end || run.y < query.seen[1].begin ||
            run.y >= query.seen[1].end)
          continue;
        const int32_t begin = std::max(run.begin, query.seen[2].begin),
                      end = std::min(run.begin + run.count, query.seen[2].end);
        for (int32_t z = begin; z < end; ++z) slots[n++] = static_cast<uint8_t>(run.slot + z - run.begin);
      }
      if (n > 0) head_rows(static_cast<int64_t>(i), [&](int64_t r) { tile.meet_listed(r, slots, n); });
    }
    run_count = 0;
    filled = 0;
  };
  for (int32_t x = keys[0].begin; x < keys[0].end; ++x)
    for (int32_t y = keys[1].begin; y < keys[1].end; ++y)
      for (int32_t z = keys[2].begin; z < keys[2].end;) {
        const int32_t count = std::min(keys[2].end - z, static_cast<int32_t>(QueryTile::kKeys) - filled);
        for (int32_t i = 0; i < count; ++i) {
          const int32_t at[kMaxAxes] = {x * p.axes[0].dilation + box.group[0], y * p.axes[1].dilation + box.group[1],
                                        (z + i) * p.axes[2].dilation + box.group[2]};
          tile.load_key(filled + i, p.k.at<const T>(box.batch, at[0], at[1], at[2], box.head),
                        p.v.at<const T>(box.batch, at[0], at[1], at[2], box.head));
        }
        runs[run_count++] = {x, y, z, count, filled};
        filled += count;
        z += count;
        if (filled == QueryTile::kKeys) show();
      }
  if (filled > 0) show();
  for (int64_t r = 0; r < rows; ++r) tile.visible(r) = {0, p.extra};
  tile.meet<T>(0, rows, {0, p.extra}, [&](int64_t e) {
    const auto at = static_cast<int32_t>(e);
    return std::pair{p.extra_k.at<const T>(box.batch, 0, 0, at, box.head),
                     p.extra_v.at<const T>(box.batch, 0, 0, at, box.head)};
  });
  for (int64_t r = 0; r < rows; ++r) {
    const Query& query = queries[static_cast<size_t>(r / group)];
    const int64_t head = box.head * group + r % group;
    const float lse = tile.finish(r);
    store_row(tile.output(r), p.dim, p.o.at<T>(box.batch, query.at[0], query.at[1], query.at[2], head));
    if (p.lse.data) *p.lse.at<float>(box.batch, query.at[0], query.at[1], query.at[2], head) = lse;
  }
}

// Work items: (batch, KV head, dilation groups, boxes), the last axis fastest. Groups differ in length by one token: boxes
// are counted for the longest, and one without queries is skipped.
int64_t boxes_of(const Params& p, const BoxShape& shape, int a) {
  return (p.axes[a].group_length(0) + shape.extent[a] - 1) / shape.extent[a];
}

int64_t neighborhood_item_count(const Params& p) {
  const BoxShape shape(p);
  int64_t items = p.batch * p.kv_heads;
  for (int a = 0; a < kMaxAxes; ++a) items *= boxes_of(p, shape, a) * p.axes[a].dilation;
  return items;
}

void neighborhood_items(const Params& p, int64_t begin, int64_t end) {
  const BoxShape shape(p);
  static thread_local std::vector<float> memory;
  const int64_t rows = int64_t{shape.extent[0]} * shape.extent[1] * shape.extent[2] * p.group();
  QueryTile tile(memory, p.dim, p.dim, rows);
  for (int64_t item = begin; item < end; ++item) {
    QueryBox box;
    int64_t rest = item;
    bool empty = false;
    for (int a = kMaxAxes - 1; a >= 0; --a) {
      const int64_t boxes = boxes_of(p, shape, a);
      const auto first = static_cast<int32_t>(rest % boxes) * shape.extent[a];
      rest /= boxes;
      box.group[a] = static_cast<int32_t>(rest % p.axes[a].dilation);
      rest /= p.axes[a].dilation;
      box.length[a] = p.axes[a].group_length(box.group[a]);
      box.queries[a] = {first, std::min(first + shape.extent[a], box.length[a])};
      empty |= box.queries[a].begin >= box.queries[a].end;
    }
    box.head = rest % p.kv_heads;
    box.batch = rest / p.kv_heads;
    if (empty) continue;
    with_float_type(p.dtype, [&](auto type) { run_box<decltype(type)>(p, box, tile); });
  }
}

}  // namespace culebra::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace culebra::cpu {

HWY_EXPORT(neighborhood_items);
HWY_EXPORT(neighborhood_item_count);

void neighborhood_attention(const NeighborhoodParams& p, ThreadPool& pool) {
  if (p.empty()) return;
  const int64_t items = HWY_DYNAMIC_DISPATCH(neighborhood_item_count)(p);
  const auto run = HWY_DYNAMIC_DISPATCH(neighborhood_items);
  pool.parallel_for(items, 1, [&](int64_t begin, int64_t end) { run(p, begin, end); });
}

}  // namespace culebra::cpu
#endif
