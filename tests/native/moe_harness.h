// Experts' matrices on a device, in each storage, and their exact numbers.
#pragma once
#include <memory>

#include "culebra/moe.h"
#include "gemm_f8_harness.h"

namespace culebra::testing {

// [e, n, k] on a device, `pad` elements between rows; fill gives an element's value.
class Tensor3 {
 public:
  template <class F>
  Tensor3(Context& context, cul_dtype type, int64_t e, int64_t n, int64_t k, int64_t pad, F fill)
      : flat_(context, type, {e * n, k}, pad), shape_{e, n, k}, strides_{n * (k + pad), k + pad, 1} {
    flat_.fill(fill);
    tensor = flat_.tensor;
    tensor.ndim = 3, tensor.shape = shape_, tensor.strides = strides_;
  }
  double get(int64_t e, int64_t n, int64_t k) const { return flat_.get(e * shape_[1] + n, k); }

  cul_tensor tensor{};

 private:
  DeviceTensor flat_;
  int64_t shape_[3], strides_[3];
};

class ExpertTensors {
 public:
  // half: of the activations. own_half: scales have the same type; otherwise the other, as a checkpoint's may.
  ExpertTensors(Context& context, int32_t storage, cul_dtype half, int64_t experts, int64_t n, int64_t k, int32_t group, bool zeros, int64_t pad,
                std::mt19937& rng, bool own_half = false)
      : storage_(storage), group_(group < 0 ? std::max<int64_t>(k, 1) : group) {
    const double size = 1 / std::sqrt(static_cast<double>(std::max<int64_t>(k, 1)));
    std::normal_distribution<double> normal;
    std::uniform_real_distribution<double> uniform(1, 2);
    const auto byte = [&](auto, auto) { return static_cast<double>(rng() % 256); };
    const int64_t groups = group < 0 ? 1 : (k + group - 1) / group;
    const auto make = [&](cul_dtype type, int64_t rows, int64_t columns, int64_t gap, auto fill) {
      return std::make_unique<Tensor3>(context, type, experts, rows, columns, gap, fill);
    };
    if (storage == CUL_EXPERTS_HALF) {
      data_ = make(half, n, k, pad, [&](auto, auto) { return normal(rng) * size; });
    } else if (storage == CUL_EXPERTS_F8) {
      data_ = make(kF8, n, k, pad, [&](auto, auto) { return normal(rng) * 50; });
      scales_ = make(kF32, (n + 127) / 128, (k + 127) / 128, 1, [&](auto, auto) { return uniform(rng) * size / 50; });
    } else {
      data_ = make(kU8, n, k / 2, pad, byte);
      scales_ = make((half.code == CUL_BFLOAT) == own_half ? kBf16 : kF16, n, groups, 3, [&](auto, auto) { return uniform(rng) * size / 5; });
      if (zeros) zeros_ = make(kU8, n / 2, groups, 1, byte);
    }
  }
  const cul_tensor* data() const { return &data_->tensor; }
  const cul_tensor* scales() const { return scales_ ? &scales_->tensor : nullptr; }
  const cul_tensor* zeros() const { return zeros_ ? &zeros_->tensor : nullptr; }
  double number(int64_t e, int64_t n, int64_t k) const {
    if (storage_ == CUL_EXPERTS_HALF) return data_->get(e, n, k);
    if (storage_ == CUL_EXPERTS_F8) return data_->get(e, n, k) * scales_->get(e, n / 128, k / 128);
    const int q = static_cast<int>(data_->get(e, n, k / 2)) >> (k % 2 * 4) & 15;
    const int zero = zeros_ ? static_cast<int>(zeros_->get(e, n / 2, k / group_)) >> (n % 2 * 4) & 15 : 8;
    return (q - zero) * scales_->get(e, n, k / group_);
  }

 private:
  int32_t storage_;
  int64_t group_;
  std::unique_ptr<Tensor3> data_, scales_, zeros_;
};

}  // namespace culebra::testing
