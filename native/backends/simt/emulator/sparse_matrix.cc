// mma.sp m16n8k32: fragments and metadata as the PTX ISA gives them: lane = 4 * group + t.
#include "backends/simt/emulator/warp.h"
#include "device/numeric.h"

namespace culebra::simt {
namespace {

struct SparseMmaArgument {
  float* d;
  const uint32_t *a, *b;
  uint32_t metadata;
  int selector;
};

template <class T>
float element(uint32_t pair, int i) {
  return i ? high_float<T>(pair) : low_float<T>(pair);
}

//   A register j: row group + 8 (j % 2), the two values kept of k = 16 (j / 2) + 4t .. + 3
//   B register j: column group,          k = 8j + 2t + i
//   D register j: row group + 8 (j / 2), column 2t + j % 2
template <class T>
void multiply(Meeting& meeting, Block&) {
  float a[16][32], b[32][8], d[16][8];
  bool kept[16][32] = {};
  const auto argument = [&](int lane) -> SparseMmaArgument& { return *static_cast<SparseMmaArgument*>(meeting.arguments[lane]); };
  for (int lane = 0; lane < 32; ++lane) {
    const SparseMmaArgument& x = argument(lane);
    const int g = lane / 4, t = lane % 4;
    for (int j = 0; j < 4; ++j) {
      const int row = g + 8 * (j % 2);
      const uint32_t metadata = argument(4 * g + 2 * x.selector + j / 2).metadata;
      const uint32_t positions = metadata >> (16 * (j % 2) + 4 * t) & 15u, first = positions & 3u, second = positions >> 2;
      if (first >= second)
        report(meeting.site, "row %d keeps elements %u and %u of k = %d ..: the first must be below the second", row, first, second,
               16 * (j / 2) + 4 * t);
      for (int i = 0; i < 2; ++i) {
        const uint32_t k = 16 * (j / 2) + 4 * t + (i ? second : first);
        a[row][k] = element<T>(x.a[j], i);
        kept[row][k] = true;
      }
    }
    for (int j = 0; j < 4; ++j)
      for (int i = 0; i < 2; ++i) b[8 * j + 2 * t + i][g] = element<T>(x.b[j], i);
    for (int j = 0; j < 4; ++j) d[g + 8 * (j / 2)][2 * t + j % 2] = x.d[j];
  }
  for (int row = 0; row < 16; ++row)
    for (int k = 0; k < 32; ++k)
      for (int column = 0; column < 8 && kept[row][k]; ++column) d[row][column] += a[row][k] * b[k][column];
  for (int lane = 0; lane < 32; ++lane)
    for (int j = 0; j < 4; ++j) argument(lane).d[j] = d[lane / 4 + 8 * (j / 2)][2 * (lane % 4) + j % 2];
}

}  // namespace

void mma_sparse_m16n8k32(float* d, const uint32_t* a, const uint32_t* b, uint32_t metadata, int selector, MatrixType type, Here here) {
  EmulatorScope scope;
  SparseMmaArgument argument{d, a, b, metadata, selector};
  const bool half = type == MatrixType::f16;
  meet(scope.self, 0xffffffffu, true, &argument, half ? multiply<half_t> : multiply<bfloat16_t>,
       Site(half ? Op::mma_sparse_f16 : Op::mma_sparse_bf16, here));
}

}  // namespace culebra::simt
