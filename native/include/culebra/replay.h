/* Work that is queued again and again: lists of calls, and graphs that take another recording over. */
#ifndef CULEBRA_REPLAY_H
#define CULEBRA_REPLAY_H

#include "culebra/culebra.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ------------------------------------------------------------------------------------------- a list of calls */

enum {
  CUL_BATCH_OP = 0,     /* target: a function cul_NAME of an operator; args: its args struct */
  CUL_BATCH_COPY = 1,   /* cul_copy to target from args */
  CUL_BATCH_FILL = 2,   /* cul_fill of target with value */
  CUL_BATCH_LAUNCH = 3  /* cul_kernel_launch of target, a kernel; args: its cul_launch_args */
};

typedef struct cul_batch_call {
  int32_t kind;
  int32_t value;
  void* target;
  const void* args;
  uint64_t bytes; /* of a copy or a fill */
} cul_batch_call;

/* Makes the calls one after the other, each as its own function would be called: checked, queued, recorded during a capture.
 * Ends with the first that is refused and answers its status; *done tells how many were made before it, count if all were.
 * What the calls point to is read before the function returns. */
CUL_API cul_status cul_batch(cul_stream* stream, const cul_batch_call* calls, uint64_t count, uint64_t* done);

/* -------------------------------------------------------------------------------------------------- graphs */

/* Ends a capture as cul_graph_end_capture does, and has graph repeat what was recorded from its next launch on; launches that
 * are queued keep what they had. *in_place = 1: the instantiated graph was kept and only its parameters replaced (cuda, where
 * the recording has the same nodes in the same order; always on cpu and simt); 0: it was instantiated anew. Where this fails
 * the capture is over and the graph is as before. */
CUL_API cul_status cul_graph_update(cul_graph* graph, cul_stream* stream, int32_t* in_place);

#ifdef __cplusplus
}
#endif
#endif
