/* Copies of memory whose owner may take it away once the call is over. */
#ifndef CULEBRA_COPY_H
#define CULEBRA_COPY_H

#include "culebra/culebra.h"

#ifdef __cplusplus
extern "C" {
#endif

/* As cul_copy, and waits for the copy and all work that was queued on the stream before it: when the function returns, in
 * whatever way, nothing reads src or writes dst any more. UNSUPPORTED during a capture. A binding that keeps memory alive for
 * the time of a call needs no more than that. */
CUL_API cul_status cul_copy_and_wait(cul_stream* stream, void* dst, const void* src, uint64_t bytes);

#ifdef __cplusplus
}
#endif
#endif
