// The fence: no exception passes it.
#pragma once
#include <new>

#include "abi/status.h"

namespace culebra {

// What the calling thread can ask about its last call.
struct LastCall {
  std::string error;
  std::string plan;
  uint64_t workspace_bytes = 0;
};
LastCall& last_call();

cul_status record_failure(cul_status status, const char* text) noexcept;

template <class F>
cul_status fence(F&& body) noexcept {
  try {
    body();
    return CUL_OK;
  } catch (const Refusal& e) {
    return record_failure(e.status(), e.what());
  } catch (const DeviceError& e) {
    return record_failure(CUL_DEVICE_ERROR, e.what());
  } catch (const std::bad_alloc&) {
    return record_failure(CUL_OUT_OF_MEMORY, "out of host memory");
  } catch (const std::exception& e) {
    return record_failure(CUL_INTERNAL, e.what());
  } catch (...) {
    return record_failure(CUL_INTERNAL, "unknown failure");
  }
}

}  // namespace culebra
