// ldmatrix, stmatrix, mma, lop3, prmt and cp.async against the PTX ISA's formulas. The emulator thinks in registers, these tests
// in the ISA's element indices: A's element a_i, i = 0.., sits at (row(i), column(i)) of lane 4 groupID + threadID_in_group.
#include "device/async_copy.h"
#include "device/barrier.h"
#include "device/bits.h"
#include "device/mma.h"
#include "device/warp.h"
#include "harness.h"

namespace culebra::simt {

template <int kCount, bool kTransposed>
__global__ void load_matrices(uint32_t* y, const uint32_t* x, const int* rows) {
  CUL_SHARED(uint32_t, s, [32 * 4]);
  for (int i = threadIdx.x; i < 128; i += 32) s[i] = x[i];
  __syncwarp();
  const uint32_t address = shared_address(s + rows[threadIdx.x] * 4);
  uint32_t r[4] = {};
  if constexpr (kCount == 1) kTransposed ? ldmatrix_x1_trans(r[0], address) : ldmatrix_x1(r[0], address);
  if constexpr (kCount == 2) {
    uint32_t pair[2];
    kTransposed ? ldmatrix_x2_trans(pair, address) : ldmatrix_x2(pair, address);
    r[0] = pair[0];
    r[1] = pair[1];
  }
  if constexpr (kCount == 4) kTransposed ? ldmatrix_x4_trans(r, address) : ldmatrix_x4(r, address);
  for (int i = 0; i < 4; ++i) y[threadIdx.x * 4 + i] = r[i];
}

template <bool kTransposed>
__global__ void store_matrices(uint32_t* y, const uint32_t* x, const int* rows) {
  CUL_SHARED(uint32_t, s, [32 * 4]);
  uint32_t r[4];
  for (int i = 0; i < 4; ++i) r[i] = x[threadIdx.x * 4 + i];
  const uint32_t address = shared_address(s + rows[threadIdx.x] * 4);
  kTransposed ? stmatrix_x4_trans(address, r) : stmatrix_x4(address, r);
  __syncwarp();
  for (int i = threadIdx.x; i < 128; i += 32) y[i] = s[i];
}

template <class T>
__global__ void mma_halves(float* d, const uint32_t* a, const uint32_t* b) {
  uint32_t fragment[4];
  float acc[4];
  for (int i = 0; i < 4; ++i) fragment[i] = a[threadIdx.x * 4 + i];
  for (int i = 0; i < 4; ++i) acc[i] = d[threadIdx.x * 4 + i];
  mma_m16n8k16<T>(acc, fragment, b[threadIdx.x * 2], b[threadIdx.x * 2 + 1]);
  for (int i = 0; i < 4; ++i) d[threadIdx.x * 4 + i] = acc[i];
}

template <class D>
__global__ void mma_bytes(D* d, const uint32_t* a, const uint32_t* b) {
  uint32_t fragment[4];
  D acc[4];
  for (int i = 0; i < 4; ++i) fragment[i] = a[threadIdx.x * 4 + i];
  for (int i = 0; i < 4; ++i) acc[i] = d[threadIdx.x * 4 + i];
  if constexpr (std::is_same_v<D, int>) {
    mma_m16n8k32_s8(acc, fragment, b[threadIdx.x * 2], b[threadIdx.x * 2 + 1]);
  } else {
    mma_m16n8k32_e4m3(acc, fragment, b[threadIdx.x * 2], b[threadIdx.x * 2 + 1]);
  }
  for (int i = 0; i < 4; ++i) d[threadIdx.x * 4 + i] = acc[i];
}

template <int kTable>
__global__ void logic(uint32_t* y, const uint32_t* x) {
  y[0] = lop3<kTable>(x[0], x[1], x[2]);
}

__global__ void permute(uint32_t* y, const uint32_t* x, uint32_t selector) {
  y[0] = prmt(x[0], x[1], selector);
  y[1] = __byte_perm(x[0], x[1], selector);
}

// Lane i copies into chunk i; odd lanes ask for zeros. What is there before and after the wait.
template <int kBytes>
__global__ void copies(unsigned char* y, const unsigned char* x) {
  CUL_SHARED(unsigned char, s, [32 * kBytes]);
  cp_async<kBytes>(shared_address(s + threadIdx.x * kBytes), x + threadIdx.x * kBytes, threadIdx.x % 2 == 0);
  cp_async_commit();
  cp_async_wait<0>();
  __syncwarp();
  for (int i = 0; i < kBytes; ++i) y[threadIdx.x * kBytes + i] = s[threadIdx.x * kBytes + i];
}

// Groups land in order: after wait<n>, all but the last n.
__global__ void copy_groups(int* y, const int* x) {
  CUL_SHARED(int, s, [4 * 4]);
  for (int group = 0; group < 4; ++group) {
    if (group != 2) cp_async<16>(shared_address(s + group * 4), x + group * 4);  // group 2 is empty
    cp_async_commit();
  }
  cp_async_wait<2>();
  y[0] = s[0];
  y[1] = s[4];
  cp_async_wait<0>();
  y[2] = s[12];
}

namespace testing {
namespace {

std::vector<int> shuffled_rows(std::mt19937& random) {
  std::vector<int> rows(32);
  for (int i = 0; i < 32; ++i) rows[i] = i;
  std::shuffle(rows.begin(), rows.end(), random);
  return rows;
}

// "thread T receives row T/4, elements 2 (T%4) and 2 (T%4) + 1"; with .trans the matrix is read in column-major order.
template <int kCount, bool kTransposed>
void check_ldmatrix() {
  std::mt19937 random(kCount * 2 + kTransposed);
  std::vector<uint32_t> words(128);
  for (uint32_t& word : words) word = random();
  const std::vector<int> rows = shuffled_rows(random);
  uint16_t memory[32][8];
  std::memcpy(memory, words.data(), sizeof memory);
  under_every_schedule([&] {
    DeviceArray<uint32_t> x(words), y(128);
    DeviceArray<int> addresses(rows);
    ASSERT_EQ("", findings(load_matrices<kCount, kTransposed>, 1, 32, 0, y, x, addresses));
    for (int matrix = 0; matrix < kCount; ++matrix)
      for (int row = 0; row < 8; ++row)
        for (int column = 0; column < 8; ++column) {
          const uint16_t element = memory[rows[matrix * 8 + row]][column];
          const int r = kTransposed ? column : row, c = kTransposed ? row : column;
          const uint32_t held = y[(r * 4 + c / 2) * 4 + matrix];
          ASSERT_EQ(element, static_cast<uint16_t>(c % 2 ? held >> 16 : held))
              << "matrix " << matrix << " row " << row << " column " << column;
        }
  });
}

TEST(Ldmatrix, X1) { check_ldmatrix<1, false>(); }
TEST(Ldmatrix, X2) { check_ldmatrix<2, false>(); }
TEST(Ldmatrix, X4) { check_ldmatrix<4, false>(); }
TEST(Ldmatrix, X1Transposed) { check_ldmatrix<1, true>(); }
TEST(Ldmatrix, X2Transposed) { check_ldmatrix<2, true>(); }
TEST(Ldmatrix, X4Transposed) { check_ldmatrix<4, true>(); }

TEST(Stmatrix, IsTheInverseOfLdmatrix) {
  std::mt19937 random(9);
  std::vector<uint32_t> words(128);
  for (uint32_t& word : words) word = random();
  const std::vector<int> rows = shuffled_rows(random);
  const auto round_trip = [&](auto load, auto store) {
    DeviceArray<uint32_t> x(words), fragments(128), y(128);
    DeviceArray<int> addresses(rows);
    ASSERT_EQ("", findings(load, 1, 32, 0, fragments, x, addresses));
    ASSERT_EQ("", findings(store, 1, 32, 0, y, fragments, addresses));
    EXPECT_EQ(words, y.values());
  };
  round_trip(load_matrices<4, false>, store_matrices<false>);
  round_trip(load_matrices<4, true>, store_matrices<true>);
}

// The ISA's tables for .m16n8k16 with 16-bit and .m16n8k32 with 8-bit elements.
struct Place {
  int row, column;
};
Place a16(int lane, int i) {
  return {lane / 4 + (i < 2 || (i >= 4 && i < 6) ? 0 : 8), lane % 4 * 2 + (i & 1) + (i >= 4 ? 8 : 0)};
}
Place b16(int lane, int i) { return {lane % 4 * 2 + (i & 1) + (i >= 2 ? 8 : 0), lane / 4}; }
Place a8(int lane, int i) {
  return {lane / 4 + (i < 4 || (i >= 8 && i < 12) ? 0 : 8), lane % 4 * 4 + (i & 3) + (i >= 8 ? 16 : 0)};
}
Place b8(int lane, int i) { return {lane % 4 * 4 + (i & 3) + (i >= 4 ? 16 : 0), lane / 4}; }
Place c32(int lane, int i) { return {lane / 4 + (i < 2 ? 0 : 8), lane % 4 * 2 + (i & 1)}; }

template <class Element, class D>
void check_mma(void (*kernel)(D*, const uint32_t*, const uint32_t*), Place (*a_place)(int, int),
               Place (*b_place)(int, int), uint32_t seed, int limit, Element (*encode)(int)) {
  constexpr int kA = 16 / sizeof(Element), kB = 8 / sizeof(Element), kDepth = 32 / sizeof(Element);
  std::mt19937 random(seed);
  std::uniform_int_distribution<int> value(-limit, limit);
  int a[16][kDepth], b[kDepth][8], c[16][8];
  std::vector<Element> fa(32 * kA), fb(32 * kB);
  std::vector<D> fc(32 * 4);
  for (int lane = 0; lane < 32; ++lane) {
    for (int i = 0; i < kA; ++i)
      fa[lane * kA + i] = encode(a[a_place(lane, i).row][a_place(lane, i).column] = value(random));
    for (int i = 0; i < kB; ++i)
      fb[lane * kB + i] = encode(b[b_place(lane, i).row][b_place(lane, i).column] = value(random));
    for (int i = 0; i < 4; ++i)
      fc[lane * 4 + i] =
          static_cast<D>(c[c32(lane, i).row][c32(lane, i).column] = static_cast<int>(random() % 1001) - 500);
  }
  under_every_schedule([&] {
    std::vector<uint32_t> wa(128), wb(64);
    std::memcpy(wa.data(), fa.data(), 512);
    std::memcpy(wb.data(), fb.data(), 256);
    DeviceArray<uint32_t> da(wa), db(wb);
    DeviceArray<D> d(fc);
    ASSERT_EQ("", findings(kernel, 1, 32, 0, d, da, db));
    for (int lane = 0; lane < 32; ++lane)
      for (int i = 0; i < 4; ++i) {
        const auto [row, column] = c32(lane, i);
        int sum = c[row][column];
        for (int k = 0; k < kDepth; ++k) sum += a[row][k] * b[k][column];
        ASSERT_EQ(static_cast<D>(sum), d[lane * 4 + i]) << "row " << row << " column " << column;
      }
  });
}

TEST(Mma, Half) {
  check_mma<half_t, float>(mma_halves<half_t>, a16, b16, 21, 8,
                           [](int v) { return from_float<half_t>(static_cast<float>(v)); });
}
TEST(Mma, Bfloat16) {
  check_mma<bfloat16_t, float>(mma_halves<bfloat16_t>, a16, b16, 22, 8,
                               [](int v) { return from_float<bfloat16_t>(static_cast<float>(v)); });
}
TEST(Mma, Int8) {
  check_mma<int8_t, int>(mma_bytes<int>, a8, b8, 23, 127, [](int v) { return static_cast<int8_t>(v); });
}
TEST(Mma, Float8) {
  check_mma<float8_e4m3_t, float>(mma_bytes<float>, a8, b8, 24, 8,
                                  [](int v) { return from_float<float8_e4m3_t>(static_cast<float>(v)); });
}

TEST(Bits, Lop3IsItsExpression) {
  const std::vector<uint32_t> x = {0xf0f0a5c3u, 0xcc3355aau, 0xaa99ff01u};
  DeviceArray<uint32_t> dx(x), y(1);
  const auto run = [&](auto kernel) {
    EXPECT_EQ("", findings(kernel, 1, 1, 0, y, dx));
    return y[0];
  };
  EXPECT_EQ((x[0] & x[1]) | x[2], run(logic<(0xf0 & 0xcc) | 0xaa>));
  EXPECT_EQ(x[0] ^ x[1] ^ x[2], run(logic<0xf0 ^ 0xcc ^ 0xaa>));
  EXPECT_EQ((x[0] & x[1]) | (~x[0] & x[2]), run(logic<((0xf0 & 0xcc) | (~0xf0 & 0xaa)) & 0xff>));
  EXPECT_EQ(~x[0], run(logic<~0xf0 & 0xff>));
  EXPECT_EQ(x[1], run(logic<0xcc>));
  EXPECT_EQ(x[2], run(logic<0xaa>));
  EXPECT_EQ(0u, run(logic<0>));
  EXPECT_EQ(~0u, run(logic<255>));
}

TEST(Bits, Prmt) {
  const std::vector<uint32_t> x = {0x83726150u, 0x07f6e5d4u};
  const unsigned char bytes[8] = {0x50, 0x61, 0x72, 0x83, 0xd4, 0xe5, 0xf6, 0x07};
  DeviceArray<uint32_t> dx(x), y(2);
  std::mt19937 random(31);
  for (int i = 0; i < 100; ++i) {
    const uint32_t selector = random() & 0xffffu;
    ASSERT_EQ("", findings(permute, 1, 1, 0, y, dx, selector));
    for (int byte = 0; byte < 4; ++byte) {
      const uint32_t choice = selector / (1u << (4 * byte)) % 16;
      const int source = bytes[choice % 8];
      const int expected = choice >= 8 ? (source >= 128 ? 255 : 0) : source;
      ASSERT_EQ(expected, static_cast<int>(y[0] >> (8 * byte) & 0xff)) << std::hex << selector;
      ASSERT_EQ(source, static_cast<int>(y[1] >> (8 * byte) & 0xff)) << std::hex << selector;
    }
  }
}

template <int kBytes>
void check_copies() {
  std::vector<unsigned char> x(32 * kBytes);
  for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<unsigned char>(i * 7 + 1);
  under_every_schedule([&] {
    DeviceArray<unsigned char> dx(x), y(x.size());
    ASSERT_EQ("", findings(copies<kBytes>, 1, 32, 0, y, dx));
    for (int i = 0; i < 32 * kBytes; ++i) ASSERT_EQ(i / kBytes % 2 ? 0 : x[i], y[i]);
  });
}

TEST(AsyncCopy, OfEverySizeWithZeroFill) {
  check_copies<4>();
  check_copies<8>();
  check_copies<16>();
}

TEST(AsyncCopy, GroupsLandInOrder) {
  std::vector<int> x(16);
  for (int i = 0; i < 16; ++i) x[i] = 100 + i;
  DeviceArray<int> dx(x), y(3);
  ASSERT_EQ("", findings(copy_groups, 1, 1, 0, y, dx));
  EXPECT_EQ((std::vector<int>{100, 104, 112}), y.values());
}

}  // namespace
}  // namespace testing
}  // namespace culebra::simt
