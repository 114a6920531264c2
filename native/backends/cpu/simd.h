// The instruction sets that vector code is compiled for. Include this before hwy/foreach_target.h or hwy/highway.h.
//
// On x86-64 three: SSE4 as the baseline (every processor since 2011; below it Highway has single lanes only), AVX2 and AVX-512. Files
// whose inner loops are integer dot products define CULEBRA_SIMD_INTEGER_DOT first: they get AVX-512 with VNNI and its siblings (AVX3_DL), too.
// On ARM NEON: vectors of unknown length cannot be members of arrays, as register tiles are.
#pragma once

#if defined(__x86_64__)
#define HWY_BASELINE_TARGETS HWY_SSE4
#endif
#ifdef CULEBRA_SIMD_INTEGER_DOT
#define HWY_WANT_AVX3_DL
#endif
#define HWY_DISABLED_TARGETS (HWY_SVE | HWY_SVE2 | HWY_SVE_256 | HWY_SVE2_128 | HWY_RVV)
