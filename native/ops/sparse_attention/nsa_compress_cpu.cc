// Compressed rows of one KV head are independent. mean adds rows; linear is, for each i, a product of up to 16 rows with
// w[i], whose rows are converted once for all of them.
#include <algorithm>
#include <vector>

#include "backends/cpu/thread_pool.h"
#include "ops/sparse_attention/nsa_compress.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/sparse_attention/nsa_compress_cpu.cc"
#include "backends/cpu/simd.h"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "backends/cpu/rows-inl.h"

HWY_BEFORE_NAMESPACE();
namespace culebra::cpu::HWY_NAMESPACE {

using Params = NsaCompressParams;
constexpr int64_t kItemRows = Params::kItemRows;

// to += factor * from, on padded(n) elements.
HWY_INLINE void add_row(float factor, const float* from, int64_t n, float* to) {
  const F32 f = hn::Set(F32Tag(), factor);
  for (int64_t i = 0; i < n; i += kLanes) store_f32(hn::MulAdd(f, load(from + i), load(to + i)), to + i);
}

// Output row j of sequence b begins at token x_rows[j]; count of them, which become y rows from `out` on.
template <class T>
void compress_rows(const Params& p, const int64_t* tokens, int64_t count, int64_t out, int64_t head,
                   std::vector<float>& memory) {
  const int64_t pitch = padded(p.dim);
  memory.resize(static_cast<size_t>((2 * kItemRows + 2) * pitch));
  float *sums = memory.data(), *in = sums + kItemRows * pitch, *pe = in + kItemRows * pitch, *w = pe + pitch;
  std::fill(sums, sums + count * pitch, 0.0f);
  std::fill(pe, pe + pitch, 0.0f);
  for (int64_t i = 0; i < p.l; ++i) {
    if (p.pe.data) load_row(p.pe.at<const T>(i, head), p.dim, pe);
    for (int64_t j = 0; j < count; ++j) {
      load_row(p.x.at<const T>(tokens[j] + i, head), p.dim, in + j * pitch);
      if (p.pe.data) add_row(1, pe, p.dim, in + j * pitch);
    }
    if (!p.linear) {
      for (int64_t j = 0; j < count; ++j) add_row(1, in + j * pitch, p.dim, sums + j * pitch);
      continue;
    }
    for (int64_t c = 0; c < p.dim; ++c) {
      load_row(p.w.at<const T>(i, head) + c * p.w_in, p.dim, w);
      for (int64_t j = 0; j < count; ++j) add_row(in[j * pitch + c], w, p.dim, sums + j * pitch);
    }
  }
  for (int64_t j = 0; j < count; ++j) {
    if (!p.linear) scale_row(sums + j * pitch, 1 / static_cast<float>(p.l), p.dim);
    store_row(sums + j * pitch, p.dim, p.y.at<T>(out + j, head));
  }
}

// Work items: (kItemRows output rows, KV head), heads fastest.
void compress_items(const Params& p, int64_t begin, int64_t end) {
  static thread_local std::vector<float> memory;
  const int64_t total = p.cu_out[p.sequences];
  for (int64_t item = begin; item < end; ++item) {
    const int64_t out = item / p.heads * kItemRows, count = std::min(kItemRows, total - out);
    int64_t tokens[kItemRows];
    int64_t b = std::upper_bound(p.cu_out, p.cu_out + p.sequences + 1, out) - p.cu_out - 1;
    for (int64_t j = 0; j < count; ++j) {
      while (out + j >= p.cu_out[b + 1]) ++b;
      tokens[j] = p.cu_seqlens[b] + (out + j - p.cu_out[b]) * p.d;
    }
    with_float_type(p.dtype, [&](auto type) {
      compress_rows<decltype(type)>(p, tokens, count, out, item % p.heads, memory);
    });
  }
}

}  // namespace culebra::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace culebra::cpu {

HWY_EXPORT(compress_items);

void nsa_compress(const NsaCompressParams& p, ThreadPool& pool) {
  require_valid("nsa_compress", p);
  p.cu_out[0] = 0;
  for (int64_t b = 0; b < p.sequences; ++b)
    p.cu_out[b + 1] =
        p.cu_out[b] + static_cast<int32_t>(compressed_rows(p.cu_seqlens[b + 1] - p.cu_seqlens[b], p.l, p.d));
  const int64_t items = (p.cu_out[p.sequences] + p.kItemRows - 1) / p.kItemRows * p.heads;
  const auto run = HWY_DYNAMIC_DISPATCH(compress_items);
  pool.parallel_for(items, 1, [&](int64_t begin, int64_t end) { run(p, begin, end); });
}

}  // namespace culebra::cpu
#endif
