/* Culebra's C ABI: status, tensors, devices, memory, streams, events, graphs.
 *
 * Every function returns a cul_status unless it cannot fail. Nothing here throws, aborts, prints or exits. Handles are
 * opaque; structs are plain data passed by pointer and begin with their own size. The text that explains the last
 * failure belongs to the calling thread (cul_last_error). No function keeps a pointer to a descriptor (tensor, args)
 * after it returns: only the memory that tensors point to must live until the stream has passed the work.
 */
#ifndef CULEBRA_CULEBRA_H
#define CULEBRA_CULEBRA_H

#include <stdint.h>

#if defined(_WIN32)
#define CUL_API __declspec(dllexport)
#else
#define CUL_API __attribute__((visibility("default")))
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* Changes whenever a struct or a function here changes its meaning; checked when a binding loads the library. */
#define CUL_ABI_VERSION 1u

/* ---------------------------------------------------------------------------------------------------- status */

typedef int32_t cul_status;
enum {
  CUL_OK = 0,
  CUL_NULL_POINTER = 1, /* a required tensor, pointer or handle is absent */
  CUL_SHAPE = 2,        /* rank or extents contradict the contract or each other */
  CUL_DTYPE = 3,        /* an element type an argument may not have, or two that must match and do not */
  CUL_STRIDE = 4,       /* a stride that the operator does not take */
  CUL_ALIGNMENT = 5,    /* data + byte_offset is not aligned as required */
  CUL_DEVICE = 6,       /* a tensor, stream or handle of another device */
  CUL_RANGE = 7,        /* an attribute outside its documented set */
  CUL_UNSUPPORTED = 8,  /* legal, but not here: backend, limit, exclusive arguments, state of the stream */
  CUL_WORKSPACE = 9,    /* the workspace is too small; cul_last_workspace_bytes says how much is needed */
  CUL_ARCH = 10,        /* the device's architecture lacks what the operator needs */
  CUL_OUT_OF_MEMORY = 11,
  CUL_DEVICE_ERROR = 12, /* the device failed; it stays failed: each later call on it says so */
  CUL_INTERNAL = 13      /* a defect of this library */
};

CUL_API uint32_t cul_abi_version(void);
CUL_API const char* cul_version(void);
/* "SHAPE" for CUL_SHAPE; "UNKNOWN" for a number that is no status. */
CUL_API const char* cul_status_name(cul_status status);
/* The text of this thread's last failure; "" if there was none. Valid until the thread's next failing call. */
CUL_API const char* cul_last_error(void);
/* After a call that answered CUL_WORKSPACE, or one made with CUL_OP_PLAN_ONLY: the bytes that the op needs. */
CUL_API uint64_t cul_last_workspace_bytes(void);
/* Every struct of this ABI as text, one line each: "struct NAME SIZE" followed by its "field NAME OFFSET SIZE" lines.
 * Bindings compare it with their own layouts. */
CUL_API const char* cul_abi_layout(void);

/* --------------------------------------------------------------------------------------------------- tensors */

/* DLPack's element types: code, bits, lanes (always 1). */
typedef struct cul_dtype {
  uint8_t code;
  uint8_t bits;
  uint16_t lanes;
} cul_dtype;

enum { CUL_INT = 0, CUL_UINT = 1, CUL_FLOAT = 2, CUL_BFLOAT = 4, CUL_BOOL = 6, CUL_FLOAT8_E4M3FN = 10 };

/* DLPack's device types. simt memory is host memory, but it is not cpu memory: a tensor belongs to one device. */
enum { CUL_DEVICE_CPU = 1, CUL_DEVICE_CUDA = 2, CUL_DEVICE_SIMT = 12 };

typedef struct cul_device_id {
  int32_t type;
  int32_t index;
} cul_device_id;

/* Bit for bit DLPack's DLTensor. Strides are in elements; NULL strides mean row-major and compact. */
typedef struct cul_tensor {
  void* data;
  cul_device_id device;
  int32_t ndim;
  cul_dtype dtype;
  int64_t* shape;
  int64_t* strides;
  uint64_t byte_offset;
} cul_tensor;

/* --------------------------------------------------------------------------------------------------- devices */

typedef struct cul_device cul_device;
typedef struct cul_stream cul_stream;
typedef struct cul_event cul_event;
typedef struct cul_graph cul_graph;

enum { CUL_BACKEND_CPU = 0, CUL_BACKEND_CUDA = 1, CUL_BACKEND_SIMT = 2, CUL_BACKEND_COUNT = 3 };

