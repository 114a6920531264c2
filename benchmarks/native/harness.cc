#include "harness.h"

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace bench {

using culebra::bfloat16_t;
using culebra::half_t;

void require(cul_status status) {
  if (status == CUL_OK) return;
  std::fprintf(stderr, "bench_gemm: %s: %s\n", cul_status_name(status), cul_last_error());
  std::exit(1);
}

Device::Device(int threads) {
  cul_device_options options{};
  options.struct_size = sizeof options;
  options.threads = threads;
  require(cul_device_open(CUL_BACKEND_CPU, 0, &options, &device_));
  require(cul_stream_create(device_, &stream_));
  info_.struct_size = sizeof info_;
  require(cul_device_get_info(device_, &info_));
}

Device::~Device() {
  if (workspace_) cul_memory_free(device_, workspace_);
  cul_stream_destroy(stream_);
  cul_device_close(device_);
}

void Device::grow_workspace(uint64_t bytes) {
  if (workspace_) require(cul_memory_free(device_, workspace_));
  require(cul_memory_alloc(device_, bytes, &workspace_));
  workspace_bytes_ = bytes;
}

// ------------------------------------------------------------------------------------------------------------ tensors

Matrix::Matrix(Device& device, cul_dtype type, std::vector<int64_t> shape) : type(type), device_(device), shape_(std::move(shape)) {
  bytes_ = type.bits / 8;
  for (const int64_t extent : shape_) bytes_ *= extent;
  void* data;
  require(cul_memory_alloc(device.handle(), static_cast<uint64_t>(bytes_), &data));
  tensor_ = {data, device.info().id, static_cast<int32_t>(shape_.size()), type, shape_.data(), nullptr, 0};
}

Matrix::~Matrix() { cul_memory_free(device_.handle(), tensor_.data); }

float Matrix::get(int64_t i) const {
  if (type.bits == 8 && type.code == CUL_UINT) return static_cast<const uint8_t*>(data())[i];
  if (type.bits == 32) return static_cast<const float*>(data())[i];
  if (type.code == CUL_BFLOAT) return culebra::to_float(static_cast<const bfloat16_t*>(data())[i]);
  return culebra::to_float(static_cast<const half_t*>(data())[i]);
}

void Matrix::set(int64_t i, float value) {
  if (type.bits == 8 && type.code == CUL_UINT) static_cast<uint8_t*>(data())[i] = static_cast<uint8_t>(value);
  else if (type.bits == 32) static_cast<float*>(data())[i] = value;
  else if (type.code == CUL_BFLOAT) static_cast<bfloat16_t*>(data())[i] = culebra::from_float<bfloat16_t>(value);
  else static_cast<half_t*>(data())[i] = culebra::from_float<half_t>(value);
}

void Matrix::fill_normal(std::mt19937& rng) {
  // A table of normal numbers, walked at random steps: millions of draws would take longer than the benchmark.
  std::normal_distribution<float> normal;
  std::vector<float> table(4099);
  for (float& x : table) x = normal(rng);
  size_t at = 0;
  for (int64_t i = 0; i < bytes_ / (type.bits / 8); ++i) {
    at += i % 64 == 0 ? rng() % 997 : 1;
    set(i, table[at % table.size()]);
  }
}

const char* name_of(cul_dtype type) { return type.bits == 32 ? "f32" : type.code == CUL_BFLOAT ? "bf16" : "f16"; }

Rotation::Rotation(Device& device, cul_dtype type, const std::vector<int64_t>& shape) {
  for (int64_t bytes = 0; bytes < kRotatedBytes; bytes += copies_.back()->bytes())
    copies_.push_back(std::make_unique<Matrix>(device, type, shape));
}

void Rotation::copy_first() {
  for (auto& copy : copies_)
    if (copy != copies_.front()) std::memcpy(copy->data(), first().data(), static_cast<size_t>(copy->bytes()));
}

// --------------------------------------------------------------------------------------------------------------- rows

std::vector<int64_t> Bench::rows(bool all) const {
  // What a row may cost: two calls in each of the rounds, of us and of peers several times slower.
  const double budget = options_.quick ? 0.1e12 : 1e12;
  std::vector<int64_t> rows;
  for (const int64_t m : !options_.rows.empty() ? options_.rows : all && !options_.quick ? kTokens : kFewTokens)
    if (!options_.rows.empty() || 2.0 * static_cast<double>(m) * static_cast<double>(layer.n) * static_cast<double>(layer.k) <= budget)
      rows.push_back(m);
  return rows;
}

void Bench::check(const std::string& op, int64_t m, int64_t n, int64_t k, const Entry& a, const Weight& w, const Matrix& c) const {
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
  if (const double ratio = std::sqrt(error / reference); !(ratio <= bound)) {
    std::fprintf(stderr, "bench_gemm: %s M %ld N %ld K %ld: rms ratio %.3g is beyond %.3g\n", op.c_str(), static_cast<long>(m),
                 static_cast<long>(n), static_cast<long>(k), ratio, bound);
    std::exit(1);
  }
}

void Bench::report(const Work& work, const std::function<void(int)>& call, bool int4_peers) {
  if (!peers_) peers_ = std::make_unique<LayerPeers>(libraries_, layer);
  std::vector<Contender> contenders{{"", call}};
  peers_->add(contenders, work.m, int4_peers);
  time_in_turn(contenders, options_.quick ? 2 : 5, options_.quick ? 0.05 : 0.2);

  const double operations = 2.0 * static_cast<double>(work.m) * static_cast<double>(layer.n) * static_cast<double>(layer.k);
  const double memory_ms = static_cast<double>(work.bytes) / limits.bandwidth_gb_s / 1e6;
  const double arithmetic_ms = operations / work.peak_gop_s / 1e6;
  const double limit_ms = std::max(memory_ms, arithmetic_ms);
  const Timing& ours = contenders.front().timing;
  Row row;
  row.text("op", work.op).text("operands", work.operands).text("model", layer.model).text("layer", layer.name);
  row.integer("m", work.m).integer("n", layer.n).integer("k", layer.k).timing("", ours);
  row.integer("bytes", work.bytes).number("operations", operations).number("limit_ms", limit_ms);
  row.text("limit", memory_ms >= arithmetic_ms ? "memory" : "arithmetic").number("fraction_of_limit", limit_ms / ours.median_ms);
  row.number("gb_s", static_cast<double>(work.bytes) / ours.median_ms / 1e6).number("gflop_s", operations / ours.median_ms / 1e6);
  for (size_t i = 1; i < contenders.size(); ++i) {
    const Contender& peer = contenders[i];
    row.timing(peer.name + " ", peer.timing).number(peer.name + " gflop_s", operations / peer.timing.median_ms / 1e6);
    row.number("speed_over " + peer.name, peer.timing.median_ms / ours.median_ms);
  }
  static bool first = true;
  std::printf("%s    %s", first ? "" : ",\n", row.json().c_str());
  std::fflush(stdout);
  first = false;
}

}  // namespace bench
