// Each query's system is solved exactly, by a Cholesky factorisation in double: at K up to 256 its K^3 / 6 operations are
// few beside the K^2 / 2 a key that making the matrix takes.
#include <algorithm>
#include <cmath>
#include <vector>

#include "backends/cpu/thread_pool.h"
#include "ops/linear_attention/local_linear_attention.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/linear_attention/local_linear_attention_cpu.cc"
#include "backends/cpu/simd.h"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "backends/cpu/rows-inl.h"

HWY_BEFORE_NAMESPACE();
namespace culebra::cpu::HWY_NAMESPACE {

using Params = LocalLinearAttentionParams;
using F64Tag = hn::ScalableTag<double>;
constexpr int64_t kKeysAtOnce = 8;  // that one pass over the matrix takes in

HWY_INLINE double dot(const double* a, const double* b, int64_t n) {
  const F64Tag d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  auto sum = hn::Zero(d);
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes) sum = hn::MulAdd(hn::LoadU(d, a + i), hn::LoadU(d, b + i), sum);
  double total = hn::GetLane(hn::SumOfLanes(d, sum));
  for (; i < n; ++i) total += a[i] * b[i];
  return total;
}

// to += factor x
HWY_INLINE void add_scaled(double factor, const double* x, double* to, int64_t n) {
  const F64Tag d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  const auto f = hn::Set(d, factor);
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes) hn::StoreU(hn::MulAdd(f, hn::LoadU(d, x + i), hn::LoadU(d, to + i)), d, to + i);
  for (; i < n; ++i) to[i] += factor * x[i];
}

template <class T>
HWY_INLINE void load_double(const T* from, int64_t n, double* to) {
  for (int64_t i = 0; i < n; ++i) to[i] = static_cast<double>(to_float(from[i]));
}

// The lower triangle of a positive definite matrix, rows n apart, becomes its Cholesky factor.
HWY_INLINE void factorize(double* a, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    double* row = a + i * n;
    for (int64_t j = 0; j < i; ++j) row[j] = (row[j] - dot(row, a + j * n, j)) / a[j * n + j];
    row[i] = std::sqrt(row[i] - dot(row, row, i));
  }
}

// x = (L L^T)^-1 x
HWY_INLINE void solve(const double* l, int64_t n, double* x) {
  for (int64_t i = 0; i < n; ++i) x[i] = (x[i] - dot(l + i * n, x, i)) / l[i * n + i];
  for (int64_t i = n - 1; i >= 0; --i) {
    x[i] /= l[i * n + i];
    add_scaled(-x[i], l + i * n, x, i);
  }
}

struct Scratch {
  std::vector<double> q, z, weights, mu, rho, sigma, o;
};

