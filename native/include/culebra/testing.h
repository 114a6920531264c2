/* What only tests call: fault injection. */
#ifndef CULEBRA_TESTING_H
#define CULEBRA_TESTING_H
#include "culebra/culebra.h"
#ifdef __cplusplus
extern "C" {
#endif

/* Makes the allocation or driver call after `calls` more of them fail, once; -1 takes that back. */
CUL_API void cul_testing_fail_after(int64_t calls);

#ifdef __cplusplus
}
#endif
#endif
