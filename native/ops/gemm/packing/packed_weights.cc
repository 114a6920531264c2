#include "ops/gemm/packing/packed_weights.h"

#include <algorithm>
#include <cstring>

namespace culebra {
namespace {

constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
constexpr int64_t round_up(int64_t a, int64_t b) { return ceil_div(a, b) * b; }
// Uneven act-order groups are padded to chunks of this many rows: the smallest group that the kernels take.
constexpr int64_t kChunk = 32;

constexpr int32_t kScaleBlock = 128;  // rows and columns of scaling block128

// One scale for all of a row's k, however long.
bool is_one_group(const cul_checkpoint& c) { return c.group == -1 && c.scaling == CUL_SCALING_GROUP; }
WeightKind kind_of(const cul_checkpoint& c) { return {c.bits, c.operand, c.sparsity}; }

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
  if (c.bits == 6)
    call.one_of(c.group, {128}, "checkpoint.group (of 6-bit weights)");
  else
    call.one_of(c.group, {-1, 32, 64, 128}, "checkpoint.group");
  call.one_of(c.scaling, {CUL_SCALING_GROUP, CUL_SCALING_BLOCK128}, "checkpoint.scaling");
  call.one_of(c.sparsity, {CUL_SPARSITY_NONE, CUL_SPARSITY_2_4}, "checkpoint.sparsity");
  call.one_of(c.operand, {CUL_OPERAND_HALF, CUL_OPERAND_BYTE}, "checkpoint.operand");
  if (c.scaling == CUL_SCALING_BLOCK128) {
    call.one_of(c.format, {CUL_FORMAT_PLAIN}, "checkpoint.format (of blocks of 128 x 128)");
    call.one_of(c.bits, {8}, "checkpoint.bits (of blocks of 128 x 128)");
    call.one_of(c.group, {-1}, "checkpoint.group (of blocks of 128 x 128)");
  }
  if (c.operand == CUL_OPERAND_BYTE) {
    call.one_of(c.format, {CUL_FORMAT_PLAIN}, "checkpoint.format (of weights for byte operands)");
    call.one_of(c.bits, {4, 6}, "checkpoint.bits (of weights for byte operands)");
    call.one_of(c.group, {128}, "checkpoint.group (of weights for byte operands)");
  }
  if (c.sparsity == CUL_SPARSITY_2_4) {
    call.one_of(c.format, {CUL_FORMAT_PLAIN}, "checkpoint.format (of 2:4 weights)");
    call.one_of(c.bits, {4}, "checkpoint.bits (of 2:4 weights)");
    call.one_of(c.operand, {CUL_OPERAND_HALF}, "checkpoint.operand (of 2:4 weights)");
    call.one_of(c.group, {-1, 128}, "checkpoint.group (of 2:4 weights)");
  }
  if (c.n < 1 || c.k < 1) call.refuse(CUL_SHAPE, "checkpoint is N = %lld by K = %lld; both must be positive", ll(c.n), ll(c.k));
}

// Weights without zero points, without an order of their own, or without either.
void check_absent(const Call& call, const cul_checkpoint& c, const CheckpointViews& v) {
  const char* const kind = c.operand == CUL_OPERAND_BYTE       ? "weights for byte operands"
                           : c.sparsity == CUL_SPARSITY_2_4    ? "2:4 weights"
                           : c.scaling == CUL_SCALING_BLOCK128 ? "weights in blocks of 128 x 128"
                                                               : nullptr;
  if (v.g_idx && c.format == CUL_FORMAT_AWQ)
    call.refuse(CUL_UNSUPPORTED, "checkpoint.g_idx is given, which the awq format does not have");
  if (v.g_idx && kind) call.refuse(CUL_UNSUPPORTED, "checkpoint.g_idx is given, which %s do not have", kind);
  if (v.zeros && (kind || v.weights.dtype == DType::f8e4m3))
    call.refuse(CUL_UNSUPPORTED, "checkpoint.zeros is given, which %s do not have", kind ? kind : "f8e4m3 weights");
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
  if (!plain)
    call.dtype(v.weights, {DType::i32});
  else if (c.bits == 8)
    call.dtype(v.weights, {DType::u8, DType::i8, DType::f8e4m3});
  else
    call.dtype(v.weights, {DType::u8, DType::i8});
  if (c.scaling == CUL_SCALING_BLOCK128)
    call.dtype(v.scales, {DType::f32});
  else if (c.operand == CUL_OPERAND_BYTE && c.bits == 4)
    call.dtype(v.scales, {DType::f8e4m3});
  else
    call.dtype(v.scales, {DType::f16, DType::bf16});
  check_absent(call, c, v);
  if (v.zeros) call.same_dtype(v.zeros, v.weights);

  Checkpoint out{};
  out.format = c.format;
  out.bits = c.bits;
  out.signed_bytes = v.weights.dtype == DType::i8;
  out.floats = v.weights.dtype == DType::f8e4m3;
  out.scale_bytes = static_cast<int32_t>(size_of(v.scales.dtype));
  out.scale_block = c.scaling == CUL_SCALING_BLOCK128 ? kScaleBlock : 1;
  out.n = c.n;
  out.k = c.k;
  out.group = c.scaling == CUL_SCALING_BLOCK128 ? kScaleBlock : c.group == -1 ? c.k : c.group;
  out.groups = ceil_div(out.k, out.group);

  check_extents(call, v.weights, weight_words(out), c);
  const int64_t scale_rows = scale_columns(out, out.n);
  check_extents(call, v.scales, scales_by_group(out) ? Extent2{out.groups, scale_rows} : Extent2{scale_rows, out.groups}, c);
  if (v.zeros) check_extents(call, v.zeros, zero_words(out), c);
  if (v.g_idx) {
    call.dtype(v.g_idx, {DType::i32});
    call.shape(v.g_idx, {c.k}, "[K]");
  }
  out.weights = v.weights.data;
  out.weights_stride = row_stride(v.weights);
  out.scales = v.scales.data;
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
    for (int64_t n = 0; n < c.n; ++n) all_v2 &= stored_zero(c, n, g) == zero_point_of_symmetric(c);
  return all_v2 ? CUL_FORMAT_GPTQ_V2 : CUL_FORMAT_GPTQ_V1;
}

bool all_symmetric(const Checkpoint& c) {
  for (int64_t g = 0; g < c.groups; ++g)
    for (int64_t n = 0; n < c.n; ++n)
      if (zero_point(c, n, g) != zero_point_of_symmetric(c)) return false;
  return true;
}

void check_2_4(const Call& call, const Checkpoint& c) {
  for (int64_t n = 0; n < c.n; ++n)
    for (int64_t k = 0; k < c.k; k += 4) {
      int kept = 0;
      for (int64_t i = k; i < std::min(k + 4, c.k); ++i) kept += weight(c, n, i) != zero_point_of_symmetric(c);
      if (kept > 2)
        call.refuse(CUL_RANGE, "checkpoint.qweight is not 2:4 sparse: row %lld has %d weights that are not zero among k = %lld .. %lld", ll(n),
                    kept, ll(k), ll(k + 3));
    }
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
  const Checkpoint& layout = out.checkpoint;
  out.kind = kind_of(c);
  const PackedTile tile = packed_tile(call.caps().backend, out.kind);
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
    const bool one_group = is_one_group(c);
    out.k_padded = round_up(c.k, one_group ? tile.k : std::max(tile.k, layout.group));
    call.one_of(packed_group, {one_group ? out.k_padded : layout.group}, "packed_group");
  }
  out.group = packed_group;
  out.groups = out.k_padded / packed_group;
  if (p.perm) call.shape(p.group_source, {out.groups}, "[groups]");
  call.dtype(p.packed, {layout.floats ? DType::f8e4m3 : DType::u8});
  call.shape(p.packed, {packed_bytes(out.kind, out.n_padded, out.k_padded)}, "[packed_bytes]");
  call.same_dtype(p.scales, cv.scales);
  call.shape(p.scales, {out.groups, scale_columns(layout, out.n_padded)}, "[groups, scale_columns]");
  call.compact(p.scales);
  if (p.zeros) {
    if (layout.floats) call.refuse(CUL_UNSUPPORTED, "packed_zeros is given, which f8e4m3 weights do not have");
    call.dtype(p.zeros, {DType::u8});
    call.shape(p.zeros, {out.groups, out.n_padded}, "[groups, n_padded]");
    call.compact(p.zeros);
  }
  out.perm = p.perm.as<const int32_t>();
  out.group_source = p.group_source.as<const int32_t>();
  out.packed = p.packed.as<uint8_t>();
  out.scales = p.scales.data;
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

PackedTile packed_tile(int32_t backend, WeightKind kind) {
  PackedTile tile{};
  const auto take = [&](auto layout) { tile = {layout.kNTile, layout.kKTile}; };
  if (backend == CUL_BACKEND_CPU ? CpuLayouts::visit(kind, take) : DeviceLayouts::visit(kind, take)) return tile;
  refuse(CUL_UNSUPPORTED, "backend %s has no packed layout for %s%d-bit weights and %s operands", cul_backend_name(backend),
         kind.sparsity == CUL_SPARSITY_2_4 ? "2:4 sparse " : "", kind.bits, kind.operand == CUL_OPERAND_BYTE ? "byte" : "half");
}

PackPlan plan_packing(const DeviceCaps& caps, const cul_checkpoint* checkpoint) {
  DeviceCaps host = caps;  // of the tensors that the plan reads
  host.id = {CUL_DEVICE_CPU, 0};
  const cul_op_call none{};
  const Call call("pack_plan", host, none);
  check_head(call, checkpoint);
  const cul_checkpoint& c = *checkpoint;
  const bool reads_weights = c.sparsity == CUL_SPARSITY_2_4;
  const CheckpointViews views{reads_weights ? host_view(call, c.qweight, "checkpoint.qweight") : shape_of(call, c.qweight, "checkpoint.qweight"),
                              shape_of(call, c.scales, "checkpoint.scales"), host_view(call, c.zeros, "checkpoint.zeros"),
                              host_view(call, c.g_idx, "checkpoint.g_idx")};
  check_attributes(call, c);
  Checkpoint layout = check_checkpoint(call, c, views);
  if (layout.format == CUL_FORMAT_GPTQ_AUTO) layout.format = resolve_gptq(layout);
  if (reads_weights) check_2_4(call, layout);
  const PackedTile tile = packed_tile(caps.backend, kind_of(c));

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
    const bool one_group = is_one_group(c);
    r.k_padded = round_up(c.k, one_group ? tile.k : std::max(tile.k, layout.group));
    r.group = static_cast<int32_t>(one_group ? r.k_padded : layout.group);
  }
  r.groups = r.k_padded / r.group;
  r.scale_columns = scale_columns(layout, r.n_padded);
  r.packed_bytes = packed_bytes(kind_of(c), r.n_padded, r.k_padded);
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
