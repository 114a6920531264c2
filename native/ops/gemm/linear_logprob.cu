#include "ops/gemm/linear_logprob.cuh"

#include "ops/gemm/tile/f32_tile.cuh"
#include "ops/gemm/tile/half_weights.cuh"

namespace culebra::CUL_DEVICE_NS {
namespace {

// Computes: of one tile of tokens and one range of words, the log-sum of exponentials of z = softcap(e c^T + bias), and the targets' z.
// Shapes:   e [n, d], c [v, d]; any n, v, d. partials [n, ranges].
// Layouts:  row-major, any row strides.
// Tiles:    Tile (tile_gemm.h): tokens x 128 words at a time; a token's logits belong to kThreads / kTokens threads.
// Shared:   the tile kernel's stages, then its f32 tile of logits.
// Order:    d ascending; words by float4 in turn among a token's threads; threads merged by halves.
// Numerics: f32 from exact products; exponentials by ex2.approx, relative error about 1e-6 of each.
// Needs:    sm_80. Limit: 2 n v d operations of the tensor cores; 2 v d bytes per band of 16 token tiles.
// Source:   Wijmans et al., Cut Cross-Entropy, arXiv:2411.09009; ranges with partials instead of locks.
template <class T, class Tile>
__global__ void __launch_bounds__(Tile::kThreads, Tile::kBlocksPerSm) logits_half(TileProblem problem, HalfWeights<T> words, Logits p) {
  constexpr int kThreadsPerToken = Tile::kThreads / Tile::kTokens;
  CUL_DYNAMIC_SHARED(unsigned char, shared, 128);
  const Place at = place(p);
  const int row = static_cast<int>(threadIdx.x) / kThreadsPerToken, part = static_cast<int>(threadIdx.x) % kThreadsPerToken;
  const int64_t token = at.token_tile * Tile::kTokens + row;
  const int64_t label = token < p.n ? p.label(token) : -1;
  LogSum total;
  const int64_t first = at.range * p.tiles_per_range;
  const int64_t end = min(first + p.tiles_per_range, int64_t{problem.column_tiles});
  for (int64_t tile = first; tile < end; ++tile) {
    const float* const sums = sum_tile<Tile>(problem, words, {static_cast<int>(at.token_tile), static_cast<int>(tile), 0}, shared) +
                              row * sums_row<Tile>;
    fold_logits<T, Tile::kColumns, kThreadsPerToken>(p, sums, token, label, tile * Tile::kColumns, part, total);
    __syncthreads();  // the next tile's copies land where the logits are
  }
  total.template merge_lanes<kThreadsPerToken>();
  if (part == 0 && token < p.n) p.partials[token * p.ranges + at.range] = make_float2(total.maximum, total.sum);
}

// Computes: as logits_half, of f32 operands.
// Shapes:   e [n, d], c [v, d]; any n, v, d. partials [n, ranges].
// Layouts:  row-major, any row strides.
// Tiles:    64 tokens x 64 words at a time; 4 x 4 per thread (f32_tile.cuh).
// Shared:   f32_tile's.
// Order:    d ascending; a thread's words ascending; 16 threads merged by halves.
// Numerics: f32 FMA, no TF32; exponentials by ex2.approx, relative error about 1e-6 of each.
// Needs:    sm_80. Limit: 2 n v d operations of the FMA pipes.
// Source:   as logits_half.
__global__ void __launch_bounds__(kF32Threads) logits_f32(const float* e, int64_t lde, const float* c, int64_t ldc, int64_t d, Logits p) {
  const Place at = place(p);
  const int tx = static_cast<int>(threadIdx.x) % 16, ty = static_cast<int>(threadIdx.x) / 16;
  const int64_t token0 = at.token_tile * kF32Tile, first = at.range * p.tiles_per_range * kF32Tile;
  const int64_t end = min(first + int64_t{p.tiles_per_range} * kF32Tile, p.v);
  LogSum total[4];
  for (int64_t word0 = first; word0 < end; word0 += kF32Tile) {
    float z[4][4];
    f32_tile(e, lde, p.n, c, ldc, p.v, d, token0, word0, z);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int64_t token = token0 + ty + 16 * i, label = token < p.n ? p.label(token) : -1;
      float highest = -kInfinity;
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const int64_t word = word0 + tx + 16 * j;
        z[i][j] = word < p.v ? p.finish<float>(z[i][j], word) : -kInfinity;
        if (word == label) p.labels[token] = z[i][j];
        highest = fmaxf(highest, z[i][j]);
      }
      total[i].raise(highest);
#pragma unroll
      for (int j = 0; j < 4; ++j) total[i].add(z[i][j]);
    }
  }
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int64_t token = token0 + ty + 16 * i;
    total[i].merge_lanes<16>();
    if (tx == 0 && token < p.n) p.partials[token * p.ranges + at.range] = make_float2(total[i].maximum, total[i].sum);
  }
}

