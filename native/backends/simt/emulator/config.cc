#include "backends/simt/emulator/config.h"

#include <cstdlib>
#include <cstring>
#include <mutex>

namespace culebra::simt {
namespace {

bool read_number(const char* variable, uint64_t& value) {
  const char* text = std::getenv(variable);
  if (!text || !*text) return false;
  char* end = nullptr;
  const uint64_t number = std::strtoull(text, &end, 0);
  if (*end) return false;
  value = number;
  return true;
}

Config from_environment() {
  Config config;
  if (const char* text = std::getenv("CULEBRA_SIMT_SCHEDULE")) {
    if (!std::strcmp(text, "random")) config.schedule = Schedule::random;
    if (!std::strcmp(text, "reverse")) config.schedule = Schedule::reverse;
  }
  uint64_t number = 0;
  read_number("CULEBRA_SIMT_SEED", config.seed);
  if (read_number("CULEBRA_SIMT_RESIDENT_BLOCKS", number) && number >= 1 && number <= config.max_resident_blocks)
    config.resident_blocks = static_cast<unsigned>(number);
  if (read_number("CULEBRA_SIMT_RACES", number)) config.races = number != 0;
  return config;
}

std::mutex mutex;
Config& setting() {
  static Config config = from_environment();
  return config;
}

}  // namespace

Config configuration() {
  std::lock_guard lock(mutex);
  return setting();
}

void configure(const Config& config) {
  std::lock_guard lock(mutex);
  setting() = config;
}

}  // namespace culebra::simt
