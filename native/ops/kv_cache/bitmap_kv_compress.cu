#include "device/launch.h"
#include "device/warp.h"
#include "ops/kv_cache/bitmap_kv_compress.h"

namespace culebra::CUL_DEVICE_NS {
namespace {

constexpr int kRowsPerBlock = 4;

// Computes: the keep channels of largest magnitude of each row, their bitmap and their values by ascending channel
// Shapes:   x [T,Hkv,D] -> values [T,Hkv,keep], bits [T,Hkv,D/64]; D a multiple of 64
// Layouts:  rows anywhere, channels contiguous; 16-bit types are alike here: their magnitudes are integers of the same order
// Tiles:    a row a warp, channel 32 i + lane in a lane; the first kChunks of these i in registers, others read again from L1
// Shared:   none
// Order:    none: counts of ballots
// Numerics: exact; values are copied bit for bit; NaN above every number
// Needs:    sm_80. Limit: the bytes, once; 15 or 31 rounds of D/32 ballots
// Source:   Mustafar, arXiv:2505.22913, with a fixed keep and ties to the lower channel
template <class Raw, int kChunks>
__global__ void __launch_bounds__(32 * kRowsPerBlock) bitmap_compress_kernel(BitmapCompressParams p) {
  constexpr uint32_t kMagnitude = sizeof(Raw) == 2 ? 0x7fffu : 0x7fffffffu;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int64_t row = int64_t{blockIdx.x} * kRowsPerBlock + threadIdx.x / 32;
  if (row >= p.tokens * p.heads) return;
  const int64_t token = row / p.heads, head = row % p.heads;
  const Raw* const x = p.x.at<const Raw>(0, token, head);
  const int chunks = static_cast<int>(p.dim / 32);
  Raw mine[kChunks];
#pragma unroll
  for (int i = 0; i < kChunks; ++i) mine[i] = i < chunks ? x[32 * i + lane] : Raw{};
  const auto for_chunks = [&](auto f) {
#pragma unroll
    for (int i = 0; i < kChunks; ++i)
      if (i < chunks) f(i, mine[i]);
    for (int i = kChunks; i < chunks; ++i) f(i, x[32 * i + lane]);
  };
  const auto count_from = [&](uint32_t bound) {
    int count = 0;
    for_chunks([&](int, Raw v) { count += __popc(__ballot_sync(kFullMask, (v & kMagnitude) >= bound)); });
    return count;
  };
  // The largest bound that at least `keep` magnitudes reach: the least kept one.
  const int keep = static_cast<int>(p.keep);
  uint32_t least = 0;
  for (uint32_t bit = (kMagnitude + 1) / 2; bit; bit >>= 1) {
    const int count = count_from(least | bit);
    if (count >= keep) least |= bit;
    if (count == keep) break;
  }
  int ties = keep - count_from(least + 1), kept = 0;
  Raw* const values = p.values.at<Raw>(0, token, head);
  auto* const bits = reinterpret_cast<uint32_t*>(p.bits.at<int64_t>(0, token, head));
  const uint32_t before = (1u << lane) - 1;
  for_chunks([&](int i, Raw v) {
    const uint32_t magnitude = v & kMagnitude;
    const uint32_t equal = __ballot_sync(kFullMask, magnitude == least);
    const bool take = magnitude > least || (magnitude == least && __popc(equal & before) < ties);
    const uint32_t mask = __ballot_sync(kFullMask, take);
    if (take) values[kept + __popc(mask & before)] = v;
    if (lane == 0) bits[i] = mask;
    kept += __popc(mask);
    ties -= min(ties, __popc(equal));
  });
}

template <class Raw>
void run(const BitmapCompressParams& p, NativeStream stream) {
  const int64_t blocks = (p.tokens * p.heads + kRowsPerBlock - 1) / kRowsPerBlock;
  launch(bitmap_compress_kernel<Raw, 4>, dim3(static_cast<unsigned>(blocks)), dim3(32 * kRowsPerBlock), 0, stream, p);
}

}  // namespace

void bitmap_kv_compress(const BitmapCompressParams& p, NativeStream stream) {
  if (p.tokens * p.heads == 0) return;
  if (p.dtype == DType::f32)
    run<uint32_t>(p, stream);
  else
    run<uint16_t>(p, stream);
}

}  // namespace culebra::CUL_DEVICE_NS
