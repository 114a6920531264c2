// What every native benchmark needs: timing in turn, the machine's limits, JSON rows.
#pragma once
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace bench {

struct Timing {
  double median_ms = 0, p10_ms = 0, p90_ms = 0;
  int repetitions = 0;
};

// One of the ways to do the same work. call(i), i = 0, 1, ...: i says which of the rotated operands to take.
struct Contender {
  std::string name;
  std::function<void(int)> call;
  Timing timing{};
};

// Times the contenders in turn, so that what else the machine does meets all of them: in each of `rounds` rounds each one runs,
// after a call to warm up, for `seconds` or two calls. A pause before each lets the threads of the one before go to sleep.
void time_in_turn(std::vector<Contender>& contenders, int rounds, double seconds);

// GB/s at which `threads` threads read memory, which should be far larger than the caches, each its own part: the best of several passes.
double read_bandwidth_gb_s(int threads, void* memory, int64_t bytes);

// 10^9 operations a second of `threads` threads that multiply and add in registers, a product and its sum being two:
// f32, pairs of 16-bit integers into 32-bit sums, and pairs of bf16 numbers into f32 ones (0 where there is no instruction for it).
struct ArithmeticPeak {
  double f32_gflop_s, i16_gop_s, bf16_gflop_s;
};
ArithmeticPeak arithmetic_peak(int threads);

// One flat JSON object, its fields in the order in which they were added.
class Row {
 public:
  Row& text(const std::string& name, const std::string& value);
  Row& number(const std::string& name, double value);
  Row& integer(const std::string& name, int64_t value);
  Row& timing(const std::string& prefix, const Timing& t);
  std::string json() const { return "{" + fields_ + "}"; }

 private:
  Row& add(const std::string& name, const std::string& value);
  std::string fields_;
};

}  // namespace bench
