// What the tests of the products with e4m3 operands share.
#pragma once
#include <functional>

#include "gemm_harness.h"
#include "simd_targets.h"

namespace culebra::testing {

// Runs f on the backend; on the cpu once for every instruction set that this processor has.
inline void on_backend(int32_t backend, const std::function<void(Context&)>& f) {
  Context context(backend);
  if (backend != CUL_BACKEND_CPU) return f(context);
  on_every_target([&] { f(context); });
}

inline double tolerance(cul_dtype type) {
  return dtype_of(type) == DType::f32 ? 1e-5 : dtype_of(type) == DType::f16 ? 2e-3 : 5e-3;
}

// Runs the call twice on a poisoned `out`: within the tolerance of `reference`, nothing beside it touched, the same bits again.
template <class Args>
void expect_product(Context& context, cul_status (*op)(cul_stream*, const Args*), Args& args, DeviceTensor& out,
                    const std::function<double(int64_t, int64_t)>& reference, uint32_t flags = 0) {
  std::vector<std::byte> once;
  for (int run = 0; run < 2; ++run) {
    out.fill([](int64_t, int64_t) { return std::nan(""); });
    ASSERT_EQ(context.run(op, args, flags), CUL_OK) << cul_last_error();
    out.download();
    if (run == 0) once = out.image;
  }
  EXPECT_EQ(out.image, once) << "another run gave other bits";
  EXPECT_TRUE(out.guards_untouched());
  double difference = 0, norm = 0;
  for (int64_t r = 0; r < out.rows(); ++r)
    for (int64_t c = 0; c < out.columns(); ++c) {
      const double want = reference(r, c), got = out.get(r, c);
      difference += (got - want) * (got - want);
      norm += want * want;
    }
  EXPECT_LE(std::sqrt(difference / std::max(norm, 1e-300)), tolerance(out.tensor.dtype)) << context.plan;
}

}  // namespace culebra::testing
