// mma.sp.m16n8k32 against a dense product of the matrix that values and metadata stand for, in the PTX ISA's element indices: of A's
// element a_i, i = 0..7, the row and the chunk of four k; of a chunk, the indices in the metadata of the lane that the selector names.
#include "device/mma_sparse.h"
#include "harness.h"

namespace culebra::simt {

template <class T, int kSelector>
__global__ void sparse_mma(float* d, const uint32_t* a, const uint32_t* b, const uint32_t* metadata) {
  uint32_t fa[4], fb[4];
  float acc[4];
  for (int i = 0; i < 4; ++i) fa[i] = a[threadIdx.x * 4 + i], fb[i] = b[threadIdx.x * 4 + i], acc[i] = d[threadIdx.x * 4 + i];
  mma_sparse_m16n8k32<T, kSelector>(acc, fa, fb, metadata[threadIdx.x]);
  for (int i = 0; i < 4; ++i) d[threadIdx.x * 4 + i] = acc[i];
}

namespace testing {
namespace {

// A matrix in the order of the ISA's chunks: which two of each four a row keeps.
struct Sparse {
  int value[16][32] = {};
  int first[16][8], second[16][8];
};

template <class T, int kSelector>
void check(uint32_t seed) {
  std::mt19937 random(seed);
  std::uniform_int_distribution<int> small(-8, 8);
  Sparse a;
  int b[32][8], c[16][8];
  for (int row = 0; row < 16; ++row)
    for (int chunk = 0; chunk < 8; ++chunk) {
      a.first[row][chunk] = static_cast<int>(random() % 3);
      a.second[row][chunk] = a.first[row][chunk] + 1 + static_cast<int>(random() % static_cast<uint32_t>(3 - a.first[row][chunk]));
      a.value[row][4 * chunk + a.first[row][chunk]] = small(random);
      a.value[row][4 * chunk + a.second[row][chunk]] = small(random);
    }
  for (auto& row : b)
    for (int& x : row) x = small(random);
  for (auto& row : c)
    for (int& x : row) x = 16 * small(random);

  const auto encode = [](int v) { return from_float<T>(static_cast<float>(v)).bits; };
  std::vector<uint32_t> fa(128), fb(128), metadata(32);
  std::vector<float> fd(128);
  for (int lane = 0; lane < 32; ++lane) {
    const int group = lane / 4, thread = lane % 4;
    for (int i = 0; i < 8; ++i) {  // a_i: groupID for i < 2 and 4 <= i < 6, else groupID + 8; the second half of k from i = 4 on
      const int row = group + (i < 2 || (i >= 4 && i < 6) ? 0 : 8), chunk = thread + (i < 4 ? 0 : 4);
      const int position = i % 2 ? a.second[row][chunk] : a.first[row][chunk];
      fa[lane * 4 + i / 2] |= static_cast<uint32_t>(encode(a.value[row][4 * chunk + position])) << (16 * (i % 2));
    }
    for (int i = 0; i < 8; ++i)  // b_i: row 2 threadID_in_group + (i & 1), 8 more for every two
      fb[lane * 4 + i / 2] |= static_cast<uint32_t>(encode(b[thread * 2 + (i & 1) + i / 2 * 8][group])) << (16 * (i % 2));
    for (int i = 0; i < 4; ++i) fd[lane * 4 + i] = static_cast<float>(c[group + (i < 2 ? 0 : 8)][thread * 2 + (i & 1)]);
    metadata[lane] = random();  // what the selector does not name is not read
    if (thread / 2 != kSelector) continue;
    metadata[lane] = 0;
    for (int bit = 0; bit < 32; bit += 4) {  // bits 0..15: row groupID, 16..31: groupID + 8; the odd thread has columns 16..31
      const int row = group + (bit < 16 ? 0 : 8), chunk = bit % 16 / 4 + thread % 2 * 4;
      metadata[lane] |= static_cast<uint32_t>(a.first[row][chunk] | a.second[row][chunk] << 2) << bit;
    }
  }
  under_every_schedule([&] {
    DeviceArray<uint32_t> da(fa), db(fb), dm(metadata);
    DeviceArray<float> d(fd);
    ASSERT_EQ("", findings(sparse_mma<T, kSelector>, 1, 32, 0, d, da, db, dm));
    for (int lane = 0; lane < 32; ++lane)
      for (int i = 0; i < 4; ++i) {
        const int row = lane / 4 + (i < 2 ? 0 : 8), column = lane % 4 * 2 + (i & 1);
        int sum = c[row][column];
        for (int k = 0; k < 32; ++k) sum += a.value[row][k] * b[k][column];
        ASSERT_EQ(static_cast<float>(sum), d[lane * 4 + i]) << "row " << row << " column " << column;
      }
  });
}

TEST(SparseMma, Half) {
  check<half_t, 0>(41);
  check<half_t, 1>(42);
}
TEST(SparseMma, Bfloat16) {
  check<bfloat16_t, 0>(43);
  check<bfloat16_t, 1>(44);
}

TEST(SparseMma, PositionsOutOfOrderAreFound) {
  DeviceArray<uint32_t> a(128), b(128), metadata(std::vector<uint32_t>(32, 0x44444441u));
  DeviceArray<float> d(128);
  for (int i = 0; i < 128; ++i) a[i] = b[i] = 0, d[i] = 0;
  EXPECT_NE(findings(sparse_mma<half_t, 0>, 1, 32, 0, d, a, b, metadata).find("keeps elements 1 and 0"), std::string::npos);
}

}  // namespace
}  // namespace testing
}  // namespace culebra::simt