// One query of one key head, with all value heads that read it.
template <class T>
void run_query(const Params& p, const Params::Range& range, int64_t query, int64_t head, Scratch& s) {
  const int64_t K = p.key_dim, V = p.value_dim, group = p.value_heads / p.key_heads;
  const int64_t visible = range.keys - range.queries + query + 1;
  auto at = [&](const Params::Heads& x, int64_t t, int64_t h) {
    return static_cast<T*>(x.data) + range.batch * x.batch + t * x.token + h * x.head;
  };
  s.q.resize(static_cast<size_t>(K));
  s.z.resize(static_cast<size_t>(kKeysAtOnce * K));
  s.weights.resize(static_cast<size_t>(visible));
  s.mu.assign(static_cast<size_t>(K), 0.0);
  s.sigma.assign(static_cast<size_t>(K * K), 0.0);
  s.o.resize(static_cast<size_t>(V));
  double *const z = s.z.data(), *const w = s.weights.data(), *const sigma = s.sigma.data();
  load_double(at(p.q, range.query + query, head), K, s.q.data());

  // Weights as e^(score - top): sigma, mu, omega and with them lambda are all e^-top times what the formula says, and o
  // is what it was. Scores far below 0 leave lambda alone in sigma, whatever its exact size.
  double top = -INFINITY;
  for (int64_t j = 0; j < visible; ++j) {
    load_double(at(p.k, range.key + j, head), K, z);
    w[j] = static_cast<double>(p.scale) * dot(s.q.data(), z, K);
    top = std::max(top, w[j]);
  }
  double omega = 0;
  for (int64_t j = 0; j < visible; ++j) omega += w[j] = std::exp(w[j] - top);
  for (int64_t j = 0; j < visible; j += kKeysAtOnce) {
    const int64_t n = std::min(kKeysAtOnce, visible - j);
    for (int64_t i = 0; i < n; ++i) {
      double* row = z + i * K;
      load_double(at(p.k, range.key + j + i, head), K, row);
      for (int64_t c = 0; c < K; ++c) row[c] -= s.q[static_cast<size_t>(c)];
      add_scaled(w[j + i], row, s.mu.data(), K);
    }
    for (int64_t r = 0; r < K; ++r)
      for (int64_t i = 0; i < n; ++i) add_scaled(w[j + i] * z[i * K + r], z + i * K, sigma + r * K, r + 1);
  }
  const double ridge = static_cast<double>(p.ridge) * std::exp(std::min(-top, 600.0));
  for (int64_t i = 0; i < K; ++i) sigma[i * K + i] += ridge;
  factorize(sigma, K);
  s.rho = s.mu;
  solve(sigma, K, s.rho.data());

  const double divisor = omega - dot(s.mu.data(), s.rho.data(), K), q_rho = dot(s.q.data(), s.rho.data(), K);
  for (int64_t j = 0; j < visible; ++j) {
    load_double(at(p.k, range.key + j, head), K, z);
    w[j] *= (1 - (dot(z, s.rho.data(), K) - q_rho)) / divisor;
  }
  for (int64_t h = head * group; h < (head + 1) * group; ++h) {
    std::fill(s.o.begin(), s.o.end(), 0.0);
    for (int64_t j = 0; j < visible; ++j) {
      const T* v = at(p.v, range.key + j, h);
      for (int64_t i = 0; i < V; ++i) s.o[static_cast<size_t>(i)] += w[j] * static_cast<double>(to_float(v[i]));
    }
    T* o = at(p.o, range.query + query, h);
    for (int64_t i = 0; i < V; ++i) o[i] = from_float<T>(static_cast<float>(s.o[static_cast<size_t>(i)]));
  }
}

// Work items: (row of the batch, token, key head). Tokens behind the last sequence belong to none.
void local_linear_attention_items(const Params& p, int64_t begin, int64_t end) {
  Scratch scratch;
  for (int64_t item = begin; item < end; ++item) {
    const int64_t token = item / p.key_heads, head = item % p.key_heads;
    int64_t n = token / p.queries, query = token % p.queries;
    if (p.cu_queries) {
      n = std::upper_bound(p.cu_queries, p.cu_queries + p.sequences + 1, token) - p.cu_queries - 1;
      if (n == p.sequences) continue;
      query = token - p.cu_queries[n];
    }
    with_float_type(p.dtype, [&](auto type) { run_query<decltype(type)>(p, p.at(n), query, head, scratch); });
  }
}

}  // namespace culebra::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace culebra::cpu {

HWY_EXPORT(local_linear_attention_items);

void local_linear_attention(const LocalLinearAttentionParams& p, ThreadPool& pool) {
  require_valid("local_linear_attention", p);
  const int64_t items = p.batch * p.queries * p.key_heads;
  if (items == 0) return;
  const auto run = HWY_DYNAMIC_DISPATCH(local_linear_attention_items);
  pool.parallel_for(items, 65536 / (p.key_dim * p.key_dim * (p.keys + p.key_dim)) + 1,
                    [&](int64_t begin, int64_t end) { run(p, begin, end); });
}

}  // namespace culebra::cpu
#endif
