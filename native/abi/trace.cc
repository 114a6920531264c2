#include "abi/trace.h"

#if CULEBRA_HAS_CUDA && __has_include(<nvtx3/nvToolsExt.h>)
#include <nvtx3/nvToolsExt.h>

namespace culebra {
namespace {

nvtxDomainHandle_t domain() {
  static const nvtxDomainHandle_t handle = nvtxDomainCreateA("culebra");
  return handle;
}

}  // namespace

TraceRange::TraceRange(const char* name) noexcept {
  nvtxEventAttributes_t attributes{};
  attributes.version = NVTX_VERSION;
  attributes.size = NVTX_EVENT_ATTRIB_STRUCT_SIZE;
  attributes.messageType = NVTX_MESSAGE_TYPE_ASCII;
  attributes.message.ascii = name;
  nvtxDomainRangePushEx(domain(), &attributes);
}
TraceRange::~TraceRange() { nvtxDomainRangePop(domain()); }

}  // namespace culebra

#else

namespace culebra {

TraceRange::TraceRange(const char*) noexcept {}
TraceRange::~TraceRange() = default;

}  // namespace culebra

#endif
