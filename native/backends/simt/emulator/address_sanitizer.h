// AddressSanitizer's manual interface where it is on; nothing elsewhere.
#pragma once

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#define CUL_ASAN_POISON(address, bytes) __asan_poison_memory_region(address, bytes)
#define CUL_ASAN_UNPOISON(address, bytes) __asan_unpoison_memory_region(address, bytes)
#else
#define CUL_ASAN_POISON(address, bytes) static_cast<void>(0)
#define CUL_ASAN_UNPOISON(address, bytes) static_cast<void>(0)
#endif
