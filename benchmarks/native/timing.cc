#include "timing.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <thread>

namespace bench {
namespace {

using Clock = std::chrono::steady_clock;

double ms_since(Clock::time_point start) { return std::chrono::duration<double, std::milli>(Clock::now() - start).count(); }

// Eight sums keep enough loads in flight that memory, not the additions, sets the pace.
uint64_t sum(const uint64_t* words, size_t count) {
  uint64_t sums[8] = {};
  for (size_t i = 0; i + 8 <= count; i += 8)
    for (size_t j = 0; j < 8; ++j) sums[j] += words[i + j];
  uint64_t total = 0;
  for (const uint64_t s : sums) total += s;
  return total;
}

}  // namespace

void time_in_turn(std::vector<Contender>& contenders, int rounds, double seconds) {
  constexpr std::chrono::milliseconds kPause{50};
  std::vector<std::vector<double>> times(contenders.size());
  std::vector<int> calls(contenders.size());
  for (int round = 0; round < rounds; ++round) {
    for (size_t i = 0; i < contenders.size(); ++i) {
      std::this_thread::sleep_for(kPause);
      contenders[i].call(calls[i]++);
      const auto begin = Clock::now();
      for (int n = 0; n < 2 || ms_since(begin) < seconds * 1e3; ++n) {
        const auto start = Clock::now();
        contenders[i].call(calls[i]++);
        times[i].push_back(ms_since(start));
      }
    }
  }
  for (size_t i = 0; i < contenders.size(); ++i) {
    std::sort(times[i].begin(), times[i].end());
    const auto quantile = [&](double q) { return times[i][static_cast<size_t>(q * static_cast<double>(times[i].size() - 1) + 0.5)]; };
    contenders[i].timing = {quantile(0.5), quantile(0.1), quantile(0.9), static_cast<int>(times[i].size())};
  }
}

double read_bandwidth_gb_s(int threads, void* memory, int64_t bytes) {
  constexpr int kPasses = 8;
  auto* words = static_cast<uint64_t*>(memory);
  const size_t count = static_cast<size_t>(bytes) / sizeof(uint64_t);
  for (size_t i = 0; i < count; ++i) words[i] = i;
  static std::atomic<uint64_t> sink;  // keeps the sums
  double best = 0;
  for (int pass = 0; pass < kPasses; ++pass) {
    std::atomic<int> ready{0};
    std::atomic<bool> go{false};
    std::vector<std::thread> readers;
    const size_t share = count / static_cast<size_t>(threads);
    for (int t = 0; t < threads; ++t)
      readers.emplace_back([&, t] {
        ++ready;
        while (!go) std::this_thread::yield();
        sink += sum(words + share * static_cast<size_t>(t), share);
      });
    while (ready < threads) std::this_thread::yield();
    const auto start = Clock::now();
    go = true;
    for (auto& r : readers) r.join();
    best = std::max(best, static_cast<double>(share * static_cast<size_t>(threads)) * 8 / ms_since(start) / 1e6);
  }
  return best;
}

Row& Row::add(const std::string& name, const std::string& value) {
  fields_ += (fields_.empty() ? "\"" : ", \"") + name + "\": " + value;
  return *this;
}

Row& Row::text(const std::string& name, const std::string& value) {
  std::string quoted = "\"";
  for (const char c : value) {
    if (c == '"' || c == '\\') quoted += '\\';
    quoted += c;
  }
  return add(name, quoted + "\"");
}

Row& Row::number(const std::string& name, double value) {
  char digits[32];
  std::snprintf(digits, sizeof digits, "%.5g", value);
  return add(name, digits);
}

Row& Row::integer(const std::string& name, int64_t value) { return add(name, std::to_string(value)); }

Row& Row::timing(const std::string& prefix, const Timing& t) {
  number(prefix + "median_ms", t.median_ms);
  number(prefix + "p10_ms", t.p10_ms);
  number(prefix + "p90_ms", t.p90_ms);
  return integer(prefix + "repetitions", t.repetitions);
}

}  // namespace bench
