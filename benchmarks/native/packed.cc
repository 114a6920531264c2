// Products of half activations with packed weights.
#include "families.h"

namespace bench {
namespace {

// A checkpoint in the plain format with random codes, and its packed copies.
class Packed {
 public:
  Packed(Device& device, const Layer& layer, int bits, int64_t group, bool zeros)
      : k_(layer.k), group_(group), groups_(layer.k / group), codes_(device, kU8, {layer.n, layer.k}),
        scales_(device, kF16, {layer.n, groups_}), zeros_(device, kU8, {layer.n, groups_}) {
    std::mt19937 rng(1);
    const uint32_t mask = (1u << bits) - 1;
    auto* codes = static_cast<uint8_t*>(codes_.data());
    for (int64_t i = 0; i < layer.n * k_; i += 4)
      for (uint32_t j = 0, random = rng(); j < 4; ++j) codes[i + j] = static_cast<uint8_t>(random >> (8 * j) & mask);
    for (int64_t i = 0; i < layer.n * groups_; ++i) {
      scales_.set(i, 0.002f + 0.00001f * static_cast<float>(rng() % 256));
      zeros_.set(i, static_cast<float>(zeros ? rng() & mask : 1u << (bits - 1)));
    }
    cul_checkpoint checkpoint{};
    checkpoint.struct_size = sizeof checkpoint;
    checkpoint.format = CUL_FORMAT_PLAIN;
    checkpoint.bits = bits;
    checkpoint.group = static_cast<int32_t>(group);
    checkpoint.n = layer.n;
    checkpoint.k = k_;
    checkpoint.qweight = codes_.tensor();
    checkpoint.scales = scales_.tensor();
    checkpoint.zeros = zeros ? zeros_.tensor() : nullptr;
    plan.struct_size = sizeof plan;
    require(cul_pack_plan(device.handle(), &checkpoint, &plan, nullptr, nullptr));
    packed = std::make_unique<Rotation>(device, kU8, std::vector<int64_t>{plan.packed_bytes});
    scales = std::make_unique<Matrix>(device, kF16, std::vector<int64_t>{plan.groups, plan.scale_columns});
    if (!plan.symmetric) zero_points = std::make_unique<Matrix>(device, kU8, std::vector<int64_t>{plan.groups, plan.n_padded});
    cul_pack_weights_args args{};
    args.checkpoint = &checkpoint;
    args.packed = packed->first().tensor();
    args.packed_scales = scales->tensor();
    args.packed_zeros = zero_points ? zero_points->tensor() : nullptr;
    args.packed_group = plan.group;
    device.run(cul_pack_weights, args);
    packed->copy_first();
  }

  double operator()(int64_t row, int64_t column) const {
    const int64_t at = row * groups_ + column / group_;
    return (codes_.get(row * k_ + column) - zeros_.get(at)) * double{scales_.get(at)};
  }
  int64_t bytes() const { return plan.packed_bytes + scales->bytes() + (zero_points ? zero_points->bytes() : 0); }

  cul_pack_plan_result plan{};
  std::unique_ptr<Rotation> packed;
  std::unique_ptr<Matrix> scales, zero_points;

 private:
  int64_t k_, group_, groups_;
  Matrix codes_, scales_, zeros_;
};

void bench_w4a16(Bench& b, cul_dtype type, int64_t group, bool zeros, bool principal) {
  const int64_t n = b.layer.n, k = b.layer.k;
  Packed w(b.device, b.layer, 4, group, zeros);
  std::mt19937 rng(2);
  for (const int64_t m : b.rows(principal)) {
    Matrix a(b.device, type, {m, k}), c(b.device, type, {m, n});
    a.fill_normal(rng);
    cul_w4a16_gemm_args args{};
    args.a = a.tensor();
    args.packed_scales = w.scales->tensor();
    args.packed_zeros = w.zero_points ? w.zero_points->tensor() : nullptr;
    args.c = c.tensor();
    args.n = n;
    args.k = k;
    args.packed_group = w.plan.group;
    const auto call = [&](int i) {
      args.packed = w.packed->at(i);
      b.device.run(cul_w4a16_gemm, args);
    };
    call(0);
    b.check("w4a16_gemm", m, n, k, std::cref(a), std::cref(w), c);
    const std::string operands = std::string(name_of(type)) + " x int4 g" + std::to_string(group) + (zeros ? " with zero points" : "");
    b.report({"w4a16_gemm", operands, m, w.bytes() + a.bytes() + c.bytes(), b.limits.peak.i16_gop_s}, call, principal);
  }
}

}  // namespace

void bench_packed(Bench& b) {
  if (b.wants("w4a16_gemm")) {
    bench_w4a16(b, kF16, 128, false, true);
    if (b.layer.k % 32 == 0) bench_w4a16(b, kBf16, 32, true, false);
  }
}

}  // namespace bench
