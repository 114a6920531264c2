// Which layout a backend packs weights into. A new one is a header and its line here.
#pragma once
#include "culebra/gemm.h"
#include "ops/gemm/packing/cpu_layout.h"
#include "ops/gemm/packing/marlin_layout.h"
#include "ops/gemm/packing/sparse24_layout.h"

namespace culebra {

// What the choice depends on; 8 bits are integers or f8e4m3, whose bytes are moved as they are.
struct WeightKind {
  int32_t bits, operand, sparsity;

  constexpr WeightKind(int32_t bits, int32_t operand = CUL_OPERAND_HALF, int32_t sparsity = CUL_SPARSITY_NONE)
      : bits(bits), operand(operand), sparsity(sparsity) {}
  constexpr bool operator==(const WeightKind&) const = default;
  // Of storage per weight. 2:4: half the values, and for each a 2-bit position.
  constexpr int64_t packed_bits() const { return sparsity == CUL_SPARSITY_2_4 ? (bits + 2) / 2 : bits; }
};

template <class L, int32_t kBits, int32_t kOperand = CUL_OPERAND_HALF, int32_t kSparsity = CUL_SPARSITY_NONE>
struct LayoutOf {
  using Layout = L;
  static constexpr bool holds(WeightKind kind) { return kind == WeightKind(kBits, kOperand, kSparsity); }
};
template <class... Entries>
struct LayoutTable {
  // f(Layout()) for the layout of a kind; false where there is none.
  template <class F>
  static bool visit(WeightKind kind, F f) {
    return ((Entries::holds(kind) && (f(typename Entries::Layout()), true)) || ...);
  }
};

using CpuLayouts = LayoutTable<LayoutOf<CpuLayout, 4>,                        //
                               LayoutOf<CpuLayout, 4, CUL_OPERAND_BYTE>,      //
                               LayoutOf<CpuSixBitLayout, 6>,                  //
                               LayoutOf<CpuSixBitLayout, 6, CUL_OPERAND_BYTE>,  //
                               LayoutOf<CpuSparse24Layout, 4, CUL_OPERAND_HALF, CUL_SPARSITY_2_4>,  //
                               LayoutOf<CpuByteLayout, 8>>;
using DeviceLayouts = LayoutTable<LayoutOf<MarlinLayout, 4>,                         //
                                  LayoutOf<Int4ByteFragments, 4, CUL_OPERAND_BYTE>,  //
                                  LayoutOf<SixBitFragments, 6>,                      //
                                  LayoutOf<SixBitByteFragments, 6, CUL_OPERAND_BYTE>,  //
                                  LayoutOf<Sparse24Fragments, 4, CUL_OPERAND_HALF, CUL_SPARSITY_2_4>,  //
                                  LayoutOf<ByteFragments, 8>>;

}  // namespace culebra
