#include "device/mma.h"
#include "device/validate.h"
#include "device/warp.h"
#include "ops/attention/tile/key_tiles.cuh"
#include "ops/sparse_attention/nsa.cuh"
#include "ops/sparse_attention/nsa_tours.cuh"

namespace culebra::CUL_DEVICE_NS {
namespace {

// Half operands by mma, f32 by FMAs. kRows and kKeys are SelectPlan's.
template <class T, int kDim_>
struct SelectTile {
  using Element = T;
  static constexpr bool kHalf = sizeof(T) == 2;
  static constexpr int kDim = kDim_, kThreads = 128, kRows = kHalf ? 64 : 16, kKeys = kHalf ? 64 : 32;
  static constexpr int kPitch = kDim + 16 / static_cast<int>(sizeof(T)), kWeightPitch = kKeys + 1;
  static constexpr int kTileBytes = (kRows + kKeys) * kPitch * static_cast<int>(sizeof(T)) + kRows * (kWeightPitch + 1) * 4;
};

// weights[r][j] = q_r . k_j for the tile's rows and keys.
template <class Tile>
CUL_DEVICE_FN void products(const typename Tile::Element* q, const typename Tile::Element* k, int dim, float* weights) {
  using T = typename Tile::Element;
  const int thread = static_cast<int>(threadIdx.x), lane = thread % 32, warp = thread / 32;
  if constexpr (Tile::kHalf) {
    float s[Tile::kKeys / 8][4] = {};
#pragma unroll 4
    for (int c = 0; c < dim; c += 16) {
      uint32_t a[4];
      ldmatrix_x4(a, shared_address(q + (warp * 16 + lane % 16) * Tile::kPitch + c + lane / 16 * 8));
#pragma unroll
      for (int i = 0; i < Tile::kKeys / 16; ++i) {
        uint32_t b[4];
        ldmatrix_x4(b, shared_address(k + (i * 16 + lane / 16 * 8 + lane % 8) * Tile::kPitch + c + lane / 8 % 2 * 8));
        mma_m16n8k16<T>(s[2 * i], a, b[0], b[1]);
        mma_m16n8k16<T>(s[2 * i + 1], a, b[2], b[3]);
      }
    }
#pragma unroll
    for (int i = 0; i < Tile::kKeys / 8; ++i)
#pragma unroll
      for (int j = 0; j < 4; ++j)
        weights[(warp * 16 + lane / 4 + j / 2 * 8) * Tile::kWeightPitch + i * 8 + lane % 4 * 2 + j % 2] = s[i][j];
  } else {
    constexpr int kMine = Tile::kRows / 4;
    float s[kMine] = {};
#pragma unroll 4
    for (int c = 0; c < dim; ++c) {
      const float x = k[lane * Tile::kPitch + c];
#pragma unroll
      for (int r = 0; r < kMine; ++r) s[r] = fmaf(x, q[(warp * kMine + r) * Tile::kPitch + c], s[r]);
    }
#pragma unroll
    for (int r = 0; r < kMine; ++r) weights[(warp * kMine + r) * Tile::kWeightPitch + lane] = s[r];
  }
}

// Rows into shared memory, zeros where row(i) is null and beyond dim up to the next multiple of 16.
template <class Tile, int kCount, class Row>
CUL_DEVICE_FN void load_rows(typename Tile::Element* tile, const NsaParams& p, Row row) {
  using T = typename Tile::Element;
  const int thread = static_cast<int>(threadIdx.x), dim = static_cast<int>(p.dim);
  if constexpr (Tile::kHalf) {
    fetch_rows<kCount, Tile::kThreads, Tile::kDim>(tile, dim, p.aligned, p.q.data, thread, row);
  } else {
#pragma unroll 1
    for (int i = thread; i < kCount * dim; i += Tile::kThreads) {
      const T* from = static_cast<const T*>(row(i / dim));
      tile[i / dim * Tile::kPitch + i % dim] = from ? from[i % dim] : T{};
    }
  }
}

// The order in which blocks are chosen, ascending: chosen already, NaN, then by score; of equal scores the lower block is later.
CUL_DEVICE_FN uint64_t choice_key(float score, int64_t block) {
  if (score == kNoScore) return 0;
  const uint32_t order = score == score ? __float_as_uint(score) | 0x80000000u : 1u;
  return static_cast<uint64_t>(order) << 32 | (0xffffffffu - static_cast<uint32_t>(block));
}

// One warp chooses for one query: idx, ascending, and how many. scores of the first `slots` blocks are used up.
CUL_DEVICE_FN int choose(const NsaParams& p, float* scores, int64_t slots, int64_t candidates, int32_t* idx) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int64_t scored = min(candidates, slots);
  if (candidates > p.topk) {
    const auto best = [&] {
      uint64_t key = 0;
      for (int64_t b = lane; b < scored; b += 32)
        if (!p.forced(b, candidates)) key = max(key, choice_key(scores[b], b));
      return key;
    };
    uint64_t mine = best();
    for (int64_t i = p.init + p.local; i < p.topk; ++i) {
      const uint64_t highest = warp_max(mine);
      if (highest == 0) break;
      if (mine == highest) {
        scores[0xffffffffu - static_cast<uint32_t>(highest)] = kNoScore;
        mine = best();
      }
    }
    __syncwarp();
  }
  int count = 0;
  for (int64_t first = 0; first < candidates; first += 32) {
    const int64_t b = first + lane;
    const bool chosen = b < candidates && (candidates <= p.topk || p.forced(b, candidates) || (b < scored && scores[b] == kNoScore));
    const unsigned all = __ballot_sync(kFullMask, chosen);
    if (chosen) idx[count + __popc(all & ((1u << lane) - 1))] = static_cast<int32_t>(b);
    count += __popc(all);
  }
  for (int64_t i = count + lane; i < p.topk; i += 32) idx[i] = -1;
  return count;
}

// Computes: the blocks that each query attends to: probabilities of the compressed keys, their weighted sums per block, the best of them
// Shapes:   q [Tq,Hq,D], k_cmp [Tc,Hkv,D], lse [Tq,Hq] -> idx [Hkv,Tq,topk], count [Hkv,Tq]; D up to kDim
// Layouts:  rows with inner stride 1; 16-byte copies where every row is aligned
// Tiles:    64 rows (query, head of the group; f32: 16) x 64 compressed keys (32); queries share the keys, larger groups go in parts
// Shared:   both operands, the products in f32, a score per query and block: no score leaves the block
// Order:    heads ascending, then compressed keys ascending in the sum of each block; choices by warps, one query each
// Numerics: f32; exponentials by ex2.approx. A tie goes to the lower block, NaN comes last
// Needs:    sm_80 (cp.async, mma.m16n8k16). Limit: 2 D operations per query head and compressed key
// Source:   Yuan et al., arXiv:2502.11089, equations 8 to 12
template <class Tile>
__global__ void __launch_bounds__(Tile::kThreads) select_kernel(NsaParams p, int64_t slots_of_tiles) {
  using T = typename Tile::Element;
  constexpr int kRows = Tile::kRows, kKeys = Tile::kKeys, kPitch = Tile::kWeightPitch;
  CUL_DYNAMIC_SHARED(unsigned char, shared, 128);
  T* const q = reinterpret_cast<T*>(shared);
  T* const k = q + kRows * Tile::kPitch;
  float* const weights = reinterpret_cast<float*>(k + kKeys * Tile::kPitch);
  float* const lse = weights + kRows * kPitch;  // of the part's rows, times log2 e
  float* const scores = lse + kRows;
  const int thread = static_cast<int>(threadIdx.x), warp = thread / 32;
  const int64_t block = blockIdx.x, head = block % p.kv_heads;
  const int tile_queries = p.select.queries;
  const SequenceTile at =
      find_sequence(p.cu_q, static_cast<int>(p.sequences), 1, tile_queries, slots_of_tiles - 1 - block / p.kv_heads);
  if (at.sequence < 0) return;
  const int b = at.sequence, length = p.cu_q[b + 1] - p.cu_q[b], first = at.tile * tile_queries, count = min(tile_queries, length - first);
  const int64_t query0 = p.cu_q[b] + first, position0 = int64_t{first} + (p.cu_k[b + 1] - p.cu_k[b]) - length;
  const int64_t key0 = p.cu_cmp[b], keys = p.cu_cmp[b + 1] - key0, slots = p.select.slots;
  const int64_t most = p.compressed_seen(position0 + count - 1, keys);
  const int group = static_cast<int>(p.group()), heads_at_once = min(group, kRows);
  const int bd = static_cast<int>(p.block / p.d), ld = static_cast<int>(p.l / p.d);
  const float factor = p.scale * kLog2e;

#pragma unroll 1
  for (int64_t i = thread; i < count * slots; i += Tile::kThreads) scores[i] = 0;
  for (int part = 0; part < group; part += heads_at_once) {
    const int heads = min(heads_at_once, group - part), rows = count * heads;
    const auto head_of = [&](int r) { return head * group + part + r % heads; };
    __syncthreads();
    if (thread < rows) lse[thread] = *p.lse.at<const float>(query0 + thread / heads, head_of(thread)) * kLog2e;
    load_rows<Tile, kRows>(q, p, [&](int r) -> const void* { return r < rows ? p.q.at<const T>(query0 + r / heads, head_of(r)) : nullptr; });
    cp_async_commit();  // also where no key follows
    for (int64_t j0 = 0; j0 < most; j0 += kKeys) {
      load_rows<Tile, kKeys>(
          k, p, [&](int j) -> const void* { return j0 + j < most ? p.k_cmp.at<const T>(key0 + j0 + j, head) : nullptr; });
      cp_async_commit();
      cp_async_wait<0>();
      __syncthreads();
      products<Tile>(q, k, static_cast<int>(p.dim), weights);
      __syncthreads();
      // A query's probabilities, in the row of its first head.
#pragma unroll 1
      for (int i = thread; i < count * kKeys; i += Tile::kThreads) {
        const int query = i / kKeys, j = i % kKeys;
        const bool seen = j0 + j < p.compressed_seen(position0 + query, keys);
        float sum = 0;
#pragma unroll 1
        for (int h = 0; h < heads && seen; ++h) {
          const int r = query * heads + h;
          sum += fast_exp2(weights[r * kPitch + j] * factor - lse[r]);
        }
        weights[query * heads * kPitch + j] = sum;
      }
      __syncthreads();
      const int64_t j1 = min(j0 + kKeys, most), low = j0 / bd, high = min((j1 - 1 + ld - 1) / bd + 1, slots);
      const int blocks = static_cast<int>(max(high - low, int64_t{0}));
#pragma unroll 1
      for (int i = thread; i < count * blocks; i += Tile::kThreads) {
        const int query = i / blocks;
        const int64_t chosen = low + i % blocks, origin = chosen * bd - (ld - 1);  // the key of W[0]
        float sum = scores[query * slots + chosen];
#pragma unroll 1
        for (int64_t j = max(origin, j0); j < min(origin + ld + bd - 1, j1); ++j)
          sum = fmaf(static_cast<float>(p.score_weight(j - origin)), weights[query * heads * kPitch + (j - j0)], sum);
        scores[query * slots + chosen] = sum;
      }
    }
  }
  cp_async_wait<0>();
  __syncthreads();
  for (int query = warp; query < count; query += Tile::kThreads / 32) {
    const int64_t t = query0 + query;
    const int chosen = choose(p, scores + query * slots, slots, p.candidates(position0 + query), p.idx_of(head, t));
    if (p.count && thread % 32 == 0) p.count[head * p.count_head + t] = chosen;
  }
}

template <class T, int kDim>
void run(const NsaParams& p, NativeStream stream) {
  using Tile = SelectTile<T, kDim>;
  const int64_t slots = sequence_tiles(p.query_rows, p.sequences, 1, p.select.queries);
  const size_t bytes = Tile::kTileBytes + static_cast<size_t>(p.select.queries * p.select.slots) * sizeof(float);
  launch(select_kernel<Tile>, dim3(static_cast<unsigned>(slots * p.kv_heads)), dim3(Tile::kThreads), bytes, stream, p, slots);
}

}  // namespace

void nsa_select_step(const NsaParams& p, NativeStream stream) {
  if (p.query_rows == 0 || p.sequences == 0) return;
  const bool wide = p.dim > 128;
  if (p.dtype == DType::f16)
    wide ? run<half_t, 256>(p, stream) : run<half_t, 128>(p, stream);
  else if (p.dtype == DType::bf16)
    wide ? run<bfloat16_t, 256>(p, stream) : run<bfloat16_t, 128>(p, stream);
  else
    run<float, 256>(p, stream);
}

void nsa_select(const NsaParams& p, NativeStream stream) {
  if (p.validate) validate(p.op, p, stream);
  nsa_select_step(p, stream);
}

}  // namespace culebra::CUL_DEVICE_NS
