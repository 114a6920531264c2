#include <algorithm>

#include "ops/sparse_attention/neighborhood_attention.h"
#include "ops/sparse_attention/sparse_tiles.cuh"

namespace culebra::CUL_DEVICE_NS {
namespace {

// Quotients by one divisor: an estimate that is at most one too large, and its correction. n < 2^31.
struct Divisor {
  uint32_t divisor = 1, inverse = 0;
  Divisor() = default;
  CUL_DEVICE_FN explicit Divisor(uint32_t d) : divisor(d), inverse(d > 1 ? 0xffffffffu / d + 1 : 0) {}
  CUL_DEVICE_FN int divide(int n, int& rest) const {
    if (divisor == 1) {
      rest = 0;
      return n;
    }
    uint32_t quotient = __umulhi(static_cast<uint32_t>(n), inverse);
    rest = n - static_cast<int>(quotient * divisor);
    if (rest < 0) {
      --quotient;
      rest += static_cast<int>(divisor);
    }
    return static_cast<int>(quotient);
  }
};

// A box of queries of one dilation group and KV head, their heads beside each other, and the box of all keys that they see: key n is
// extra key n, or key n - extra of the box in row-major order.
struct BoxTour : PlainKeys {
  struct Tensors {
    NeighborhoodParams::Rows q, k, v, extra_k, extra_v, o, lse;  // strides in bytes
  };
  Tensors tensors;
  NeighborhoodAxis axes[kMaxAxes];
  int64_t batch, kv_head, head;  // head: the first query head
  int heads, extra, count;
  int residue[kMaxAxes], length[kMaxAxes], first[kMaxAxes], extent[kMaxAxes];  // of the dilation group; of the box of queries
  AxisRange hull[kMaxAxes], common[kMaxAxes];                                  // what some query sees, what every query sees
  Divisor by_z, by_y;

  struct Row {
    AxisRange seen[kMaxAxes];
  };
  CUL_DEVICE_FN void coordinates(int r, int* at) const {
    const int token = r / heads;
    at[2] = first[2] + token % extent[2];
    at[1] = first[1] + token / extent[2] % extent[1];
    at[0] = first[0] + token / extent[2] / extent[1];
  }
  CUL_DEVICE_FN char* token(const NeighborhoodParams::Rows& rows, const int* at, int64_t head) const {
    char* to = static_cast<char*>(rows.data) + batch * rows.batch + head * rows.head;
#pragma unroll
    for (int a = 0; a < kMaxAxes; ++a) to += (int64_t{at[a]} * axes[a].dilation + residue[a]) * rows.axis[a];
    return to;
  }
  CUL_DEVICE_FN char* query(const NeighborhoodParams::Rows& rows, int r) const {
    int at[kMaxAxes];
    coordinates(r, at);
    return token(rows, at, head + r % heads);
  }
  // Coordinates of key n of the box, relative to the hull's.
  CUL_DEVICE_FN void key(int n, int* at) const {
    const int line = by_z.divide(n, at[2]);
    at[0] = by_y.divide(line, at[1]);
  }

  CUL_DEVICE_FN int rows() const { return count; }
  CUL_DEVICE_FN const void* q(int r) const { return query(tensors.q, r); }
  CUL_DEVICE_FN void* o(int r) const { return query(tensors.o, r); }
  CUL_DEVICE_FN float* lse(int r) const { return tensors.lse.data ? reinterpret_cast<float*>(query(tensors.lse, r)) : nullptr; }
  CUL_DEVICE_FN float sink(int) const { return kNoScore; }
  CUL_DEVICE_FN int64_t index(int) const { return 0; }

  CUL_DEVICE_FN int begin() const { return 0; }
  CUL_DEVICE_FN int end() const {
    return extra + (hull[0].end - hull[0].begin) * (hull[1].end - hull[1].begin) * (hull[2].end - hull[2].begin);
  }
  CUL_DEVICE_FN KeyPlace place(int n) const {
    if (n < extra) {
      const int64_t k = batch * tensors.extra_k.batch + n * tensors.extra_k.axis[2] + kv_head * tensors.extra_k.head;
      const int64_t v = batch * tensors.extra_v.batch + n * tensors.extra_v.axis[2] + kv_head * tensors.extra_v.head;
      return {static_cast<const char*>(tensors.extra_k.data) + k, static_cast<const char*>(tensors.extra_v.data) + v};
    }
    int at[kMaxAxes];
    key(n - extra, at);
#pragma unroll
    for (int a = 0; a < kMaxAxes; ++a) at[a] += hull[a].begin;
    return {token(tensors.k, at, kv_head), token(tensors.v, at, kv_head)};
  }
  // A run of keys in row-major order lies within the common box if its lines do, and the whole line where it passes from one to another.
  CUL_DEVICE_FN bool edge(int from, int to) const {
    from -= extra;
    to -= extra;
    if (to <= 0) return false;
    int low[kMaxAxes], high[kMaxAxes];
    key(max(from, 0), low);
    key(to - 1, high);
    bool same = true;  // all axes before this one
#pragma unroll
    for (int a = 0; a < kMaxAxes; ++a) {
      const int begin = common[a].begin - hull[a].begin, end = common[a].end - hull[a].begin;
      if (same ? low[a] < begin || high[a] >= end : begin > 0 || end < hull[a].end - hull[a].begin) return true;
      same = same && low[a] == high[a];
    }
    return false;
  }
  CUL_DEVICE_FN Row row(int r) const {
    Row row{};
    if (r >= count) return row;
    int at[kMaxAxes];
    coordinates(r, at);
#pragma unroll
    for (int a = 0; a < kMaxAxes; ++a) {
      const AxisRange seen = axes[a].seen(at[a], length[a]);
      row.seen[a] = {seen.begin - hull[a].begin, seen.end - hull[a].begin};
    }
    return row;
  }
  CUL_DEVICE_FN bool sees(const Row& row, int n) const {
    if (n < extra) return true;
    int at[kMaxAxes];
    key(n - extra, at);
    bool seen = true;
#pragma unroll
    for (int a = 0; a < kMaxAxes; ++a) seen = seen && at[a] >= row.seen[a].begin && at[a] < row.seen[a].end;
    return seen;
  }
};

struct BoxTours {
  NeighborhoodParams p;
  BoxTour::Tensors tensors;
  BoxExtent box;
  int32_t boxes[kMaxAxes];  // of the longest dilation group
  int32_t heads;            // of a tile
  int32_t head_parts;       // tiles that the heads of a group take: 1, unless they are more than a tile's rows

