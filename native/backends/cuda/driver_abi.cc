// Our prototypes of the driver against the toolkit's header; compiled where there is one.
#include <cuda.h>

#include "backends/cuda/driver.h"

namespace culebra::cuda {
namespace {

static_assert(sizeof(LaunchConfig) == sizeof(CUlaunchConfig));
static_assert(offsetof(LaunchConfig, shared_bytes) == offsetof(CUlaunchConfig, sharedMemBytes));
static_assert(offsetof(LaunchConfig, stream) == offsetof(CUlaunchConfig, hStream));
static_assert(offsetof(LaunchConfig, attributes) == offsetof(CUlaunchConfig, attrs));
static_assert(offsetof(LaunchConfig, attribute_count) == offsetof(CUlaunchConfig, numAttrs));
static_assert(sizeof(LaunchAttribute) == sizeof(CUlaunchAttribute));
static_assert(offsetof(LaunchAttribute, value) == offsetof(CUlaunchAttribute, value));

#define CUL_SAME(ours, theirs) static_assert(static_cast<int>(ours) == static_cast<int>(theirs))
CUL_SAME(kInvalidValue, CUDA_ERROR_INVALID_VALUE);
CUL_SAME(kOutOfMemory, CUDA_ERROR_OUT_OF_MEMORY);
CUL_SAME(kInvalidImage, CUDA_ERROR_INVALID_IMAGE);
CUL_SAME(kNoBinaryForGpu, CUDA_ERROR_NO_BINARY_FOR_GPU);
CUL_SAME(kInvalidPtx, CUDA_ERROR_INVALID_PTX);
CUL_SAME(kJitCompilerNotFound, CUDA_ERROR_JIT_COMPILER_NOT_FOUND);
CUL_SAME(kUnsupportedPtxVersion, CUDA_ERROR_UNSUPPORTED_PTX_VERSION);
CUL_SAME(kJitCompilationDisabled, CUDA_ERROR_JIT_COMPILATION_DISABLED);
CUL_SAME(kInvalidSource, CUDA_ERROR_INVALID_SOURCE);
CUL_SAME(kNotFound, CUDA_ERROR_NOT_FOUND);
CUL_SAME(kLaunchOutOfResources, CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES);
CUL_SAME(kCooperativeLaunchTooLarge, CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE);
CUL_SAME(kNotPermitted, CUDA_ERROR_NOT_PERMITTED);
CUL_SAME(kNotSupported, CUDA_ERROR_NOT_SUPPORTED);
CUL_SAME(kStreamCaptureFirst, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
CUL_SAME(kStreamCaptureLast, CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD);
CUL_SAME(kInvalidClusterSize, CUDA_ERROR_INVALID_CLUSTER_SIZE);
CUL_SAME(kJitInfoLog, CU_JIT_INFO_LOG_BUFFER);
CUL_SAME(kJitInfoLogBytes, CU_JIT_INFO_LOG_BUFFER_SIZE_BYTES);
CUL_SAME(kJitErrorLog, CU_JIT_ERROR_LOG_BUFFER);
CUL_SAME(kJitErrorLogBytes, CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES);
CUL_SAME(kMaxThreadsPerBlock, CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK);
CUL_SAME(kStaticSharedBytes, CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES);
CUL_SAME(kLocalBytes, CU_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES);
CUL_SAME(kRegisters, CU_FUNC_ATTRIBUTE_NUM_REGS);
CUL_SAME(kMaxDynamicSharedBytes, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES);
CUL_SAME(kCooperative, CU_LAUNCH_ATTRIBUTE_COOPERATIVE);
CUL_SAME(kClusterDimension, CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION);
CUL_SAME(kProgrammaticStreamSerialization, CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION);
#undef CUL_SAME

}  // namespace
}  // namespace culebra::cuda
