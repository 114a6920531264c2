// wgmma: a warpgroup (four warps from a multiple of four) multiplies asynchronously, with B and perhaps A in shared memory. sm_90a
// alone; registers_acquire and registers_release too.
//
//   wgmma_fence();                                            // registers written so far may be used
//   wgmma<half_t, 128>(d, a, wgmma_descriptor(tile), false);  // false: d = a b; otherwise d += a b
//   wgmma<half_t, 128>(d, a2, wgmma_advance(b, 32));
//   wgmma_commit();                                           // closes a group; groups may be empty
//   wgmma_wait<0>();                                          // all but the newest group are complete, for this warp
//
// D[64, N] = A[64, K] B[K, N] + D, K = 32 bytes: 16 for f16 and bf16, 32 for e4m3 and s8 (int8_t; sums in int). Warp w of the group
// has rows 16 w to 16 w + 15 of A in registers and of D. With lane = 4 g + t, the picture of mma.h:
//
//   a[0] row g, a[1] row g + 8, of k = 2t, 2t+1 (8 bit: 4t to 4t+3);  a[2], a[3] the same rows, k + 8 (8 bit: + 16)
//   d[4j + i]: column 8j + 2t + i % 2, row g for i < 2, g + 8 otherwise
//
// Between issue and wait neither d nor a is read or written, and a is not the memory of another variable either: arrays that wgmma
// reads live until the wait. Shared operands stay as they are until then. Shared memory written by ordinary stores needs
// fence_async_proxy (mbarrier.h); what copies of bulk_copy.h and tensor_map.h brought needs none.
//
// What is read or reused after a wait, wgmma_hold keeps in place until then, where other work of the thread lies between issue and wait:
// the compiler believes that a product is complete, and its operands free, once it is issued.
//
// Shared operands are K-major: row after row of A, column after column of B ([n][k]).
//   wgmma_descriptor: rows of 128 bytes, 16-byte piece p of row r at 128 r + 16 (p ^ r % 8), the tile aligned to 1024 bytes: what
//     tensor_copy_2d with Swizzle::bytes_128 writes for boxes of 128 bytes a row. wgmma_advance(descriptor, 32) is the next k step.
//   wgmma_descriptor_plain: blocks of 8 rows x 16 bytes, each 128 contiguous bytes; the next along k and the next 8 rows lie
//     k_stride and row_stride bytes on.
//
// B of 16-bit types may also lie row after row ([k][n]), as values do in attention: wgmma_transposed, with A in registers.
//   wgmma_descriptor_transposed: 64 columns to a row of 128 bytes, rows swizzled as above, 8 k in 1024 bytes; the next 64 columns lie
//     column_stride bytes on. wgmma_advance(descriptor, 2048) is the next k step.
#pragma once

#include <type_traits>

#include "device/portable.h"

namespace culebra::CUL_DEVICE_NS {

// What the sums of a product of T's are.
template <class T>
using wgmma_sum_t = std::conditional_t<std::is_same_v<T, int8_t>, int, float>;

CUL_DEVICE_FN constexpr uint64_t wgmma_descriptor_plain(uint32_t address, uint32_t k_stride, uint32_t row_stride) {
  return static_cast<uint64_t>(address >> 4 & 0x3fffu) | static_cast<uint64_t>(k_stride >> 4) << 16 |
         static_cast<uint64_t>(row_stride >> 4) << 32;
}
CUL_DEVICE_FN constexpr uint64_t wgmma_descriptor(uint32_t address) {
  constexpr uint64_t kSwizzle128 = uint64_t{1} << 62;
  return wgmma_descriptor_plain(address, 16, 1024) | kSwizzle128;  // the k stride is not used, by convention one
}
CUL_DEVICE_FN constexpr uint64_t wgmma_descriptor_transposed(uint32_t address, uint32_t column_stride) {
  constexpr uint64_t kSwizzle128 = uint64_t{1} << 62;
  return wgmma_descriptor_plain(address, column_stride, 1024) | kSwizzle128;
}
// The operand `bytes` further on, a multiple of 16, within the 128 bytes of a swizzled row.
CUL_DEVICE_FN constexpr uint64_t wgmma_advance(uint64_t descriptor, uint32_t bytes) {
  return descriptor + (bytes >> 4);
}

#if CUL_EMULATED

namespace detail {
template <class T>
inline constexpr ProductType product_type = std::is_same_v<T, half_t>       ? ProductType::f16
                                            : std::is_same_v<T, bfloat16_t> ? ProductType::bf16
                                            : std::is_same_v<T, int8_t>     ? ProductType::s8
                                                                            : ProductType::e4m3;
template <int N>
inline constexpr bool product_columns = N == 8 || N == 16 || N == 32 || N == 64 || N == 128 || N == 256;
}  // namespace detail

template <class T, int N>
void wgmma(wgmma_sum_t<T> (&d)[N / 2], const uint32_t (&a)[4], uint64_t b, bool accumulate = true,
           Here here = Here::current()) {
  static_assert(detail::product_columns<N>);
  warpgroup_product(detail::product_type<T>, N, d, a, 0, b, false, accumulate, here);
}
template <class T, int N>
void wgmma_transposed(float (&d)[N / 2], const uint32_t (&a)[4], uint64_t b, bool accumulate = true, Here here = Here::current()) {
  static_assert(detail::product_columns<N> && sizeof(T) == 2);
  warpgroup_product(detail::product_type<T>, N, d, a, 0, b, true, accumulate, here);
}
template <class T, int N>
void wgmma(wgmma_sum_t<T> (&d)[N / 2], uint64_t a, uint64_t b, bool accumulate = true, Here here = Here::current()) {
  static_assert(detail::product_columns<N>);
  warpgroup_product(detail::product_type<T>, N, d, nullptr, a, b, false, accumulate, here);
}
template <int kGroups>
void wgmma_wait(Here here = Here::current()) {
  wgmma_wait(kGroups, here);
}
template <class R, int N>
void wgmma_hold(R (&)[N]) {}
template <int N>
void wgmma_hold(uint32_t (&)[N][4]) {}
template <int kCount>
void registers_acquire(Here here = Here::current()) {
  static_assert(kCount >= 24 && kCount <= 256 && kCount % 8 == 0);
  reallocate_registers(kCount, here);
}
template <int kCount>
void registers_release(Here here = Here::current()) {
  static_assert(kCount >= 24 && kCount <= 256 && kCount % 8 == 0);
  reallocate_registers(kCount, here);
}

#elif CUL_HAS_SM90A

CUL_DEVICE_FN void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
CUL_DEVICE_FN void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <int kGroups>
CUL_DEVICE_FN void wgmma_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kGroups) : "memory");
}

