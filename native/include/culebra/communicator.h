/* Ranks: devices that exchange blocks of memory with one another, each driven by its own stream.
 *
 * cuda: GPUs of one or several machines, over NCCL, whose library is looked for when it is first needed (UNSUPPORTED where
 * there is none). cpu and simt: devices or streams of one process, for tests and for services without GPUs; an exchange is a
 * copy that runs once all ranks' streams have reached it.
 */
#ifndef CULEBRA_COMMUNICATOR_H
#define CULEBRA_COMMUNICATOR_H
#include "culebra/culebra.h"
#ifdef __cplusplus
extern "C" {
#endif

typedef struct cul_comm cul_comm;

/* What the ranks of one group have in common: made once, given to all of them. On cuda it may travel between processes. */
typedef struct cul_comm_id {
  uint8_t bytes[128];
} cul_comm_id;

CUL_API cul_status cul_comm_unique_id(cul_device* device, cul_comm_id* out);

/* Joins the group as `rank` of `ranks`. cuda waits until all ranks have joined: each needs a thread of its own. cpu and simt do
 * not wait; there, an exchange that a rank does not come to within timeout_ms (1 or more; cuda has no limit) fails on the devices
 * of all ranks that wait for it. RANGE: a rank outside of the group or that was taken, an id that is none or was used up,
 * another number of ranks than the others said. DEVICE: an id of another backend. */
CUL_API cul_status cul_comm_create(cul_device* device, int32_t rank, int32_t ranks, const cul_comm_id* id, int32_t timeout_ms,
                                   cul_comm** out);
/* Leaves the group. No exchange of this rank may be pending; on cpu and simt ranks that wait for another one of it fail. cuda: all ranks
 * leave together, since NCCL may wait for the others (where they are gone, abort first); graphs that recorded exchanges keep the group
 * until they are destroyed. */
CUL_API cul_status cul_comm_destroy(cul_comm* comm);
/* Ends the group from any thread: exchanges that wait, and those still queued, fail on their devices; later ones are refused. */
CUL_API cul_status cul_comm_abort(cul_comm* comm);

/* recv[q] of rank p = send[p] of rank q, bit for bit, in stream order; all ranks make the same calls in the same order, each on one stream
 * at a time. send, recv [ranks, ...] compact, of one shape and dtype, of any dtype; also_send and also_recv: a second pair in the same
 * messages. Nothing overlaps. All ranks bring the same number of bytes: on cpu and simt another one is a DEVICE_ERROR of all, on cuda
 * nobody checks. Recorded during a capture; a graph of it must be launched by all ranks. */
typedef struct cul_all_to_all_args {
  cul_op_call call;
  cul_comm* comm;
  const cul_tensor* send;
  const cul_tensor* recv;
  const cul_tensor* also_send; /* optional, with also_recv */
  const cul_tensor* also_recv;
} cul_all_to_all_args;
CUL_API cul_status cul_all_to_all(cul_stream* stream, const cul_all_to_all_args* args);

#ifdef __cplusplus
}
#endif
#endif
