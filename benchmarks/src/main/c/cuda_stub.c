/* A CUDA driver that does nothing, for machines without one: its soname is libcuda.so.1, so JCuda's native library, which
 * links that, takes it once it is loaded. What is timed against it is JCuda's way into the driver and nothing behind it. Its
 * device memory is the host's, so that a test can see whose address a CUdeviceptr holds. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef int CUresult;
typedef void* CUhandle;

#define CUDA_STUB __attribute__((visibility("default"))) CUresult

enum { CUDA_SUCCESS = 0, CUDA_ERROR_INVALID_VALUE = 1, DRIVER_VERSION = 12060 };

static CUresult hand_out(CUhandle* out) {
  static char object;
  if (!out) return CUDA_ERROR_INVALID_VALUE;
  *out = &object;
  return CUDA_SUCCESS;
}

CUDA_STUB cuInit(unsigned flags) { return flags ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS; }

CUDA_STUB cuDriverGetVersion(int* version) {
  if (!version) return CUDA_ERROR_INVALID_VALUE;
  *version = DRIVER_VERSION;
  return CUDA_SUCCESS;
}

CUDA_STUB cuDeviceGet(int* device, int ordinal) {
  if (!device) return CUDA_ERROR_INVALID_VALUE;
  *device = ordinal;
  return CUDA_SUCCESS;
}

CUDA_STUB cuCtxCreate_v2(CUhandle* context, unsigned flags, int device) {
  (void)flags, (void)device;
  return hand_out(context);
}

CUDA_STUB cuCtxDestroy_v2(CUhandle context) { return context ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE; }

CUDA_STUB cuCtxSetCurrent(CUhandle context) { return context ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE; }

CUDA_STUB cuStreamCreate(CUhandle* stream, unsigned flags) {
  (void)flags;
  return hand_out(stream);
}

CUDA_STUB cuStreamQuery(CUhandle stream) { return stream ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE; }

CUDA_STUB cuStreamSynchronize(CUhandle stream) { return stream ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE; }

CUDA_STUB cuModuleLoadData(CUhandle* module, const void* image) { return image ? hand_out(module) : CUDA_ERROR_INVALID_VALUE; }

CUDA_STUB cuModuleGetFunction(CUhandle* function, CUhandle module, const char* name) {
  return module && name ? hand_out(function) : CUDA_ERROR_INVALID_VALUE;
}

CUDA_STUB cuLaunchKernel(CUhandle function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x,
                         unsigned block_y, unsigned block_z, unsigned shared_bytes, CUhandle stream, void** params,
                         void** extra) {
  (void)grid_x, (void)grid_y, (void)grid_z, (void)block_x, (void)block_y, (void)block_z;
  (void)shared_bytes, (void)stream, (void)extra;
  return function && params ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

CUDA_STUB cuMemAlloc_v2(uintptr_t* pointer, size_t bytes) {
  if (!pointer) return CUDA_ERROR_INVALID_VALUE;
  *pointer = (uintptr_t)aligned_alloc(256, (bytes + 255) / 256 * 256);
  return *pointer ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

CUDA_STUB cuMemFree_v2(uintptr_t pointer) {
  free((void*)pointer);
  return CUDA_SUCCESS;
}

CUDA_STUB cuMemsetD8_v2(uintptr_t pointer, unsigned char value, size_t bytes) {
  memset((void*)pointer, value, bytes);
  return CUDA_SUCCESS;
}
