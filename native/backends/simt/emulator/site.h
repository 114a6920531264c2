// A place in a kernel: an emulated instruction at a source line, or a plain load or store at a program counter.
#pragma once

#include <bit>
#include <cstdint>

#include "backends/simt/emulator/emulator.h"

namespace culebra::simt {

enum class Op : uint8_t {
  load,
  store,
  memory_function,  // hooked: the place is a program counter
  none,
  launch,
  shared_variable,
  shared_pointer,
  syncthreads,
  syncthreads_count,
  syncthreads_and,
  syncthreads_or,
  named_barrier_sync,
  named_barrier_arrive,
  syncwarp,
  shuffle_index,
  shuffle_up,
  shuffle_down,
  shuffle_xor,
  vote,
  match_any,
  match_all,
  reduce,
  activemask,
  ldmatrix,
  stmatrix,
  mma_f16,
  mma_bf16,
  mma_s8,
  mma_e4m3,
  mma_sparse_f16,
  mma_sparse_bf16,
  cp_async,
  cp_async_wait,
  mbarrier_init,
  mbarrier_arrive,
  mbarrier_wait,
  bulk_copy,
  tensor_copy,
  wgmma,
  wgmma_fence,
  wgmma_commit,
  wgmma_wait,
  reallocate_registers,
  cluster_arrive,
  cluster_wait,
  cluster_address,
  read_cluster,
  vector_access,
  atomic,
  load_acquire,
  store_release,
  reduce_release,
  spin_wait,
};
const char* name(Op op);

class Site {
 public:
  Site() = default;
  Site(Op op, Here here) : place_(std::bit_cast<const void*>(here)), op_(op) {}
  Site(Op op, const void* program_counter) : place_(program_counter), op_(op) {}

  Op op() const { return op_; }
  // Another instruction's part in what happens at this place.
  Site as(Op op) const {
    Site other = *this;
    other.op_ = op;
    return other;
  }
  bool hooked() const { return op_ <= Op::memory_function; }
  // "gemm.cu:84", or "libculebra.so+0x1234" where a program counter cannot be resolved to a line.
  // Both live as long as the process: a fibre that is abandoned in the middle of a report leaks nothing.
  const char* where() const;
  const char* describe() const;  // "ldmatrix at gemm.cu:84"
  bool same_place(const Site& other) const;
  bool operator==(const Site&) const = default;

 private:
  Here here() const { return std::bit_cast<Here>(place_); }

  const void* place_ = nullptr;
  Op op_ = Op::none;
};

}  // namespace culebra::simt
