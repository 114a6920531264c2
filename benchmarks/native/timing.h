// What every native benchmark needs: repeated timing, the machine's read bandwidth, JSON rows.
#pragma once
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace bench {

struct Timing {
  double median_ms, p10_ms, p90_ms;
  int repetitions;
};

// Warms up, then calls f(i), i = 0, 1, ... until both `repetitions` calls and `seconds` have passed (100 times as many calls at most).
Timing time_calls(int repetitions, double seconds, const std::function<void(int)>& f);

// GB/s at which `threads` threads read memory far larger than the caches, each its own part: the best of several passes.
double read_bandwidth_gb_s(int threads);

// One flat JSON object, its fields in the order in which they were added.
class Row {
 public:
  Row& text(const char* name, const std::string& value);
  Row& number(const char* name, double value);
  Row& integer(const char* name, int64_t value);
  Row& timing(const std::string& prefix, const Timing& t);
  std::string json() const { return "{" + fields_ + "}"; }

 private:
  Row& add(const std::string& name, const std::string& value);
  std::string fields_;
};

}  // namespace bench
