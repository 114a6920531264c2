/* What only tests call: fault injection, and a driver for machines without a GPU. */
#ifndef CULEBRA_TESTING_H
#define CULEBRA_TESTING_H
#include "culebra/culebra.h"
#ifdef __cplusplus
extern "C" {
#endif

/* Makes the allocation or driver call after `calls` more of them fail, once; -1 takes that back. */
CUL_API void cul_testing_fail_after(int64_t calls);

/* Has the simt devices load modules through the driver library of that path (tests/native/fake_driver); without one they
 * refuse to. cuda devices keep theirs. NULL takes it back, for modules that are loaded later. */
CUL_API cul_status cul_testing_use_driver(const char* path);
/* The driver calls that library has seen since it was last asked, one a line. Valid until it is asked again. */
CUL_API const char* cul_testing_driver_log(void);

#ifdef __cplusplus
}
#endif
#endif
