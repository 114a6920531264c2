// Prefills of mixture_of_memories: the tokens of each memory gathered into a sequence of its own, and what they give brought back.
#include "ops/linear_attention/memory_routes.cuh"

#include "device/barrier.h"

namespace culebra::CUL_DEVICE_NS {
namespace {

using Params = MixtureOfMemoriesParams;

constexpr int kThreads = 256;

CUL_DEVICE_FN int32_t id_at(const Params& p, int64_t batch, int64_t token, int64_t slot) {
  return static_cast<const int32_t*>(p.ids.data)[batch * p.ids.batch + token * p.ids.token + slot];
}

// The slot of a token that memory m is in; -1: none.
CUL_DEVICE_FN int slot_of(const Params& p, int64_t batch, int64_t token, int64_t m) {
  int slot = -1;
  for (int64_t j = 0; j < p.slots; ++j)
    if (id_at(p, batch, token, j) == m) slot = static_cast<int>(j);
  return slot;
}

// The threads' flags before this one, and all of them. All threads call.
struct Ranked {
  int before, all;
};
CUL_DEVICE_FN Ranked rank_of(bool flag) {
  CUL_SHARED(int, counts, [kThreads / 32]);
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  const unsigned votes = __ballot_sync(kFullMask, flag);
  if (lane == 0) counts[warp] = __popc(votes);
  __syncthreads();
  Ranked result{__popc(votes & ((1u << lane) - 1)), 0};
  for (int w = 0; w < kThreads / 32; ++w) {
    if (w < warp) result.before += counts[w];
    result.all += counts[w];
  }
  __syncthreads();
  return result;
}

// Computes: how many tokens each memory of each sequence has, or, with the sums of that, which
// Shapes:   ids [B,T,k]; counts i32 [N M + 1], later their sums; sources, places i32 [B T k]
// Layouts:  dense but for ids
// Tiles:    a block has a memory of a sequence, 256 tokens at a time
// Shared:   counts of its warps
// Order:    tokens in order
// Numerics: integers
// Needs:    sm_80. Limit: ids M times, from L2
// Source:   Du et al., arXiv:2502.13685
template <bool kPlace>
__global__ void __launch_bounds__(kThreads) route_kernel(Params p) {
  const int64_t n = divide(blockIdx.x, p.memories), m = blockIdx.x - n * p.memories;
  const SequenceSpan seq = sequence_at(p.sequences, n);
  const bool gathered = !seq.skipped && seq.length > kRecurrentTokens;
  int count = 0;
  const int first = kPlace ? p.gathered.begins[blockIdx.x] : 0;
  for (int64_t begin = 0; gathered && begin < seq.length; begin += kThreads) {
    const int64_t t = begin + threadIdx.x, token = seq.begin + t;
    const int slot = t < seq.length ? slot_of(p, seq.batch, token, m) : -1;
    const Ranked rank = rank_of(slot >= 0);
    if (kPlace && slot >= 0) {
      const int64_t row = (seq.batch * p.sequences.tokens + token) * p.slots;
      const int place = first + count + rank.before;
      p.gathered.sources[place] = static_cast<int32_t>(row + slot);
      // Against the contract a token may name a memory twice: those slots share one place, so that each has one.
      for (int64_t j = 0; j <= slot; ++j)
        if (id_at(p, seq.batch, token, j) == m) p.gathered.places[row + j] = place;
    }
    count += rank.all;
  }
  if (threadIdx.x) return;
  if (!kPlace) p.gathered.begins[blockIdx.x + 1] = count;
  if (!kPlace && blockIdx.x == 0) p.gathered.begins[0] = 0;
  if (kPlace) {
    p.gathered.read_rows[blockIdx.x] = gathered ? static_cast<int32_t>(seq.read_row * p.memories + m) : -1;
    p.gathered.write_rows[blockIdx.x] = gathered ? static_cast<int32_t>(seq.write_row * p.memories + m) : -1;
  }
}

// Computes: counts to their sums, in place
// Shapes:   [N M + 1]
// Layouts:  dense
// Tiles:    one warp
// Shared:   none
// Order:    in order
// Numerics: integers
// Needs:    sm_80. Limit: the launch
// Source:   none
__global__ void __launch_bounds__(32) sum_counts_kernel(int32_t* counts, int64_t length) {
  int before = 0;
  for (int64_t i = threadIdx.x; i - static_cast<int64_t>(threadIdx.x) < length; i += 32) {
    const int sum = before + warp_inclusive_sum(i < length ? counts[i] : 0);
    if (i < length) counts[i] = sum;
    before = __shfl_sync(kFullMask, sum, 31);
  }
}

template <class T>
CUL_DEVICE_FN void copy_head(T* to, const T* from, int64_t columns, bool aligned, int lane) {
  if (aligned) {
    for (int64_t c = 8 * lane; c < columns; c += 256) store_vector(to + c, load_vector<8>(from + c));
  } else {
    for (int64_t c = lane; c < columns; c += 32) to[c] = from[c];
  }
}

// Computes: q, k, v, beta and gates of the tokens of all memories, one behind the other
// Shapes:   [entries,H,K], [entries,HV,V], [entries,HV]
// Layouts:  from any strides to dense
// Tiles:    a warp has an entry
// Shared:   none
// Order:    none
// Numerics: copies
// Needs:    sm_80. Limit: everything once in and once out
// Source:   Du et al., arXiv:2502.13685
template <class T>
__global__ void __launch_bounds__(kThreads) gather_kernel(Params p, bool aligned) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int64_t entries = p.gathered.begins[p.sequences.count * p.memories], heads = p.key_heads, value_heads = p.value_heads;
  for (int64_t e = int64_t{blockIdx.x} * (kThreads / 32) + threadIdx.x / 32; e < entries; e += int64_t{gridDim.x} * (kThreads / 32)) {
    const int64_t source = p.gathered.sources[e], row = divide(source, p.slots), j = source - row * p.slots;
    const int64_t batch = divide(row, p.sequences.tokens), token = row - batch * p.sequences.tokens;
    for (int64_t h = 0; h < heads; ++h) {
      copy_head(static_cast<T*>(p.gathered.q) + (e * heads + h) * p.key_dim, head_row<const T>(p.q, batch, token, h) + j * p.slot.q, p.key_dim,
                aligned, lane);
      copy_head(static_cast<T*>(p.gathered.k) + (e * heads + h) * p.key_dim, head_row<const T>(p.k, batch, token, h) + j * p.slot.k, p.key_dim,
                aligned, lane);
    }
    for (int64_t h = 0; h < value_heads; ++h)
      copy_head(static_cast<T*>(p.gathered.v) + (e * value_heads + h) * p.value_dim, head_row<const T>(p.v, batch, token, h) + j * p.slot.v,
                p.value_dim, aligned, lane);
    for (int64_t h = lane; h < value_heads; h += 32) {
      p.gathered.beta[e * value_heads + h] = head_row<const float>(p.beta, batch, token, h)[j * p.slot.beta];
      p.gathered.gate[e * value_heads + h] = LogGate<false>(p, h, 0)(load_one(
          gate_type(p), p.gate.data, batch * p.gate.batch + token * p.gate.token + j * p.slot.gate + h * p.gate.head));
    }
  }
}

// Computes: o = sum over slots of weights[j] o_j
// Shapes:   o [B,T,HV,V], o_j [entries,HV,V], weights [B,T,k]
// Layouts:  o any strides; o_j dense
// Tiles:    a warp has a token and head
// Shared:   none
// Order:    slots in order
// Numerics: f32 of rounded o_j
// Needs:    sm_80. Limit: o_j once in, o once out
// Source:   Du et al., arXiv:2502.13685
template <class T>
__global__ void __launch_bounds__(kThreads) combine_memories_kernel(Params p) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int64_t items = p.batch * p.sequences.tokens * p.value_heads;
  for (int64_t item = int64_t{blockIdx.x} * (kThreads / 32) + threadIdx.x / 32; item < items; item += int64_t{gridDim.x} * (kThreads / 32)) {
    const int64_t row = divide(item, p.value_heads), head = item - row * p.value_heads;
    const int64_t batch = divide(row, p.sequences.tokens), token = row - batch * p.sequences.tokens;
    const int64_t n = p.sequences.cu_seqlens ? sequence_of_token(p.sequences, token) : batch;
    if (n >= p.sequences.count) continue;  // nobody's
    const SequenceSpan seq = sequence_at(p.sequences, n);
    if (seq.length <= kRecurrentTokens) continue;
    for (int64_t c = lane; c < p.value_dim; c += 32) {
      float sum = 0;
      for (int64_t j = 0; j < p.slots && !seq.skipped; ++j) {
        const int32_t id = id_at(p, batch, token, j);
        if (id < 0 || id >= p.memories) continue;
        const int64_t place = p.gathered.places[row * p.slots + j];
        sum = fmaf(static_cast<const float*>(p.weights.data)[batch * p.weights.batch + token * p.weights.token + j],
                   to_float(static_cast<const T*>(p.gathered.o)[(place * p.value_heads + head) * p.value_dim + c]), sum);
      }
      head_row<T>(p.o, batch, token, head)[c] = from_float<T>(sum);
    }
  }
}

