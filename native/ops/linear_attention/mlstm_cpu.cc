#include "ops/linear_attention/mlstm.h"

#include "ops/linear_attention/recurrence_cpu.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/linear_attention/mlstm_cpu.cc"
#include "backends/cpu/simd.h"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "ops/linear_attention/recurrence_cpu-inl.h"

HWY_BEFORE_NAMESPACE();
namespace culebra::cpu::HWY_NAMESPACE {

HWY_INLINE double log_sigmoid(double x) { return std::min(x, 0.0) - std::log1p(std::exp(-std::abs(x))); }

// The gates, m and n of one head, once for all rows of its state.
template <class T>
void run_gates(const MlstmParams& p, const RecurrenceWork& w, const Sequence& seq, int64_t head, Normaliser& n,
               RecurrenceScratch& s) {
  if (seq.skipped) return;
  auto gate = [&](const RecurrenceParams::Heads& x, int64_t t) {
    const double value = *element<const float>(x, seq.batch, t, head), cap = p.soft_cap;
    return cap > 0 ? cap * std::tanh(value / cap) : value;
  };
  double m = p.initial_m.data ? *p.initial_m.at(seq.read_row, head) : 0;
  n.start(p.initial_n.data ? p.initial_n.at(seq.read_row, head) : nullptr);
  for (int64_t t = seq.begin; t < seq.begin + seq.length; ++t) {
    double decay = log_sigmoid(gate(p.forget, t)), weight = gate(p.input, t);
    if (p.exponential) {
      const double next = std::max(decay + m, weight);
      decay += m - next;
      weight -= next;
      m = next;
    } else {
      weight = log_sigmoid(weight);
    }
    decay = std::exp(decay);
    weight = std::exp(weight);
    const int64_t at = (seq.batch * p.sequences.tokens + t) * p.key_heads + head;
    p.decays[at] = static_cast<float>(decay);
    p.weights[at] = static_cast<float>(weight);
    if (!p.normalize) continue;
    load_key(w, element<const T>(p.k, seq.batch, t, head), 1, s.chunk.raw, s.chunk.k);
    load_key(w, element<const T>(p.q, seq.batch, t, head), 1, s.chunk.raw, s.chunk.q);
    n.add(decay, weight, s.chunk.k);
    const double least = p.exponential ? std::exp(-m) : 1;
    const double product = std::abs(static_cast<double>(p.scale) * n.dot(s.chunk.q));
    p.divisor[at] = static_cast<float>(std::max(product, least) + static_cast<double>(p.eps));
  }
  if (p.final_n.data) n.store(p.final_n.at(seq.write_row, head));
  if (p.final_m.data) *p.final_m.at(seq.write_row, head) = static_cast<float>(m);
}

// Work items: (sequence, head).
void mlstm_gates(const MlstmParams& p, const RecurrenceWork& w, int64_t begin, int64_t end) {
  RecurrenceScratch scratch(w, 0);
  Normaliser n(w.columns());
  for (int64_t item = begin; item < end; ++item)
    with_float_type(p.dtype, [&](auto type) {
      run_gates<decltype(type)>(p, w, p.sequences.at(item / p.key_heads), item % p.key_heads, n, scratch);
    });
}

}  // namespace culebra::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace culebra::cpu {

HWY_EXPORT(mlstm_gates);

void mlstm(const MlstmParams& p, ThreadPool& pool) {
  require_valid(p.op, p);
  RecurrenceWork work;
  work.p = &p;
  const auto run = HWY_DYNAMIC_DISPATCH(mlstm_gates);
  pool.parallel_for(p.sequences.count * p.key_heads, 65536 / (work.columns() * (p.sequences.tokens + 1)) + 1,
                    [&](int64_t begin, int64_t end) { run(p, work, begin, end); });
  work.prepared = true;
  work.decay = p.decays;
  work.weight = p.weights;
  if (p.normalize) {
    work.divisor = p.divisor;
    work.divisor_heads = p.key_heads;
  }
  run_recurrence(work, pool);
}

}  // namespace culebra::cpu
#endif
