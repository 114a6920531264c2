#include "device/atomic.h"
#include "ops/glue/sample.h"
#include "ops/glue/sample_weights.h"
#include "ops/glue/tiles.cuh"

namespace culebra::CUL_DEVICE_NS {
namespace glue {

using SampleTeam = Team<512>;
inline constexpr int kSampleThreads = SampleTeam::kBlock;

// Counts and masses of a digit's bins in shared memory. A mass is two words, added with native 32-bit atomics: whichever addition wraps the low
// word carries into the high one, so that the sum is exact and the order is not to be seen.
template <int kBins>
struct Histogram {
  static constexpr int kWords = 3 * kBins;
  uint32_t* words;

  CUL_DEVICE_FN void clear() {
    for (int i = threadIdx.x; i < kWords; i += kSampleThreads) words[i] = 0;
    __syncthreads();
  }
  CUL_DEVICE_FN void add(uint32_t bin, uint64_t weight) {
    atomicAdd(&words[bin], 1u);
    const auto low = static_cast<uint32_t>(weight);
    const uint32_t before = atomicAdd(&words[kBins + bin], low);
    const uint32_t high = static_cast<uint32_t>(weight >> 32) + (before + low < before ? 1 : 0);
    if (high > 0) atomicAdd(&words[2 * kBins + bin], high);
  }
  CUL_DEVICE_FN uint64_t count(int bin) const { return words[bin]; }
  CUL_DEVICE_FN uint64_t mass(int bin) const {
    return static_cast<uint64_t>(words[2 * kBins + bin]) << 32 | words[kBins + bin];
  }
};

// The sum of `value` over the threads before this one.
CUL_DEVICE_FN uint64_t sum_before(uint64_t value) {
  constexpr int kWarps = kSampleThreads / 32;
  CUL_SHARED(uint64_t, of_warp, [kWarps]);
  const uint64_t up_to_here = warp_inclusive_sum(value);
  if (threadIdx.x % 32 == 31) of_warp[threadIdx.x / 32] = up_to_here;
  __syncthreads();
  uint64_t before = up_to_here - value;
  for (int w = 0; w < static_cast<int>(threadIdx.x / 32); ++w) before += of_warp[w];
  __syncthreads();
  return before;
}

// Moves `at` to the bin in which crossed(count, mass) turns true; exactly one does.
template <int kBins, class Crossed>
CUL_DEVICE_FN Crossing advance(const Histogram<kBins>& bins, const Crossing& at, Crossed crossed) {
  CUL_SHARED(Crossing, found, [1]);
  constexpr int kMine = kBins / kSampleThreads;
  uint64_t count = 0, mass = 0;
#pragma unroll
  for (int i = 0; i < kMine; ++i) {
    count += bins.count(threadIdx.x * kMine + i);
    mass += bins.mass(threadIdx.x * kMine + i);
  }
  Crossing mine{at.key + threadIdx.x * kMine, at.count + sum_before(count), at.mass + sum_before(mass)};
  if (!crossed(mine.count, mine.mass) && crossed(mine.count + count, mine.mass + mass)) {
    for (int i = threadIdx.x * kMine; !crossed(mine.count + bins.count(i), mine.mass + bins.mass(i)); ++i) {
      mine.count += bins.count(i);
      mine.mass += bins.mass(i);
      ++mine.key;
    }
    found[0] = mine;
  }
  __syncthreads();
  const Crossing result = found[0];
  __syncthreads();
  return result;
}

// One row as sampling sees it: keys, and the histogram of their first digit.
template <class T>
struct Candidates {
  const T* logits;
  int64_t n;
  bool aligned;
  float max, inverse_temperature;
  int shift;
  Histogram<kCoarseBins> coarse;
  Histogram<kFineBins> fine;

  CUL_DEVICE_FN uint32_t key(float logit) const { return sample_key(logit, max, inverse_temperature); }
  CUL_DEVICE_FN uint64_t weight(uint64_t key) const { return sample_weight(static_cast<uint32_t>(key), shift); }

  template <class F>  // f(logit) of this thread's part of the row
  CUL_DEVICE_FN void for_logits(F f) const {
    SampleTeam::for_packs<T>(n, [&](int64_t i, int count) {
      const Pack<T> v = load_pack(logits + i, count, aligned);
#pragma unroll
      for (int j = 0; j < Pack<T>::kSize; ++j)
        if (j < count) f(v.v[j]);
    });
  }

  // crossed(count, mass) of the leading tokens turns true at some key.
  template <class Crossed>
  CUL_DEVICE_FN Crossing cross(Crossed crossed) {
    Crossing at = advance(coarse, Crossing{0, 0, 0}, crossed);
    for (int level = 1; level < 3; ++level) {
      const int above = digit_shift(level - 1), here = digit_shift(level);
      fine.clear();
      for_logits([&](float logit) {
        const uint32_t k = key(logit);
        if (k >> above == at.key) fine.add(k >> here & (kFineBins - 1), weight(k));
      });
      __syncthreads();
      at.key <<= above - here;
      at = advance(fine, at, crossed);
    }
    return at;
  }

