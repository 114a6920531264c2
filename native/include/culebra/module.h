/* Kernels that users bring: modules in the formats of NVIDIA's compilers, their kernels, and launches.
 *
 * A module belongs to a device of the cuda backend; cpu devices refuse (UNSUPPORTED). The driver is found at run time.
 * Nothing is launched by a call that is refused, and the device stays usable. A call that the driver itself refuses
 * answers UNSUPPORTED with the driver's name for it; an error that the driver does not recover from is a DEVICE_ERROR.
 */
#ifndef CULEBRA_MODULE_H
#define CULEBRA_MODULE_H
#include "culebra/culebra.h"
#ifdef __cplusplus
extern "C" {
#endif

typedef struct cul_module cul_module;
typedef struct cul_kernel cul_kernel;

/* Loads a cubin, a fatbin, or PTX text (which the driver compiles; it need not end with a 0). The image is not needed
 * afterwards. ARCH: it holds no code for this device. RANGE: it is no such image, or its PTX does not compile; the
 * text has the driver's log. */
CUL_API cul_status cul_module_load(cul_device* device, const void* image, uint64_t bytes, cul_module** out);
/* Compiles CUDA C++ for this device with NVRTC, where its library is found (UNSUPPORTED otherwise), and loads the
 * result. name is what the log calls the source; options are NVRTC's ("--use_fast_math", "-DN=4"), without an
 * architecture. RANGE: it does not compile; the text has the log. Kernels that are to be found by their plain name are
 * declared extern "C". */
CUL_API cul_status cul_module_compile(cul_device* device, const char* source, const char* name, const char* const* options,
                                      int32_t option_count, cul_module** out);
/* What the compiler said of the module's source; "" if nothing. Lives as long as the module. */
CUL_API const char* cul_module_log(cul_module* module);
/* Unloads it and forgets its kernels. No launch of them may be pending. */
CUL_API cul_status cul_module_unload(cul_module* module);

/* The kernel of that name, the same handle each time. It lives as long as its module. RANGE: the module has none of
 * that name; the text lists those it has. */
CUL_API cul_status cul_module_kernel(cul_module* module, const char* name, cul_kernel** out);

typedef struct cul_kernel_info {
  uint32_t struct_size;
  int32_t max_threads_per_block;
  int32_t registers; /* of a thread */
  int32_t local_bytes; /* of a thread: spilled registers and arrays */
  int32_t static_shared_bytes;
  int32_t max_dynamic_shared_bytes; /* what a launch may ask for on this device */
  int32_t parameter_count;
  int32_t parameter_bytes; /* of the block that a launch passes: the end of the last parameter */
} cul_kernel_info;

CUL_API cul_status cul_kernel_get_info(cul_kernel* kernel, cul_kernel_info* out);
/* Where a parameter lies in the block, and its size. RANGE: it has no such parameter. */
CUL_API cul_status cul_kernel_parameter(cul_kernel* kernel, int32_t index, int32_t* offset_bytes, int32_t* bytes);

enum {
  CUL_LAUNCH_COOPERATIVE = 1, /* all blocks run at once and may synchronize with one another */
  CUL_LAUNCH_DEPENDENT = 2    /* programmatic dependent launch: may start while the kernel before it ends; sm_90 */
};

typedef struct cul_launch_args {
  uint32_t struct_size;
  uint32_t flags;
  uint32_t grid_x; /* in blocks; 1 to 2^31 - 1, y and z to 65535 */
  uint32_t grid_y;
  uint32_t grid_z;
  uint32_t block_x; /* in threads */
  uint32_t block_y;
  uint32_t block_z;
  uint32_t cluster_x; /* in blocks; 0, 0, 0: no cluster but that the kernel was compiled for; sm_90 */
  uint32_t cluster_y;
  uint32_t cluster_z;
  uint32_t shared_bytes;  /* dynamic; above 48 KB the kernel is opted in */
  const void* parameters; /* each parameter at its offset; read before the call returns */
  uint64_t parameter_bytes;
} cul_launch_args;

/* Queues a launch; recorded during a capture. RANGE: extents, shared memory or parameters that the kernel or the device
 * does not take. ARCH: clusters or dependent launches before sm_90. DEVICE: the stream is of another device. */
CUL_API cul_status cul_kernel_launch(cul_stream* stream, cul_kernel* kernel, const cul_launch_args* args);

#ifdef __cplusplus
}
#endif
#endif
