// Tensors of any rank on a device, and attention in double, for the tests of the attention kernels.
#pragma once
#include <functional>
#include <limits>

#include "culebra/attention.h"
#include "gemm_harness.h"

namespace culebra::testing {

inline constexpr double kInfinite = std::numeric_limits<double>::infinity();

// Compact but for `pad` elements behind each row; element i in row-major order.
class Field {
 public:
  Field(Context& context, cul_dtype type, std::vector<int64_t> shape, const std::function<double(int64_t)>& value = nullptr, int64_t pad = 0)
      : shape_(std::move(shape)), columns_(shape_.back()), storage_(context, type, {rows_of(shape_), columns_}, pad) {
    strides_.assign(shape_.size(), 1);
    int64_t step = columns_ + pad;
    for (size_t i = shape_.size() - 1; i-- > 0;) {
      strides_[i] = step;
      step *= shape_[i];
    }
    if (value) fill(value);
  }
  int64_t size() const { return rows_of(shape_) * columns_; }
  double operator[](int64_t i) const { return storage_.get(i / columns_, i % columns_); }
  void fill(const std::function<double(int64_t)>& value) {
    storage_.fill([&](int64_t r, int64_t c) { return value(r * columns_ + c); });
  }
  void set(int64_t i, double value) { storage_.set(i / columns_, i % columns_, value); }
  void upload() { storage_.upload(); }
  std::vector<std::byte>& bytes() {
    storage_.download();
    return storage_.image;
  }
  std::vector<double> numbers() {
    storage_.download();
    std::vector<double> all;
    for (int64_t i = 0; i < size(); ++i) all.push_back((*this)[i]);
    return all;
  }
  operator const cul_tensor*() {
    tensor_ = storage_.tensor;
    tensor_.ndim = static_cast<int32_t>(shape_.size());
    tensor_.shape = shape_.data();
    tensor_.strides = strides_.data();
    return &tensor_;
  }

 private:
  static int64_t rows_of(const std::vector<int64_t>& shape) {
    int64_t n = 1;
    for (size_t i = 0; i + 1 < shape.size(); ++i) n *= shape[i];
    return n;
  }
  std::vector<int64_t> shape_, strides_;
  int64_t columns_;
  DeviceTensor storage_;
  cul_tensor tensor_{};
};

// One query row over keys [0, keys) of which it sees those that `sees` says: o and, returned, lse.
inline double attend(int64_t keys, int64_t dim, const std::function<bool(int64_t)>& sees, const std::function<double(int64_t)>& score,
                     const std::function<double(int64_t, int64_t)>& value, double* o) {
  std::vector<double> scores(static_cast<size_t>(keys), -kInfinite);
  double max = -kInfinite, sum = 0;
  for (int64_t j = 0; j < keys; ++j)
    if (sees(j)) max = std::max(max, scores[static_cast<size_t>(j)] = score(j));
  std::fill(o, o + dim, 0.0);
  if (max == -kInfinite) return max;
  for (const double s : scores) sum += std::exp(s - max);
  for (int64_t j = 0; j < keys; ++j)
    if (const double weight = std::exp(scores[static_cast<size_t>(j)] - max) / sum; weight > 0)
      for (int64_t d = 0; d < dim; ++d) o[d] += weight * value(j, d);
  return max + std::log(sum);
}

}  // namespace culebra::testing
