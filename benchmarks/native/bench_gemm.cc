// Times w4a16_gemm and gemm on the cpu through the C ABI, beside the limit that memory sets and beside OpenBLAS.
//   bench_gemm [--quick] [--threads N] [--commit TEXT]
// Prints one JSON object on standard output. Weights rotate over 256 MB; every result is checked before it is timed.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "culebra/gemm.h"
#include "device/numeric.h"
#include "openblas_peer.h"
#include "timing.h"

using culebra::bfloat16_t;
using culebra::from_float;
using culebra::half_t;
using culebra::to_float;

namespace {

constexpr int64_t kRotatedBytes = int64_t{256} << 20;
constexpr cul_dtype kF32{CUL_FLOAT, 32, 1}, kF16{CUL_FLOAT, 16, 1}, kBf16{CUL_BFLOAT, 16, 1}, kU8{CUL_UINT, 8, 1};

void require(cul_status status) {
  if (status == CUL_OK) return;
  std::fprintf(stderr, "bench_gemm: %s: %s\n", cul_status_name(status), cul_last_error());
  std::exit(1);
}

struct Options {
  bool quick = false;
  int threads = 0;
  std::string commit;
};

// A device, its stream, and memory that lives as long as they do.
class Bench {
 public:
  explicit Bench(const Options& options) : quick(options.quick) {
    cul_device_options device_options{};
    device_options.struct_size = sizeof device_options;
    device_options.threads = options.threads;
    require(cul_device_open(CUL_BACKEND_CPU, 0, &device_options, &device));
    require(cul_stream_create(device, &stream));
    info.struct_size = sizeof info;
    require(cul_device_get_info(device, &info));
  }
  ~Bench() {
    workspace_ = Buffer();
    cul_stream_destroy(stream);
    cul_device_close(device);
  }

  // Enqueues with the workspace that the op asks for, and waits.
  template <class Args>
  void run(cul_status (*op)(cul_stream*, const Args*), Args& args) {
    args.call.struct_size = sizeof args;
    args.call.workspace = workspace_.data();
    args.call.workspace_bytes = workspace_.bytes();
    cul_status status = op(stream, &args);
    if (status == CUL_WORKSPACE) {
      workspace_ = Buffer(*this, cul_last_workspace_bytes());
      args.call.workspace = workspace_.data();
      args.call.workspace_bytes = workspace_.bytes();
      status = op(stream, &args);
    }
    require(status);
    require(cul_stream_synchronize(stream));
  }

  bench::Timing time(const std::function<void(int)>& f) const { return bench::time_calls(5, quick ? 0.1 : 1.0, f); }

  class Buffer {
   public:
    Buffer() = default;
    Buffer(Bench& bench, uint64_t bytes) : device_(bench.device), bytes_(bytes) {
      require(cul_memory_alloc(device_, bytes, &data_));
    }
    Buffer(Buffer&& other) noexcept { *this = std::move(other); }
    Buffer& operator=(Buffer&& other) noexcept {
      std::swap(device_, other.device_);
      std::swap(bytes_, other.bytes_);
      std::swap(data_, other.data_);
      return *this;
    }
    ~Buffer() {
      if (device_) cul_memory_free(device_, data_);
    }
    void* data() const { return data_; }
    uint64_t bytes() const { return bytes_; }

   private:
    cul_device* device_ = nullptr;
    uint64_t bytes_ = 0;
    void* data_ = nullptr;
  };

  const bool quick;
  cul_device* device = nullptr;
  cul_stream* stream = nullptr;
  cul_device_info info{};

 private:
  Buffer workspace_;
};

size_t bytes_of(cul_dtype type) { return type.bits / 8u; }

float value_of(cul_dtype type, const void* data, int64_t i) {
  if (type.bits == 32) return static_cast<const float*>(data)[i];
  if (type.code == CUL_BFLOAT) return to_float(static_cast<const bfloat16_t*>(data)[i]);
  return to_float(static_cast<const half_t*>(data)[i]);
}

void set_value(cul_dtype type, void* data, int64_t i, float value) {
  if (type.bits == 32) static_cast<float*>(data)[i] = value;
  else if (type.code == CUL_BFLOAT) static_cast<bfloat16_t*>(data)[i] = from_float<bfloat16_t>(value);
  else static_cast<half_t*>(data)[i] = from_float<half_t>(value);
}

const char* name_of(cul_dtype type) { return type.bits == 32 ? "f32" : type.code == CUL_BFLOAT ? "bf16" : "f16"; }

// A compact matrix in device memory (the cpu's is host memory) and its descriptor.
class Matrix {
 public:
  Matrix(Bench& bench, cul_dtype type, std::vector<int64_t> shape) : type(type), shape_(std::move(shape)) {
    int64_t elements = 1;
    for (const int64_t extent : shape_) elements *= extent;
    buffer_ = Bench::Buffer(bench, static_cast<uint64_t>(elements) * bytes_of(type));
    tensor_ = {buffer_.data(), bench.info.id, static_cast<int32_t>(shape_.size()), type, shape_.data(), nullptr, 0};
  }
  Matrix(const Matrix&) = delete;

