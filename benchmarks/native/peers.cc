#include "peers.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <random>

namespace bench {
namespace {

constexpr int64_t kBaseRows = 128;

std::vector<float> normal(size_t count, unsigned seed) {
  std::mt19937 rng(seed);
  std::normal_distribution<float> draw;
  std::vector<float> values(count);
  for (float& x : values) x = draw(rng);
  return values;
}

}  // namespace

LayerPeers::LayerPeers(const PeerLibraries& libraries, const Layer& layer)
    : libraries_(libraries), layer_(layer), base_(normal(static_cast<size_t>(std::min(layer.n, kBaseRows) * layer.k), 11)) {
  const auto size = static_cast<size_t>(layer.n * layer.k);
  for (int64_t bytes = 0; libraries.openblas.found() && bytes < kRotatedBytes; bytes += static_cast<int64_t>(size) * 4) {
    std::vector<float>& matrix = dense_.emplace_back(size);
    for (size_t at = 0; at < size; at += base_.size())
      std::copy_n(base_.begin(), std::min(base_.size(), size - at), matrix.begin() + static_cast<int64_t>(at));
  }
  if (!libraries.ggml.found()) return;
  const auto weights = [&](GgmlFormat format, bool repack) {
    int4_.push_back(std::make_unique<GgmlWeights>(libraries.ggml, format, repack, layer.n, layer.k, base_, kRotatedBytes));
  };
  weights(GgmlFormat::q4_0, true);
  weights(GgmlFormat::q4_0, false);
  weights(GgmlFormat::q4_k, true);
}

// Against sums in double over the weights as they were before a peer rounded them.
void LayerPeers::check(const char* peer, int64_t m, const float* c, double bound) const {
  std::mt19937 rng(5);
  double error = 0, reference = 0;
  for (int sample = 0; sample < 100; ++sample) {
    const auto row = static_cast<int64_t>(rng()) % m, column = static_cast<int64_t>(rng()) % layer_.n;
    const float* a = a_.data() + row * layer_.k;
    const float* w = base_.data() + column * layer_.k % static_cast<int64_t>(base_.size());
    double want = 0;
    for (int64_t i = 0; i < layer_.k; ++i) want += double{a[i]} * w[i];
    const double difference = c[row * layer_.n + column] - want;
    error += difference * difference;
    reference += want * want;
  }
  if (const double ratio = std::sqrt(error / reference); !(ratio <= bound)) {
    std::fprintf(stderr, "bench_gemm: %s, M %ld: rms ratio %.3g is beyond %.3g\n", peer, static_cast<long>(m), ratio, bound);
    std::exit(1);
  }
}

void LayerPeers::add(std::vector<Contender>& contenders, int64_t m, bool int4) {
  products_.clear();
  a_ = normal(static_cast<size_t>(layer_.k), 7);
  a_.resize(static_cast<size_t>(m * layer_.k));
  for (size_t i = static_cast<size_t>(layer_.k); i < a_.size(); ++i) a_[i] = a_[i - static_cast<size_t>(layer_.k) + 1];
  c_.assign(static_cast<size_t>(m * layer_.n), 0);
  if (!dense_.empty()) {
    const auto call = [this, m](int i) {
      libraries_.openblas.product(static_cast<int>(m), static_cast<int>(layer_.n), static_cast<int>(layer_.k), a_.data(),
                                  dense_[static_cast<size_t>(i) % dense_.size()].data(), c_.data());
    };
    call(0);
    check("OpenBLAS", m, c_.data(), 1e-4);
    contenders.push_back({"openblas_f32", call});
  }
  if (!int4) return;
  for (const auto& weights : int4_) {
    const GgmlProduct& product = *products_.emplace_back(std::make_unique<GgmlProduct>(*weights, m, a_));
    product.run(0);
    check(weights->name().c_str(), m, product.result(), 0.15);
    contenders.push_back({weights->name(), [&product](int i) { product.run(i); }});
  }
}

}  // namespace bench
