#include "abi/call.h"

#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "abi/fence.h"
#include "backends/backend.h"

namespace culebra {
namespace {

const char* device_name(int32_t type) {
  switch (type) {
    case CUL_DEVICE_CPU: return "cpu";
    case CUL_DEVICE_CUDA: return "cuda";
    case CUL_DEVICE_SIMT: return "simt";
    default: return "unknown";
  }
}

// The bytes a view can touch: [first, last).
struct Extent {
  uintptr_t first, last;
};
Extent extent(const View& v) {
  int64_t low = 0, high = 0;
  for (int i = 0; i < v.rank; ++i) {
    const int64_t reach = (v[i] - 1) * v.stride_of(i);
    (reach < 0 ? low : high) += reach;
  }
  const auto size = static_cast<int64_t>(size_of(v.dtype));
  const auto base = reinterpret_cast<uintptr_t>(v.data);
  return {base + static_cast<uintptr_t>(low * size), base + static_cast<uintptr_t>((high + 1) * size)};
}

// Two column windows of one buffer: equal outer strides, and inner extents that never meet modulo that stride.
bool interleaved(const View& a, const View& b) {
  if (a.rank < 2 || b.rank < 2) return false;
  const auto size_a = static_cast<int64_t>(size_of(a.dtype)), size_b = static_cast<int64_t>(size_of(b.dtype));
  const int64_t step = a.stride_of(0) * size_a;
  if (step <= 0 || step != b.stride_of(0) * size_b) return false;
  auto inner_bytes = [](const View& v, int64_t size) {
    int64_t reach = 0;
    for (int i = 1; i < v.rank; ++i) {
      if (v.stride_of(i) < 0) return INT64_MAX;
      reach += (v[i] - 1) * v.stride_of(i);
    }
    return (reach + 1) * size;
  };
  const int64_t width_a = inner_bytes(a, size_a), width_b = inner_bytes(b, size_b);
  if (width_a > step || width_b > step) return false;
  const auto base_a = reinterpret_cast<intptr_t>(a.data), base_b = reinterpret_cast<intptr_t>(b.data);
  const int64_t offset = ((base_b - base_a) % step + step) % step;  // of b's window within a's period
  return offset >= width_a && offset + width_b <= step;
}

bool same_view(const View& a, const View& b) {
  return a.data == b.data && a.dtype == b.dtype && a.rank == b.rank &&
         std::equal(a.shape.begin(), a.shape.begin() + a.rank, b.shape.begin()) &&
         std::equal(a.stride.begin(), a.stride.begin() + a.rank, b.stride.begin());
}

}  // namespace

std::string shape_text(const View& v) {
  std::string text = "[";
  for (int i = 0; i < v.rank; ++i) text += (i ? ", " : "") + std::to_string(v[i]);
  return text + "]";
}

void Call::refuse(cul_status status, const char* fmt, ...) const {
  va_list args, copy;
  va_start(args, fmt);
  va_copy(copy, args);
  const int length = std::vsnprintf(nullptr, 0, fmt, copy);
  va_end(copy);
  std::vector<char> text(static_cast<size_t>(std::max(length, 0)) + 1);
  std::vsnprintf(text.data(), text.size(), fmt, args);
  va_end(args);
  throw Refusal(status, std::string(op_) + ": " + text.data());
}

View Call::view(const cul_tensor* t, const char* name, bool free_strides) const {
  View v;
  v.name = name;
  v.present = true;
  if (t->device.type != caps_.id.type || t->device.index != caps_.id.index)
    refuse(CUL_DEVICE, "%s is on %s:%d but the stream is on %s:%d", name, device_name(t->device.type), t->device.index,
           device_name(caps_.id.type), caps_.id.index);
  if (t->ndim < 0 || t->ndim > kMaxRank) refuse(CUL_SHAPE, "%s has rank %d; at most %d", name, t->ndim, kMaxRank);
  if (t->ndim > 0 && !t->shape) refuse(CUL_NULL_POINTER, "%s has no shape", name);
  v.dtype = dtype_of(t->dtype);
  if (v.dtype == DType::other)
    refuse(CUL_DTYPE, "%s has DLPack type code %d, %d bits, %d lanes, which no operator takes", name, t->dtype.code,
           t->dtype.bits, t->dtype.lanes);
  v.rank = t->ndim;
  int64_t compact = 1, elements = 1;
  for (int i = v.rank - 1; i >= 0; --i) {
    const auto at = static_cast<size_t>(i);
    v.shape[at] = t->shape[i];
    v.stride[at] = t->strides ? t->strides[i] : compact;
    if (v.shape[at] < 0) refuse(CUL_SHAPE, "%s has a negative extent: %s", name, shape_text(v).c_str());
    if (__builtin_mul_overflow(elements, v.shape[at], &elements) ||
        __builtin_mul_overflow(compact, std::max<int64_t>(v.shape[at], 1), &compact))
      refuse(CUL_SHAPE, "%s has more than 2^63 elements", name);
    int64_t reach;
    if (v.shape[at] > 0 && (__builtin_mul_overflow(v.shape[at] - 1, v.stride[at], &reach) ||
                            __builtin_mul_overflow(reach, int64_t{8}, &reach)))
      refuse(CUL_STRIDE, "%s's stride %lld spans more than 2^63 bytes", name, static_cast<long long>(v.stride[at]));
  }
  if (elements > 0 && !t->data) refuse(CUL_NULL_POINTER, "%s has no data", name);
  v.data = static_cast<char*>(t->data) + t->byte_offset;
  if (elements == 0) return v;
  const size_t alignment = free_strides ? size_of(v.dtype) : 16;
  if (reinterpret_cast<uintptr_t>(v.data) % alignment)
    refuse(CUL_ALIGNMENT, "%s's first element is at address %p; it must be %zu-byte aligned", name, v.data, alignment);
  if (!free_strides && v.rank > 0 && v[v.rank - 1] > 1 && v.stride_of(v.rank - 1) != 1)
    refuse(CUL_STRIDE, "%s's innermost stride is %lld; it must be 1", name,
           static_cast<long long>(v.stride_of(v.rank - 1)));
  return v;
}

View Call::required(const cul_tensor* t, const char* name) const {
  if (!t) refuse(CUL_NULL_POINTER, "%s is required", name);
  return view(t, name, false);
}
View Call::optional(const cul_tensor* t, const char* name) const {
  if (t) return view(t, name, false);
  View v;
  v.name = name;
  return v;
}
View Call::strided(const cul_tensor* t, const char* name) const {
  if (!t) refuse(CUL_NULL_POINTER, "%s is required", name);
  return view(t, name, true);
}

void Call::rank(const View& v, int rank, const char* text) const {
  if (v.rank != rank)
    refuse(CUL_SHAPE, "%s is %s; it must be %s", v.name, shape_text(v).c_str(), text);
}

void Call::shape(const View& v, std::initializer_list<int64_t> extents, const char* text) const {
  rank(v, static_cast<int>(extents.size()), text);
  int i = 0;
  for (int64_t e : extents) {
    if (e >= 0 && v[i] != e)
      refuse(CUL_SHAPE, "%s is %s; it must be %s, with dimension %d = %lld", v.name, shape_text(v).c_str(), text, i,
             static_cast<long long>(e));
    ++i;
  }
}

void Call::same_shape(const View& a, const View& b) const {
  if (a.rank != b.rank || !std::equal(a.shape.begin(), a.shape.begin() + a.rank, b.shape.begin()))
    refuse(CUL_SHAPE, "%s is %s but %s is %s; their shapes must be equal", a.name, shape_text(a).c_str(), b.name,
           shape_text(b).c_str());
}

void Call::dtype(const View& v, std::initializer_list<DType> allowed) const {
  if (std::find(allowed.begin(), allowed.end(), v.dtype) != allowed.end()) return;
  std::string list;
  for (DType t : allowed) list += (list.empty() ? "" : ", ") + std::string(name_of(t));
  refuse(CUL_DTYPE, "%s is %s; it must be %s%s", v.name, name_of(v.dtype), allowed.size() > 1 ? "one of " : "",
         list.c_str());
}

void Call::same_dtype(const View& a, const View& b) const {
  if (a.dtype != b.dtype)
    refuse(CUL_DTYPE, "%s is %s but %s is %s; they must be of one dtype", a.name, name_of(a.dtype), b.name,
           name_of(b.dtype));
}

void Call::compact(const View& v) const {
  int64_t expected = 1;
  for (int i = v.rank - 1; i >= 0; --i) {
    if (v[i] > 1 && v.stride_of(i) != expected)
      refuse(CUL_STRIDE, "%s's stride %d is %lld; it must be compact (%lld)", v.name, i,
             static_cast<long long>(v.stride_of(i)), static_cast<long long>(expected));
    expected *= std::max<int64_t>(v[i], 1);
  }
}

void Call::distinct(const View& out) const {
  if (out.elements() == 0) return;
  int order[kMaxRank];  // dimensions by ascending stride
  int n = 0;
  for (int i = 0; i < out.rank; ++i) {
    if (out[i] <= 1) continue;
    int at = n++;
    for (; at > 0 && std::llabs(out.stride_of(order[at - 1])) > std::llabs(out.stride_of(i)); --at) order[at] = order[at - 1];
    order[at] = i;
  }
  int64_t reach = 0;  // of the dimensions so far, in elements
  for (int i = 0; i < n; ++i) {
    const int64_t stride = std::llabs(out.stride_of(order[i]));
    if (stride <= reach)
      refuse(CUL_STRIDE, "%s is %s with stride %lld in dimension %d: its elements would overlap", out.name,
                  shape_text(out).c_str(), static_cast<long long>(out.stride_of(order[i])), order[i]);
    reach += (out[order[i]] - 1) * stride;
  }
}

void Call::disjoint(const View& out, const View& in, bool same_allowed) const {
  if (!out || !in || out.elements() == 0 || in.elements() == 0) return;
  const Extent a = extent(out), b = extent(in);
  if (a.last <= b.first || b.last <= a.first) return;
  if (same_allowed && same_view(out, in)) return;
  if (interleaved(out, in)) return;
  refuse(CUL_UNSUPPORTED, "%s overlaps %s%s", out.name, in.name, same_allowed ? " without being the same view" : "");
}

void Call::flag(int32_t value, const char* name) const {
  if (value != 0 && value != 1) refuse(CUL_RANGE, "%s is %d; it must be 0 or 1", name, value);
}

void Call::one_of(int64_t value, std::initializer_list<int64_t> allowed, const char* name) const {
  if (std::find(allowed.begin(), allowed.end(), value) != allowed.end()) return;
  std::string list;
  for (int64_t a : allowed) list += (list.empty() ? "" : ", ") + std::to_string(a);
  refuse(CUL_RANGE, "%s is %lld; it must be one of %s", name, static_cast<long long>(value), list.c_str());
}

void* Call::workspace(uint64_t bytes) const {
  last_call().workspace_bytes = bytes;
  if (bytes == 0 || plan_only()) return call_.workspace;
  if (!call_.workspace || call_.workspace_bytes < bytes)
    refuse(CUL_WORKSPACE, "the workspace has %llu bytes; %llu are needed",
           static_cast<unsigned long long>(call_.workspace ? call_.workspace_bytes : 0),
           static_cast<unsigned long long>(bytes));
  if (reinterpret_cast<uintptr_t>(call_.workspace) % 256)
    refuse(CUL_ALIGNMENT, "the workspace is at %p; it must be 256-byte aligned", call_.workspace);
  return call_.workspace;
}

void Call::explain(std::string text) const { last_call().plan = std::move(text); }

}  // namespace culebra