  const cul_tensor* tensor() const { return &tensor_; }
  void* data() const { return buffer_.data(); }
  int64_t bytes() const { return static_cast<int64_t>(buffer_.bytes()); }
  float operator()(int64_t row, int64_t column) const { return value_of(type, data(), row * shape_[1] + column); }
  void fill_normal(std::mt19937& rng) {
    // A table of normal numbers, walked at random steps: millions of draws would take longer than the benchmark.
    std::normal_distribution<float> normal;
    std::vector<float> table(4099);
    for (float& x : table) x = normal(rng);
    size_t at = 0;
    for (int64_t i = 0; i < bytes() / static_cast<int64_t>(bytes_of(type)); ++i) {
      at += i % 64 == 0 ? rng() % 997 : 1;
      set_value(type, data(), i, table[at % table.size()]);
    }
  }

  const cul_dtype type;

 private:
  std::vector<int64_t> shape_;
  Bench::Buffer buffer_;
  cul_tensor tensor_;
};

using Weight = std::function<double(int64_t n, int64_t k)>;

// Compares a sample of c's entries with sums in double; ends the program beyond the contract's bound.
void check(const char* op, const Matrix& a, const Weight& w, const Matrix& c, int64_t m, int64_t n, int64_t k) {
  const double bound = c.type.bits == 32 ? 1e-5 : c.type.code == CUL_BFLOAT ? 5e-3 : 2e-3;
  std::mt19937 rng(5);
  double error = 0, reference = 0;
  for (int sample = 0; sample < 200; ++sample) {
    const auto row = static_cast<int64_t>(rng()) % m, column = static_cast<int64_t>(rng()) % n;
    double want = 0;
    for (int64_t i = 0; i < k; ++i) want += a(row, i) * w(column, i);
    error += (c(row, column) - want) * (c(row, column) - want);
    reference += want * want;
  }
  const double ratio = std::sqrt(error / reference);
  if (ratio <= bound) return;
  std::fprintf(stderr, "bench_gemm: %s M %ld N %ld K %ld: rms ratio %.3g is beyond %.3g\n", op, static_cast<long>(m),
               static_cast<long>(n), static_cast<long>(k), ratio, bound);
  std::exit(1);
}

struct Limits {
  double bandwidth_gb_s;
  const bench::OpenBlas& peer;
};

void report(Bench& b, const Limits& limits, const char* op, const char* dtype, int64_t m, int64_t n, int64_t k, int64_t bytes,
            const bench::Timing& ours, const bench::Timing* peer) {
  const double limit_ms = static_cast<double>(bytes) / limits.bandwidth_gb_s / 1e6;
  const double gflop = 2e-9 * static_cast<double>(m) * static_cast<double>(n) * static_cast<double>(k);
  bench::Row row;
  row.text("op", op).text("dtype", dtype).integer("m", m).integer("n", n).integer("k", k).integer("threads", b.info.multiprocessors);
  row.timing("", ours).integer("bytes", bytes).number("limit_ms", limit_ms).number("fraction_of_bandwidth", limit_ms / ours.median_ms);
  row.number("gflop_s", gflop / ours.median_ms * 1e3);
  if (peer) {
    row.timing("openblas_f32_", *peer).number("openblas_f32_gflop_s", gflop / peer->median_ms * 1e3);
    row.number("speed_over_openblas_f32", peer->median_ms / ours.median_ms);
  }
  static bool first = true;
  std::printf("%s    %s", first ? "" : ",\n", row.json().c_str());
  std::fflush(stdout);
  first = false;
}

// OpenBLAS on f32 weights of the same shape, also rotating.
class Peer {
 public:
  Peer(const Limits& limits, int64_t n, int64_t k) : blas_(limits.peer), n_(n), k_(k) {
    if (!blas_.found()) return;
    const int64_t size = n * k;
    for (int64_t bytes = 0; bytes < kRotatedBytes; bytes += size * 4) {
      b_.emplace_back(static_cast<size_t>(size));
      for (size_t i = 0; i < b_.back().size(); ++i) b_.back()[i] = static_cast<float>(i % 31) - 15.0f;
    }
  }
  const bench::Timing* time(Bench& bench, int64_t m) {
    if (!blas_.found()) return nullptr;
    const std::vector<float> a(static_cast<size_t>(m * k_), 0.5f);
    std::vector<float> c(static_cast<size_t>(m * n_));
    timing_ = bench.time([&](int i) {
      blas_.product(static_cast<int>(m), static_cast<int>(n_), static_cast<int>(k_), a.data(), b_[static_cast<size_t>(i) % b_.size()].data(), c.data());
    });
    return &timing_;
  }

