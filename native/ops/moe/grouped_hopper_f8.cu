#include "ops/gemm/hopper/hopper_f8.cuh"
#include "ops/moe/grouped_hopper.cuh"

namespace culebra::CUL_DEVICE_NS {
namespace {

// Matrices [E, n, k] of e4m3 with a scale for each block of 128 x 128. A tile's columns are two times 64, each within one block.
struct ExpertF8Boxes : HopperF8Source {
  static constexpr int kHalves = 2;

#if CUL_HAS_SM90A
  ExpertBoxes boxes;

  CUL_DEVICE_FN void fetch(uint32_t slice, int column_tile, int index, int, uint32_t landed) const { boxes.fetch(slice, column_tile, index, landed); }
  CUL_DEVICE_FN float b_block_scale(int column_tile, int part, int block) const {
    const int row = boxes.half > 0 ? column_tile * 64 + part * boxes.half : column_tile * 128;
    return block < scales.k_blocks ? scales.b[int64_t{row / 128} * scales.b_row + block] : 0.0f;
  }
#endif
};

// Computes: one tile of c[r] = epilogue((a[r] a_scale) (b[e] b_scale)^T) for rows r of one expert e.
// Shapes:   a [rows, k] and b [E, n, k] of e4m3, scales of 128 k and of 128 x 128; c [rows, n or n / 2]; any extents > 0, k even.
// Layouts:  row-major; rows and matrices at multiples of 16 bytes.
// Tiles:    16 rows (columns are the instruction's rows), 128 or 256 (rows are) x 128 columns, with an activation 64 of gate and 64 of up.
// Shared:   kStages x (rows + 128) x 128 bytes, two mbarriers a stage; then the f32 tile, rows padded by 16 bytes.
// Order:    k ascending in one piece, 128 at a time.
// Numerics: sums of 128 k on the tensor cores, scaled and added in f32; one rounding to c.
// Needs:    sm_90a (wgmma, tensor maps).
// Source:   hopper_f8.cuh; DeepGEMM's scaled grouped products, whose groups are padded to whole tiles.
template <class Tile, class Weights>
__global__ void __launch_bounds__(Tile::kThreads, Tile::kBlocksPerSm)
    grouped_f8_wgmma(const __grid_constant__ TensorMap rows, const __grid_constant__ TensorMap matrices, HopperF8Scales scales, int64_t expert_scales,
                     GroupedHopperShape shape, GroupedEpilogue epilogue, GroupedList list) {
#if CUL_HAS_SM90A
  CUL_DYNAMIC_SHARED(unsigned char, shared, 1024);
  const HopperBlock at = grouped_block(shape, static_cast<int>(blockIdx.x));
  if (at.token_tile >= *list.count) return;
  const GroupedTile tile = list.tiles[at.token_tile];
  Weights weights;
  weights.scales = scales;
  weights.scales.b += tile.expert * expert_scales;
  weights.scales.m = tile.first_row + tile.rows;
  weights.boxes = {&matrices, tile.expert, shape.half};
  grouped_fitting_tile<Tile, 128>(shared, rows, weights, tile, at.column_tile, shape, epilogue);
#endif
}

template <class Tile, class Weights>
void run(const GroupedGemmParams& p, NativeStream stream) {
  const ExpertMatrices& b = p.b;
  const GroupedHopperShape shape = grouped_shape(p, kF8SliceBytes);
  const HopperF8Scales scales{p.a_scale, static_cast<const float*>(b.scales), p.a_scale_stride, b.scale_row_stride, 0, b.rows, 1, shape.slices};
  launch(grouped_f8_wgmma<Tile, Weights>, dim3(static_cast<unsigned>(p.plan.row_tiles * p.plan.column_tiles)), dim3(Tile::kThreads),
         size_t{HopperShared<Tile, Weights>::kBytes}, stream, byte_row_map(p.a, p.lda, p.a_rows, p.k(), grouped_box<Tile>),
         expert_map(b.data, b.expert_stride / 2, b.row_stride / 2, b.experts, b.rows, b.columns / 2), scales, b.scale_expert_stride, shape,
         grouped_epilogue(p), grouped_list(p));
}

}  // namespace

void grouped_hopper_f8(const GroupedGemmParams& p, NativeStream stream) {
  switch (p.plan.tile_tokens) {
    case HopperF8Tile16::kTokens: return run<HopperF8Tile16, HopperF8ColumnsOf<ExpertF8Boxes>>(p, stream);
    case HopperF8Tile128::kTokens: return run<HopperF8Tile128, HopperF8RowsOf<ExpertF8Boxes>>(p, stream);
    default: return run<HopperF8Tile256, HopperF8RowsOf<ExpertF8Boxes>>(p, stream);
  }
}

}  // namespace culebra::CUL_DEVICE_NS
