// The instruction sets that vector code is compiled for. Include this before hwy/foreach_target.h or hwy/highway.h.
//
// On x86-64 four: the baseline of the compiler's flags, AVX2, AVX-512 and AVX-512 with VNNI (AVX3_DL, for the integer dot
// products of the quantized matrix products). SSSE3 and SSE4 are left out: no processor that has them but not AVX2 is
// worth two more compilations of every file.
#pragma once

#define HWY_WANT_AVX3_DL
#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_SSE4)