 private:
  const bench::OpenBlas& blas_;
  int64_t n_, k_;
  std::vector<std::vector<float>> b_;
  bench::Timing timing_{};
};

void bench_w4a16(Bench& b, const Limits& limits, Peer& peer, int64_t n, int64_t k, int64_t group, bool zeros,
                 cul_dtype type, const std::vector<int64_t>& rows) {
  std::mt19937 rng(1);
  const int64_t groups = k / group;
  Matrix q(b, kU8, {n, k}), scales(b, kF16, {n, groups}), zero_points(b, kU8, {n, groups});
  auto* codes = static_cast<uint8_t*>(q.data());
  for (int64_t i = 0; i < n * k; i += 4) {
    const uint32_t bits = rng();
    for (int64_t j = 0; j < 4; ++j) codes[i + j] = static_cast<uint8_t>(bits >> (4 * j) & 15);
  }
  for (int64_t i = 0; i < n * groups; ++i) {
    set_value(kF16, scales.data(), i, 0.002f + 0.00001f * static_cast<float>(rng() % 256));
    static_cast<uint8_t*>(zero_points.data())[i] = static_cast<uint8_t>(zeros ? rng() % 16 : 8);
  }
  cul_checkpoint checkpoint{};
  checkpoint.struct_size = sizeof checkpoint;
  checkpoint.format = CUL_FORMAT_PLAIN;
  checkpoint.bits = 4;
  checkpoint.group = static_cast<int32_t>(group);
  checkpoint.n = n;
  checkpoint.k = k;
  checkpoint.qweight = q.tensor();
  checkpoint.scales = scales.tensor();
  checkpoint.zeros = zeros ? zero_points.tensor() : nullptr;
  cul_pack_plan_result plan{};
  plan.struct_size = sizeof plan;
  require(cul_pack_plan(b.device, &checkpoint, &plan, nullptr, nullptr));

  Matrix packed_scales(b, kF16, {plan.groups, plan.n_padded}), packed_zeros(b, kU8, {plan.groups, plan.n_padded});
  std::vector<std::unique_ptr<Matrix>> packed;
  for (int64_t bytes = 0; bytes < kRotatedBytes; bytes += plan.packed_bytes) {
    packed.push_back(std::make_unique<Matrix>(b, kU8, std::vector<int64_t>{plan.packed_bytes}));
    if (packed.size() > 1) {
      std::memcpy(packed.back()->data(), packed.front()->data(), static_cast<size_t>(plan.packed_bytes));
      continue;
    }
    cul_pack_weights_args args{};
    args.checkpoint = &checkpoint;
    args.packed = packed.back()->tensor();
    args.packed_scales = packed_scales.tensor();
    args.packed_zeros = plan.symmetric ? nullptr : packed_zeros.tensor();
    args.packed_group = plan.group;
    b.run(cul_pack_weights, args);
  }

  const Weight w = [&](int64_t row, int64_t column) {
    const int64_t at = row * groups + column / group;
    const int zero = static_cast<const uint8_t*>(zero_points.data())[at];
    return (codes[row * k + column] - zero) * double{value_of(kF16, scales.data(), at)};
  };
  for (const int64_t m : rows) {
    Matrix a(b, type, {m, k}), c(b, type, {m, n});
    a.fill_normal(rng);
    cul_w4a16_gemm_args args{};
    args.a = a.tensor();
    args.packed_scales = packed_scales.tensor();
    args.packed_zeros = plan.symmetric ? nullptr : packed_zeros.tensor();
    args.c = c.tensor();
    args.n = n;
    args.k = k;
    args.packed_group = plan.group;
    args.packed = packed.front()->tensor();
    b.run(cul_w4a16_gemm, args);
    check("w4a16_gemm", a, w, c, m, n, k);
    const bench::Timing ours = b.time([&](int i) {
      args.packed = packed[static_cast<size_t>(i) % packed.size()]->tensor();
      b.run(cul_w4a16_gemm, args);
    });
    const int64_t bytes = plan.packed_bytes + packed_scales.bytes() + (zeros ? packed_zeros.bytes() : 0) + a.bytes() + c.bytes();
    const std::string label = std::string(name_of(type)) + " x int4 g" + std::to_string(group) + (zeros ? " with zero points" : "");
    report(b, limits, "w4a16_gemm", label.c_str(), m, n, k, bytes, ours, peer.time(b, m));
  }
}

void bench_gemm(Bench& b, const Limits& limits, Peer& peer, int64_t n, int64_t k, cul_dtype type, const std::vector<int64_t>& rows) {
  std::mt19937 rng(2);
  std::vector<std::unique_ptr<Matrix>> weights;
  for (int64_t bytes = 0; bytes < kRotatedBytes; bytes += weights.back()->bytes()) {
    weights.push_back(std::make_unique<Matrix>(b, type, std::vector<int64_t>{n, k}));
    weights.back()->fill_normal(rng);
  }
  const Weight w = [&](int64_t row, int64_t column) { return double{(*weights.front())(row, column)}; };
  for (const int64_t m : rows) {
    Matrix a(b, type, {m, k}), c(b, type, {m, n});
    a.fill_normal(rng);
    cul_gemm_args args{};
    args.a = a.tensor();
    args.c = c.tensor();
    args.b = weights.front()->tensor();
    b.run(cul_gemm, args);
    check("gemm", a, w, c, m, n, k);
    const bench::Timing ours = b.time([&](int i) {
      args.b = weights[static_cast<size_t>(i) % weights.size()]->tensor();
      b.run(cul_gemm, args);
    });
    const int64_t bytes = weights.front()->bytes() + a.bytes() + c.bytes();
    report(b, limits, "gemm", name_of(type), m, n, k, bytes, ours, peer.time(b, m));
  }
}

Options parse(int argc, char** argv) {
  Options options;
  for (int i = 1; i < argc; ++i) {
    const std::string argument = argv[i];
    if (argument == "--quick") options.quick = true;
    else if (argument == "--threads" && i + 1 < argc) options.threads = std::atoi(argv[++i]);
    else if (argument == "--commit" && i + 1 < argc) options.commit = argv[++i];
    else {
      std::fprintf(stderr, "usage: bench_gemm [--quick] [--threads N] [--commit TEXT]\n");
      std::exit(2);
    }
  }
  return options;
}

}  // namespace

