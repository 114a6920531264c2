// The ways a call can fail inside the library. None of these leaves it: abi/fence.h turns them into a status and a text.
#pragma once
#include <cstdint>
#include <exception>
#include <stdexcept>
#include <string>

#include "culebra/culebra.h"

namespace culebra {

// A call that is refused before anything is launched.
class Refusal : public std::exception {
 public:
  Refusal(cul_status status, std::string text) : status_(status), text_(std::move(text)) {}
  cul_status status() const { return status_; }
  const char* what() const noexcept override { return text_.c_str(); }

 private:
  cul_status status_;
  std::string text_;
};

// Work that failed on the device: a kernel fault, a driver error. The device stays failed.
class DeviceError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// Of an extent or index, for %lld.
inline long long ll(int64_t n) { return n; }

// printf into a std::string.
std::string format(const char* fmt, ...) __attribute__((format(printf, 1, 2)));

[[noreturn]] void refuse(cul_status status, const char* fmt, ...) __attribute__((format(printf, 2, 3)));

}  // namespace culebra
