// ldmatrix, stmatrix and mma. Fragment layouts as the PTX ISA gives them: lane = 4 * group + t, group = 0..7, t = 0..3.
#include <cstring>

#include "backends/simt/emulator/warp.h"
#include "device/numeric.h"

namespace culebra::simt {
namespace {

constexpr uint32_t kFullWarp = 0xffffffffu;

struct MatrixMove {
  uint32_t address;
  uint32_t* registers;
  int matrices;
  bool transposed;
};

// Row `row` of 8x8 matrix `matrix` is the 16 bytes at the address that lane 8 * matrix + row gave. Lane 4 * g + t holds elements
// 2t and 2t + 1 of row g; of column g when transposed.
template <bool kStore>
void move_matrices(Meeting& meeting, Block& block) {
  const auto& first = *static_cast<MatrixMove*>(meeting.arguments[0]);
  for (int matrix = 0; matrix < first.matrices; ++matrix) {
    char* rows[8];
    for (int row = 0; row < 8; ++row)
      rows[row] = block.arena + static_cast<MatrixMove*>(meeting.arguments[8 * matrix + row])->address;
    for (int lane = 0; lane < 32; ++lane) {
      const int g = lane / 4, t = lane % 4;
      char* low = first.transposed ? rows[2 * t] + 2 * g : rows[g] + 4 * t;
      char* high = first.transposed ? rows[2 * t + 1] + 2 * g : rows[g] + 4 * t + 2;
      uint32_t& value = static_cast<MatrixMove*>(meeting.arguments[lane])->registers[matrix];
      uint16_t halves[2];
      if constexpr (kStore) {
        halves[0] = static_cast<uint16_t>(value);
        halves[1] = static_cast<uint16_t>(value >> 16);
        std::memcpy(low, &halves[0], 2);
        std::memcpy(high, &halves[1], 2);
      } else {
        std::memcpy(&halves[0], low, 2);
        std::memcpy(&halves[1], high, 2);
        value = pack_bits(halves[0], halves[1]);
      }
    }
  }
}

template <bool kStore>
void matrix_move(uint32_t* registers, int matrices, bool transposed, uint32_t address, Here here) {
  EmulatorScope scope;
  const Site site(kStore ? Op::stmatrix : Op::ldmatrix, here);
  if (scope.self.lane < 8u * static_cast<unsigned>(matrices)) {  // the other lanes' addresses are ignored
    const char* row = shared_bytes(*scope.self.block, address, 16, 16, site);
    access_memory(scope.self, row, 16, kStore ? Access::write : Access::read, site);
  }
  MatrixMove move{address, registers, matrices, transposed};
  meet(scope.self, kFullWarp, true, &move, move_matrices<kStore>, site);
}

template <class D>
struct MmaArgument {
  D* d;
  const uint32_t *a, *b;
  const D* c;
};

// D = A B + C for one m16n8 tile. A register holds kPack consecutive elements of k.
//   A register j: row group + 8 (j % 2), elements kPack t + kPack 4 (j / 2) + i
//   B register j: column group,          elements kPack t + kPack 4 j + i
//   D register j: row group + 8 (j / 2), column 2t + j % 2
template <int kPack, class Sum, class D, class Element>
void multiply(Meeting& meeting, Element element) {
  constexpr int kDepth = 8 * kPack, kBits = 32 / kPack;
  Sum a[16][kDepth], b[kDepth][8], d[16][8];
  const auto argument = [&](int lane) -> MmaArgument<D>& {
    return *static_cast<MmaArgument<D>*>(meeting.arguments[lane]);
  };
  for (int lane = 0; lane < 32; ++lane) {
    const MmaArgument<D>& x = argument(lane);
    const int g = lane / 4, t = lane % 4;
    for (int j = 0; j < 4; ++j)
      for (int i = 0; i < kPack; ++i)
        a[g + 8 * (j % 2)][kPack * (t + 4 * (j / 2)) + i] = element(x.a[j] >> (kBits * i));
    for (int j = 0; j < 2; ++j)
      for (int i = 0; i < kPack; ++i) b[kPack * (t + 4 * j) + i][g] = element(x.b[j] >> (kBits * i));
    for (int j = 0; j < 4; ++j) d[g + 8 * (j / 2)][2 * t + j % 2] = static_cast<Sum>(x.c[j]);
  }
  for (int row = 0; row < 16; ++row)
    for (int k = 0; k < kDepth; ++k)
      for (int column = 0; column < 8; ++column) d[row][column] += a[row][k] * b[k][column];
  for (int lane = 0; lane < 32; ++lane)
    for (int j = 0; j < 4; ++j) argument(lane).d[j] = static_cast<D>(d[lane / 4 + 8 * (j / 2)][2 * (lane % 4) + j % 2]);
}

// The operand types are the instruction's name; Sum is unsigned for s8, where the hardware wraps.
template <Op kOp, int kPack, class Sum, class D, class Element>
void mma(D* d, const uint32_t* a, const uint32_t* b, const D* c, Here here, Element) {
  EmulatorScope scope;
  MmaArgument<D> argument{d, a, b, c};
  meet(
      scope.self, kFullWarp, true, &argument,
      [](Meeting& meeting, Block&) { multiply<kPack, Sum, D>(meeting, Element{}); }, Site(kOp, here));
}

}  // namespace

void ldmatrix(uint32_t* registers, int matrices, bool transposed, uint32_t address, Here here) {
  if (Thread& self = *current.thread; self.registers)
    watch_registers(self, reinterpret_cast<uintptr_t>(registers), 4 * static_cast<size_t>(matrices), Access::write,
                    Site(Op::ldmatrix, here));
  matrix_move<false>(registers, matrices, transposed, address, here);
}

void stmatrix(const uint32_t* registers, int matrices, bool transposed, uint32_t address, Here here) {
  uint32_t values[4];
  std::memcpy(values, registers, sizeof(uint32_t) * static_cast<size_t>(matrices));
  matrix_move<true>(values, matrices, transposed, address, here);
}

void mma_m16n8k16(float* d, const uint32_t* a, const uint32_t* b, const float* c, MatrixType type, Here here) {
  if (type == MatrixType::f16) {
    mma<Op::mma_f16, 2, float>(d, a, b, c, here, [](uint32_t bits) { return low_float<half_t>(bits); });
  } else {
    mma<Op::mma_bf16, 2, float>(d, a, b, c, here, [](uint32_t bits) { return low_float<bfloat16_t>(bits); });
  }
}

void mma_m16n8k32_s8(int* d, const uint32_t* a, const uint32_t* b, const int* c, Here here) {
  mma<Op::mma_s8, 4, uint32_t>(d, a, b, c, here,
                               [](uint32_t bits) { return static_cast<uint32_t>(static_cast<int8_t>(bits)); });
}

void mma_m16n8k32_e4m3(float* d, const uint32_t* a, const uint32_t* b, const float* c, Here here) {
  mma<Op::mma_e4m3, 4, float>(d, a, b, c, here,
                              [](uint32_t bits) { return to_float(float8_e4m3_t{static_cast<uint8_t>(bits)}); });
}

}  // namespace culebra::simt
