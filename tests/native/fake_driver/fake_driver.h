/* What a test may ask of the test driver, beside the driver's own functions. */
#pragma once
#ifdef __cplusplus
extern "C" {
#endif

/* Has the driver call after `calls` more of them answer `error`, once; -1 takes that back. */
void fake_driver_fail_after(int calls, int error);
/* Live modules. */
int fake_driver_modules(void);
/* The calls seen since it was last asked, one a line; valid until the next. */
const char* fake_driver_log(void);

#ifdef __cplusplus
}
#endif
