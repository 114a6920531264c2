// The largest of many keys within a block of threads: a radix search in shared memory, eight bits at a time, then their ordered
// emission. Counts are integers: the order of the additions is not to be seen.
#pragma once
#include "device/atomic.h"
#include "device/barrier.h"
#include "device/portable.h"
#include "device/warp.h"
#include "ops/attention/top_keys.h"

namespace culebra::CUL_DEVICE_NS {

template <int kThreads>
struct BlockKeys {
  static constexpr int kWarps = kThreads / 32;
  struct Shared {
    uint32_t histogram[256];
    uint32_t bin, before;
    int32_t counts[2][kWarps];
  };
  Shared& shared;

  // The least of the `count` largest of key(0) .. key(n - 1), 1 <= count <= n. Every thread of the block calls.
  template <class Key>
  CUL_DEVICE_FN TopKeys top(int64_t n, int64_t count, Key key) {
    uint32_t prefix = 0;
    for (int shift = 24; shift >= 0; shift -= 8) {
      for (int i = static_cast<int>(threadIdx.x); i < 256; i += kThreads) shared.histogram[i] = 0;
      __syncthreads();
      for (int64_t i = threadIdx.x; i < n; i += kThreads) {
        const uint32_t k = key(i);
        if (shift == 24 || k >> (shift + 8) == prefix) atomicAdd(&shared.histogram[k >> shift & 255u], 1u);
      }
      __syncthreads();
      if (threadIdx.x < 32) find_bin(static_cast<uint32_t>(count));
      __syncthreads();
      prefix = prefix << 8 | shared.bin;
      count -= shared.before;
    }
    __syncthreads();  // the next search may begin
    return {prefix, count};
  }

  // How many flags lie before this thread's, and `total` in all; `which` alternates between calls.
  CUL_DEVICE_FN int before(bool flag, int which, int& total) {
    const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
    const unsigned mask = __ballot_sync(kFullMask, flag);
    if (lane == 0) shared.counts[which][warp] = __popc(mask);
    __syncthreads();
    int sum = __popc(mask & ((1u << lane) - 1));
    total = 0;
    for (int w = 0; w < kWarps; ++w) {
      if (w < warp) sum += shared.counts[which][w];
      total += shared.counts[which][w];
    }
    return sum;
  }

  // emit(i, position) for the keys of `top` in ascending order of i; returns how many there are.
  template <class Key, class Emit>
  CUL_DEVICE_FN int64_t emit(int64_t n, TopKeys top, Key key, Emit emit) {
    int64_t chosen = 0, equals = 0;
    for (int64_t first = 0; first < n; first += kThreads) {
      const int64_t i = first + threadIdx.x;
      const uint32_t k = i < n ? key(i) : 0;
      int total = 0;
      const bool equal = i < n && k == top.least;
      const int64_t rank = equals + before(equal, 0, total);
      equals += total;
      const bool take = i < n && (k > top.least || (equal && rank < top.equals));
      const int at = before(take, 1, total);
      if (take) emit(i, chosen + at);
      chosen += total;
    }
    return chosen;
  }

  // Moves the keys of `top`, and what belongs to them, to the front in their order.
  template <class V>
  CUL_DEVICE_FN void keep(int64_t n, TopKeys top, uint32_t* keys, V* values) {
    int64_t chosen = 0, equals = 0;
    for (int64_t first = 0; first < n; first += kThreads) {
      const int64_t i = first + threadIdx.x;
      const uint32_t k = i < n ? keys[i] : 0;
      const V value = i < n ? values[i] : V{};
      int total = 0;
      const bool equal = i < n && k == top.least;
      const int64_t rank = equals + before(equal, 0, total);
      equals += total;
      const bool take = i < n && (k > top.least || (equal && rank < top.equals));
      const int at = before(take, 1, total);  // its barrier: all of the round has been read
      if (take) {
        keys[chosen + at] = k;
        values[chosen + at] = value;
      }
      chosen += total;
      __syncthreads();  // places of the next round may be read
    }
  }

 private:
  // Warp 0: from the largest bin down, the one in which the count-th key lies, and how many keys lie before it.
  CUL_DEVICE_FN void find_bin(uint32_t count) {
    const int lane = static_cast<int>(threadIdx.x);
    uint32_t sum = 0;
    for (int i = 0; i < 8; ++i) sum += shared.histogram[255 - 8 * lane - i];
    uint32_t before = warp_inclusive_sum(sum) - sum;
    if (before >= count || before + sum < count) return;
    int bin = 255 - 8 * lane;
    while (before + shared.histogram[bin] < count) before += shared.histogram[bin--];
    shared.bin = static_cast<uint32_t>(bin);
    shared.before = before;
  }
};

}  // namespace culebra::CUL_DEVICE_NS
