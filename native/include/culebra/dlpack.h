/* DLPack's containers (dmlc.github.io/dlpack, version 1), bit for bit: how a tensor's memory is lent across libraries, with a
 * function that gives it back. No function here takes one; bindings read and write them. */
#ifndef CULEBRA_DLPACK_H
#define CULEBRA_DLPACK_H

#include "culebra/culebra.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Called once, from any thread, with the container that it stands in. */
typedef void (*cul_managed_deleter)(void* managed);

/* DLManagedTensor: without a version, as version 0 had it. */
typedef struct cul_managed_tensor {
  cul_tensor tensor;
  void* manager_ctx;
  cul_managed_deleter deleter; /* NULL: there is nothing to give back */
} cul_managed_tensor;

enum {
  CUL_DLPACK_MAJOR = 1, /* another major version may have another layout behind deleter */
  CUL_DLPACK_MINOR = 0,
  CUL_DLPACK_READ_ONLY = 1, /* flags: the memory must not be written */
  CUL_DLPACK_IS_COPIED = 2  /* flags: nobody else sees the memory */
};

/* DLManagedTensorVersioned. Whatever the version, the deleter stands at this place. */
typedef struct cul_managed_tensor_versioned {
  uint32_t major;
  uint32_t minor;
  void* manager_ctx;
  cul_managed_deleter deleter;
  uint64_t flags;
  cul_tensor tensor;
} cul_managed_tensor_versioned;

/* Further device types of DLPack whose memory cpu or cuda devices can use: pinned, and managed. */
enum { CUL_DEVICE_CUDA_HOST = 3, CUL_DEVICE_CUDA_MANAGED = 13 };

#ifdef __cplusplus
}
#endif
#endif