dim3 blocks_of(int64_t warps) {
  const int64_t blocks = (warps + kThreads / 32 - 1) / (kThreads / 32);
  return dim3(static_cast<unsigned>(blocks < 0x7fffffff ? blocks : 0x7fffffff));
}

}  // namespace

void gather_memories(const Params& p, NativeStream stream) {
  const int64_t sequences = p.sequences.count * p.memories;
  const dim3 grid(static_cast<unsigned>(sequences)), block(kThreads);
  launch(route_kernel<false>, grid, block, 0, stream, p);
  launch(sum_counts_kernel, dim3(1), dim3(32), 0, stream, p.gathered.begins, sequences + 1);
  launch(route_kernel<true>, grid, block, 0, stream, p);
  const auto eights = [](const Params::Heads& x, int64_t slot) { return x.batch % 8 == 0 && x.token % 8 == 0 && x.head % 8 == 0 && slot % 8 == 0; };
  const bool aligned = eights(p.q, p.slot.q) && eights(p.k, p.slot.k) && eights(p.v, p.slot.v);
  const dim3 all = blocks_of(p.batch * p.sequences.tokens * p.slots);
  if (p.dtype == DType::f16)
    launch(gather_kernel<half_t>, all, block, 0, stream, p, aligned);
  else
    launch(gather_kernel<bfloat16_t>, all, block, 0, stream, p, aligned);
}

void combine_memories(const Params& p, NativeStream stream) {
  const dim3 all = blocks_of(p.batch * p.sequences.tokens * p.value_heads), block(kThreads);
  if (p.dtype == DType::f16)
    launch(combine_memories_kernel<half_t>, all, block, 0, stream, p);
  else
    launch(combine_memories_kernel<bfloat16_t>, all, block, 0, stream, p);
}

}  // namespace culebra::CUL_DEVICE_NS
