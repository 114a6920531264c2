// Tensor maps are encoded by the driver, which is found at run time: the library never links it.
#include <cuda.h>
#include <cudaTypedefs.h>

#include "abi/status.h"
#include "device/tensor_map.h"

namespace culebra::cuda {
namespace {

using Encode = PFN_cuTensorMapEncodeTiled_v12000;

Encode find_encode() {
  void* function = nullptr;
  cudaDriverEntryPointQueryResult found = cudaDriverEntryPointSymbolNotFound;
  const cudaError_t error =
      cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, 12000, cudaEnableDefault, &found);
  if (error == cudaSuccess && found == cudaDriverEntryPointSuccess && function)
    return reinterpret_cast<Encode>(function);
  (void)cudaGetLastError();
  throw Refusal(CUL_UNSUPPORTED, std::string("cuda: the driver offers no cuTensorMapEncodeTiled of CUDA 12.0") +
                                     (error == cudaSuccess ? "" : std::string(": ") + cudaGetErrorString(error)));
}

}  // namespace

TensorMap make_tensor_map(const TensorMapRequest& request) {
  if (const std::string why = refusal(request); !why.empty()) throw Refusal(CUL_INTERNAL, "cuda: tensor map: " + why);
  static const Encode encode = find_encode();
  static_assert(sizeof(TensorMap) == sizeof(CUtensorMap) && alignof(TensorMap) >= alignof(CUtensorMap));
  cuuint64_t extent[3], stride[2];
  cuuint32_t box[3], every[3] = {1, 1, 1};
  for (int i = 0; i < request.rank; ++i) {
    extent[i] = static_cast<cuuint64_t>(request.extent[i]);
    box[i] = static_cast<cuuint32_t>(request.box[i]);
    if (i) stride[i - 1] = static_cast<cuuint64_t>(request.stride_bytes[i - 1]);
  }
  TensorMap map;
  const CUresult result =
      encode(reinterpret_cast<CUtensorMap*>(&map),
             request.element_bytes == 1 ? CU_TENSOR_MAP_DATA_TYPE_UINT8 : CU_TENSOR_MAP_DATA_TYPE_UINT16,
             static_cast<cuuint32_t>(request.rank), const_cast<void*>(request.data), extent, stride, box, every,
             CU_TENSOR_MAP_INTERLEAVE_NONE,
             request.swizzle == Swizzle::none ? CU_TENSOR_MAP_SWIZZLE_NONE : CU_TENSOR_MAP_SWIZZLE_128B,
             CU_TENSOR_MAP_L2_PROMOTION_L2_128B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (result != CUDA_SUCCESS)
    throw Refusal(CUL_INTERNAL, "cuda: cuTensorMapEncodeTiled answers " + std::to_string(static_cast<int>(result)));
  return map;
}

}  // namespace culebra::cuda
