// local_linear_attention on the device: each query's system is made and factorised where K is at most 64, else conjugate gradients never make it.
#include "device/barrier.h"
#include "device/validate.h"
#include "ops/linear_attention/local_linear_attention.h"
#include "ops/linear_attention/recurrence.cuh"

namespace culebra::CUL_DEVICE_NS {
namespace {

using Params = LocalLinearAttentionParams;

constexpr int kThreads = 128;
constexpr int kMaxDim = 256;
constexpr int kColumnsPerThread = kMaxDim / kThreads;
constexpr int kSums = 8;
// Up to here the system is made: K^2 / 2 multiplications a key are fewer than those of conjugate gradients, and their error is no matter of tol.
constexpr int kDirectDim = 64;

struct Scratch {
  double q[kMaxDim], mu[kMaxDim], rho[kMaxDim], residual[kMaxDim], direction[kMaxDim], image[kMaxDim];
  double coefficients[kThreads];  // of as many keys
  double values[kThreads];        // one a thread, for sums over threads
  double sums[kSums];
  double sigma[kDirectDim * (kDirectDim + 1) / 2];  // the lower triangle, row by row
};

// The keys that a query sees, and its row of the outputs.
struct Query {
  int64_t k, key_stride, visible;
  double top;    // the largest score
  double ridge;  // lambda e^-top
};

// a.k of a key, and b.k.
template <class T>
CUL_DEVICE_FN void products(const T* k, const double* a, const double* b, int64_t width, double& ak, double& bk) {
  ak = bk = 0;
#pragma unroll 2
  for (int64_t c = 0; c < width; ++c) {
    const double x = static_cast<double>(to_float(k[c]));
    ak = fma(a[c], x, ak);
    bk = fma(b[c], x, bk);
  }
}
CUL_DEVICE_FN void products(const Params& p, int64_t at, const double* a, const double* b, double& ak, double& bk) {
  if (p.dtype == DType::f32)
    products(static_cast<const float*>(p.k.data) + at, a, b, p.key_dim, ak, bk);
  else if (p.dtype == DType::f16)
    products(static_cast<const half_t*>(p.k.data) + at, a, b, p.key_dim, ak, bk);
  else
    products(static_cast<const bfloat16_t*>(p.k.data) + at, a, b, p.key_dim, ak, bk);
}

// f over every thread's value, in every thread: eight threads take sixteen values each, then all take eight.
template <class F>
CUL_DEVICE_FN double combine(Scratch& s, double value, F f) {
  const int thread = static_cast<int>(threadIdx.x);
  __syncthreads();
  s.values[thread] = value;
  __syncthreads();
  if (thread < kSums) {
    double part = s.values[thread * (kThreads / kSums)];
#pragma unroll 1
    for (int i = 1; i < kThreads / kSums; ++i) part = f(part, s.values[thread * (kThreads / kSums) + i]);
    s.sums[thread] = part;
  }
  __syncthreads();
  double all = s.sums[0];
  for (int i = 1; i < kSums; ++i) all = f(all, s.sums[i]);
  return all;
}
struct Add {
  CUL_DEVICE_FN double operator()(double a, double b) const { return a + b; }
};
struct Larger {
  CUL_DEVICE_FN double operator()(double a, double b) const { return a < b ? b : a; }
};

CUL_DEVICE_FN double dot(const Params& p, Scratch& s, const double* a, const double* b) {
  double sum = 0;
  for (int i = static_cast<int>(threadIdx.x); i < p.key_dim; i += kThreads) sum = fma(a[i], b[i], sum);
  return combine(s, sum, Add());
}

// out[c] += coefficient of each of `count` keys times its (k - q)[c]: a thread has a column and every parts-th key.
CUL_DEVICE_FN void add_keys(const Params& p, Scratch& s, const Query& q, int64_t begin, int count, int columns, int parts,
                            double (&sums)[kColumnsPerThread]) {
  const int thread = static_cast<int>(threadIdx.x), part = thread / columns;
#pragma unroll
  for (int i = 0; i < kColumnsPerThread; ++i) {
    const int column = thread % columns + i * kThreads;
    if (column >= p.key_dim || part >= parts) continue;
#pragma unroll 2
    for (int j = part; j < count; j += parts) {
      const double k = static_cast<double>(load_one(p.dtype, p.k.data, q.k + (begin + j) * q.key_stride + column));
      sums[i] = fma(s.coefficients[j], k - s.q[column], sums[i]);
    }
  }
}

// out = sum w (z.x) z + ridge x, or where x is null sum w z; returns sum w.
CUL_DEVICE_FN double apply(const Params& p, Scratch& s, const Query& q, const double* x, double* out) {
  const int thread = static_cast<int>(threadIdx.x);
  int columns = kThreads;  // the least power of two with room for K
  while (columns / 2 >= p.key_dim) columns /= 2;
  const int parts = kThreads / columns;
  const double q_x = x ? dot(p, s, s.q, x) : 0.0;
  double sums[kColumnsPerThread] = {}, omega = 0;
  for (int64_t begin = 0; begin < q.visible; begin += kThreads) {
    const int count = q.visible - begin < kThreads ? static_cast<int>(q.visible - begin) : kThreads;
    if (thread < count) {
      double score, product;
      products(p, q.k + (begin + thread) * q.key_stride, s.q, x ? x : s.q, score, product);
      const double w = exp(static_cast<double>(p.scale) * score - q.top);
      omega += w;
      s.coefficients[thread] = x ? w * (product - q_x) : w;
    }
    __syncthreads();
    add_keys(p, s, q, begin, count, columns, parts, sums);
    __syncthreads();
  }
  s.values[thread] = sums[0];
  __syncthreads();
#pragma unroll
  for (int i = 0; i < kColumnsPerThread; ++i) {
    const int column = thread + i * kThreads;
    if (column >= p.key_dim) continue;
    double sum = x ? q.ridge * x[column] : 0.0;
    if (i == 0) {
      for (int part = 0; part < parts; ++part) sum += s.values[part * columns + column];
    } else {
      sum += sums[i];
    }
    out[column] = sum;
  }
  return combine(s, omega, Add());
}

CUL_DEVICE_FN int cell(int row, int column) { return row * (row + 1) / 2 + column; }

// f(row, column) of the lower triangle from row and column `first` on, shared out over the threads.
template <class F>
CUL_DEVICE_FN void for_triangle(int first, int width, F f) {
  const int n = width - first;
#pragma unroll 1
  for (int i = static_cast<int>(threadIdx.x); i < n * n; i += kThreads) {
    const int row = i / n, column = i - row * n;
    if (column <= row) f(first + row, first + column);
  }
}

// sigma = sum w z z^T + ridge I
CUL_DEVICE_FN void make_system(const Params& p, Scratch& s, const Query& q, int width) {
  const int thread = static_cast<int>(threadIdx.x);
  for_triangle(0, width, [&](int row, int column) { s.sigma[cell(row, column)] = row == column ? q.ridge : 0.0; });
  for (int64_t begin = 0; begin < q.visible; begin += kThreads) {
    const int count = q.visible - begin < kThreads ? static_cast<int>(q.visible - begin) : kThreads;
    if (thread < count) {
      double score, again;
      products(p, q.k + (begin + thread) * q.key_stride, s.q, s.q, score, again);
      s.coefficients[thread] = exp(static_cast<double>(p.scale) * score - q.top);
    }
    __syncthreads();
    for_triangle(0, width, [&](int row, int column) {
      double sum = s.sigma[cell(row, column)];
#pragma unroll 1
      for (int j = 0; j < count; ++j) {
        const int64_t at = q.k + (begin + j) * q.key_stride;
        const double a = static_cast<double>(load_one(p.dtype, p.k.data, at + row)) - s.q[row];
        const double b = static_cast<double>(load_one(p.dtype, p.k.data, at + column)) - s.q[column];
        sum = fma(s.coefficients[j] * a, b, sum);
      }
      s.sigma[cell(row, column)] = sum;
    });
    __syncthreads();
  }
}

// rho = Sigma^-1 mu by a Cholesky factorisation. A pivot that rounding made 0 or less is a direction without weight.
CUL_DEVICE_FN void solve_directly(const Params& p, Scratch& s, const Query& q) {
  const int thread = static_cast<int>(threadIdx.x), width = static_cast<int>(p.key_dim);
  make_system(p, s, q, width);
#pragma unroll 1
  for (int j = 0; j < width; ++j) {
    const double pivot = s.sigma[cell(j, j)], inverse = pivot > 0 ? 1.0 / sqrt(pivot) : 0.0;
    __syncthreads();  // every thread has the pivot
    for (int i = j + thread; i < width; i += kThreads) s.sigma[cell(i, j)] *= inverse;
    if (thread == 0) s.image[j] = inverse;
    __syncthreads();
    for_triangle(j + 1, width, [&](int row, int column) {
      s.sigma[cell(row, column)] = fma(-s.sigma[cell(row, j)], s.sigma[cell(column, j)], s.sigma[cell(row, column)]);
    });
    __syncthreads();
  }
  if (thread < width) s.rho[thread] = s.mu[thread];
  __syncthreads();
  // L, then its transpose: a column at a time.
#pragma unroll 1
  for (int step = 0; step < 2 * width; ++step) {
    const bool lower = step < width;
    const int j = lower ? step : 2 * width - 1 - step;
    const double x = s.rho[j] * s.image[j];
    __syncthreads();
    if (thread == j) s.rho[j] = x;
    if (lower ? thread > j && thread < width : thread < j)
      s.rho[thread] = fma(-(lower ? s.sigma[cell(thread, j)] : s.sigma[cell(j, thread)]), x, s.rho[thread]);
    __syncthreads();
  }
}

// rho = Sigma^-1 mu by conjugate gradients, to the relative residual tol^2: outputs have its error times the condition of Sigma and what
// cancels in omega - mu.rho, which may well be 1e4.
CUL_DEVICE_FN void solve(const Params& p, Scratch& s, const Query& q) {
  const int thread = static_cast<int>(threadIdx.x);
  for (int i = thread; i < p.key_dim; i += kThreads) {
    s.rho[i] = 0;
    s.residual[i] = s.direction[i] = s.mu[i];
  }
  double size = dot(p, s, s.residual, s.residual);
  const double tol = static_cast<double>(p.tol) * static_cast<double>(p.tol), enough = size * tol * tol;
  for (int iteration = 0; iteration < p.cg_iters && size > enough && size > 0; ++iteration) {
    apply(p, s, q, s.direction, s.image);
    const double curvature = dot(p, s, s.direction, s.image);
    if (!(curvature > 0)) break;
    const double alpha = size / curvature;
    for (int i = thread; i < p.key_dim; i += kThreads) {
      s.rho[i] = fma(alpha, s.direction[i], s.rho[i]);
      s.residual[i] = fma(-alpha, s.image[i], s.residual[i]);
    }
    const double next = dot(p, s, s.residual, s.residual), beta = next / size;
    for (int i = thread; i < p.key_dim; i += kThreads) s.direction[i] = fma(beta, s.direction[i], s.residual[i]);
    size = next;
    __syncthreads();
  }
  __syncthreads();
}

// One value head: o = sum of coefficient v over the keys. A thread has a column or two.
CUL_DEVICE_FN void write_output(const Params& p, Scratch& s, const Query& q, double q_rho, double divisor, int64_t v, int64_t o) {
  const int thread = static_cast<int>(threadIdx.x);
  double sums[kColumnsPerThread] = {};
  for (int64_t begin = 0; begin < q.visible; begin += kThreads) {
    const int count = q.visible - begin < kThreads ? static_cast<int>(q.visible - begin) : kThreads;
    if (thread < count) {
      double score, product;
      products(p, q.k + (begin + thread) * q.key_stride, s.q, s.rho, score, product);
      s.coefficients[thread] = exp(static_cast<double>(p.scale) * score - q.top) * (1 - (product - q_rho)) / divisor;
    }
    __syncthreads();
#pragma unroll
    for (int i = 0; i < kColumnsPerThread; ++i) {
      const int column = thread + i * kThreads;
#pragma unroll 2
      for (int j = 0; j < count && column < p.value_dim; ++j)
        sums[i] = fma(s.coefficients[j], static_cast<double>(load_one(p.dtype, p.v.data, v + (begin + j) * p.v.token + column)), sums[i]);
    }
    __syncthreads();
  }
#pragma unroll
  for (int i = 0; i < kColumnsPerThread; ++i)
    if (thread + i * kThreads < p.value_dim) store_one(p.dtype, p.o.data, o + thread + i * kThreads, static_cast<float>(sums[i]));
}

// Computes: w = e^(scale q.k), z = k - q, rho = (sum w z z^T + lambda I)^-1 sum w z, o = sum w (1 - z.rho) v / (sum w - mu.rho)
// Shapes:   q [B,T,H,K], k [B,S,H,K], v [B,S,HV,V], K and V up to 256
// Layouts:  inner stride 1, f32, f16 or bf16
// Tiles:    a block has a query of one head and 128 keys at a time: a thread a key's products, then a thread a column of their sum
// Shared:   31 KB: six vectors, a coefficient a key, the triangle of a system up to 64 wide
// Order:    a thread's keys in order, then parts in order; no order depends on the batch
// Numerics: double, up to K = 64 solved by factorisation, beyond by conjugate gradients; weights as e^(score - top) with lambda times e^-top, which leaves o as it is
// Needs:    sm_80. Limit: K^2 / 2 multiplications in double a key, or 3 K a key and iteration; keys come from L1 and L2
// Source:   Zuo et al., arXiv:2510.01450
__global__ void __launch_bounds__(kThreads) local_kernel(Params p, int64_t items) {
  CUL_SHARED(Scratch, scratch, [1]);
  Scratch& s = scratch[0];
  const int thread = static_cast<int>(threadIdx.x);
  for (int64_t item = blockIdx.x; item < items; item += gridDim.x) {
    const int64_t token = divide(item, p.key_heads), head = item - token * p.key_heads;
    int64_t n = divide(token, p.queries), row = token - n * p.queries, batch = n, query0 = 0, key0 = 0, queries = p.queries, keys = p.keys;
    if (p.cu_queries) {
      int64_t low = 0, high = p.sequences;  // the first sequence that ends behind the token
      while (low < high) {
        const int64_t middle = (low + high) / 2;
        if (p.cu_queries[middle + 1] > token)
          high = middle;
        else
          low = middle + 1;
      }
      if (low == p.sequences) continue;
      n = low;
      batch = 0;
      query0 = p.cu_queries[n];
      key0 = p.cu_keys[n];
      queries = p.cu_queries[n + 1] - query0;
      keys = p.cu_keys[n + 1] - key0;
      row = token - query0;
    }
    const int64_t q_at = batch * p.q.batch + (query0 + row) * p.q.token + head * p.q.head;
    __syncthreads();
    for (int i = thread; i < p.key_dim; i += kThreads) s.q[i] = static_cast<double>(load_one(p.dtype, p.q.data, q_at + i));
    __syncthreads();
    Query q{batch * p.k.batch + key0 * p.k.token + head * p.k.head, p.k.token, keys - queries + row + 1, 0, 0};
    double top = -INFINITY;
    for (int64_t j = thread; j < q.visible; j += kThreads) {
      double score, again;
      products(p, q.k + j * q.key_stride, s.q, s.q, score, again);
      top = Larger()(top, static_cast<double>(p.scale) * score);
    }
    q.top = combine(s, top, Larger());
    q.ridge = static_cast<double>(p.ridge) * exp(-q.top < 600.0 ? -q.top : 600.0);
    const double omega = apply(p, s, q, nullptr, s.mu);
    if (p.key_dim <= kDirectDim)
      solve_directly(p, s, q);
    else
      solve(p, s, q);
    const double divisor = omega - dot(p, s, s.mu, s.rho), q_rho = dot(p, s, s.q, s.rho);
    const int64_t group = divide(p.value_heads, p.key_heads);
    for (int64_t h = head * group; h < (head + 1) * group; ++h)
      write_output(p, s, q, q_rho, divisor, batch * p.v.batch + key0 * p.v.token + h * p.v.head,
                   batch * p.o.batch + (query0 + row) * p.o.token + h * p.o.head);
  }
}

}  // namespace

void local_linear_attention(const Params& p, NativeStream stream) {
  const int64_t items = p.batch * p.queries * p.key_heads;
  if (items == 0) return;
  if (p.validate) validate("local_linear_attention", p, stream);
  launch(local_kernel, dim3(static_cast<unsigned>(items < 0x7fffffff ? items : 0x7fffffff)), dim3(kThreads), 0, stream, p, items);
}

}  // namespace culebra::CUL_DEVICE_NS
