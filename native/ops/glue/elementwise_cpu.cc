#include <utility>

#include "backends/cpu/thread_pool.h"
#include "ops/glue/elementwise.h"

namespace culebra::cpu {
namespace {

// y = op(inputs...) over one run of the inner dimension. Where all strides are 1 the compiler makes vector code of it.
template <class To, class From, int N, class Op, size_t... kInput>
void run_span(const Walk<N>& w, const Op& op, int64_t row, int64_t first, int64_t count, std::index_sequence<kInput...>) {
  int64_t offset[N];
  w.locate(row, offset);
  for (int n = 0; n < N; ++n) offset[n] += first * w.inner_stride[n];
  To* y = reinterpret_cast<To*>(w.data[0]) + offset[0];
  const From* x[] = {reinterpret_cast<const From*>(w.data[kInput + 1]) + offset[kInput + 1]...};
  if (w.contiguous()) {
    for (int64_t i = 0; i < count; ++i) y[i] = op(x[kInput][i]...);
  } else {
    for (int64_t i = 0; i < count; ++i) y[i * w.inner_stride[0]] = op(x[kInput][i * w.inner_stride[kInput + 1]]...);
  }
}

template <class To, class From, int N, class Op>
void run(const Walk<N>& w, const Op& op, ThreadPool& pool) {
  constexpr int64_t kSpan = 8192;  // a tensor that is one long dimension is cut as well
  const int64_t spans = (w.columns + kSpan - 1) / kSpan;
  pool.parallel_for(w.rows * spans, glue::row_grain(std::min(w.columns, kSpan)), [&](int64_t begin, int64_t end) {
    for (int64_t piece = begin; piece < end; ++piece) {
      const int64_t first = piece % spans * kSpan;
      run_span<To, From>(w, op, piece / spans, first, std::min(kSpan, w.columns - first), std::make_index_sequence<N - 1>());
    }
  });
}

}  // namespace

void add(const AddParams& p, ThreadPool& pool) {
  with_element(p.dtype, [&](auto tag) {
    using T = decltype(tag);
    if constexpr (glue::kAddable<T>) run<T, T>(p.walk, glue::AddOp(), pool);
  });
}

void scale(const ScaleParams& p, ThreadPool& pool) {
  with_float(p.dtype, [&](auto tag) { run<decltype(tag), decltype(tag)>(p.walk, glue::ScaleOp{p.factor}, pool); });
}

void cast(const CastParams& p, ThreadPool& pool) {
  with_element(p.from, [&](auto from) {
    with_element(p.to, [&](auto to) {
      run<decltype(to), decltype(from)>(p.walk, glue::CastOp<decltype(to)>(), pool);
    });
  });
}

void copy_strided(const CopyStridedParams& p, ThreadPool& pool) {
  with_bytes(p.element_bytes, [&](auto tag) { run<decltype(tag), decltype(tag)>(p.walk, glue::CopyOp(), pool); });
}

}  // namespace culebra::cpu