template <int N>
CUL_DEVICE_FN void wgmma_hold(float (&d)[N]) {
#pragma unroll
  for (int i = 0; i < N; ++i) asm volatile("" : "+f"(d[i])::"memory");
}
template <int N>
CUL_DEVICE_FN void wgmma_hold(int (&d)[N]) {
#pragma unroll
  for (int i = 0; i < N; ++i) asm volatile("" : "+r"(d[i])::"memory");
}
template <int N>
CUL_DEVICE_FN void wgmma_hold(uint32_t (&a)[N][4]) {
#pragma unroll
  for (int i = 0; i < 4 * N; ++i) asm volatile("" : "+r"(a[i / 4][i % 4])::"memory");
}

// Registers of each thread from here on, 24 to 256 in steps of 8: one warpgroup gives up what another takes. All warps of a warpgroup
// call it. The kernel has __launch_bounds__(threads, 1), and the roles are the branches of one if.
template <int kCount>
CUL_DEVICE_FN void registers_acquire() {
  static_assert(kCount >= 24 && kCount <= 256 && kCount % 8 == 0);
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kCount));
}
template <int kCount>
CUL_DEVICE_FN void registers_release() {
  static_assert(kCount >= 24 && kCount <= 256 && kCount % 8 == 0);
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kCount));
}

namespace detail {

template <class T, int N>
struct Wgmma;

// The accumulators as operands %0 to %(N/2 - 1), and as "+f"(d[0]), ...
#define CUL_TEN(t) \
  "%" #t "0, %" #t "1, %" #t "2, %" #t "3, %" #t "4, %" #t "5, %" #t "6, %" #t "7, %" #t "8, %" #t "9, "
#define CUL_D4 "%0, %1, %2, %3"
#define CUL_D8 CUL_D4 ", %4, %5, %6, %7"
#define CUL_D16 CUL_TEN() "%10, %11, %12, %13, %14, %15"
#define CUL_D32 CUL_TEN() CUL_TEN(1) CUL_TEN(2) "%30, %31"
#define CUL_D64 CUL_TEN() CUL_TEN(1) CUL_TEN(2) CUL_TEN(3) CUL_TEN(4) CUL_TEN(5) "%60, %61, %62, %63"
#define CUL_D128                                                                                                  \
  CUL_TEN() CUL_TEN(1) CUL_TEN(2) CUL_TEN(3) CUL_TEN(4) CUL_TEN(5) CUL_TEN(6) CUL_TEN(7) CUL_TEN(8) CUL_TEN(9)    \
  CUL_TEN(10) CUL_TEN(11) "%120, %121, %122, %123, %124, %125, %126, %127"
#define CUL_OUT4(c, i) c(d[i]), c(d[i + 1]), c(d[i + 2]), c(d[i + 3])
#define CUL_OUT8(c, i) CUL_OUT4(c, i), CUL_OUT4(c, i + 4)
#define CUL_OUT16(c, i) CUL_OUT8(c, i), CUL_OUT8(c, i + 8)
#define CUL_OUT32(c, i) CUL_OUT16(c, i), CUL_OUT16(c, i + 16)
#define CUL_OUT64(c, i) CUL_OUT32(c, i), CUL_OUT32(c, i + 32)
#define CUL_OUT128(c, i) CUL_OUT64(c, i), CUL_OUT64(c, i + 64)

// n0 to n5 are the numbers of the operands behind the accumulators. What follows the predicate: signs of A and B, and for 16-bit
// types whether operands in shared memory are transposed.
#define CUL_WGMMA(T, types, c, end_registers, end_transposed, end_shared, N, count, n0, n1, n2, n3, n4, n5)          \
  template <>                                                                                                        \
  struct Wgmma<T, N> {                                                                                               \
    static CUL_DEVICE_FN void run(wgmma_sum_t<T> (&d)[count], const uint32_t (&a)[4], uint64_t b, int accumulate) {  \
      asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %" #n5 ", 0;\nwgmma.mma_async.sync.aligned.m64n" #N types       \
                   " {" CUL_D##count "}, {%" #n0 ", %" #n1 ", %" #n2 ", %" #n3 "}, %" #n4 ", p" end_registers ";\n}" \
                   : CUL_OUT##count(c, 0)                                                                            \
                   : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(accumulate));                           \
    }                                                                                                                \
    static CUL_DEVICE_FN void run_transposed(wgmma_sum_t<T> (&d)[count], const uint32_t (&a)[4], uint64_t b,         \
                                             int accumulate) {                                                      \
      asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %" #n5 ", 0;\nwgmma.mma_async.sync.aligned.m64n" #N types       \
                   " {" CUL_D##count "}, {%" #n0 ", %" #n1 ", %" #n2 ", %" #n3 "}, %" #n4 ", p" end_transposed ";\n}" \
                   : CUL_OUT##count(c, 0)                                                                            \
                   : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(accumulate));                           \
    }                                                                                                                \
    static CUL_DEVICE_FN void run(wgmma_sum_t<T> (&d)[count], uint64_t a, uint64_t b, int accumulate) {              \
      asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %" #n2 ", 0;\nwgmma.mma_async.sync.aligned.m64n" #N types       \
                   " {" CUL_D##count "}, %" #n0 ", %" #n1 ", p" end_shared ";\n}"                                    \
                   : CUL_OUT##count(c, 0)                                                                            \
                   : "l"(a), "l"(b), "r"(accumulate));                                                               \
    }                                                                                                                \
  };
