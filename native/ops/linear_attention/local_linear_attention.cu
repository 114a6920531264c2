// local_linear_attention on the device: conjugate gradients on each query's system, which is never made.
#include "device/barrier.h"
#include "ops/linear_attention/local_linear_attention.h"
#include "ops/linear_attention/recurrence.cuh"

namespace culebra::CUL_DEVICE_NS {
namespace {

using Params = LocalLinearAttentionParams;

constexpr int kWarps = 4, kThreads = 32 * kWarps;
constexpr int kPerLane = 8;  // columns of a lane: K up to 256
constexpr int kMaxDim = 32 * kPerLane;
constexpr int kCoefficients = 128;  // keys whose weights in o are in shared memory at once

struct Scratch {
  double parts[kWarps][kMaxDim];
  double mu[kMaxDim], rho[kMaxDim], residual[kMaxDim], direction[kMaxDim];
  double scalars[kWarps];
  double coefficients[kCoefficients];
};

// A query of one head, and the keys that it sees.
struct Query {
  int64_t q, k, key_stride, visible;
  double x[kPerLane];  // q in this lane's columns
};

CUL_DEVICE_FN void load_columns(const Params& p, const void* data, int64_t at, int lane, double (&x)[kPerLane]) {
#pragma unroll
  for (int i = 0; i < kPerLane; ++i) {
    const int column = lane + 32 * i;
    x[i] = column < p.key_dim ? static_cast<double>(load_one(p.dtype, data, at + column)) : 0.0;
  }
}

// Sums of two products of a key in all lanes: q.k scale, and z.x.
CUL_DEVICE_FN void products(const Params& p, const Query& q, const double (&k)[kPerLane], const double* x, int lane, double& score, double& product) {
  score = product = 0;
#pragma unroll
  for (int i = 0; i < kPerLane; ++i) {
    const int column = lane + 32 * i;
    score = fma(q.x[i], k[i], score);
    if (x && column < p.key_dim) product = fma(k[i] - q.x[i], x[column], product);
  }
  score = static_cast<double>(p.scale) * warp_sum(score);
  if (x) product = warp_sum(product);
}

// The sum over warps of a value that each warp has, in every thread.
CUL_DEVICE_FN double block_sum(Scratch& s, double value, int warp, int lane) {
  __syncthreads();
  if (lane == 0) s.scalars[warp] = value;
  __syncthreads();
  double sum = 0;
  for (int w = 0; w < kWarps; ++w) sum += s.scalars[w];
  return sum;
}

CUL_DEVICE_FN double dot(const Params& p, Scratch& s, const double* a, const double* b, int warp, int lane) {
  double sum = 0;
  for (int i = warp * 32 + lane; i < p.key_dim; i += kThreads) sum = fma(a[i], b[i], sum);
  return block_sum(s, warp_sum(sum), warp, lane);
}

// out = sum w (z.x) z + ridge x, or where x is null sum w z; returns sum w.
CUL_DEVICE_FN double apply(const Params& p, Scratch& s, const Query& q, const double* x, double* out, double top, double ridge, int warp, int lane) {
  double sums[kPerLane] = {}, omega = 0;
  for (int64_t j = warp; j < q.visible; j += kWarps) {
    double k[kPerLane], score, product;
    load_columns(p, p.k.data, q.k + j * q.key_stride, lane, k);
    products(p, q, k, x, lane, score, product);
    const double w = exp(score - top), factor = x ? w * product : w;
    omega += w;
#pragma unroll
    for (int i = 0; i < kPerLane; ++i) sums[i] = fma(factor, k[i] - q.x[i], sums[i]);
  }
  __syncthreads();
#pragma unroll
  for (int i = 0; i < kPerLane; ++i) s.parts[warp][lane + 32 * i] = sums[i];
  __syncthreads();
  for (int i = warp * 32 + lane; i < p.key_dim; i += kThreads) {
    double sum = x ? ridge * x[i] : 0.0;
    for (int w = 0; w < kWarps; ++w) sum += s.parts[w][i];
    out[i] = sum;
  }
  return block_sum(s, omega, warp, lane);
}

// rho = Sigma^-1 mu.
CUL_DEVICE_FN void solve(const Params& p, Scratch& s, const Query& q, double top, double ridge, int warp, int lane) {
  for (int i = warp * 32 + lane; i < p.key_dim; i += kThreads) {
    s.rho[i] = 0;
    s.residual[i] = s.direction[i] = s.mu[i];
  }
  double size = dot(p, s, s.residual, s.residual, warp, lane);
  const double enough = size * static_cast<double>(p.tol) * static_cast<double>(p.tol);
  // The image of a direction takes the place of the warps' parts once they are summed.
  double* const image = s.parts[0];
  for (int iteration = 0; iteration < p.cg_iters && size > enough && size > 0; ++iteration) {
    apply(p, s, q, s.direction, image, top, ridge, warp, lane);
    const double curvature = dot(p, s, s.direction, image, warp, lane);
    if (!(curvature > 0)) break;
    const double alpha = size / curvature;
    for (int i = warp * 32 + lane; i < p.key_dim; i += kThreads) {
      s.rho[i] = fma(alpha, s.direction[i], s.rho[i]);
      s.residual[i] = fma(-alpha, image[i], s.residual[i]);
    }
    const double next = dot(p, s, s.residual, s.residual, warp, lane), beta = next / size;
    for (int i = warp * 32 + lane; i < p.key_dim; i += kThreads) s.direction[i] = fma(beta, s.direction[i], s.residual[i]);
    size = next;
    __syncthreads();
  }
}

// Computes: w = e^(scale q.k), z = k - q, rho = (sum w z z^T + lambda I)^-1 sum w z, o = sum w (1 - z.rho) v / (sum w - mu.rho)
// Shapes:   q [B,T,H,K], k [B,S,H,K], v [B,S,HV,V], K and V up to 256
// Layouts:  inner stride 1, f32, f16 or bf16
// Tiles:    a block has a query of one head; a warp every fourth key, a lane every 32nd column
// Shared:   19 KB: five vectors and a sum a warp
// Order:    a warp's keys in order, then warps in order
// Numerics: double; weights as e^(score - top) with lambda times e^-top, which leaves o as it is
// Needs:    sm_80. Limit: 4 K operations in double a key and iteration; keys come from L2
// Source:   Zuo et al., arXiv:2510.01450
__global__ void __launch_bounds__(kThreads) local_kernel(Params p, int64_t items) {
  CUL_SHARED(Scratch, scratch, [1]);
  Scratch& s = scratch[0];
  const int thread = static_cast<int>(threadIdx.x), warp = thread / 32, lane = thread % 32;
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
    Query q;
    q.q = batch * p.q.batch + (query0 + row) * p.q.token + head * p.q.head;
    q.k = batch * p.k.batch + key0 * p.k.token + head * p.k.head;
    q.key_stride = p.k.token;
    q.visible = keys - queries + row + 1;
    load_columns(p, p.q.data, q.q, lane, q.x);

    double top = -INFINITY;
    for (int64_t j = warp; j < q.visible; j += kWarps) {
      double k[kPerLane], score, unused;
      load_columns(p, p.k.data, q.k + j * q.key_stride, lane, k);
      products(p, q, k, nullptr, lane, score, unused);
      top = top < score ? score : top;
    }
    __syncthreads();
    if (lane == 0) s.scalars[warp] = top;
    __syncthreads();
    for (int w = 0; w < kWarps; ++w) top = top < s.scalars[w] ? s.scalars[w] : top;
    const double ridge = static_cast<double>(p.ridge) * exp(-top < 600.0 ? -top : 600.0);
    const double omega = apply(p, s, q, nullptr, s.mu, top, 0, warp, lane);
    solve(p, s, q, top, ridge, warp, lane);
    const double divisor = omega - dot(p, s, s.mu, s.rho, warp, lane);

    const int64_t group = divide(p.value_heads, p.key_heads);
    for (int64_t h = head * group; h < (head + 1) * group; ++h) {
      constexpr int kPerThread = (kMaxDim + kThreads - 1) / kThreads;
      double o[kPerThread] = {};
      for (int64_t begin = 0; begin < q.visible; begin += kCoefficients) {
        const int count = q.visible - begin < kCoefficients ? static_cast<int>(q.visible - begin) : kCoefficients;
        __syncthreads();
        for (int j = warp; j < count; j += kWarps) {
          double k[kPerLane], score, product;
          load_columns(p, p.k.data, q.k + (begin + j) * q.key_stride, lane, k);
          products(p, q, k, s.rho, lane, score, product);
          if (lane == 0) s.coefficients[j] = exp(score - top) * (1 - product) / divisor;
        }
        __syncthreads();
#pragma unroll
        for (int i = 0; i < kPerThread; ++i)
          for (int j = 0; j < count && thread + i * kThreads < p.value_dim; ++j) {
            const int64_t v = batch * p.v.batch + (key0 + begin + j) * p.v.token + h * p.v.head + thread + i * kThreads;
            o[i] = fma(s.coefficients[j], static_cast<double>(load_one(p.dtype, p.v.data, v)), o[i]);
          }
      }
      const int64_t out = batch * p.o.batch + (query0 + row) * p.o.token + h * p.o.head + thread;
#pragma unroll
      for (int i = 0; i < kPerThread; ++i)
        if (thread + i * kThreads < p.value_dim) store_one(p.dtype, p.o.data, out + i * kThreads, static_cast<float>(o[i]));
    }
    __syncthreads();
  }
}

#if !CUL_EMULATED
__global__ void validate_ranges_kernel(Params p) {
  for (int64_t n = threadIdx.x; n < p.sequences; n += 256) {
    const int64_t queries = p.cu_queries[n + 1] - p.cu_queries[n], keys = p.cu_keys[n + 1] - p.cu_keys[n];
    const bool begins = n > 0 || (p.cu_queries[0] == 0 && p.cu_keys[0] == 0);
    if (!begins || queries < 0 || keys < queries || p.cu_queries[n + 1] > p.queries || p.cu_keys[n + 1] > p.keys)
      __trap();  // a trap is the only way a kernel can fail its device
  }
}
#endif

void validate(const Params& p, NativeStream stream) {
  if (!p.cu_queries) return;
#if CUL_EMULATED
  stream->enqueue([p] { require_valid(p); });
#else
  launch(validate_ranges_kernel, dim3(1), dim3(256), 0, stream, p);
#endif
}

}  // namespace

void local_linear_attention(const Params& p, NativeStream stream) {
  const int64_t items = p.batch * p.queries * p.key_heads;
  if (items == 0) return;
  if (p.validate) validate(p, stream);
  launch(local_kernel, dim3(static_cast<unsigned>(items < 0x7fffffff ? items : 0x7fffffff)), dim3(kThreads), 0, stream, p, items);
}

}  // namespace culebra::CUL_DEVICE_NS
