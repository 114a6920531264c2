// Scores in double, eight at a time where vectors hold as many; selection over keys: integers of the order of what experts are selected
// by, so that a round is a maximum and the first place that has it.
#include <algorithm>
#include <cmath>
#include <limits>

#include "backends/cpu/thread_pool.h"
#include "ops/moe/moe_route.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/moe/moe_route_cpu.cc"
#include "backends/cpu/simd.h"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "backends/cpu/rows-inl.h"

HWY_BEFORE_NAMESPACE();
namespace culebra::cpu::HWY_NAMESPACE {
namespace {

using Params = MoeRouteParams;
using F64Tag = HWY_CAPPED(double, 8);
using F64 = hn::Vec<F64Tag>;

constexpr int32_t kTaken = std::numeric_limits<int32_t>::min();  // below every key

// A token's experts, padded to whole vectors.
struct Row {
  alignas(64) float scores[Params::kMaxExperts + kRowPad];
  alignas(64) double powers[Params::kMaxExperts + kRowPad];
  alignas(64) int32_t keys[Params::kMaxExperts + kRowPad];
};

// e^x; infinite arguments and those whose power is none of double's are cut off.
HWY_INLINE F64 exp_bounded(F64 x) {
  const F64Tag d;
  return hn::Exp(d, hn::Max(hn::Min(x, hn::Set(d, 700.0)), hn::Set(d, -745.0)));
}

// Scores in place of the logits. In double, so that a score is off by no more than its rounding to f32; 0 where it is not finite.
void score(const Params& p, Row& row) {
  const F64Tag d;
  const hn::Rebind<float, F64Tag> df;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  float* const x = row.scores;
  const int64_t n = p.experts;
  const auto load64 = [&](int64_t i) HWY_ATTR { return hn::PromoteTo(d, hn::LoadU(df, x + i)); };
  if (p.sigmoid) {
    const F64 one = hn::Set(d, 1.0);
    for (int64_t i = 0; i < n; i += lanes) {
      const F64 logit = load64(i), value = hn::Div(one, hn::Add(one, exp_bounded(hn::Neg(logit))));
      hn::StoreU(hn::DemoteTo(df, hn::IfThenElseZero(hn::Eq(logit, logit), value)), df, x + i);
    }
    return;
  }
  std::fill(x + n, x + padded(n), -std::numeric_limits<float>::infinity());
  F64 largest = load64(0), sum = hn::Zero(d);
  for (int64_t i = lanes; i < n; i += lanes) largest = hn::Max(largest, load64(i));
  const double max = hn::GetLane(hn::MaxOfLanes(d, largest));
  bool number = std::isfinite(max);  // a NaN, or a logit that no other counts beside, leaves no score
  for (int64_t i = 0; i < n; i += lanes) {
    const F64 logit = load64(i);
    number &= hn::AllTrue(d, hn::Eq(logit, logit));
    const F64 power = hn::IfThenElseZero(hn::Gt(logit, hn::Set(d, max - 745)), exp_bounded(hn::Sub(logit, hn::Set(d, max))));
    hn::StoreU(power, d, row.powers + i);
    sum = hn::Add(sum, power);
  }
  if (!number) return std::fill(x, x + n, 0.0f);
  const F64 total = hn::Set(d, hn::GetLane(hn::SumOfLanes(d, sum)));
  for (int64_t i = 0; i < n; i += lanes) hn::StoreU(hn::DemoteTo(df, hn::Div(hn::LoadU(d, row.powers + i), total)), df, x + i);
}

// Integers in the order of the numbers, those that are none below all: a bias may mask an expert by -inf or NaN. It comes last then, and
// still only once.
void make_keys(const Params& p, Row& row) {
  const F32Tag d;
  const I32Tag di;
  std::fill(row.keys + p.experts, row.keys + padded(p.experts), kTaken);
  const auto key = [&](F32 x) HWY_ATTR {
    const I32 bits = hn::BitCast(di, hn::Add(x, hn::Zero(d)));  // of two zeros none is larger
    const I32 ordered = hn::Xor(bits, hn::And(hn::BroadcastSignBit(bits), hn::Set(di, 0x7fffffff)));
    return hn::IfThenElse(hn::RebindMask(di, hn::Eq(x, x)), ordered, hn::Set(di, kTaken + 1));
  };
  int64_t i = 0;
  for (; i + kLanes <= p.experts; i += kLanes) {
    F32 x = load(row.scores + i);
    if (p.bias) x = hn::Add(x, load(p.bias + i));
    hn::StoreU(key(x), di, row.keys + i);
  }
  if (i == p.experts) return;
  float rest[kLanes] = {};
  int32_t rest_keys[kLanes];
  for (int64_t j = i; j < p.experts; ++j) rest[j - i] = row.scores[j] + (p.bias ? p.bias[j] : 0.0f);
  hn::StoreU(key(load(rest)), di, rest_keys);
  std::copy(rest_keys, rest_keys + (p.experts - i), row.keys + i);
}

// The place of the largest of n keys, the lowest of equal ones; it is taken then. Keys are padded to whole vectors with kTaken.
HWY_INLINE int64_t take_best(int32_t* keys, int64_t n) {
  const I32Tag d;
  I32 largest = hn::LoadU(d, keys);
  for (int64_t i = kLanes; i < n; i += kLanes) largest = hn::Max(largest, hn::LoadU(d, keys + i));
  const I32 best = hn::MaxOfLanes(d, largest);
  for (int64_t i = 0;; i += kLanes) {
    const intptr_t at = hn::FindFirstTrue(d, hn::Eq(hn::LoadU(d, keys + i), best));
    if (at < 0) continue;
    keys[i + at] = kTaken;
    return i + at;
  }
}

// Takes every expert outside the best kept_groups groups.
void keep_best_groups(const Params& p, Row& row) {
  const int64_t size = p.experts / p.groups;
  const auto number = [&](int64_t i) { return row.scores[i] + (p.bias ? p.bias[i] : 0.0f); };
  float sums[Params::kMaxExperts];
  for (int64_t g = 0; g < p.groups; ++g) {
    float best = -std::numeric_limits<float>::infinity(), second = best;
    for (int64_t i = g * size; i < (g + 1) * size; ++i) {
      const float x = number(i);
      if (x > best) {
        second = best;
        best = x;
      } else if (x > second) {
        second = x;
      }
    }
    sums[g] = p.bias && size > 1 ? best + second : best;
  }
  bool kept[Params::kMaxExperts] = {};
  for (int32_t round = 0; round < p.kept_groups; ++round) {
    int64_t best = -1;
    for (int64_t g = 0; g < p.groups; ++g)
      if (!kept[g] && (best < 0 || sums[g] > sums[best] || (sums[best] != sums[best] && sums[g] == sums[g]))) best = g;
    kept[best] = true;
  }
  for (int64_t g = 0; g < p.groups; ++g)
    if (!kept[g]) std::fill(row.keys + g * size, row.keys + (g + 1) * size, kTaken);
}

template <class T>
void route(const Params& p, int64_t token, Row& row) {
  load_row(static_cast<const T*>(p.logits) + token * p.logits_stride, p.experts, row.scores);
  score(p, row);
  make_keys(p, row);
  if (p.groups > 1) keep_best_groups(p, row);

  float* weights = p.weights + token * p.weights_stride;
  int32_t* ids = p.ids + token * p.ids_stride;
  float sum = 1e-20f;
  for (int32_t j = 0; j < p.k; ++j) {
    const int64_t id = take_best(row.keys, p.experts);
    ids[j] = static_cast<int32_t>(id);
    weights[j] = row.scores[id];
    sum += row.scores[id];
  }
  for (int32_t j = 0; j < p.k; ++j) weights[j] = (p.renormalize ? weights[j] / sum : weights[j]) * p.scale;
  for (int32_t j = 0; j < p.shared; ++j) {
    ids[p.k + j] = static_cast<int32_t>(p.experts + j);
    weights[p.k + j] = 1;
  }
}

void route_tokens(const Params& p, int64_t begin, int64_t end) {
  Row row;
  with_float_type(p.dtype, [&](auto type) {
    for (int64_t t = begin; t < end; ++t) route<decltype(type)>(p, t, row);
  });
}

}  // namespace
}  // namespace culebra::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace culebra::cpu {

HWY_EXPORT(route_tokens);

void moe_route(const MoeRouteParams& p, ThreadPool& pool) {
  const int64_t grain = 65536 / (p.experts * (p.k + 16)) + 1;
  const auto run = HWY_DYNAMIC_DISPATCH(route_tokens);
  pool.parallel_for(p.tokens, grain, [&](int64_t begin, int64_t end) { run(p, begin, end); });
}

}  // namespace culebra::cpu
#endif