#define CUL_WGMMA_TYPE(T, types, c, end_registers, end_transposed, end_shared)                       \
  CUL_WGMMA(T, types, c, end_registers, end_transposed, end_shared, 8, 4, 4, 5, 6, 7, 8, 9)          \
  CUL_WGMMA(T, types, c, end_registers, end_transposed, end_shared, 16, 8, 8, 9, 10, 11, 12, 13)     \
  CUL_WGMMA(T, types, c, end_registers, end_transposed, end_shared, 32, 16, 16, 17, 18, 19, 20, 21)  \
  CUL_WGMMA(T, types, c, end_registers, end_transposed, end_shared, 64, 32, 32, 33, 34, 35, 36, 37)  \
  CUL_WGMMA(T, types, c, end_registers, end_transposed, end_shared, 128, 64, 64, 65, 66, 67, 68, 69) \
  CUL_WGMMA(T, types, c, end_registers, end_transposed, end_shared, 256, 128, 128, 129, 130, 131, 132, 133)
CUL_WGMMA_TYPE(half_t, "k16.f32.f16.f16", "+f", ", 1, 1, 0", ", 1, 1, 1", ", 1, 1, 0, 0")
CUL_WGMMA_TYPE(bfloat16_t, "k16.f32.bf16.bf16", "+f", ", 1, 1, 0", ", 1, 1, 1", ", 1, 1, 0, 0")
CUL_WGMMA_TYPE(float8_e4m3_t, "k32.f32.e4m3.e4m3", "+f", ", 1, 1", ", 1, 1", ", 1, 1")
CUL_WGMMA_TYPE(int8_t, "k32.s32.s8.s8", "+r", "", "", "")
#undef CUL_WGMMA_TYPE
#undef CUL_WGMMA
#undef CUL_OUT128
#undef CUL_OUT64
#undef CUL_OUT32
#undef CUL_OUT16
#undef CUL_OUT8
#undef CUL_OUT4
#undef CUL_D128
#undef CUL_D64
#undef CUL_D32
#undef CUL_D16
#undef CUL_D8
#undef CUL_D4
#undef CUL_TEN

}  // namespace detail

template <class T, int N>
CUL_DEVICE_FN void wgmma(wgmma_sum_t<T> (&d)[N / 2], const uint32_t (&a)[4], uint64_t b, bool accumulate = true) {
  detail::Wgmma<T, N>::run(d, a, b, accumulate);
}
template <class T, int N>
CUL_DEVICE_FN void wgmma_transposed(float (&d)[N / 2], const uint32_t (&a)[4], uint64_t b, bool accumulate = true) {
  static_assert(sizeof(T) == 2);
  detail::Wgmma<T, N>::run_transposed(d, a, b, accumulate);
}
template <class T, int N>
CUL_DEVICE_FN void wgmma(wgmma_sum_t<T> (&d)[N / 2], uint64_t a, uint64_t b, bool accumulate = true) {
  detail::Wgmma<T, N>::run(d, a, b, accumulate);
}

#endif

}  // namespace culebra::CUL_DEVICE_NS
