#include <algorithm>
#include <cmath>
#include <limits>

#include "backends/cpu/thread_pool.h"
#include "device/numeric.h"
#include "ops/moe/moe_route.h"

namespace culebra::cpu {
namespace {

using Params = MoeRouteParams;

constexpr float kTaken = -std::numeric_limits<float>::infinity();

// The index of the largest value among those not yet taken, the lowest of equal ones; it is taken then. Values may be
// -inf or NaN (a bias that masks an expert): they come last, and still only once.
int64_t take_best(const float* values, bool* taken, int64_t n) {
  int64_t best = -1;
  for (int64_t i = 0; i < n; ++i)
    if (!taken[i] && (best < 0 || values[i] > values[best] || (values[best] != values[best] && values[i] == values[i])))
      best = i;
  taken[best] = true;
  return best;
}

// Scores in place of the logits. In double, so that a score is off by no more than its rounding to f32.
void score(const Params& p, float* x) {
  const int64_t n = p.experts;
  if (p.sigmoid) {
    for (int64_t i = 0; i < n; ++i) x[i] = static_cast<float>(1 / (1 + std::exp(-static_cast<double>(x[i]))));
  } else {
    const double max = *std::max_element(x, x + n);
    double sum = 0;
    for (int64_t i = 0; i < n; ++i) sum += std::exp(static_cast<double>(x[i]) - max);
    for (int64_t i = 0; i < n; ++i) x[i] = static_cast<float>(std::exp(static_cast<double>(x[i]) - max) / sum);
  }
  for (int64_t i = 0; i < n; ++i)
    if (!std::isfinite(x[i])) x[i] = 0;
}

// Marks every expert outside the best kept_groups groups as taken.
void keep_best_groups(const Params& p, const float* keys, bool* taken) {
  const int64_t size = p.experts / p.groups;
  float group_keys[Params::kMaxExperts];
  bool group_taken[Params::kMaxExperts] = {};
  for (int64_t g = 0; g < p.groups; ++g) {
    float best = kTaken, second = kTaken;
    for (int64_t i = g * size; i < (g + 1) * size; ++i) {
      if (keys[i] > best) {
        second = best;
        best = keys[i];
      } else if (keys[i] > second) {
        second = keys[i];
      }
    }
    group_keys[g] = p.bias && size > 1 ? best + second : best;
  }
  std::fill(taken, taken + p.experts, true);
  for (int32_t i = 0; i < p.kept_groups; ++i) {
    const int64_t g = take_best(group_keys, group_taken, p.groups);
    std::fill(taken + g * size, taken + (g + 1) * size, false);
  }
}

template <class T>
void route(const Params& p, int64_t token) {
  float scores[Params::kMaxExperts], biased[Params::kMaxExperts];
  bool taken[Params::kMaxExperts];
  const T* logits = static_cast<const T*>(p.logits) + token * p.logits_stride;
  for (int64_t i = 0; i < p.experts; ++i) scores[i] = to_float(logits[i]);
  score(p, scores);
  const float* keys = scores;  // what experts are selected by
  if (p.bias) {
    for (int64_t i = 0; i < p.experts; ++i) biased[i] = scores[i] + p.bias[i];
    keys = biased;
  }
  if (p.groups > 1) {
    keep_best_groups(p, keys, taken);
  } else {
    std::fill(taken, taken + p.experts, false);
  }

  float* weights = p.weights + token * p.weights_stride;
  int32_t* ids = p.ids + token * p.ids_stride;
  float sum = 1e-20f;
  for (int32_t j = 0; j < p.k; ++j) {
    const int64_t id = take_best(keys, taken, p.experts);
    ids[j] = static_cast<int32_t>(id);
    weights[j] = scores[id];
    sum += scores[id];
  }
  for (int32_t j = 0; j < p.k; ++j) weights[j] = (p.renormalize ? weights[j] / sum : weights[j]) * p.scale;
  for (int32_t j = 0; j < p.shared; ++j) {
    ids[p.k + j] = static_cast<int32_t>(p.experts + j);
    weights[p.k + j] = 1;
  }
}

template <class T>
void route_tokens(const Params& p, int64_t begin, int64_t end) {
  for (int64_t t = begin; t < end; ++t) route<T>(p, t);
}

}  // namespace

void moe_route(const MoeRouteParams& p, ThreadPool& pool) {
  const int64_t grain = 4096 / (p.experts * (p.k + 4)) + 1;
  pool.parallel_for(p.tokens, grain, [&](int64_t begin, int64_t end) {
    switch (p.dtype) {
      case DType::f16:
        return route_tokens<half_t>(p, begin, end);
      case DType::bf16:
        return route_tokens<bfloat16_t>(p, begin, end);
      default:
        return route_tokens<float>(p, begin, end);
    }
  });
}

}  // namespace culebra::cpu
