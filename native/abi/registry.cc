#include "abi/registry.h"

#include <cstring>

namespace culebra {
namespace {

const OpList* const kFamilies[] = {&kGemmOps, &kGlueOps, &kLinearAttentionOps, &kAttentionOps, &kKvCacheOps, &kSparseAttentionOps, &kMoeOps};

std::string backends_of(const OpRecord& op) {
  std::string list;
  for (int32_t b = 0; b < CUL_BACKEND_COUNT; ++b)
    if (op.backends >> b & 1) list += (list.empty() ? "" : ", ") + std::string(backend(b).name);
  return list;
}

}  // namespace

void check_call(const OpRecord& op, cul_stream* stream, const cul_op_call* call, uint32_t args_bytes) {
  last_call().workspace_bytes = 0;
  if (!stream) refuse(CUL_NULL_POINTER, "%s: stream is null", op.name);
  if (!call) refuse(CUL_NULL_POINTER, "%s: args is null", op.name);
  if (call->struct_size != args_bytes)
    refuse(CUL_RANGE, "%s: struct_size is %u; this library's args struct has %u bytes", op.name, call->struct_size,
           args_bytes);
  if (call->flags & ~7u) refuse(CUL_RANGE, "%s: flags 0x%x has bits that no option uses", op.name, call->flags);
  Device& device = Stream::from(stream)->device();
  device.require_healthy();
  device.enter();
  if (!(op.backends >> device.caps().backend & 1))
    refuse(CUL_UNSUPPORTED, "%s: the %s backend has no kernel for it; these have: %s", op.name,
           backend(device.caps().backend).name, backends_of(op).c_str());
  if (call->flags & CUL_OP_PLAN_ONLY) last_call().plan.clear();
}

}  // namespace culebra

using namespace culebra;

extern "C" {

int32_t cul_op_count(void) {
  int32_t n = 0;
  for (const OpList* f : kFamilies) n += f->count;
  return n;
}

cul_status cul_op_get_info(int32_t index, cul_op_info* out) {
  return fence([&] {
    if (!out) refuse(CUL_NULL_POINTER, "cul_op_get_info: out is null");
    if (out->struct_size != sizeof *out) refuse(CUL_RANGE, "cul_op_get_info: struct_size is %u", out->struct_size);
    int32_t i = index;
    for (const OpList* f : kFamilies) {
      if (i >= 0 && i < f->count) {
        const OpRecord& op = *f->ops[i];
        *out = {sizeof *out, op.backends, op.kernels, 0, op.name, op.family, op.dtypes};
        return;
      }
      i -= f->count;
    }
    refuse(CUL_RANGE, "cul_op_get_info: index is %d; there are %d operators", index, cul_op_count());
  });
}

}  // extern "C"