constexpr int kMergeThreads = 256, kTokensPerBlock = kMergeThreads / 32;

// Computes: lse and logprob of each token from its partial log-sums and its target's logit.
// Shapes:   partials [n, ranges], logprob and lse [n]; ranges may be 0.
// Layouts:  contiguous.
// Tiles:    one warp a token.
// Shared:   none.
// Order:    lane i takes the ranges i, i + 32, ..; lanes merged by halves.
// Numerics: f32. logprob = (z - maximum) - log(sum), which does not cancel where z is large.
// Needs:    sm_80. Limit: 8 n ranges bytes.
// Source:   ours.
__global__ void __launch_bounds__(kMergeThreads) merge_ranges(Logits p, int64_t ignore_index, float* logprob, float* lse) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int64_t token = static_cast<int64_t>(blockIdx.x) * kTokensPerBlock + threadIdx.x / 32;
  if (token >= p.n) return;
  LogSum total;
  for (int range = lane; range < p.ranges; range += 32) {
    const float2 part = p.partials[token * p.ranges + range];
    total.merge(part.x, part.y);
  }
  total.merge_lanes<32>();
  if (lane != 0) return;
  const float log_sum = logf(total.sum);
  lse[token] = total.maximum + log_sum;
  if (p.targets[token] == ignore_index) {
    logprob[token] = 0;
    return;
  }
  // A target outside the words, or of a row of -inf alone, has probability 0.
  const float z = p.label(token) >= 0 ? p.labels[token] : -kInfinity;
  logprob[token] = total.sum == 0 ? -kInfinity : (z - total.maximum) - log_sum;
}

template <class T>
void run_half(const LogprobParams& p, const Logits& logits, NativeStream stream) {
  TileProblem problem{};
  problem.a = p.e;
  problem.lda = p.lde;
  problem.m = p.n;
  problem.k = p.d;
  problem.a_aligned = p.lde % 8 == 0 || p.n == 1;
  problem.column_blocks = (p.v + kColumnBlock - 1) / kColumnBlock;
  problem.token_tiles = logits.token_tiles;
  problem.column_tiles = static_cast<int32_t>((problem.column_blocks + 1) / 2);
  problem.slices = problem.slices_per_split = static_cast<int32_t>((p.d + kSliceRows - 1) / kSliceRows);
  const HalfWeights<T> words{static_cast<const T*>(p.c), p.ldc, p.v, p.d, p.ldc % 8 == 0 || p.v == 1};
  const dim3 grid(static_cast<unsigned>(int64_t{logits.token_tiles} * logits.ranges));
  const auto run = [&]<class Tile>(Tile) {
    launch(logits_half<T, Tile>, grid, dim3(Tile::kThreads), shared_bytes<Tile, HalfWeights<T>>(), stream, problem, words, logits);
  };
  if (p.plan.tile_tokens == HalfTile16::kTokens)
    run(HalfTile16());
  else
    run(HalfTile128());
}

}  // namespace

void linear_logprob(const LogprobParams& p, NativeStream stream) {
  if (p.n == 0) return;
  const LogprobPlan& plan = p.plan;
  const Logits logits{p.bias, p.targets, static_cast<float2*>(p.workspace), p.logprob, p.n, p.v, p.vocab_start, p.softcap,
                      static_cast<int32_t>((p.n + plan.tile_tokens - 1) / plan.tile_tokens), plan.tiles_per_range, plan.ranges};
  if (plan.ranges > 0) {
    const bool hopper = plan.design == GemmDesign::hopper;
    if (p.dtype == DType::f16)
      hopper ? logits_hopper<half_t>(p, logits, stream) : run_half<half_t>(p, logits, stream);
    else if (p.dtype == DType::bf16)
      hopper ? logits_hopper<bfloat16_t>(p, logits, stream) : run_half<bfloat16_t>(p, logits, stream);
    else
      launch(logits_f32, dim3(static_cast<unsigned>(int64_t{logits.token_tiles} * plan.ranges)), dim3(kF32Threads), 0, stream,
             static_cast<const float*>(p.e), p.lde, static_cast<const float*>(p.c), p.ldc, p.d, logits);
  }
  const int64_t blocks = (p.n + kTokensPerBlock - 1) / kTokensPerBlock;
  launch(merge_ranges, dim3(static_cast<unsigned>(blocks)), dim3(kMergeThreads), 0, stream, logits, p.ignore_index, p.logprob, p.lse);
}

}  // namespace culebra::CUL_DEVICE_NS
