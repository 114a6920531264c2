#include "ops/linear_attention/linear_attention.h"

#include "ops/linear_attention/recurrence_cpu.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/linear_attention/linear_attention_cpu.cc"
#include "backends/cpu/simd.h"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "ops/linear_attention/recurrence_cpu-inl.h"

HWY_BEFORE_NAMESPACE();
namespace culebra::cpu::HWY_NAMESPACE {

// What outputs of one head are divided by: scale q.z + eps, z the sum of the keys so far. In double: without a positive
// feature map q.z is a small difference of large numbers.
template <class T>
void run_divisors(const LinearAttentionParams& p, const RecurrenceWork& w, const Sequence& seq, int64_t head,
                  Normaliser& z, RecurrenceScratch& s) {
  if (seq.skipped) return;
  z.start(p.initial_z.data ? p.initial_z.at(seq.read_row, head) : nullptr);
  auto divide = [&](int64_t t) {
    load_key(w, element<const T>(p.q, seq.batch, t, head), 1, s.chunk.raw, s.chunk.q);
    const double product = static_cast<double>(p.scale) * z.dot(s.chunk.q);
    p.divisor[(seq.batch * p.sequences.tokens + t) * p.key_heads + head] =
        static_cast<float>(product + static_cast<double>(p.eps));
  };
  for (int64_t t = seq.begin; t < seq.begin + seq.length; ++t) {
    load_key(w, element<const T>(p.k, seq.batch, t, head), 1, s.chunk.raw, s.chunk.k);
    z.add(1, 1, s.chunk.k);
    if (p.causal) divide(t);
  }
  if (!p.causal)
    for (int64_t t = seq.begin; t < seq.begin + seq.length; ++t) divide(t);
  if (p.final_z.data) z.store(p.final_z.at(seq.write_row, head));
}

// Work items: (sequence, key head).
void linear_attention_divisors(const LinearAttentionParams& p, const RecurrenceWork& w, int64_t begin, int64_t end) {
  RecurrenceScratch scratch(w, 0);
  Normaliser z(w.columns());
  for (int64_t item = begin; item < end; ++item)
    with_float_type(p.dtype, [&](auto type) {
      run_divisors<decltype(type)>(p, w, p.sequences.at(item / p.key_heads), item % p.key_heads, z, scratch);
    });
}

}  // namespace culebra::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace culebra::cpu {

HWY_EXPORT(linear_attention_divisors);

void linear_attention(const LinearAttentionParams& p, ThreadPool& pool) {
  require_valid(p.op, p);
  RecurrenceWork work;
  work.p = &p;
  work.features = p.features;
  work.causal = p.causal;
  if (p.normalize) {
    const auto run = HWY_DYNAMIC_DISPATCH(linear_attention_divisors);
    pool.parallel_for(p.sequences.count * p.key_heads, 65536 / (work.columns() * (p.sequences.tokens + 1)) + 1,
                      [&](int64_t begin, int64_t end) { run(p, work, begin, end); });
    work.divisor = p.divisor;
    work.divisor_heads = p.key_heads;
  }
  run_recurrence(work, pool);
}

}  // namespace culebra::cpu
#endif
