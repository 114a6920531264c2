// What the multipliers can do when nothing has to be fetched. The vectors are those of the library's own kernels.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <thread>
#include <vector>

#include "timing.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "arithmetic_peak.cc"
#include "backends/cpu/simd.h"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

#ifndef CULEBRA_BENCHMARK_NUMBERS
#define CULEBRA_BENCHMARK_NUMBERS
namespace bench {
enum class Numbers { f32, i16, bf16 };
}  // namespace bench
#endif

HWY_BEFORE_NAMESPACE();
#if HWY_TARGET == HWY_AVX3_DL
HWY_PUSH_ATTRIBUTES("avx512vnni,avx512bf16")  // Highway asks the processor for the first, but not the compiler; for the second we do
#elif HWY_TARGET == HWY_AVX3
HWY_PUSH_ATTRIBUTES("avx512bf16")
#endif
namespace bench::HWY_NAMESPACE {
namespace {
namespace hn = hwy::HWY_NAMESPACE;

// Independent sums hide the latency of a multiplication at two a cycle.
inline constexpr int kSums = 12;

double f32_operations(int64_t steps) {
  const hn::ScalableTag<float> d;
  const auto x = hn::Set(d, 0.5f), y = hn::Set(d, 1e-9f);
  auto s0 = hn::Zero(d), s1 = s0, s2 = s0, s3 = s0, s4 = s0, s5 = s0, s6 = s0, s7 = s0, s8 = s0, s9 = s0, s10 = s0, s11 = s0;
  for (int64_t i = 0; i < steps; ++i) {
    s0 = hn::MulAdd(x, y, s0), s1 = hn::MulAdd(x, y, s1), s2 = hn::MulAdd(x, y, s2), s3 = hn::MulAdd(x, y, s3);
    s4 = hn::MulAdd(x, y, s4), s5 = hn::MulAdd(x, y, s5), s6 = hn::MulAdd(x, y, s6), s7 = hn::MulAdd(x, y, s7);
    s8 = hn::MulAdd(x, y, s8), s9 = hn::MulAdd(x, y, s9), s10 = hn::MulAdd(x, y, s10), s11 = hn::MulAdd(x, y, s11);
  }
  const auto all = hn::Add(hn::Add(hn::Add(s0, s1), hn::Add(s2, s3)), hn::Add(hn::Add(s4, s5), hn::Add(s6, s7)));
  volatile float kept = hn::GetLane(hn::Add(all, hn::Add(hn::Add(s8, s9), hn::Add(s10, s11))));
  static_cast<void>(kept);
  return static_cast<double>(steps) * kSums * 2.0 * static_cast<double>(hn::Lanes(d));
}

template <class I32, class I16>
HWY_INLINE I32 dot_pairs(I32 sum, I16 y) {
  const I16 x = hn::BitCast(hn::DFromV<I16>(), sum);  // not a constant: a product of two would leave the loop
#if HWY_TARGET == HWY_AVX3_DL
  return I32{_mm512_dpwssd_epi32(sum.raw, x.raw, y.raw)};
#else
  I32 unused = hn::Zero(hn::DFromV<I32>());
  return hn::ReorderWidenMulAccumulate(hn::DFromV<I32>(), x, y, sum, unused);
#endif
}

double i16_operations(int64_t steps) {
  const hn::ScalableTag<int32_t> d;
  const hn::Repartition<int16_t, decltype(d)> d16;
  const auto y = hn::Set(d16, -3);
  auto s0 = hn::Set(d, 1), s1 = s0, s2 = s0, s3 = s0, s4 = s0, s5 = s0, s6 = s0, s7 = s0, s8 = s0, s9 = s0, s10 = s0, s11 = s0;
  for (int64_t i = 0; i < steps; ++i) {
    s0 = dot_pairs(s0, y), s1 = dot_pairs(s1, y), s2 = dot_pairs(s2, y), s3 = dot_pairs(s3, y);
    s4 = dot_pairs(s4, y), s5 = dot_pairs(s5, y), s6 = dot_pairs(s6, y), s7 = dot_pairs(s7, y);
    s8 = dot_pairs(s8, y), s9 = dot_pairs(s9, y), s10 = dot_pairs(s10, y), s11 = dot_pairs(s11, y);
  }
  const auto all = hn::Add(hn::Add(hn::Add(s0, s1), hn::Add(s2, s3)), hn::Add(hn::Add(s4, s5), hn::Add(s6, s7)));
  volatile int32_t kept = hn::GetLane(hn::Add(all, hn::Add(hn::Add(s8, s9), hn::Add(s10, s11))));
  static_cast<void>(kept);
  return static_cast<double>(steps) * kSums * 2.0 * static_cast<double>(hn::Lanes(d16));
}

// Pairs of bf16 numbers into f32 sums; 0 where the processor has no such instruction.
double bf16_operations(int64_t steps) {
#if HWY_TARGET == HWY_AVX3_DL || HWY_TARGET == HWY_AVX3
  if (!__builtin_cpu_supports("avx512bf16")) return 0;
  const __m512bh x = (__m512bh)_mm512_set1_epi16(0x3f00), y = (__m512bh)_mm512_set1_epi16(0x3080);
  __m512 s[kSums];
  for (auto& sum : s) sum = _mm512_setzero_ps();
  for (int64_t i = 0; i < steps; ++i)
#pragma GCC unroll 16
    for (int j = 0; j < kSums; ++j) s[j] = _mm512_dpbf16_ps(s[j], x, y);
  for (int j = 1; j < kSums; ++j) s[0] = _mm512_add_ps(s[0], s[j]);
  volatile float kept = _mm512_cvtss_f32(s[0]);
  static_cast<void>(kept);
  return static_cast<double>(steps) * kSums * 2.0 * 32;
#else
  static_cast<void>(steps);
  return 0;
#endif
}

}  // namespace

double operations(Numbers numbers, int64_t steps) {
  return numbers == Numbers::i16 ? i16_operations(steps) : numbers == Numbers::bf16 ? bf16_operations(steps) : f32_operations(steps);
}

}  // namespace bench::HWY_NAMESPACE
#if HWY_TARGET == HWY_AVX3_DL || HWY_TARGET == HWY_AVX3
HWY_POP_ATTRIBUTES
#endif
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace bench {
HWY_EXPORT(operations);

namespace {

double peak(int threads, Numbers numbers) {
  constexpr int64_t kSteps = 20'000'000;
  double best = 0;
  for (int pass = 0; pass < 3; ++pass) {
    std::vector<std::thread> workers;
    std::vector<double> done(static_cast<size_t>(threads));
    std::atomic<int> ready{0};
    std::atomic<bool> go{false};
    for (int t = 0; t < threads; ++t)
      workers.emplace_back([&, t] {
        ++ready;
        while (!go) std::this_thread::yield();
        done[static_cast<size_t>(t)] = HWY_DYNAMIC_DISPATCH(operations)(numbers, kSteps);
      });
    while (ready < threads) std::this_thread::yield();
    const auto start = std::chrono::steady_clock::now();
    go = true;
    for (auto& w : workers) w.join();
    double sum = 0;
    for (const double d : done) sum += d;
    best = std::max(best, sum / std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count() / 1e9);
  }
  return best;
}

}  // namespace

ArithmeticPeak arithmetic_peak(int threads) { return {peak(threads, Numbers::f32), peak(threads, Numbers::i16), peak(threads, Numbers::bf16)}; }

}  // namespace bench
#endif
