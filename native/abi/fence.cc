#include "abi/fence.h"

#include <cstdarg>
#include <cstdio>

namespace culebra {
namespace {

std::string vformat(const char* fmt, va_list args) {
  va_list copy;
  va_copy(copy, args);
  const int length = std::vsnprintf(nullptr, 0, fmt, copy);
  va_end(copy);
  std::string text(length > 0 ? static_cast<size_t>(length) : 0, '\0');
  if (length > 0) std::vsnprintf(text.data(), text.size() + 1, fmt, args);
  return text;
}

}  // namespace

std::string format(const char* fmt, ...) {
  va_list args;
  va_start(args, fmt);
  std::string text = vformat(fmt, args);
  va_end(args);
  return text;
}

void refuse(cul_status status, const char* fmt, ...) {
  va_list args;
  va_start(args, fmt);
  std::string text = vformat(fmt, args);
  va_end(args);
  throw Refusal(status, std::move(text));
}

LastCall& last_call() {
  static thread_local LastCall call;
  return call;
}

cul_status record_failure(cul_status status, const char* text) noexcept {
  try {
    last_call().error = text;
  } catch (...) {
    last_call().error.clear();  // not even room for the text: the status still tells
  }
  return status;
}

}  // namespace culebra