  // The id of the `rank`th token of this key. Each thread looks through its own run of ids.
  CUL_DEVICE_FN int32_t id(uint64_t wanted, uint64_t rank) const {
    CUL_SHARED(int32_t, found, [1]);
    const int64_t length = (n + kSampleThreads - 1) / kSampleThreads, first = threadIdx.x * length;
    const int64_t last = first + length < n ? first + length : n;
    uint64_t mine = 0;
    for (int64_t i = first; i < last; ++i) mine += key(to_float(logits[i])) == wanted;
    const uint64_t before = sum_before(mine);
    if (before <= rank && rank < before + mine) {
      uint64_t left = rank - before;
      for (int64_t i = first; i < last; ++i)
        if (key(to_float(logits[i])) == wanted && left-- == 0) {
          found[0] = static_cast<int32_t>(i);
          break;
        }
    }
    __syncthreads();
    const int32_t result = found[0];
    __syncthreads();
    return result;
  }
};

template <class T>
CUL_DEVICE_FN int32_t draw(const SampleParams& p, int64_t row, Candidates<T>& candidates) {
  const uint64_t least = sample_least(p.min_p[row], p.shift);
  uint64_t total = 0, likely = 0;  // of all tokens, of those that min_p keeps
  candidates.coarse.clear();
  candidates.for_logits([&](float logit) {
    const uint32_t key = candidates.key(logit);
    const uint64_t weight = candidates.weight(key);
    if (weight == 0) return;
    candidates.coarse.add(key >> digit_shift(0), weight);
    total += weight;
    if (weight >= least) likely += weight;
  });
  const auto plus = [](uint64_t a, uint64_t b) { return a + b; };
  total = SampleTeam::reduce(total, plus);
  likely = SampleTeam::reduce(likely, plus);
  if (total == 0) return 0;  // nothing but NaN
  const auto kept_by = [&](int32_t top_k, uint64_t reach) {
    const Crossing at = candidates.cross([&](uint64_t count, uint64_t mass) {
      return mass >= reach || (top_k > 0 && count >= static_cast<uint64_t>(top_k));
    });
    return kept_mass(at, candidates.weight(at.key), top_k, reach);
  };
  const int32_t top_k = p.top_k[row];
  uint64_t kept = top_k > 0 ? kept_by(top_k, total) : total;
  if (const uint64_t reach = sample_mass(p.top_p[row], kept); reach < kept) kept = std::min(kept, kept_by(0, reach));
  kept = std::min(kept, likely);
  const uint64_t target = sample_target(kept, p.seed[row], p.position[row]);
  const Crossing at = candidates.cross([&](uint64_t, uint64_t mass) { return mass > target; });
  return candidates.id(at.key, (target - at.mass) / candidates.weight(at.key));
}

// Computes: one token a row: softmax(logits / temperature) cut to top_k, top_p, min_p and drawn by inverse transform; log softmax at it
// Shapes:   logits [B,V], V in 1..2^31-1; temperature, top_p, min_p f32, top_k i32, seed, position i64 [B] -> ids i32, logprob f32 [B]
// Layouts:  rows with inner stride 1, f32, f16 or bf16; 16-byte accesses where every row is aligned
// Tiles:    a row per block of 512 threads, which looks at it five times, two more for each of top_k and top_p, once more for logprob: from L2 after the first
// Shared:   histograms of 1024 and 2048 bins of 12 bytes: 36 KB
// Order:    integer sums: none. The sum of logprob: each thread its packs, then butterflies
// Numerics: weights and their sums are fixed-point integers, the same on every backend (sample_weights.h)
// Needs:    sm_80
// Source:   README.md, "Sampling"; Philox4x32-10: Salmon et al., SC 2011
template <class T>
__global__ void __launch_bounds__(kSampleThreads, 1) sample_kernel(SampleParams p) {
  CUL_SHARED(uint32_t, coarse, [Histogram<kCoarseBins>::kWords]);
  CUL_SHARED(uint32_t, fine, [Histogram<kFineBins>::kWords]);
  SampleTeam::for_rows(p.rows, [&](int64_t row) {
    const T* logits = p.logits.row<const T>(row);
    const float temperature = p.temperature[row];
    Candidates<T> candidates{logits, p.columns, p.aligned, -INFINITY, 1.0f / temperature, p.shift, {coarse}, {fine}};
    float max = -INFINITY;
    candidates.for_logits([&](float logit) {
      if (logit > max) max = logit;
    });
    candidates.max = max = SampleTeam::max_of(max);
    const int32_t id = temperature > 0 ? draw(p, row, candidates)
                                       : argmax_index(SampleTeam::argmax(logits, p.columns, p.aligned));
    if (threadIdx.x == 0) p.ids[row] = id;
    if (p.logprob) {
      float sum = 0;
      candidates.for_logits([&](float logit) { sum += __expf(logit - max); });
      sum = SampleTeam::sum(sum);
      if (threadIdx.x == 0) p.logprob[row] = to_float(logits[id]) - max - logf(sum);
    }
  });
}

}  // namespace glue

void sample(const SampleParams& p, NativeStream stream) {
  if (p.rows == 0) return;
  with_float(p.dtype, [&](auto tag) {
    const dim3 blocks(static_cast<unsigned>(std::min(p.rows, glue::kMaxGrid)));
    launch(glue::sample_kernel<decltype(tag)>, blocks, dim3(glue::kSampleThreads), 0, stream, p);
  });
}

}  // namespace culebra::CUL_DEVICE_NS
