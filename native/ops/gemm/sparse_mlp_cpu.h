// The workspace of sparse_mlp on the cpu.
#pragma once
#include <cstdint>

namespace culebra::cpu {

struct SparseMlpWorkspace {
  int64_t d_padded;  // to whole vectors of any instruction set
  uint64_t x_at, products_at, list_at, bytes;  // f32 [rows, d_padded], f32 [inner, rows], i32 [inner]
};

constexpr SparseMlpWorkspace sparse_mlp_workspace(int64_t rows, int64_t d, int64_t inner) {
  SparseMlpWorkspace w{};
  w.d_padded = (d + 15) / 16 * 16;
  const auto array = [&](int64_t elements) {
    const uint64_t at = w.bytes;
    w.bytes += static_cast<uint64_t>(elements * 4 + 63) / 64 * 64;
    return at;
  };
  w.x_at = array(rows * w.d_padded);
  w.products_at = array(rows * inner);
  w.list_at = array(inner);
  return w;
}

}  // namespace culebra::cpu
