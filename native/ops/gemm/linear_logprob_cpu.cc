// linear_logprob on the cpu: tiles of logits by gemm's kernel, then one pass over each row of a tile that is still in cache.
//
// A row's words are taken in pieces of a fixed size, whatever the tile: with gemm's batch-invariant order its bits do not depend on
// the number of rows. The running maximum is kept finite, so that no difference is infinity minus infinity: a sum over -inf
// alone is 0, one with +inf is inf, and a NaN stays in the sum.
#include "ops/gemm/linear_logprob.h"

#include <cmath>

#include "backends/cpu/thread_pool.h"
#include "ops/gemm/gemm.h"
#include "ops/gemm/linear_logprob_cpu.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/gemm/linear_logprob_cpu.cc"
#include "backends/cpu/simd.h"
#include "hwy/foreach_target.h"
#include "backends/cpu/vector-inl.h"

HWY_BEFORE_NAMESPACE();
namespace culebra::cpu::HWY_NAMESPACE {
namespace {

// softcap(z) in place; -inf stays a mask, NaN a NaN.
void cap(float* z, int64_t words, float softcap) {
  const F32Tag d;
  const F32 s = hn::Set(d, softcap), inverse = hn::Set(d, 1 / softcap);
  for (int64_t i = 0; i < words; i += kLanes) {
    const F32 x = hn::LoadU(d, z + i);
    hn::StoreU(hn::IfThenElse(hn::Gt(x, hn::Set(d, -kInfinity)), hn::Mul(s, hn::Tanh(d, hn::Mul(x, inverse))), x), d, z + i);
  }
}

// Up to kPiece logits into a running log-sum. The row is padded with -inf to whole vectors.
void add_piece(const float* z, int64_t words, LogprobState& state) {
  const F32Tag d;
  F32 highest = hn::Set(d, state.maximum);
  for (int64_t i = 0; i < words; i += kLanes) {
    const F32 x = hn::LoadU(d, z + i);
    highest = hn::IfThenElse(hn::Gt(x, highest), x, highest);
  }
  const float maximum = std::min(hn::GetLane(hn::MaxOfLanes(d, highest)), kLargest);
  const F32 m = hn::Set(d, maximum);
  F32 sums[2] = {hn::Zero(d), hn::Zero(d)};
  for (int64_t i = 0; i < words; i += kLanes) {
    const F32 below = hn::Sub(hn::LoadU(d, z + i), m);
    // Above the maximum is only what is no number to take an exponential of: +inf or NaN.
    const F32 e = hn::IfThenElse(hn::Le(below, hn::Zero(d)), hn::Exp(d, below), below);
    sums[i / kLanes % 2] = hn::Add(sums[i / kLanes % 2], e);
  }
  state.sum = state.sum * std::exp(state.maximum - maximum) + hn::GetLane(hn::SumOfLanes(d, hn::Add(sums[0], sums[1])));
  state.maximum = maximum;
}

}  // namespace

// One row of a tile: words [first, first + words) of the vocabulary.
void add_row(float* z, int64_t words, int64_t first, int64_t label, float softcap, LogprobState& state) {
  for (int64_t i = words; i % kLanes; ++i) z[i] = -kInfinity;
  if (softcap > 0) cap(z, words, softcap);
  if (label >= first && label < first + words) state.label = z[label - first];
  for (int64_t i = 0; i < words; i += kPiece) add_piece(z + i, std::min(kPiece, words - i), state);
}

}  // namespace culebra::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace culebra::cpu {
HWY_EXPORT(add_row);

void linear_logprob(const LogprobParams& p, ThreadPool& pool) {
  const LogprobTile tile = logprob_tile(p.n, p.v, p.d);
  auto* const base = static_cast<std::byte*>(p.workspace);
  auto* const states = reinterpret_cast<LogprobState*>(base);
  auto* const logits = reinterpret_cast<float*>(base + tile.logits_at);
  const size_t element = size_of(p.dtype);
  const auto word_of = [&](int64_t token) {
    const int64_t target = p.targets[token];
    return target >= p.vocab_start && target - p.vocab_start < p.v ? target - p.vocab_start : int64_t{-1};
  };
  const auto finish = [&](int64_t token, const LogprobState& state) {
    const float log_sum = std::log(state.sum);
    p.lse[token] = state.maximum + log_sum;
    // A target outside the words, or of a row of -inf alone, has probability 0.
    p.logprob[token] = p.targets[token] == p.ignore_index ? 0 : state.sum == 0 ? -kInfinity : (state.label - state.maximum) - log_sum;
  };
  if (p.v == 0) {
    for (int64_t token = 0; token < p.n; ++token) finish(token, {});
    return;
  }
  for (int64_t first = 0; first < p.n; first += tile.rows) {
    const int64_t rows = std::min(tile.rows, p.n - first);
    std::fill_n(states, rows, LogprobState{});
    for (int64_t word = 0; word < p.v; word += tile.words) {
      const int64_t words = std::min(tile.words, p.v - word);
      GemmParams product{};
      product.a = static_cast<const std::byte*>(p.e) + static_cast<size_t>(first * p.lde) * element;
      product.lda = p.lde;
      product.b = static_cast<const std::byte*>(p.c) + static_cast<size_t>(word * p.ldc) * element;
      product.ldb = p.ldc;
      product.bias = p.bias ? static_cast<const std::byte*>(p.bias) + static_cast<size_t>(word) * element : nullptr;
      product.c = logits;
      product.ldc = tile.row_stride;
      product.m = rows;
      product.n = words;
      product.k = p.d;
      product.dtype = p.dtype;
      product.out_dtype = DType::f32;
      product.act = CUL_ACT_NONE;
      product.batch_invariant = p.batch_invariant;
      product.workspace = base + tile.gemm_at;
      gemm(product, pool);
      pool.parallel_for(rows, 1, [&](int64_t begin, int64_t end) {
        for (int64_t row = begin; row < end; ++row)
          HWY_DYNAMIC_DISPATCH(add_row)(logits + row * tile.row_stride, words, word, word_of(first + row), p.softcap, states[row]);
      });
    }
    for (int64_t row = 0; row < rows; ++row) finish(first + row, states[row]);
  }
}
}  // namespace culebra::cpu
#endif
