// The functions of replay.h.
#include "culebra/replay.h"

#include "abi/handles.h"
#include "backends/graph_update.h"
#include "culebra/module.h"

using namespace culebra;

namespace {

// Every operator has this signature but for the type of its args struct.
using OpFunction = cul_status (*)(cul_stream*, const void*);

cul_status make(cul_stream* stream, const cul_batch_call& call) {
  switch (call.kind) {
    case CUL_BATCH_OP:
      if (!call.target) return fence([] { refuse(CUL_NULL_POINTER, "cul_batch: the operator's function is null"); });
      return reinterpret_cast<OpFunction>(call.target)(stream, call.args);
    case CUL_BATCH_COPY: return cul_copy(stream, call.target, call.args, call.bytes);
    case CUL_BATCH_FILL: return cul_fill(stream, call.target, call.value, call.bytes);
    case CUL_BATCH_LAUNCH:
      return cul_kernel_launch(stream, static_cast<cul_kernel*>(call.target), static_cast<const cul_launch_args*>(call.args));
    default: return fence([&] { refuse(CUL_RANGE, "cul_batch: there is no kind of call %d", call.kind); });
  }
}

}  // namespace

extern "C" {

cul_status cul_batch(cul_stream* stream, const cul_batch_call* calls, uint64_t count, uint64_t* done) {
  const cul_status arguments = fence([&] {
    need(stream, "cul_batch", "stream");
    *need(done, "cul_batch", "done") = 0;
    if (count) need(calls, "cul_batch", "calls");
  });
  if (arguments != CUL_OK) return arguments;
  for (; *done < count; ++*done)
    if (const cul_status status = make(stream, calls[*done]); status != CUL_OK) return status;
  return CUL_OK;
}

cul_status cul_graph_update(cul_graph* g, cul_stream* s, int32_t* in_place) {
  return fence([&] {
    Graph& graph = *Graph::from(need(g, "cul_graph_update", "graph"));
    need(in_place, "cul_graph_update", "in_place");
    Stream& stream = stream_of(s, "cul_graph_update");
    if (&stream.device() != &graph.device()) stream.abort_capture();
    same_device(stream.device(), graph.device(), "cul_graph_update");
    if (!stream.capturing()) refuse(CUL_UNSUPPORTED, "cul_graph_update: the stream is not capturing");
    *in_place = dynamic_cast<GraphUpdater&>(stream).end_capture_into(graph);
  });
}

}  // extern "C"