/* How many devices a backend has. Where it has none, *reason says why (not compiled in, no driver, no device);
 * otherwise *reason is "". The text lives as long as the library. */
CUL_API cul_status cul_backend_devices(int32_t backend, int32_t* count, const char** reason);
/* "cpu", "cuda", "simt"; NULL for a number that is no backend. */
CUL_API const char* cul_backend_name(int32_t backend);

typedef struct cul_device_options {
  uint32_t struct_size;
  int32_t threads;             /* cpu: threads of one parallel loop; 0 = every core the process may use */
  uint64_t memory_limit_bytes; /* 0 = no limit */
  int32_t poison;              /* fill fresh memory with 0xFF (NaN in every float type): 0 no, 1 yes; simt always does */
  int32_t schedule;            /* simt: 0 in order, 1 reverse, 2 random */
  uint64_t seed;               /* simt: of the random schedule */
} cul_device_options;

typedef struct cul_device_info {
  uint32_t struct_size;
  int32_t backend;
  cul_device_id id;
  int32_t compute_major; /* cuda: compute capability; simt: what it emulates; cpu: 0 */
  int32_t compute_minor;
  int32_t multiprocessors; /* cuda, simt: SMs; cpu: threads */
  int32_t shared_bytes_per_block;
  uint64_t l2_bytes;
  uint64_t memory_bytes;
  char name[128];
  char detail[256]; /* cpu: instruction set in use; cuda: driver and runtime versions; simt: checks in force */
} cul_device_info;

/* Opens a device; options may be NULL. Devices are shared freely between threads. */
CUL_API cul_status cul_device_open(int32_t backend, int32_t index, const cul_device_options* options, cul_device** out);
/* Waits for the device's work and frees what it holds. Streams, events and graphs must be destroyed first (UNSUPPORTED
 * otherwise, and the device stays open). */
CUL_API cul_status cul_device_close(cul_device* device);
CUL_API cul_status cul_device_get_info(cul_device* device, cul_device_info* out);

/* ---------------------------------------------------------------------------------------------------- memory */

typedef struct cul_memory_stats {
  uint32_t struct_size;
  uint32_t reserved0;
  uint64_t used_bytes;     /* handed out and not yet freed (a queued free counts until the stream passes it) */
  uint64_t reserved_bytes; /* taken from the system: used plus what the pool keeps */
  uint64_t peak_used_bytes;
  uint64_t limit_bytes; /* 0 = no limit */
  uint64_t allocations; /* count since the device was opened */
  uint64_t live_allocations;
  uint64_t host_bytes; /* pinned host memory handed out */
} cul_memory_stats;

/* Device memory, 256-byte aligned; 0 bytes gives a valid unique pointer. alloc/free take effect at once: the caller
 * knows that no queued work uses what it frees. The _async forms are ordered on the stream: memory may be used by work
 * queued after the allocation, and a free takes effect when the stream reaches it. Over the limit: OUT_OF_MEMORY with
 * the numbers. During a capture both are refused (UNSUPPORTED). A pointer that is not live: RANGE. */
CUL_API cul_status cul_memory_alloc(cul_device* device, uint64_t bytes, void** out);
CUL_API cul_status cul_memory_free(cul_device* device, void* pointer);
CUL_API cul_status cul_memory_alloc_async(cul_stream* stream, uint64_t bytes, void** out);
CUL_API cul_status cul_memory_free_async(cul_stream* stream, void* pointer);
/* Pinned host memory: copies to and from it overlap with device work. */
CUL_API cul_status cul_host_alloc(cul_device* device, uint64_t bytes, void** out);
CUL_API cul_status cul_host_free(cul_device* device, void* pointer);
CUL_API cul_status cul_memory_get_stats(cul_device* device, cul_memory_stats* out);
CUL_API cul_status cul_memory_set_limit(cul_device* device, uint64_t limit_bytes);
/* Gives pooled memory beyond keep_bytes back to the system. */
CUL_API cul_status cul_memory_trim(cul_device* device, uint64_t keep_bytes);

/* Copies bytes between host and device or within a device, in stream order. Host memory that is not pinned must stay
 * valid and unchanged until the stream has passed the copy. */
CUL_API cul_status cul_copy(cul_stream* stream, void* dst, const void* src, uint64_t bytes);
CUL_API cul_status cul_fill(cul_stream* stream, void* dst, int32_t byte, uint64_t bytes);

