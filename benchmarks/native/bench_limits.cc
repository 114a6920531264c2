// What this machine's memory and multipliers can do, as one JSON object: the limits of the cpu benchmarks that are written in Python.
//   bench_limits [THREADS]
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <thread>

#include "timing.h"

int main(int argc, char** argv) {
  const int threads = argc > 1 ? std::atoi(argv[1]) : static_cast<int>(std::thread::hardware_concurrency());
  constexpr int64_t kBytes = int64_t{512} << 20;
  const auto memory = std::make_unique<uint64_t[]>(kBytes / sizeof(uint64_t));
  const double bandwidth = bench::read_bandwidth_gb_s(threads, memory.get(), kBytes);
  const bench::ArithmeticPeak peak = bench::arithmetic_peak(threads);
  std::printf("{\"threads\": %d, \"bandwidth_gb_s\": %.5g, \"f32_tflop_s\": %.5g, \"i16_tflop_s\": %.5g, \"bf16_tflop_s\": %.5g}\n", threads, bandwidth,
              peak.f32_gflop_s / 1e3, peak.i16_gop_s / 1e3, peak.bf16_gflop_s / 1e3);
  return 0;
}
