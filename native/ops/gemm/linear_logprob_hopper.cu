#include "ops/gemm/hopper/hopper_half.cuh"
#include "ops/gemm/linear_logprob.cuh"

namespace culebra::CUL_DEVICE_NS {
namespace {

using Tile = HopperHalfTile128;
template <class T>
using Words = HopperHalf<T, Tile::kColumnGroups>;

// Computes: of one tile of tokens and one range of words, the log-sum of exponentials of z = softcap(e c^T + bias), and the targets' z.
// Shapes:   e [n, d], c [v, d]; any n, v, d > 0. partials [n, ranges].
// Layouts:  row-major, rows at multiples of 16 bytes.
// Tiles:    128 tokens x 128 words at a time, two threads a token; a block goes through its range, the ring refilled for each tile.
// Shared:   the ring's (hopper_gemm.cuh), then its f32 tile of logits.
// Order:    d ascending; words by float4 in turn between a token's two threads, which are merged at the end.
// Numerics: f32 from exact products; exponentials by ex2.approx, relative error about 1e-6 of each.
// Needs:    sm_90a. Limit: 2 n v d operations of the tensor cores. The two blocks of an SM hide each other's logits behind products.
// Source:   Wijmans et al., Cut Cross-Entropy, arXiv:2411.09009; ranges with partials instead of locks.
template <class T>
__global__ void __launch_bounds__(Tile::kThreads, Tile::kBlocksPerSm)
    logits_wgmma(const __grid_constant__ TensorMap tokens, const __grid_constant__ Words<T> words, Logits p, int slices, int word_tiles) {
#if CUL_HAS_SM90A
  using Shared = HopperShared<Tile, Words<T>>;
  constexpr int kThreadsPerToken = Tile::kThreads / Tile::kTokens;
  CUL_DYNAMIC_SHARED(unsigned char, shared, 1024);
  const Place at = place(p);
  const int row = static_cast<int>(threadIdx.x) / kThreadsPerToken, part = static_cast<int>(threadIdx.x) % kThreadsPerToken;
  const int first_token = static_cast<int>(at.token_tile) * Tile::kTokens;
  const int64_t token = int64_t{first_token} + row, label = token < p.n ? p.label(token) : -1;
  HopperRing<Tile, Words<T>> ring(shared);
  LogSum total;
  const int first = static_cast<int>(at.range) * p.tiles_per_range, end = min(first + p.tiles_per_range, word_tiles);
  for (int tile = first; tile < end; ++tile) {
    const float* const sums = ring.sums(tokens, words, first_token, tile, 0, slices) + row * Shared::kSumRow;
    __syncthreads();
    fold_logits<T, Words<T>::kColumns, kThreadsPerToken>(p, sums, token, label, int64_t{tile} * Words<T>::kColumns, part, total);
    fence_async_proxy();
    __syncthreads();  // the next tile's copies land where the logits are
  }
  total.template merge_lanes<kThreadsPerToken>();
  if (part == 0 && token < p.n) p.partials[token * p.ranges + at.range] = make_float2(total.maximum, total.sum);
#endif
}

}  // namespace

template <class T>
void logits_hopper(const LogprobParams& p, const Logits& logits, NativeStream stream) {
  const Words<T> words{row_map(p.c, p.ldc, p.v, p.d, Words<T>::kColumns), logits.token_tiles == 1};
  const int64_t slices = (p.d + kSliceRows - 1) / kSliceRows, word_tiles = (p.v + Words<T>::kColumns - 1) / Words<T>::kColumns;
  launch(logits_wgmma<T>, dim3(static_cast<unsigned>(int64_t{logits.token_tiles} * logits.ranges)), dim3(Tile::kThreads),
         size_t{HopperShared<Tile, Words<T>>::kBytes}, stream, row_map(p.e, p.lde, p.n, p.d, Tile::kTokens), words, logits,
         static_cast<int>(slices), static_cast<int>(word_tiles));
}

template void logits_hopper<half_t>(const LogprobParams&, const Logits&, NativeStream);
template void logits_hopper<bfloat16_t>(const LogprobParams&, const Logits&, NativeStream);

}  // namespace culebra::CUL_DEVICE_NS
