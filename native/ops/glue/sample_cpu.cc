#include <limits>
#include <vector>

#include "backends/cpu/thread_pool.h"
#include "ops/glue/sample.h"
#include "ops/glue/sample_weights.h"
#include "ops/glue/softmax.h"

namespace culebra::cpu {
namespace {

using namespace glue;

struct Bin {
  uint64_t count, mass;
};

// The keys of one row, which are all that sampling looks at.
class Candidates {
 public:
  template <class T>
  Candidates(const T* logits, int64_t n, float max, float inverse_temperature, int shift) : shift_(shift) {
    keys_.resize(static_cast<size_t>(n));
    for (int64_t i = 0; i < n; ++i) keys_[static_cast<size_t>(i)] = sample_key(to_float(logits[i]), max, inverse_temperature);
    for (uint32_t key : keys_) {
      const uint64_t weight = sample_weight(key, shift);
      if (weight == 0) continue;
      ++coarse_[key >> digit_shift(0)].count;
      coarse_[key >> digit_shift(0)].mass += weight;
    }
    for (const Bin& bin : coarse_) total_ += bin.mass;
  }

  uint64_t total() const { return total_; }
  uint64_t weight(uint64_t key) const { return sample_weight(static_cast<uint32_t>(key), shift_); }

  // Mass of the tokens of at least so much weight.
  uint64_t mass_of(uint64_t least) const {
    uint64_t mass = 0;
    for (uint32_t key : keys_)
      if (const uint64_t w = weight(key); w >= least) mass += w;
    return mass;
  }

  // crossed(count, mass) of the leading tokens turns true at some key.
  template <class Crossed>
  Crossing cross(Crossed crossed) const {
    Crossing at{0, 0, 0};
    advance(coarse_, kCoarseBins, at, crossed);
    for (int level = 1; level < 3; ++level) {
      Bin fine[kFineBins] = {};
      for (uint32_t key : keys_) {
        if (key >> digit_shift(level - 1) != at.key) continue;
        Bin& bin = fine[key >> digit_shift(level) & (kFineBins - 1)];
        ++bin.count;
        bin.mass += weight(key);
      }
      at.key <<= digit_shift(level - 1) - digit_shift(level);
      advance(fine, kFineBins, at, crossed);
    }
    return at;
  }

  // The id of the `rank`th token of this key.
  int32_t id(uint64_t key, uint64_t rank) const {
    for (size_t i = 0;; ++i)
      if (keys_[i] == key && rank-- == 0) return static_cast<int32_t>(i);
  }

 private:
  template <class Crossed>
  static void advance(const Bin* bins, int n, Crossing& at, Crossed crossed) {
    for (int i = 0; i < n - 1 && !crossed(at.count + bins[i].count, at.mass + bins[i].mass); ++i) {
      at.count += bins[i].count;
      at.mass += bins[i].mass;
      ++at.key;
    }
  }

  static thread_local std::vector<uint32_t> keys_;  // kept between calls
  const int shift_;
  uint64_t total_ = 0;
  Bin coarse_[kCoarseBins] = {};
};
thread_local std::vector<uint32_t> Candidates::keys_;

int32_t draw(const SampleParams& p, int64_t row, const Candidates& candidates) {
  const uint64_t total = candidates.total();
  if (total == 0) return 0;  // nothing but NaN
  const auto kept_by = [&](int32_t top_k, uint64_t reach) {
    const Crossing at = candidates.cross([&](uint64_t count, uint64_t mass) {
      return mass >= reach || (top_k > 0 && count >= static_cast<uint64_t>(top_k));
    });
    return kept_mass(at, candidates.weight(at.key), top_k, reach);
  };
  const int32_t top_k = p.top_k[row];
  uint64_t kept = top_k > 0 ? kept_by(top_k, total) : total;
  if (const uint64_t reach = sample_mass(p.top_p[row], kept); reach < kept) kept = std::min(kept, kept_by(0, reach));
  if (const uint64_t least = sample_least(p.min_p[row], p.shift); least > 0) kept = std::min(kept, candidates.mass_of(least));
  const uint64_t target = sample_target(kept, p.seed[row], p.position[row]);
  const Crossing at = candidates.cross([&](uint64_t, uint64_t mass) { return mass > target; });
  return candidates.id(at.key, (target - at.mass) / candidates.weight(at.key));
}

template <class T>
void sample_row(const SampleParams& p, int64_t row) {
  const T* logits = p.logits.row<const T>(row);
  const float temperature = p.temperature[row];
  uint64_t best = 0;
  float max = -std::numeric_limits<float>::infinity();
  for (int64_t i = 0; i < p.columns; ++i) {
    const float logit = to_float(logits[i]);
    best = std::max(best, argmax_key(logit, i));
    if (logit > max) max = logit;
  }
  p.ids[row] = temperature > 0
                   ? draw(p, row, Candidates(logits, p.columns, max, 1.0f / temperature, p.shift))
                   : argmax_index(best);
  if (!p.logprob) return;
  double sum = 0;
  for (int64_t i = 0; i < p.columns; ++i) sum += std::exp(to_float(logits[i]) - max);
  p.logprob[row] = to_float(logits[p.ids[row]]) - max - static_cast<float>(std::log(sum));
}

}  // namespace

void sample(const SampleParams& p, ThreadPool& pool) {
  pool.parallel_for(p.rows, glue::row_grain(32 * p.columns), [&](int64_t begin, int64_t end) {
    with_float(p.dtype, [&](auto tag) {
      for (int64_t row = begin; row < end; ++row) sample_row<decltype(tag)>(p, row);
    });
  });
}

}  // namespace culebra::cpu
