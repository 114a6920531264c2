// What the exported functions do first with what they are given.
#pragma once
#include "abi/fence.h"
#include "backends/backend.h"

namespace culebra {

template <class T>
T* need(T* pointer, const char* function, const char* name) {
  if (!pointer) refuse(CUL_NULL_POINTER, "%s: %s is null", function, name);
  return pointer;
}

template <class T>
void check_size(const T* s, const char* function) {
  if (s->struct_size != sizeof(T))
    refuse(CUL_RANGE, "%s: struct_size is %u; this library's struct has %zu bytes", function, s->struct_size, sizeof(T));
}

inline Device& device_of(cul_device* d, const char* function) {
  Device& device = *Device::from(need(d, function, "device"));
  device.require_healthy();
  device.enter();
  return device;
}

inline Stream& stream_of(cul_stream* s, const char* function) {
  Stream& stream = *Stream::from(need(s, function, "stream"));
  stream.device().require_healthy();
  stream.device().enter();
  return stream;
}

inline void same_device(const Device& a, const Device& b, const char* function) {
  if (&a != &b) refuse(CUL_DEVICE, "%s: the handles belong to different devices", function);
}

}  // namespace culebra
