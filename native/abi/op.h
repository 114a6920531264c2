// An operator's row: its name, and one column per backend. Support is declared here and nowhere else.
#pragma once
#include <type_traits>

#include "abi/call.h"
#include "abi/fence.h"
#include "abi/trace.h"
#include "backends/backend.h"

struct CUstream_st;

namespace culebra {

class ThreadPool;
namespace simt {
struct Queue;
}

// Declares an op's three columns. cpu runs on the stream's worker; cuda and simt launch from the calling thread.
#define CUL_DECLARE_COLUMNS(fn, Params)                               \
  namespace cpu { void fn(const Params& params, ThreadPool& pool); }  \
  namespace cuda { void fn(const Params& params, CUstream_st* stream); } \
  namespace simt { void fn(const Params& params, Queue* stream); }

#if CULEBRA_HAS_CUDA
#define CUL_CUDA(fn) &::culebra::cuda::fn
#else
#define CUL_CUDA(fn) nullptr
#endif
#if CULEBRA_HAS_SIMT
#define CUL_SIMT(fn) &::culebra::simt::fn
#else
#define CUL_SIMT(fn) nullptr
#endif

struct OpRecord {
  const char* name;
  const char* family;
  const char* dtypes;
  uint32_t backends;
  uint32_t kernels;  // CUL_KERNELS_*
};

// Params is what check() makes of the arguments: plain data that outlives the call.
template <class Params>
struct Op : OpRecord {
  using Cpu = void (*)(const Params&, ThreadPool&);
  using Cuda = void (*)(const Params&, CUstream_st*);
  using Simt = void (*)(const Params&, simt::Queue*);

  // A column is a function, or nullptr where the backend has none. Its type tells which: whether a pointer is null is no
  // constant expression under UndefinedBehaviorSanitizer.
  template <class CpuColumn, class CudaColumn, class SimtColumn>
  constexpr Op(const char* name, const char* family, const char* dtypes, CpuColumn cpu, CudaColumn cuda, SimtColumn simt,
               uint32_t kernels = CUL_KERNELS_80)
      : OpRecord{name, family, dtypes,
                 bit<CpuColumn>(CUL_BACKEND_CPU) | bit<CudaColumn>(CUL_BACKEND_CUDA) | bit<SimtColumn>(CUL_BACKEND_SIMT),
                 std::is_null_pointer_v<CudaColumn> && std::is_null_pointer_v<SimtColumn> ? 0 : kernels},
        cpu(cpu), cuda(cuda), simt(simt) {}

  Cpu cpu;
  Cuda cuda;
  Simt simt;

 private:
  template <class Column>
  static constexpr uint32_t bit(int backend) {
    return std::is_null_pointer_v<Column> ? 0 : 1u << backend;
  }
};

// Refuses a call whose stream or args struct is not what this library expects, before the op's own checks.
void check_call(const OpRecord& op, cul_stream* stream, const cul_op_call* call, uint32_t args_bytes);

// check -> dispatch to the stream's column.
template <class Params, class Args>
cul_status run_op(const Op<Params>& op, cul_stream* handle, const Args* args,
                  Params (*check)(const Call&, const Args&)) noexcept {
  return fence([&] {
    check_call(op, handle, args ? &args->call : nullptr, sizeof(Args));
    const TraceRange range(op.name);
    Stream& stream = *Stream::from(handle);
    const Call call(op.name, stream.device().caps(), args->call);
    const Params params = check(call, *args);
    if (call.plan_only()) return;
    switch (stream.device().caps().backend) {
      case CUL_BACKEND_CPU: stream.enqueue([params, run = op.cpu, &pool = stream.pool()] { run(params, pool); }); break;
      case CUL_BACKEND_CUDA: op.cuda(params, stream.cuda()); break;
      case CUL_BACKEND_SIMT: op.simt(params, stream.simt()); break;
    }
  });
}

}  // namespace culebra