int main(int argc, char** argv) {
  const Options options = parse(argc, argv);
  Bench b(options);
  const int threads = b.info.multiprocessors;
  const bench::OpenBlas blas(threads);
  const double bandwidth = bench::read_bandwidth_gb_s(threads);
  const Limits limits{bandwidth, blas};
  bench::Row head;
  head.text("benchmark", "gemm").text("commit", options.commit).text("cpu", b.info.name).text("instruction_set", b.info.detail);
  head.integer("threads", threads).number("read_bandwidth_gb_s", bandwidth).text("peer", blas.found() ? blas.name() : "none");
  const std::string fields = head.json();
  std::printf("%s,\n  \"rows\": [\n", fields.substr(0, fields.size() - 1).c_str());

  const std::vector<int64_t> rows = options.quick ? std::vector<int64_t>{1, 16, 512} : std::vector<int64_t>{1, 2, 4, 8, 16, 32, 64, 512};
  {
    Peer peer(limits, 4096, 14336);
    bench_w4a16(b, limits, peer, 4096, 14336, 128, false, kF16, rows);
    bench_w4a16(b, limits, peer, 4096, 14336, 32, true, kBf16, {1, 512});
    bench_gemm(b, limits, peer, 4096, 14336, kF32, {1, 512});
    bench_gemm(b, limits, peer, 4096, 14336, kBf16, {1, 512});
  }
  {
    Peer peer(limits, 14336, 4096);
    bench_w4a16(b, limits, peer, 14336, 4096, 128, false, kF16, rows);
  }
  // Other work on the machine would show here.
  std::printf("\n  ],\n  \"read_bandwidth_after_gb_s\": %.5g}\n", bench::read_bandwidth_gb_s(threads));
  return 0;
}
