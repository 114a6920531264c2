#include "ops/moe/experts.h"

#include <algorithm>

namespace culebra {
namespace {

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

}  // namespace

ExpertMatrices check_experts(const Call& call, int32_t storage, int32_t group, DType half, const View& w,
                             const View& scales, const View& zeros, int64_t experts, int64_t rows, int64_t columns,
                             const char* text) {
  const bool int4 = storage == CUL_EXPERTS_INT4;
  call.shape(w, {experts, rows, int4 ? columns / 2 : columns}, text);
  ExpertMatrices m;
  m.storage = storage;
  m.dtype = w.dtype;
  m.data = w.data;
  m.expert_stride = w.stride_of(0);
  m.row_stride = w.stride_of(1);
  m.experts = experts;
  m.rows = rows;
  m.columns = columns;
  if (storage == CUL_EXPERTS_HALF) {
    call.dtype(w, {half});
    return m;
  }
  call.dtype(w, {int4 ? DType::u8 : DType::f8e4m3});
  m.scales = scales.data;
  m.scale_dtype = scales.dtype;
  call.rank(scales, 3, int4 ? "[E,N,G]" : "[E,ceil(N/128),ceil(K/128)]");
  m.scale_expert_stride = scales.stride_of(0);
  m.scale_row_stride = scales.stride_of(1);
  if (!int4) {
    call.dtype(scales, {DType::f32});
    call.shape(scales, {experts, ceil_div(rows, 128), ceil_div(columns, 128)}, "[E,ceil(N/128),ceil(K/128)]");
    return m;
  }
  if (columns % 2)
    call.refuse(CUL_SHAPE, "%s packs two columns a byte, but there are %lld", w.name, static_cast<long long>(columns));
  m.group = group < 0 ? std::max<int64_t>(columns, 1) : group;
  const int64_t groups = group < 0 ? 1 : ceil_div(columns, group);
  call.dtype(scales, {DType::f16, DType::bf16});
  call.shape(scales, {experts, rows, groups}, "[E,N,G]");
  if (zeros) {
    call.dtype(zeros, {DType::u8});
    if (rows % 2)
      call.refuse(CUL_SHAPE, "%s packs two rows a byte, but there are %lld", zeros.name, static_cast<long long>(rows));
    call.shape(zeros, {experts, rows / 2, groups}, "[E,N/2,G]");
    m.zeros = zeros.as<const uint8_t>();
    m.zero_expert_stride = zeros.stride_of(0);
    m.zero_row_stride = zeros.stride_of(1);
  }
  return m;
}

void check_expert_scales(const Call& call, int32_t storage, const View& scales, const View& zeros) {
  if (storage != CUL_EXPERTS_HALF && !scales)
    call.refuse(CUL_NULL_POINTER, "%s is required: the experts are %s", scales.name,
                storage == CUL_EXPERTS_F8 ? "f8" : "int4");
  if (storage == CUL_EXPERTS_HALF && scales)
    call.refuse(CUL_UNSUPPORTED, "%s is given, but experts half takes no scales", scales.name);
  if (storage != CUL_EXPERTS_INT4 && zeros)
    call.refuse(CUL_UNSUPPORTED, "%s is given, but only experts int4 takes zero points", zeros.name);
}

}  // namespace culebra
