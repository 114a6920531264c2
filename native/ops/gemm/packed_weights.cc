#include "ops/gemm/packed_weights.h"

#include <algorithm>
#include <cstring>

#include "ops/gemm/cpu_layout.h"
#include "ops/gemm/marlin_layout.h"

namespace culebra {
namespace {

struct ByteLayout {  // 6 and 8 bits: u8 [n_padded, k_padded]
  static constexpr int64_t kNTile = 64, kKTile = 64;
};

constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
constexpr int64_t round_up(int64_t a, int64_t b) { return ceil_div(a, b) * b; }
long long ll(int64_t v) { return v; }

// Uneven act-order groups are padded to chunks of this many rows: the smallest group that the kernels take.
constexpr int64_t kChunk = 32;

struct CheckpointViews {
  View weights, scales, zeros, g_idx;
};

void check_attributes(const Call& call, const cul_checkpoint& c) {
  call.one_of(c.format, {CUL_FORMAT_PLAIN, CUL_FORMAT_GPTQ_V1, CUL_FORMAT_GPTQ_V2, CUL_FORMAT_GPTQ_AUTO, CUL_FORMAT_AWQ,
                         CUL_FORMAT_COMPRESSED_TENSORS}, "checkpoint.format");
  if (c.format == CUL_FORMAT_PLAIN)
    call.one_of(c.bits, {4, 6, 8}, "checkpoint.bits");
  else
    call.one_of(c.bits, {4, 8}, "checkpoint.bits (6 only in the plain format)");
  call.one_of(c.group, {-1, 32, 64, 128}, "checkpoint.group");
  if (c.n < 1 || c.k < 1) call.refuse(CUL_SHAPE, "checkpoint is N = %lld by K = %lld; both must be positive", ll(c.n), ll(c.k));
}

// Row stride of a two-dimensional view whose extent may be 1 (then its stride is free).
int64_t row_stride(const View& v) { return v[0] > 1 ? v.stride_of(0) : v[1]; }

void check_extents(const Call& call, const View& v, Extent2 want, const cul_checkpoint& c) {
  call.rank(v, 2, "a matrix");
  if (v[0] != want.rows || v[1] != want.columns)
    call.refuse(CUL_SHAPE, "%s is %s; N = %lld, K = %lld, %d bits and group %d make it [%lld, %lld]", v.name,
                shape_text(v).c_str(), ll(c.n), ll(c.k), c.bits, c.group, ll(want.rows), ll(want.columns));
}

Checkpoint check_checkpoint(const Call& call, const cul_checkpoint& c, const CheckpointViews& v) {
  const bool plain = c.format == CUL_FORMAT_PLAIN;
  if (!v.zeros && (c.format == CUL_FORMAT_GPTQ_V1 || c.format == CUL_FORMAT_GPTQ_V2 || c.format == CUL_FORMAT_GPTQ_AUTO ||
                   c.format == CUL_FORMAT_AWQ))
    call.refuse(CUL_NULL_POINTER, "checkpoint.zeros is required in the gptq and awq formats");
  if (plain)
    call.dtype(v.weights, {DType::u8, DType::i8});
  else
    call.dtype(v.weights, {DType::i32});
  call.dtype(v.scales, {DType::f16, DType::bf16});
  if (v.zeros) call.same_dtype(v.zeros, v.weights);

  Checkpoint out{};
  out.format = c.format;
  out.bits = c.bits;
  out.signed_bytes = v.weights.dtype == DType::i8;
  out.n = c.n;
  out.k = c.k;
  out.group = c.group == -1 ? c.k : c.group;
  out.groups = ceil_div(out.k, out.group);

  check_extents(call, v.weights, weight_words(out), c);
  check_extents(call, v.scales, scales_by_group(out) ? Extent2{out.groups, out.n} : Extent2{out.n, out.groups}, c);
  if (v.zeros) check_extents(call, v.zeros, zero_words(out), c);
  if (v.g_idx) {
    if (c.format == CUL_FORMAT_AWQ) call.refuse(CUL_UNSUPPORTED, "checkpoint.g_idx is given, which the awq format does not have");
    call.dtype(v.g_idx, {DType::i32});
    call.shape(v.g_idx, {c.k}, "[K]");
  }
  out.weights = v.weights.data;
  out.weights_stride = row_stride(v.weights);
  out.scales = v.scales.as<uint16_t>();
  out.scales_stride = row_stride(v.scales);
  out.zeros = v.zeros.data;
  out.zeros_stride = v.zeros ? row_stride(v.zeros) : 0;
  out.g_idx = v.g_idx.as<int32_t>();
  return out;
}

void check_head(const Call& call, const cul_checkpoint* c) {
  if (!c) call.refuse(CUL_NULL_POINTER, "checkpoint is required");
  if (c->struct_size != sizeof(cul_checkpoint))
    call.refuse(CUL_RANGE, "checkpoint.struct_size is %u; this library's is %zu", c->struct_size, sizeof(cul_checkpoint));
}

// Host tensors need no more alignment than their elements: they may lie anywhere in a mapped file.
View host_view(const Call& call, const cul_tensor* t, const char* name) {
  if (!t) return View{};
  const View v = call.strided(t, name);
  if (v.rank > 0 && v[v.rank - 1] > 1 && v.stride_of(v.rank - 1) != 1)
    call.refuse(CUL_STRIDE, "%s's innermost stride is %lld; it must be 1", name, ll(v.stride_of(v.rank - 1)));
  return v;
}

// The shape and dtype of a tensor that may lie on any device and is not read.
View shape_of(const Call& call, const cul_tensor* t, const char* name) {
  static char unread[16];
  if (!t) call.refuse(CUL_NULL_POINTER, "%s is required", name);
  cul_tensor shape = *t;
  shape.device = call.caps().id;
  shape.data = unread;
  shape.byte_offset = 0;
  return host_view(call, &shape, name);
}

// GPTQ tools disagree about the label, so the values decide: symmetric models store 2^(bits-1) - 1 in v1 and 2^(bits-1) in v2.
int32_t resolve_gptq(const Checkpoint& c) {
  bool all_v2 = true;
  for (int64_t g = 0; g < c.groups; ++g)
    for (int64_t n = 0; n < c.n; ++n) all_v2 &= stored_zero(c, n, g) == zero_point_of_symmetric(c.bits);
  return all_v2 ? CUL_FORMAT_GPTQ_V2 : CUL_FORMAT_GPTQ_V1;
}

bool all_symmetric(const Checkpoint& c) {
  for (int64_t g = 0; g < c.groups; ++g)
    for (int64_t n = 0; n < c.n; ++n)
      if (zero_point(c, n, g) != zero_point_of_symmetric(c.bits)) return false;
  return true;
}

// Whether the rows are already in the order of their groups; refuses values that are no group.
bool in_order(const Call& call, const Checkpoint& c) {
  bool trivial = true;
  for (int64_t k = 0; k < c.k; ++k) {
    const int32_t g = c.g_idx[k];
    if (g < 0 || g >= c.groups)
      call.refuse(CUL_RANGE, "checkpoint.g_idx[%lld] is %d; there are %lld groups", ll(k), g, ll(c.groups));
    trivial &= g == k / c.group;
  }
  return trivial;
}

// Sorts the rows by group, stably. Groups of the regular size keep it; otherwise every group is padded to whole chunks, an
// empty one to one chunk, so that its scales and zeros survive for unpacking.
void order_rows(const Checkpoint& c, int64_t tile_k, PackPlan& plan) {
  std::vector<std::vector<int32_t>> rows(static_cast<size_t>(c.groups));
  for (int64_t k = 0; k < c.k; ++k) rows[static_cast<size_t>(c.g_idx[k])].push_back(static_cast<int32_t>(k));
  const bool even = std::all_of(rows.begin(), rows.end() - 1,
                                [&](const auto& r) { return static_cast<int64_t>(r.size()) == c.group; });
  const int64_t group = even ? c.group : kChunk;
  for (size_t g = 0; g < rows.size(); ++g) {
    const int64_t chunks = std::max<int64_t>(1, ceil_div(static_cast<int64_t>(rows[g].size()), group));
    rows[g].resize(static_cast<size_t>(chunks * group), -1);
    plan.perm.insert(plan.perm.end(), rows[g].begin(), rows[g].end());
    plan.group_source.insert(plan.group_source.end(), static_cast<size_t>(chunks), static_cast<int32_t>(g));
  }
  const int64_t k_padded = round_up(static_cast<int64_t>(plan.perm.size()), std::max(group, tile_k));
  plan.perm.resize(static_cast<size_t>(k_padded), -1);
  plan.group_source.resize(static_cast<size_t>(k_padded / group), -1);
  plan.result.group = static_cast<int32_t>(group);
  plan.result.k_padded = k_padded;
}

// What pack and unpack have in common: the packed side against the checkpoint.
struct PackedViews {
  View perm, group_source, packed, scales, zeros;
};

PackParams check_packing(const Call& call, const cul_checkpoint& c, const CheckpointViews& cv, const PackedViews& p,
                         int64_t packed_group) {
  if (!p.perm != !p.group_source)
    call.refuse(CUL_NULL_POINTER, "perm and group_source come together, but only %s is given", p.perm ? "perm" : "group_source");
  check_attributes(call, c);
  if (c.format == CUL_FORMAT_GPTQ_AUTO)
    call.refuse(CUL_RANGE, "checkpoint.format is gptq_auto, which cul_pack_plan resolves to gptq_v1 or gptq_v2");
  PackParams out{};
  out.checkpoint = check_checkpoint(call, c, cv);
  const PackedTile tile = packed_tile(call.caps().backend, c.bits);
  const int64_t step = std::max<int64_t>(tile.k, c.group);
  out.n_padded = round_up(c.n, tile.n);
  if (p.perm) {
    call.dtype(p.perm, {DType::i32});
    call.dtype(p.group_source, {DType::i32});
    call.rank(p.perm, 1, "[k_padded]");
    call.compact(p.perm);
    if (c.group == -1) call.refuse(CUL_RANGE, "perm is given, but with one group over all of k the rows are in order");
    call.one_of(packed_group, {kChunk, c.group}, "packed_group");
    out.k_padded = p.perm[0];
    if (out.k_padded < c.k || out.k_padded % std::max(packed_group, tile.k))
      call.refuse(CUL_SHAPE, "perm is %s; it must hold at least K = %lld rows in multiples of %lld", shape_text(p.perm).c_str(),
                  ll(c.k), ll(std::max(packed_group, tile.k)));
  } else {
    out.k_padded = round_up(c.k, step);
    call.one_of(packed_group, {c.group == -1 ? out.k_padded : c.group}, "packed_group");
  }
  out.group = packed_group;
  out.groups = out.k_padded / packed_group;
  if (p.perm) call.shape(p.group_source, {out.groups}, "[groups]");
  call.dtype(p.packed, {DType::u8});
  call.shape(p.packed, {packed_bytes(c.bits, out.n_padded, out.k_padded)}, "[packed_bytes]");
  call.same_dtype(p.scales, cv.scales);
  call.shape(p.scales, {out.groups, out.n_padded}, "[groups, n_padded]");
  call.compact(p.scales);
  if (p.zeros) {
    call.dtype(p.zeros, {DType::u8});
    call.shape(p.zeros, {out.groups, out.n_padded}, "[groups, n_padded]");
    call.compact(p.zeros);
  }
  out.perm = p.perm.as<const int32_t>();
  out.group_source = p.group_source.as<const int32_t>();
  out.packed = p.packed.as<uint8_t>();
  out.scales = p.scales.as<uint16_t>();
  out.zeros = p.zeros.as<uint8_t>();
  return out;
}

template <class Args>
PackParams check_both(const Call& call, const Args& args, bool packing) {
  check_head(call, args.checkpoint);
  const cul_checkpoint& c = *args.checkpoint;
  const CheckpointViews cv{call.required(c.qweight, "checkpoint.qweight"), call.required(c.scales, "checkpoint.scales"),
                           call.optional(c.zeros, "checkpoint.zeros"), call.optional(c.g_idx, "checkpoint.g_idx")};
  const PackedViews pv{call.optional(args.perm, "perm"), call.optional(args.group_source, "group_source"),
                       call.required(args.packed, "packed"), call.required(args.packed_scales, "packed_scales"),
                       call.optional(args.packed_zeros, "packed_zeros")};
  const PackParams out = check_packing(call, c, cv, pv, args.packed_group);
  const View* checkpoint[] = {&cv.weights, &cv.scales, &cv.zeros, &cv.g_idx};
  const View* packed[] = {&pv.packed, &pv.scales, &pv.zeros};
  const View* order[] = {&pv.perm, &pv.group_source};
  const auto separate = [&](auto& outputs, auto& inputs) {
    for (size_t i = 0; i < std::size(outputs); ++i) {
      for (const View* in : inputs) call.disjoint(*outputs[i], *in);
      for (const View* in : order) call.disjoint(*outputs[i], *in);
      for (size_t j = 0; j < i; ++j) call.disjoint(*outputs[i], *outputs[j]);
    }
  };
  if (packing)
    separate(packed, checkpoint);
  else
    separate(checkpoint, packed);
  return out;
}

}  // namespace

PackedTile packed_tile(int32_t backend, int32_t bits) {
  if (bits != 4) return {ByteLayout::kNTile, ByteLayout::kKTile};
  if (backend == CUL_BACKEND_CPU) return {CpuLayout::kNTile, CpuLayout::kKTile};
  return {MarlinLayout::kNTile, MarlinLayout::kKTile};
}

int64_t packed_bytes(int32_t bits, int64_t n_padded, int64_t k_padded) {
  static_assert(CpuLayout::bytes(64, 64) == MarlinLayout::bytes(64, 64), "both layouts pack two weights into a byte");
  return bits == 4 ? MarlinLayout::bytes(n_padded, k_padded) : n_padded * k_padded;
}

PackPlan plan_packing(const DeviceCaps& caps, const cul_checkpoint* checkpoint) {
  DeviceCaps host = caps;  // of the tensors that the plan reads
  host.id = {CUL_DEVICE_CPU, 0};
  const cul_op_call none{};
  const Call call("pack_plan", host, none);
  check_head(call, checkpoint);
  const cul_checkpoint& c = *checkpoint;
  const CheckpointViews views{shape_of(call, c.qweight, "checkpoint.qweight"), shape_of(call, c.scales, "checkpoint.scales"),
                              host_view(call, c.zeros, "checkpoint.zeros"), host_view(call, c.g_idx, "checkpoint.g_idx")};
  check_attributes(call, c);
  Checkpoint layout = check_checkpoint(call, c, views);
  if (layout.format == CUL_FORMAT_GPTQ_AUTO) layout.format = resolve_gptq(layout);
  const PackedTile tile = packed_tile(caps.backend, c.bits);

  PackPlan plan;
  cul_pack_plan_result& r = plan.result;
  r.struct_size = sizeof r;
  r.format = layout.format;
  r.symmetric = all_symmetric(layout);
  r.permuted = layout.g_idx && !in_order(call, layout);
  r.n_padded = round_up(c.n, tile.n);
  if (r.permuted) {
    order_rows(layout, tile.k, plan);
  } else {
    r.k_padded = round_up(c.k, std::max<int64_t>(tile.k, c.group));
    r.group = c.group == -1 ? static_cast<int32_t>(r.k_padded) : c.group;
  }
  r.groups = r.k_padded / r.group;
  r.scale_columns = r.n_padded;
  r.packed_bytes = packed_bytes(c.bits, r.n_padded, r.k_padded);
  return plan;
}

PackParams check_pack_weights(const Call& call, const cul_pack_weights_args& args) { return check_both(call, args, true); }

UnpackParams check_unpack_weights(const Call& call, const cul_unpack_weights_args& args) {
  UnpackParams out{};
  out.packing = check_both(call, args, false);
  const Checkpoint& c = out.packing.checkpoint;
  if (out.packing.perm) {
    out.row_of = static_cast<int32_t*>(call.workspace(static_cast<uint64_t>(c.k + c.groups) * sizeof(int32_t)));
    out.group_of = out.row_of ? out.row_of + c.k : nullptr;
  } else {
    call.workspace(0);
  }
  return out;
}

}  // namespace culebra
