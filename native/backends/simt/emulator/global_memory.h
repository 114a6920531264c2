// What the emulation knows of device memory. The owner of the memory reports each allocation; kernels may touch nothing else.
#pragma once

#include <cstddef>

namespace culebra::simt {

// `bytes` from `address` on are device memory with undefined contents. Callable from any thread, as all of these.
void register_global(void* address, size_t bytes);
void unregister_global(void* address);

// The host wrote these bytes (copy, fill). Addresses outside any allocation are ignored.
void mark_initialized(const void* address, size_t bytes);
// They are undefined again, as when a pool hands memory to a new owner.
void mark_uninitialized(const void* address, size_t bytes);

}  // namespace culebra::simt
