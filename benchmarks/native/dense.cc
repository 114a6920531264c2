// gemm in f32 and bf16.
#include "families.h"

namespace bench {
namespace {

void bench_gemm(Bench& b, cul_dtype type) {
  std::mt19937 rng(2);
  const int64_t n = b.layer.n, k = b.layer.k;
  Rotation weights(b.device, type, {n, k});
  weights.first().fill_normal(rng);
  weights.copy_first();
  for (const int64_t m : b.rows(true)) {
    Matrix a(b.device, type, {m, k}), c(b.device, type, {m, n});
    a.fill_normal(rng);
    cul_gemm_args args{};
    args.a = a.tensor();
    args.c = c.tensor();
    const auto call = [&](int i) {
      args.b = weights.at(i);
      b.device.run(cul_gemm, args);
    };
    call(0);
    const Matrix& w = weights.first();
    b.check("gemm", m, n, k, std::cref(a), std::cref(w), c);
    b.report({"gemm", name_of(type), m, w.bytes() + a.bytes() + c.bytes(), b.limits.peak.f32_gflop_s}, call, false);
  }
}

}  // namespace

void bench_dense(Bench& b) {
  if (!b.wants("gemm")) return;
  bench_gemm(b, kF32);
  bench_gemm(b, kBf16);
}

}  // namespace bench
