#include "ops/gemm/hopper/hopper_half.cuh"
#include "ops/moe/grouped_hopper.cuh"

namespace culebra::CUL_DEVICE_NS {
namespace {

// Half matrices of experts as operand A, two warpgroups of 64 columns.
template <class T>
struct GroupedHopperHalf {
  using Element = T;
  using Dense = HopperHalf<T, 2>;
  static constexpr int kColumns = Dense::kColumns, kSliceBytes = Dense::kSliceBytes, kFetchWarps = 1, kInFlight = Dense::kInFlight;

#if CUL_HAS_SM90A
  ExpertBoxes boxes;

  CUL_DEVICE_FN uint32_t fetched_bytes() const { return kSliceBytes; }
  CUL_DEVICE_FN void fetch(uint32_t slice, int column_tile, int index, int, uint32_t landed) const { boxes.fetch(slice, column_tile, index, landed); }

  template <int kTokens>
  struct Accumulator : Dense::template Accumulator<kTokens> {
    using Base = typename Dense::template Accumulator<kTokens>;
    CUL_DEVICE_FN Accumulator(int warp, int lane) : Base(warp, lane) {}
    CUL_DEVICE_FN void multiply(const GroupedHopperHalf&, const unsigned char* slice, uint64_t tokens) { Base::multiply(Dense{}, slice, tokens); }
  };
#endif
};

// Computes: one tile of c[r] = epilogue(a[r] b[e]^T) for rows r of one expert e.
// Shapes:   a [rows, k], b [E, n, k], c [rows, n or n / 2]; any extents > 0.
// Layouts:  row-major; rows and matrices at multiples of 16 bytes.
// Tiles:    16, 128 or 256 rows (64 or 128, where a tile has no more) x 128 columns, with an activation 64 of gate and 64 of up; which rows: the list of tiles.
// Shared:   kStages x (rows + 128) x 128 bytes, two mbarriers a stage; then the f32 tile, rows padded by 16 bytes.
// Order:    k ascending in one piece.
// Numerics: products exact, sums f32; one rounding to c. Rows behind an expert's last one are multiplied and not stored.
// Needs:    sm_90a (wgmma, tensor maps).
// Source:   hopper_gemm.cuh; tiles of sorted rows as in DeepGEMM's contiguous layout, without its padding of groups.
template <class Tile, class T>
__global__ void __launch_bounds__(Tile::kThreads, Tile::kBlocksPerSm)
    grouped_wgmma(const __grid_constant__ TensorMap rows, const __grid_constant__ TensorMap matrices, GroupedHopperShape shape,
                  GroupedEpilogue epilogue, GroupedList list) {
#if CUL_HAS_SM90A
  CUL_DYNAMIC_SHARED(unsigned char, shared, 1024);
  const HopperBlock at = grouped_block(shape, static_cast<int>(blockIdx.x));
  if (at.token_tile >= *list.count) return;
  const GroupedTile tile = list.tiles[at.token_tile];
  const GroupedHopperHalf<T> weights{{&matrices, tile.expert, shape.half}};
  grouped_fitting_tile<Tile, 64>(shared, rows, weights, tile, at.column_tile, shape, epilogue);
#endif
}

template <class Tile, class T>
void run(const GroupedGemmParams& p, NativeStream stream) {
  const ExpertMatrices& b = p.b;
  launch(grouped_wgmma<Tile, T>, dim3(static_cast<unsigned>(p.plan.row_tiles * p.plan.column_tiles)), dim3(Tile::kThreads),
         size_t{HopperShared<Tile, GroupedHopperHalf<T>>::kBytes}, stream, row_map(p.a, p.lda, p.a_rows, p.k(), grouped_box<Tile>),
         expert_map(b.data, b.expert_stride, b.row_stride, b.experts, b.rows, b.columns), grouped_shape(p, kSliceRows), grouped_epilogue(p),
         grouped_list(p));
}

template <class T>
void run(const GroupedGemmParams& p, NativeStream stream) {
  switch (p.plan.tile_tokens) {
    case HopperHalfTile16::kTokens: return run<HopperHalfTile16, T>(p, stream);
    case HopperHalfTile128::kTokens: return run<HopperHalfTile128, T>(p, stream);
    default: return run<HopperHalfTile256, T>(p, stream);
  }
}

}  // namespace

void grouped_hopper_half(const GroupedGemmParams& p, NativeStream stream) {
  p.dtype == DType::f16 ? run<half_t>(p, stream) : run<bfloat16_t>(p, stream);
}

}  // namespace culebra::CUL_DEVICE_NS