/* --------------------------------------------------------------------------------------------- streams, events */

/* Work on one stream runs in order. A stream has no thread affinity; two threads must not call with it at once. */
CUL_API cul_status cul_stream_create(cul_device* device, cul_stream** out);
/* Waits for the stream's work. A failure of that work is reported here as well; the stream is gone all the same. */
CUL_API cul_status cul_stream_destroy(cul_stream* stream);
/* Waits until everything queued so far has run; reports a failure of that work. */
CUL_API cul_status cul_stream_synchronize(cul_stream* stream);
/* *done = 1 once everything queued so far has run. simt runs its queue here too (it has no worker of its own). */
CUL_API cul_status cul_stream_query(cul_stream* stream, int32_t* done);
/* Work queued on stream after this call waits for the event's last record. */
CUL_API cul_status cul_stream_wait_event(cul_stream* stream, cul_event* event);

CUL_API cul_status cul_event_create(cul_device* device, cul_event** out);
CUL_API cul_status cul_event_destroy(cul_event* event);
CUL_API cul_status cul_event_record(cul_event* event, cul_stream* stream);
/* *done = 1 if the last record has been passed, or nothing was recorded. */
CUL_API cul_status cul_event_query(cul_event* event, int32_t* done);
CUL_API cul_status cul_event_synchronize(cul_event* event);
/* Milliseconds from the passing of start to the passing of end; UNSUPPORTED while either is pending or unrecorded. */
CUL_API cul_status cul_event_elapsed_ms(cul_event* start, cul_event* end, double* out);

/* ---------------------------------------------------------------------------------------------------- graphs */

/* Between begin and end, work queued on the stream is recorded and does not run. Allocation, synchronization, query
 * and event use on the stream are refused meanwhile (UNSUPPORTED). The graph is instantiated when the capture ends.
 * The caller keeps every buffer that the recorded work uses alive as long as the graph is launched. */
CUL_API cul_status cul_graph_begin_capture(cul_stream* stream);
CUL_API cul_status cul_graph_end_capture(cul_stream* stream, cul_graph** out);
/* Ends a capture and forgets it; legal when no capture is open. */
CUL_API cul_status cul_graph_abort_capture(cul_stream* stream);
CUL_API cul_status cul_graph_launch(cul_graph* graph, cul_stream* stream);
CUL_API cul_status cul_graph_node_count(cul_graph* graph, uint64_t* out);
CUL_API cul_status cul_graph_destroy(cul_graph* graph);

/* ------------------------------------------------------------------------------------------------- operators */

/* Every op is `cul_status cul_NAME(cul_stream*, const cul_NAME_args*)`: it checks, enqueues and returns. */
enum {
  CUL_OP_BATCH_INVARIANT = 1, /* the reduction order does not depend on M, batch or split */
  CUL_OP_PLAN_ONLY = 2,       /* check and plan, launch nothing: sets cul_last_workspace_bytes and cul_last_plan */
  CUL_OP_VALIDATE = 4         /* debug: index tensors are checked when the op runs; a bad one is a DEVICE_ERROR */
};

/* The head of every args struct. struct_size is the size of the whole args struct; another size than this library's
 * is refused (RANGE). The workspace is device memory of the stream's device, 256-byte aligned, free for the op's use
 * until the stream has passed it; ops that need none take NULL and 0. */
typedef struct cul_op_call {
  uint32_t struct_size;
  uint32_t flags;
  void* workspace;
  uint64_t workspace_bytes;
} cul_op_call;

/* After an op called with CUL_OP_PLAN_ONLY on this thread: the design, tile and split it would use, and why; "" where an op
 * has but one way. */
CUL_API const char* cul_last_plan(void);

/* Which kernels an operator has on cuda and simt: for compute capability 8.0 and newer, and of its own for 9.0. */
enum { CUL_KERNELS_80 = 1, CUL_KERNELS_90 = 2 };

typedef struct cul_op_info {
  uint32_t struct_size;
  uint32_t backends; /* bit i: backend i has it */
  uint32_t kernels;  /* CUL_KERNELS_*; 0 where neither cuda nor simt has it */
  uint32_t reserved0;
  const char* name;
  const char* family;
  const char* dtypes; /* of the principal operand, space separated */
} cul_op_info;

CUL_API int32_t cul_op_count(void);
CUL_API cul_status cul_op_get_info(int32_t index, cul_op_info* out);

#ifdef __cplusplus
}
#endif
#endif
