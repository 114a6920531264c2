// Probes of the instructions of 9.0: mbarriers, the copy engine, wgmma, clusters. Without a target of sm_90a they are compiled empty.
#pragma once

#include "device/cluster.h"
#include "device/mbarrier.h"
#include "device/tensor_map.h"
#include "device/wgmma.h"
#include "inputs.h"

namespace culebra::CUL_DEVICE_NS::fidelity {

#if CUL_HAS_SM90A
// 24 KB of static shared memory that begins at a multiple of 1024.
struct SharedTile {
  unsigned char* bytes;
  uint32_t address;
};
CUL_DEVICE_FN SharedTile shared_tile() {
  CUL_SHARED(unsigned char, memory, [25 * 1024]);
  const uint32_t begin = shared_address(memory), skipped = (1024 - begin % 1024) % 1024;
  return {memory + skipped, begin + skipped};
}

CUL_DEVICE_FN uint32_t new_mbarrier(int arrivals) {
  CUL_SHARED(uint64_t, memory, [1]);
  const uint32_t barrier = shared_address(memory);
  if (threadIdx.x == 0) {
    mbarrier_init(barrier, arrivals);
    mbarrier_init_fence();
  }
  __syncthreads();
  return barrier;
}

// Four 8-bit or two 16-bit small integers.
template <class T>
CUL_DEVICE_FN uint32_t small_elements(uint32_t i) {
  uint32_t word = 0;
  for (uint32_t j = 0; j < 4 / sizeof(T); ++j) {
    const float value = small_integer(static_cast<int>(i * 4 + j)) * 0.5f;
    uint32_t bits;
    if constexpr (std::is_same_v<T, int8_t>) {
      bits = static_cast<uint8_t>(static_cast<int>(value * 2.0f));
    } else {
      bits = from_float<T>(value).bits;
    }
    word |= bits << (8 * sizeof(T) * j);
  }
  return word;
}

// One product of each form over the same bytes: A in registers and in shared memory, with the swizzle and without, overwriting and
// accumulating.
template <class T, int N>
CUL_DEVICE_FN void probe_wgmma(uint32_t* y, int thread) {
  const SharedTile tile = shared_tile();
  for (int i = thread; i < 24 * 256; i += 128)
    reinterpret_cast<uint32_t*>(tile.bytes)[i] = small_elements<T>(static_cast<uint32_t>(i));
  fence_async_proxy();
  __syncthreads();
  wgmma_sum_t<T> d[N / 2];
  for (int i = 0; i < N / 2; ++i) d[i] = static_cast<wgmma_sum_t<T>>(small_integer(thread * 128 + i));
  uint32_t a[4];
  for (int i = 0; i < 4; ++i) a[i] = small_elements<T>(static_cast<uint32_t>(10000 + thread * 4 + i));
  // At least 64 rows of 128 bytes; where there are 256, they are read 8 KB into the tile less far.
  const uint64_t swizzled = wgmma_descriptor(tile.address), advanced = wgmma_advance(swizzled, 96);
  const uint64_t plain = wgmma_descriptor_plain(tile.address + 512, 2048, 256);
  const uint64_t b = N <= 128 ? wgmma_advance(wgmma_descriptor(tile.address + 8192), 32)
                              : wgmma_descriptor_plain(tile.address, 8192, 256);
  wgmma_fence();
  wgmma<T, N>(d, advanced, b);
  wgmma<T, N>(d, a, b);
  wgmma<T, N>(d, plain, b);
  wgmma_commit();
  wgmma_wait<0>();
  for (int i = 0; i < N / 2; ++i) y[0] = fold(y[0], static_cast<uint32_t>(static_cast<int>(d[i] * 4)));
  wgmma_fence();
  wgmma<T, N>(d, a, b, false);
  wgmma_commit();
  wgmma_wait<0>();
  for (int i = 0; i < N / 2; ++i) y[1] = fold(y[1], static_cast<uint32_t>(static_cast<int>(d[i] * 4)));
}
#endif

template <class T>
struct Wgmma : Probe<128, 2, 90> {
  template <class = void>
  static CUL_DEVICE_FN void run([[maybe_unused]] uint32_t* y, [[maybe_unused]] int thread) {
#if CUL_HAS_SM90A
    probe_wgmma<T, 8>(y, thread);
    probe_wgmma<T, 16>(y, thread);
    probe_wgmma<T, 32>(y, thread);
    probe_wgmma<T, 64>(y, thread);
    probe_wgmma<T, 128>(y, thread);
    probe_wgmma<T, 256>(y, thread);
#endif
  }
};
struct WgmmaHalf : Wgmma<half_t> {
  static constexpr const char* kName = "wgmma.k16.f16";
};
struct WgmmaBfloat16 : Wgmma<bfloat16_t> {
  static constexpr const char* kName = "wgmma.k16.bf16";
};
struct WgmmaFloat8 : Wgmma<float8_e4m3_t> {
  static constexpr const char* kName = "wgmma.k32.e4m3";
};
struct WgmmaInt8 : Wgmma<int8_t> {
  static constexpr const char* kName = "wgmma.k32.s8";
};

// B as [k][n], in slices of 64 columns.
#if CUL_HAS_SM90A
template <class T, int N>
CUL_DEVICE_FN void probe_wgmma_transposed(uint32_t* y, int thread) {
  const SharedTile tile = shared_tile();
  for (int i = thread; i < 24 * 256; i += 128) reinterpret_cast<uint32_t*>(tile.bytes)[i] = small_elements<T>(static_cast<uint32_t>(i));
  fence_async_proxy();
  __syncthreads();
  float d[N / 2];
  uint32_t a[4];
  for (int i = 0; i < N / 2; ++i) d[i] = small_integer(thread * 128 + i);
  for (int i = 0; i < 4; ++i) a[i] = small_elements<T>(static_cast<uint32_t>(thread * 4 + i));
  const uint64_t b = wgmma_descriptor_transposed(tile.address, 4096);
  wgmma_fence();
  wgmma_transposed<T, N>(d, a, b);
  wgmma_transposed<T, N>(d, a, wgmma_advance(b, 2048));
  wgmma_commit();
  wgmma_wait<0>();
  for (int i = 0; i < N / 2; ++i) y[0] = fold(y[0], static_cast<uint32_t>(static_cast<int>(d[i] * 4)));
}
#endif

template <class T>
struct WgmmaTransposed : Probe<128, 1, 90> {
  template <class = void>
  static CUL_DEVICE_FN void run([[maybe_unused]] uint32_t* y, [[maybe_unused]] int thread) {
#if CUL_HAS_SM90A
    probe_wgmma_transposed<T, 64>(y, thread);
    probe_wgmma_transposed<T, 128>(y, thread);
    probe_wgmma_transposed<T, 256>(y, thread);
#endif
  }
};
struct WgmmaTransposedHalf : WgmmaTransposed<half_t> {
  static constexpr const char* kName = "wgmma.transposed.f16";
};
struct WgmmaTransposedBfloat16 : WgmmaTransposed<bfloat16_t> {
  static constexpr const char* kName = "wgmma.transposed.bf16";
};

// Arrivals and parities: two groups of threads hand a counter to each other.
struct Mbarriers : Probe<64, 1, 90> {
  static constexpr const char* kName = "mbarrier";
  template <class = void>
  static CUL_DEVICE_FN void run([[maybe_unused]] uint32_t* y, [[maybe_unused]] int thread) {
#if CUL_HAS_SM90
    CUL_SHARED(uint64_t, memory, [2]);
    CUL_SHARED(uint32_t, counter, [32]);
    const uint32_t full = shared_address(&memory[0]), empty = shared_address(&memory[1]);
    if (thread == 0) {
      mbarrier_init(full, 32);
      mbarrier_init(empty, 32);
      mbarrier_init_fence();
    }
    if (thread < 32) counter[thread] = static_cast<uint32_t>(thread);
    __syncthreads();
    for (uint32_t round = 0; round < 5; ++round) {
      if (thread < 32) {
        mbarrier_wait(empty, (round & 1) ^ 1);
        counter[thread] = counter[thread] * 3 + round;
        mbarrier_arrive(full);
      } else {
        mbarrier_wait(full, round & 1);
        y[0] = fold(y[0], counter[63 - thread]);
        mbarrier_arrive(empty);
      }
    }
#endif
  }
};

struct BulkCopies : Probe<128, 16, 90> {
  static constexpr const char* kName = "cp.async.bulk";
  template <class = void>
  static CUL_DEVICE_FN void run([[maybe_unused]] uint32_t* y, [[maybe_unused]] int thread) {
#if CUL_HAS_SM90A
    const SharedTile tile = shared_tile();
    const uint32_t full = new_mbarrier(1);
    if (thread == 0) {
      mbarrier_arrive_expect_bytes(full, 8192);
      bulk_copy(tile.address, y, 4096, full);
      bulk_copy_stream(tile.address + 4096, y + 1024, 4096 - 16, full);
      bulk_copy_stream(tile.address + 8192 - 16, y + 4, 16, full);
    }
    mbarrier_wait(full, 0);
    __syncthreads();
    for (int i = 0; i < 16; ++i) y[i] ^= reinterpret_cast<const uint32_t*>(tile.bytes)[(i * 128 + thread) * 37 % 2048];
#endif
  }
};

// The probe's words as three matrices of 12 rows, 72 elements of two bytes each, every row 80 elements long.
template <Swizzle kSwizzle>
struct TensorCopies : Probe<128, 16, 90> {
  static TensorMapRequest request(const void* words) {
    return {words, 2, 3, {72, 12, 2}, {160, 12 * 160}, {64, 8, 2}, kSwizzle};
  }
  template <class = void>
  static CUL_DEVICE_FN void run([[maybe_unused]] uint32_t* y, [[maybe_unused]] int thread,
                                [[maybe_unused]] const TensorMap& map) {
#if CUL_HAS_SM90A
    const SharedTile tile = shared_tile();
    const uint32_t full = new_mbarrier(1);
    const int at[3][3] = {{0, 0, 0}, {-16, 7, 1}, {24, -3, -1}};
    uint32_t found[12];  // the tensor is the words that the results replace
#pragma unroll
    for (uint32_t round = 0; round < 3; ++round) {
      if (thread == 0) {
        mbarrier_arrive_expect_bytes(full, 2048);
        tensor_copy_3d(tile.address, map, at[round][0], at[round][1], at[round][2], full);
      }
      mbarrier_wait(full, round & 1);
      for (uint32_t i = 0; i < 4; ++i)
        found[round * 4 + i] = reinterpret_cast<const uint32_t*>(tile.bytes)[i * 128 + threadIdx.x] + round;
      __syncthreads();
    }
    for (int i = 0; i < 12; ++i) y[i] = found[i];
#endif
  }
};
struct TensorCopiesPlain : TensorCopies<Swizzle::none> {
  static constexpr const char* kName = "cp.async.bulk.tensor";
};
struct TensorCopiesSwizzled : TensorCopies<Swizzle::bytes_128> {
  static constexpr const char* kName = "cp.async.bulk.tensor.swizzle128";
};
// The same words as bytes of one matrix.
struct TensorCopiesBytes : Probe<128, 16, 90> {
  static constexpr const char* kName = "cp.async.bulk.tensor.2d";
  static TensorMapRequest request(const void* words) {
    return {words, 1, 2, {100, 50}, {112}, {128, 64}, Swizzle::bytes_128};
  }
  template <class = void>
  static CUL_DEVICE_FN void run([[maybe_unused]] uint32_t* y, [[maybe_unused]] int thread,
                                [[maybe_unused]] const TensorMap& map) {
#if CUL_HAS_SM90A
    const SharedTile tile = shared_tile();
    const uint32_t full = new_mbarrier(1);
    if (thread == 0) {
      mbarrier_arrive_expect_bytes(full, 2 * 8192);
      prefetch_tensor_map(map);
      tensor_copy_2d(tile.address, map, 0, 0, full);
      tensor_copy_2d_stream(tile.address + 8192, map, 16, -5, full);
    }
    mbarrier_wait(full, 0);
    __syncthreads();
    for (int i = 0; i < 32; ++i)
      y[i % 16] = fold(y[i % 16], reinterpret_cast<const uint32_t*>(tile.bytes)[i * 128 + thread]);
#endif
  }
};

struct Clusters : Probe<64, 4, 90> {
  static constexpr const char* kName = "cluster";
  static constexpr int kBlocks = 4;
  template <class = void>
  static CUL_DEVICE_FN void run([[maybe_unused]] uint32_t* y, [[maybe_unused]] int thread) {
#if CUL_HAS_SM90
    CUL_SHARED(uint32_t, mine, [64 * 4]);
    const uint32_t rank = cluster_rank(), lane = static_cast<uint32_t>(thread) % 64;
    for (uint32_t i = 0; i < 4; ++i) mine[lane * 4 + i] = random_word(static_cast<uint32_t>(thread) * 4 + i);
    cluster_sync();
    for (uint32_t r = 0; r < cluster_size(); ++r) {
      const uint4 there = load_cluster<uint4>(cluster_address(shared_address(&mine[(63 - lane) * 4]), r ^ rank));
      y[0] = fold(y[0], there.x);
      y[1] = fold(y[1], there.y);
      y[2] = fold(y[2], there.z);
      y[3] = fold(y[3], there.w + rank);
    }
    cluster_sync();
#endif
  }
};

}  // namespace culebra::CUL_DEVICE_NS::fidelity
