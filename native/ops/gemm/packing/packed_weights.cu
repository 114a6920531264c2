#include "device/launch.h"
#include "ops/gemm/packing/packed_weights_device.h"

namespace culebra::CUL_DEVICE_NS {
namespace {

constexpr int kThreads = 256;

CUL_DEVICE_FN int64_t first_item() { return static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; }
CUL_DEVICE_FN int64_t item_step() { return static_cast<int64_t>(gridDim.x) * kThreads; }

template <class Kernel>
void launch_items(Kernel kernel, int64_t items, NativeStream stream, const auto& params) {
  const int64_t blocks = (items + kThreads - 1) / kThreads;
  launch(kernel, dim3(static_cast<unsigned>(blocks < 0x7fffffff ? blocks : 0x7fffffff)), dim3(kThreads), 0, stream, params);
}

// Computes: the packed matrix of a checkpoint.
// Shapes:   checkpoint [n, k] in any format -> n_padded x k_padded.
// Layouts:  checkpoint.h, packed_layouts.h.
// Tiles:    one packed word per thread; grid-stride.
// Shared:   none.
// Order:    none: integers are moved.
// Numerics: exact.
// Needs:    sm_80. Load time: not tuned.
// Source:   formats of AutoGPTQ, AutoAWQ and compressed-tensors; padding ours.
template <class Layout>
__global__ void __launch_bounds__(kThreads, 4) pack_kernel(PackParams p) {
  const int64_t words = packed_bytes(p.kind, p.n_padded, p.k_padded) / 4;
  for (int64_t i = first_item(); i < words; i += item_step())
    reinterpret_cast<uint32_t*>(p.packed)[i] =
        Layout::pack(i, {p.n_padded, p.k_padded}, [&](int64_t n, int64_t j) { return packed_weight(p, n, j); });
}

// Computes: packed scales and zeros.
// Shapes:   checkpoint groups x n -> [groups, n_padded].
// Layouts:  row-major.
// Tiles:    one entry per thread; grid-stride.
// Shared:   none.
// Order:    none.
// Numerics: exact.
// Needs:    sm_80. Load time: not tuned.
// Source:   as pack_kernel.
__global__ void __launch_bounds__(kThreads) pack_groups_kernel(PackParams p) {
  for (int64_t i = first_item(); i < p.groups * p.n_padded; i += item_step()) pack_group_entry(p, i / p.n_padded, i % p.n_padded);
}

// Computes: where each checkpoint row and group went: the inverses of perm and group_source.
// Shapes:   perm [k_padded], group_source [groups] -> row_of [k], group_of [checkpoint groups].
// Layouts:  vectors.
// Tiles:    one packed row per thread; grid-stride.
// Shared:   none.
// Order:    every entry has one writer.
// Numerics: exact.
// Needs:    sm_80.
// Source:   ours.
__global__ void __launch_bounds__(kThreads) invert_kernel(UnpackParams p) {
  for (int64_t j = first_item(); j < p.packing.k_padded; j += item_step()) invert_entry(p, j);
}

// Computes: a checkpoint's weights from the packed ones, bit for bit.
// Shapes:   n_padded x k_padded -> checkpoint [n, k] in any format.
// Layouts:  checkpoint.h, packed_layouts.h.
// Tiles:    one checkpoint word (plain: byte) per thread; grid-stride.
// Shared:   none.
// Order:    none.
// Numerics: exact.
// Needs:    sm_80. Not tuned.
// Source:   the inverse of pack_kernel.
template <class Layout>
__global__ void __launch_bounds__(kThreads) unpack_kernel(UnpackParams p) {
  const PackParams& q = p.packing;
  const auto load = [&](int64_t word) { return reinterpret_cast<const uint32_t*>(q.packed)[word]; };
  const auto get = [&](int64_t n, int64_t j) { return Layout::unpack(n, j, {q.n_padded, q.k_padded}, load); };
  const Extent2 words = weight_words(q.checkpoint);
  for (int64_t i = first_item(); i < words.rows * words.columns; i += item_step())
    unpack_weight_word(p, i / words.columns, i % words.columns, get);
}

// Computes: a checkpoint's scales, zeros and g_idx from the packed ones, bit for bit.
// Shapes:   [groups, n_padded] -> groups x n of the checkpoint; perm -> g_idx [k].
// Layouts:  checkpoint.h.
// Tiles:    one scale, one word of zeros and one entry of g_idx per thread; grid-stride.
// Shared:   none.
// Order:    none.
// Numerics: exact.
// Needs:    sm_80. Not tuned.
// Source:   the inverse of pack_groups_kernel.
__global__ void __launch_bounds__(kThreads) unpack_groups_kernel(UnpackParams p) {
  const Checkpoint& c = p.packing.checkpoint;
  const Extent2 zeros = zero_words(c);
  const int64_t columns = scale_columns(c, c.n);
  for (int64_t i = first_item(); i < c.groups * columns; i += item_step()) unpack_scale(p, i % columns, i / columns);
  if (c.zeros)
    for (int64_t i = first_item(); i < zeros.rows * zeros.columns; i += item_step())
      unpack_zero_word(p, i / zeros.columns, i % zeros.columns);
  if (c.g_idx)
    for (int64_t k = first_item(); k < c.k; k += item_step()) unpack_g_idx(p, k);
}

}  // namespace

void pack_weights(const PackParams& p, NativeStream stream) {
  DeviceLayouts::visit(p.kind, [&](auto layout) {
    launch_items(pack_kernel<decltype(layout)>, packed_bytes(p.kind, p.n_padded, p.k_padded) / 4, stream, p);
  });
  launch_items(pack_groups_kernel, p.groups * p.n_padded, stream, p);
}

void unpack_weights(const UnpackParams& p, NativeStream stream) {
  if (p.packing.perm) launch_items(invert_kernel, p.packing.k_padded, stream, p);
  const Checkpoint& c = p.packing.checkpoint;
  const Extent2 words = weight_words(c);
  DeviceLayouts::visit(p.packing.kind, [&](auto layout) {
    launch_items(unpack_kernel<decltype(layout)>, words.rows * words.columns, stream, p);
  });
  launch_items(unpack_groups_kernel, c.groups * c.n, stream, p);
}

}  // namespace culebra::CUL_DEVICE_NS