  CUL_DEVICE_FN BoxTour tour(int64_t index) const {
    BoxTour tour{};
    tour.tensors = tensors;
    // Boxes first: neighbours share keys.
    int64_t rest = index;
    bool empty = false;
    int tokens = 1;
#pragma unroll
    for (int a = kMaxAxes - 1; a >= 0; --a) {
      tour.first[a] = static_cast<int>(rest % boxes[a]) * box.axis[a];
      rest /= boxes[a];
    }
#pragma unroll
    for (int a = kMaxAxes - 1; a >= 0; --a) {
      const NeighborhoodAxis& axis = tour.axes[a] = p.axes[a];
      tour.residue[a] = static_cast<int>(rest % axis.dilation);
      rest /= axis.dilation;
      const int n = axis.group_length(tour.residue[a]), first = tour.first[a];
      tour.length[a] = n;
      tour.extent[a] = min(box.axis[a], n - first);
      empty = empty || tour.extent[a] <= 0;
      if (tour.extent[a] <= 0) continue;
      tokens *= tour.extent[a];
      const AxisRange low = axis.seen(first, n), high = axis.seen(first + tour.extent[a] - 1, n);
      tour.hull[a] = {low.begin, high.end};
      tour.common[a] = {high.begin, low.end};
    }
    const int part = static_cast<int>(rest % head_parts);
    rest /= head_parts;
    tour.kv_head = rest % p.kv_heads;
    tour.batch = rest / p.kv_heads;
    tour.head = tour.kv_head * p.group() + part * heads;
    tour.heads = min(heads, static_cast<int>(p.group()) - part * heads);
    tour.extra = static_cast<int>(p.extra);
    tour.count = empty ? 0 : tokens * tour.heads;
    tour.by_z = Divisor(static_cast<uint32_t>(max(tour.hull[2].end - tour.hull[2].begin, 1)));
    tour.by_y = Divisor(static_cast<uint32_t>(max(tour.hull[1].end - tour.hull[1].begin, 1)));
    return tour;
  }
};

NeighborhoodParams::Rows in_bytes(NeighborhoodParams::Rows rows, int64_t bytes) {
  rows.batch *= bytes;
  rows.head *= bytes;
  for (int64_t& stride : rows.axis) stride *= bytes;
  return rows;
}

}  // namespace

void neighborhood_attention(const NeighborhoodParams& p, NativeStream stream) {
  if (p.empty()) return;
  BoxTours tours;
  const auto bytes = static_cast<int64_t>(size_of(p.dtype));
  tours.p = p;
  tours.tensors = {in_bytes(p.q, bytes),       in_bytes(p.k, bytes), in_bytes(p.v, bytes),          in_bytes(p.extra_k, bytes),
                   in_bytes(p.extra_v, bytes), in_bytes(p.o, bytes), in_bytes(p.lse, sizeof(float))};
  const int rows = tile_rows<SmallF32Tile>(p.dtype);
  tours.heads = static_cast<int32_t>(std::min<int64_t>(p.group(), rows));
  tours.head_parts = static_cast<int32_t>((p.group() + tours.heads - 1) / tours.heads);
  tours.box = choose_box(p.axes, std::max<int64_t>(rows / p.group(), 1), 64);
  int64_t tiles = p.batch * p.kv_heads * tours.head_parts;
  for (int a = 0; a < kMaxAxes; ++a) {
    tours.boxes[a] = (p.axes[a].group_length(0) + tours.box.axis[a] - 1) / tours.box.axis[a];
    tiles *= int64_t{tours.boxes[a]} * p.axes[a].dilation;
  }
  const Problem problem = sparse_problem(p.dim, p.dim, p.scale, p.aligned, p.q.data);
  launch_tours<SmallF32Tile>(p.dtype, problem, tours, tiles, stream);
}

}  // namespace culebra::CUL_DEVICE_NS
