// The functions of communicator.h.
#include "backends/communicator.h"

#include "abi/handles.h"
#include "abi/op.h"
#include "backends/cuda/nccl.h"

using namespace culebra;

namespace {

// No operator: one rank alone cannot run it. Its call is checked as theirs are.
constexpr OpRecord kAllToAll{"all_to_all", "communicator", "", 1u << CUL_BACKEND_CPU | 1u << CUL_BACKEND_CUDA | 1u << CUL_BACKEND_SIMT, 0};

Exchange::Pair check_pair(const Call& call, const View& send, const View& recv, int ranks) {
  call.same_dtype(recv, send);
  call.same_shape(recv, send);
  if (send.rank < 1 || send[0] != ranks)
    call.refuse(CUL_SHAPE, "%s is %s; it must be [ranks, ...] with ranks = %d", send.name, shape_text(send).c_str(), ranks);
  if (send.elements() > 0)
    for (const View* v : {&send, &recv}) call.compact(*v);
  return {send.data, recv.data, static_cast<uint64_t>(send.elements() / ranks) * size_of(send.dtype)};
}

Exchange check_all_to_all(const Call& call, const Communicator& comm, const cul_all_to_all_args& args) {
  const View send = call.required(args.send, "send"), recv = call.required(args.recv, "recv");
  const View also_send = call.optional(args.also_send, "also_send"), also_recv = call.optional(args.also_recv, "also_recv");
  if (bool(also_send) != bool(also_recv))
    call.refuse(CUL_NULL_POINTER, "%s is required, since %s is there", also_send ? "also_recv" : "also_send",
                also_send ? "also_send" : "also_recv");
  Exchange out;
  out.pairs[out.count++] = check_pair(call, send, recv, comm.ranks());
  if (also_send) out.pairs[out.count++] = check_pair(call, also_send, also_recv, comm.ranks());
  for (const View* target : {&recv, &also_recv})
    for (const View* source : {&send, &also_send}) call.disjoint(*target, *source);
  call.disjoint(recv, also_recv);
  return out;
}

}  // namespace

extern "C" {

cul_status cul_comm_unique_id(cul_device* d, cul_comm_id* out) {
  return fence([&] {
    const Device& device = device_of(d, "cul_comm_unique_id");
    need(out, "cul_comm_unique_id", "out");
    *out = device.caps().backend == CUL_BACKEND_CUDA ? cuda::nccl().unique_id() : host_communicator_id(device);
  });
}

cul_status cul_comm_create(cul_device* d, int32_t rank, int32_t ranks, const cul_comm_id* id, int32_t timeout_ms, cul_comm** out) {
  return fence([&] {
    *need(out, "cul_comm_create", "out") = nullptr;
    Device& device = device_of(d, "cul_comm_create");
    need(id, "cul_comm_create", "id");
    constexpr int32_t kMaxRanks = 4096;  // a bound for counts that are no counts
    if (ranks < 1 || ranks > kMaxRanks) refuse(CUL_RANGE, "cul_comm_create: ranks is %d; it must be 1 to %d", ranks, kMaxRanks);
    if (rank < 0 || rank >= ranks) refuse(CUL_RANGE, "cul_comm_create: rank is %d; it must be 0 to ranks - 1 = %d", rank, ranks - 1);
    if (timeout_ms < 1) refuse(CUL_RANGE, "cul_comm_create: timeout_ms is %d; it must be 1 or more", timeout_ms);
    *out = (device.caps().backend == CUL_BACKEND_CUDA ? cuda::nccl().join(device, rank, ranks, *id)
                                                      : join_host_communicator(device, rank, ranks, *id, timeout_ms))
               .release()
               ->handle();
  });
}

cul_status cul_comm_destroy(cul_comm* c) {
  return fence([&] { delete Communicator::from(need(c, "cul_comm_destroy", "comm")); });
}

cul_status cul_comm_abort(cul_comm* c) {
  return fence([&] { Communicator::from(need(c, "cul_comm_abort", "comm"))->abort(); });
}

cul_status cul_all_to_all(cul_stream* handle, const cul_all_to_all_args* args) {
  return fence([&] {
    check_call(kAllToAll, handle, args ? &args->call : nullptr, sizeof *args);
    const TraceRange range(kAllToAll.name);
    Stream& stream = *Stream::from(handle);
    const Call call(kAllToAll.name, stream.device().caps(), args->call);
    if (!args->comm) call.refuse(CUL_NULL_POINTER, "comm is null");
    Communicator& comm = *Communicator::from(args->comm);
    if (&comm.device() != &stream.device()) call.refuse(CUL_DEVICE, "comm was created on another device than the stream's");
    const Exchange exchange = check_all_to_all(call, comm, *args);
    if (!call.plan_only()) comm.exchange(stream, exchange);
  });
}

}  // extern "C"
