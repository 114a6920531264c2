// The device under test, its tensors, and how one row of the results comes about: checked, timed beside its peers, reported.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "culebra/gemm.h"
#include "device/numeric.h"
#include "peers.h"
#include "timing.h"

namespace bench {

inline constexpr cul_dtype kF32{CUL_FLOAT, 32, 1}, kF16{CUL_FLOAT, 16, 1}, kBf16{CUL_BFLOAT, 16, 1}, kU8{CUL_UINT, 8, 1};

// Ends the program with the library's own message.
void require(cul_status status);

struct Options {
  bool quick = false, full = false;
  int threads = 0;
  std::string commit, only;
  std::vector<int64_t> rows;  // instead of the table's
};

class Device {
 public:
  explicit Device(int threads);
  ~Device();
  Device(const Device&) = delete;

  // Enqueues with the workspace that the op asks for, and waits.
  template <class Args>
  void run(cul_status (*op)(cul_stream*, const Args*), Args& args) {
    args.call.struct_size = sizeof args;
    args.call.workspace = workspace_;
    args.call.workspace_bytes = workspace_bytes_;
    cul_status status = op(stream_, &args);
    if (status == CUL_WORKSPACE) {
      grow_workspace(cul_last_workspace_bytes());
      args.call.workspace = workspace_;
      args.call.workspace_bytes = workspace_bytes_;
      status = op(stream_, &args);
    }
    require(status);
    require(cul_stream_synchronize(stream_));
  }

  cul_device* handle() const { return device_; }
  const cul_device_info& info() const { return info_; }
  int threads() const { return info_.multiprocessors; }

 private:
  void grow_workspace(uint64_t bytes);

  cul_device* device_ = nullptr;
  cul_stream* stream_ = nullptr;
  cul_device_info info_{};
  void* workspace_ = nullptr;
  uint64_t workspace_bytes_ = 0;
};

// A compact matrix in device memory (the cpu's is host memory) and its descriptor.
class Matrix {
 public:
  Matrix(Device& device, cul_dtype type, std::vector<int64_t> shape);
  ~Matrix();
  Matrix(const Matrix&) = delete;

  const cul_tensor* tensor() const { return &tensor_; }
  void* data() const { return tensor_.data; }
  int64_t bytes() const { return bytes_; }
  float get(int64_t index) const;
  void set(int64_t index, float value);
  float operator()(int64_t row, int64_t column) const { return get(row * shape_[1] + column); }
  void fill_normal(std::mt19937& rng);

  const cul_dtype type;

 private:
  Device& device_;
  std::vector<int64_t> shape_;
  int64_t bytes_;
  cul_tensor tensor_;
};

const char* name_of(cul_dtype type);

// Copies of packed or dense weights: each call takes the next of as many as fill kRotatedBytes.
class Rotation {
 public:
  Rotation(Device& device, cul_dtype type, const std::vector<int64_t>& shape);
  Matrix& first() { return *copies_.front(); }
  void copy_first();  // into the others, once it is filled
  const cul_tensor* at(int call) const { return copies_[static_cast<size_t>(call) % copies_.size()]->tensor(); }

 private:
  std::vector<std::unique_ptr<Matrix>> copies_;
};

// The limits of the machine, measured in the same run.
struct Limits {
  double bandwidth_gb_s;
  ArithmeticPeak peak;
};

// What one row of the results is about.
struct Work {
  std::string op, operands;
  int64_t m;
  int64_t bytes;          // that must be read and written
  double peak_gop_s;      // of the arithmetic that the kernel does
};

// w(n, k), exactly as the weights are stored.
using Weight = std::function<double(int64_t n, int64_t k)>;
// Entry (row, column) of a matrix.
using Entry = std::function<double(int64_t row, int64_t column)>;

// One layer of a model: ops are timed on it one after the other, beside the same peers.
class Bench {
 public:
  Bench(Device& device, const Options& options, const Limits& limits, const PeerLibraries& libraries, const Layer& layer)
      : device(device), limits(limits), layer(layer), options_(options), libraries_(libraries) {}

  // The rows of a to time an op with: those of the table that fit the time budget.
  std::vector<int64_t> rows(bool all) const;
  bool wants(const std::string& op) const { return options_.only.empty() || options_.only == op; }

  // Compares a sample of the results with sums in double; ends the program beyond the contract's bound for c's type.
  void check(const std::string& op, int64_t m, int64_t n, int64_t k, const Entry& a, const Weight& w, const Matrix& c) const;
  // Times `call` and the peers in turn and prints the row.
  void report(const Work& work, const std::function<void(int)>& call, bool int4_peers);

  Device& device;
  const Limits& limits;
  const Layer& layer;

 private:
  const Options& options_;
  const PeerLibraries& libraries_;
  std::unique_ptr<LayerPeers> peers_;
};

}  // namespace bench
