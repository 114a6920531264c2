// The emulated machine as the device layer (native/device) calls it. Every function here runs on the fibre of one CUDA thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <source_location>

#include "backends/simt/emulator/vector_types.h"

namespace culebra {
struct TensorMap;
struct TensorMapRequest;
}

namespace culebra::simt {

// Where a kernel called an emulated instruction: a default argument, evaluated at the caller. One pointer wide.
using Here = std::source_location;

// ---- thread identity: by value, in registers, and not a memory access of the kernel
struct ThreadIndices {
  uint3 thread, block;
  dim3 block_extent, grid_extent;
};

struct CurrentThread {
  struct Thread* thread;  // null outside a grid
  const ThreadIndices* indices;
  bool in_kernel;  // false while the emulator itself runs: its own loads and stores are no concern of the checks
};
// __thread: no initialisation check. Not initial-exec: the library is loaded into a running process, whose room for static
// thread-local storage is smaller than what the CUDA runtime beside this brings along.
extern __thread CurrentThread current;

#define CUL_UNCHECKED __attribute__((no_sanitize("thread")))
CUL_UNCHECKED inline uint3 thread_index() { return current.indices->thread; }
CUL_UNCHECKED inline uint3 block_index() { return current.indices->block; }
CUL_UNCHECKED inline dim3 block_extent() { return current.indices->block_extent; }
CUL_UNCHECKED inline dim3 grid_extent() { return current.indices->grid_extent; }

// ---- shared memory
void* dynamic_shared(size_t alignment, Here here = Here::current());
void* static_shared(const void* key, size_t bytes, size_t alignment, const char* name, Here here = Here::current());
uint32_t shared_offset(const void* pointer, Here here);

// ---- barriers
struct BarrierVote {
  int count, any, all;
};
enum class BarrierKind : uint8_t { sync, count, all, any };
BarrierVote block_barrier(BarrierKind kind, int predicate, Here here);
void named_barrier(int id, int threads, bool wait, Here here);

// ---- warp collectives
enum class ShuffleMode : uint8_t { index, up, down, butterfly };
enum class ReduceMode : uint8_t { add, min_signed, max_signed, min_unsigned, max_unsigned, bit_and, bit_or, bit_xor };
void sync_warp(uint32_t mask, Here here);
uint64_t shuffle(ShuffleMode mode, uint32_t mask, uint64_t value, int lane, int width, Here here);
uint32_t ballot(uint32_t mask, bool predicate, Here here);
uint32_t match_any(uint32_t mask, uint64_t value, Here here);
uint32_t match_all(uint32_t mask, uint64_t value, int* all_equal, Here here);
uint32_t reduce(ReduceMode mode, uint32_t mask, uint32_t value, Here here);
uint32_t active_mask(Here here);

// ---- matrices
enum class MatrixType : uint8_t { f16, bf16 };
void ldmatrix(uint32_t* registers, int matrices, bool transposed, uint32_t address, Here here);
void stmatrix(const uint32_t* registers, int matrices, bool transposed, uint32_t address, Here here);
void mma_m16n8k16(float* d, const uint32_t* a, const uint32_t* b, const float* c, MatrixType type, Here here);
void mma_m16n8k32_s8(int* d, const uint32_t* a, const uint32_t* b, const int* c, Here here);
void mma_m16n8k32_e4m3(float* d, const uint32_t* a, const uint32_t* b, const float* c, Here here);
void mma_sparse_m16n8k32(float* d, const uint32_t* a, const uint32_t* b, uint32_t metadata, int selector, MatrixType type, Here here);

// ---- asynchronous copies from global to shared memory
void cp_async(uint32_t destination, const void* source, int bytes, int source_bytes, Here here);
void cp_async_commit();
void cp_async_wait(int groups, Here here);

// ---- barriers in shared memory that count arrivals and bytes, and the copy engine that completes them
void mbarrier_init(uint32_t barrier, int arrivals, Here here = Here::current());
void mbarrier_init_fence();
void mbarrier_arrive(uint32_t barrier, Here here = Here::current());
void mbarrier_arrive_expect_bytes(uint32_t barrier, uint32_t bytes, Here here = Here::current());
void mbarrier_wait(uint32_t barrier, uint32_t parity, Here here = Here::current());
void fence_async_proxy();
void bulk_copy(uint32_t destination, const void* source, uint32_t bytes, uint32_t barrier, Here here = Here::current());
TensorMap make_tensor_map(const TensorMapRequest& request);
void tensor_copy(uint32_t destination, const TensorMap& map, const int* at, int rank, uint32_t barrier, Here here);

// ---- asynchronous products of a warpgroup; a is null where its descriptor counts; b_transposed: [k][n]
enum class ProductType : uint8_t { f16, bf16, e4m3, s8 };
void warpgroup_product(ProductType type, int columns, void* d, const uint32_t* a, uint64_t a_descriptor,
                       uint64_t b_descriptor, bool b_transposed, bool accumulate, Here here);
void wgmma_fence(Here here = Here::current());
void wgmma_commit(Here here = Here::current());
void wgmma_wait(int groups, Here here);
void reallocate_registers(int count, Here here);

// ---- clusters of blocks
uint32_t cluster_rank();
uint32_t cluster_size();
void cluster_arrive(Here here = Here::current());
void cluster_wait(Here here = Here::current());
uint32_t cluster_address(uint32_t address, uint32_t rank, Here here = Here::current());
void read_cluster(void* value, uint32_t address, size_t bytes, Here here);

// Grids of one queue run one after the other.
inline void wait_for_previous_kernel() {}
inline void start_next_kernel() {}

// ---- memory: explicit accesses of emulated instructions, atomics, ordering
void check_read(const void* pointer, size_t bytes, Here here);
void check_write(void* pointer, size_t bytes, Here here);
enum class AtomicOp : uint8_t { add, min, max, bit_and, bit_or, bit_xor, exchange, compare_exchange };
template <class T>  // int, unsigned, long long, unsigned long long, float
T atomic(AtomicOp op, T* address, T value, T expected, Here here);
template <class T>
T load_acquire(const T* address, Here here);
template <class T>
void store_release(T* address, T value, Here here);
template <class T>
void reduce_add_release(T* address, T value, Here here);
void thread_fence();
void yield_to_others(Here here);

// ---- launches
struct Launch {
  dim3 grid, block;
  size_t dynamic_shared_bytes;
  Here here;
  dim3 cluster = 1;
};
// Throws DeviceError when no device would take it.
void check_launch(const Launch& launch);
// Runs the grid: every thread calls entry(parameters). Throws DeviceError with the findings. The parameter block is readable by kernels.
void run_grid(const Launch& launch, void (*entry)(const void*), const void* parameters, size_t parameter_bytes);

}  // namespace culebra::simt
