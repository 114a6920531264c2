// The instructions of 9.0: pipelines of copies, mbarriers and asynchronous products, clusters. Results against plain sums, layouts
// against CuTe's statements of them.
#include "hopper_kernels.h"

#include <array>

namespace culebra::simt {
namespace {

// ---- what CuTe (include/cute/atom/mma_traits_sm90_gmma.hpp, include/cute/swizzle.hpp) says of the layouts

// Swizzle<B, M, S>: B bits from bit M + S on are added, without carry, to the B bits from bit M on.
constexpr uint32_t swizzle(int B, int M, int S, uint32_t offset) {
  const uint32_t mask = ((1u << B) - 1) << (M + S);
  return offset ^ (offset & mask) >> S;
}

// A layout ((4,8,4),(v0,v1,v2)):((t0,t1,t2),(s0,s1,s2)) of threads and their values, to an index m + 64 k (or n).
struct ThreadValueLayout {
  std::array<int, 3> values, thread_strides, value_strides;

  int operator()(int thread, int value) const {
    const int t[] = {thread % 4, thread / 4 % 8, thread / 32};
    const int v[] = {value % values[0], value / values[0] % values[1], value / values[0] / values[1]};
    int index = 0;
    for (int i = 0; i < 3; ++i)
      index += t[i] * thread_strides[static_cast<size_t>(i)] + v[i] * value_strides[static_cast<size_t>(i)];
    return index;
  }
};
constexpr ThreadValueLayout kAccumulators{{2, 2, 32}, {128, 1, 16}, {64, 8, 512}};  // CLayout_64xN
constexpr ThreadValueLayout kA16{{2, 2, 2}, {128, 1, 16}, {64, 8, 512}};            // ALayout_64x16
constexpr ThreadValueLayout kA8{{4, 2, 2}, {256, 1, 16}, {64, 8, 1024}};            // ALayout_64x32

}  // namespace

// ---- one product of operands that the host has laid out

struct OneProduct {
  bool a_in_registers, accumulate;
  uint64_t a, b;  // descriptors of address 0
};

template <class T, int N>
__global__ void one_product(uint32_t* y, const uint32_t* operands, const uint32_t* registers, OneProduct how,
                            int words) {
  CUL_DYNAMIC_SHARED(uint32_t, shared, 1024);
  for (int i = static_cast<int>(threadIdx.x); i < words; i += 128) shared[i] = operands[i];
  fence_async_proxy();
  __syncthreads();
  const uint64_t base = wgmma_descriptor_plain(shared_address(shared), 0, 0);
  wgmma_sum_t<T> d[N / 2];
  for (int i = 0; i < N / 2; ++i) d[i] = static_cast<wgmma_sum_t<T>>(i % 7);
  uint32_t a[4];
  for (int i = 0; i < 4; ++i) a[i] = registers[threadIdx.x * 4 + static_cast<unsigned>(i)];
  wgmma_fence();
  if (how.a_in_registers) {
    wgmma<T, N>(d, a, how.b + base, how.accumulate);
  } else {
    wgmma<T, N>(d, how.a + base, how.b + base, how.accumulate);
  }
  wgmma_commit();
  wgmma_wait<0>();
  for (int i = 0; i < N / 2; ++i) {
    uint32_t bits;
    __builtin_memcpy(&bits, &d[i], 4);
    y[threadIdx.x * (N / 2) + static_cast<unsigned>(i)] = bits;
  }
}

__global__ void tile_bytes(unsigned char* y, const __grid_constant__ TensorMap map, int inner, int row, int matrix,
                           int rank, int bytes) {
  CUL_DYNAMIC_SHARED(unsigned char, tile, 1024);
  CUL_SHARED(uint64_t, full, );
  const uint32_t barrier = shared_address(&full);
  if (threadIdx.x == 0) {
    mbarrier_init(barrier, 1);
    mbarrier_init_fence();
    mbarrier_arrive_expect_bytes(barrier, static_cast<uint32_t>(bytes));
    rank == 2 ? tensor_copy_2d(shared_address(tile), map, inner, row, barrier)
              : tensor_copy_3d(shared_address(tile), map, inner, row, matrix, barrier);
  }
  __syncthreads();
  mbarrier_wait(barrier, 0);
  for (int i = static_cast<int>(threadIdx.x); i < bytes; i += 32) y[i] = tile[i];
}

// Block r of a cluster adds, in the order of ranks, what all have for column r.
__global__ void cluster_sum(float* y, const float* x) {
  CUL_SHARED(float, mine, [128]);
  const unsigned rank = cluster_rank(), size = cluster_size();
  mine[threadIdx.x] = x[blockIdx.x * 128 + threadIdx.x];
  cluster_sync();
  if (threadIdx.x < 32 / size) {
    float4 sum{0, 0, 0, 0};
    const uint32_t at = shared_address(&mine[rank * (128 / size) + 4 * threadIdx.x]);
    for (unsigned r = 0; r < size; ++r) {
      const float4 v = load_cluster<float4>(cluster_address(at, r));
      sum = {sum.x + v.x, sum.y + v.y, sum.z + v.z, sum.w + v.w};
    }
    float* const out = y + blockIdx.x / size * 128 + rank * (128 / size) + 4 * threadIdx.x;
    out[0] = sum.x, out[1] = sum.y, out[2] = sum.z, out[3] = sum.w;
  }
  cluster_sync();
}

__global__ void cluster_ranks(uint32_t* y) {
  const unsigned block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
  if (threadIdx.x == 0) y[block] = cluster_rank() * 100 + cluster_size();
}

namespace testing {
namespace {

template <class T>
std::string run_pipeline(int rows, int columns, int k, bool a_in_registers) {
  const Matrices<T> x(rows, columns, k);
  std::string text;
  under_every_schedule([&] {
    DeviceArray<float> y(static_cast<size_t>(64 * 32));
    text += x.run(a_in_registers ? pipeline<T, true, Fault::none> : pipeline<T, false, Fault::none>, y);
    if (text.empty()) text = x.difference(y.values());
  });
  return text;
}

TEST(Hopper, PipelinesAreClean) {
  EXPECT_EQ("", run_pipeline<half_t>(64, 32, 256, false));
  EXPECT_EQ("", run_pipeline<half_t>(64, 32, 256, true));
  EXPECT_EQ("", run_pipeline<bfloat16_t>(64, 32, 320, false));
  EXPECT_EQ("", run_pipeline<float8_e4m3_t>(64, 32, 384, false));
}

TEST(Hopper, EdgesOfTensorsAreZeros) {
  EXPECT_EQ("", run_pipeline<half_t>(50, 21, 72, false));
  EXPECT_EQ("", run_pipeline<bfloat16_t>(1, 1, 8, false));
}

template <class T, int N>
void check_one_product(bool swizzled, bool a_in_registers, bool accumulate) {
  SCOPED_TRACE("N " + std::to_string(N) + ", swizzled " + std::to_string(swizzled) + ", registers " +
               std::to_string(a_in_registers) + ", accumulate " + std::to_string(accumulate));
  constexpr int kSize = sizeof(T), kDepth = 32 / kSize;
  std::mt19937 random(N + 17 * kSize);
  const auto element = [&] { return static_cast<float>(static_cast<int>(random() % 9) - 4); };
  std::vector<float> a(64 * kDepth), b(static_cast<size_t>(N) * kDepth);
  for (float& value : a) value = element();
  for (float& value : b) value = element();

  // Byte offsets of 32 bytes of row r from k on. The swizzled operand is the third quarter of rows of 128 bytes.
  const uint32_t k_stride = 128 * 72, row_stride = 256;
  const auto offset = [&](uint32_t row, uint32_t byte) {
    if (swizzled) return swizzle(3, 4, 3, row * 128 + 64 + byte);
    return row / 8 * row_stride + row % 8 * 16 + byte / 16 * k_stride + byte % 16;
  };
  const uint32_t b_begin = 2 * k_stride, bytes = b_begin + (swizzled ? N * 128 : 2 * k_stride);
  std::vector<uint32_t> operands(bytes / 4);
  const auto put = [&](uint32_t at, float value) {
    const T bits = encode<T>(value);
    std::memcpy(reinterpret_cast<char*>(operands.data()) + at, &bits, sizeof bits);
  };
  for (uint32_t k = 0; k < kDepth; ++k) {
    for (uint32_t row = 0; row < 64; ++row) put(offset(row, k * kSize), a[row * kDepth + k]);
    for (uint32_t column = 0; column < N; ++column) put(b_begin + offset(column, k * kSize), b[column * kDepth + k]);
  }
  std::vector<uint32_t> registers(128 * 4);
  const ThreadValueLayout& fragment = kSize == 2 ? kA16 : kA8;
  for (int thread = 0; thread < 128; ++thread)
    for (int value = 0; value < 16 / kSize; ++value) {
      const int at = fragment(thread, value);
      const T bits = encode<T>(a[static_cast<size_t>(at % 64 * kDepth + at / 64)]);
      std::memcpy(reinterpret_cast<char*>(&registers[static_cast<size_t>(thread) * 4]) + value * kSize, &bits,
                  sizeof bits);
    }

  // The bit fields of CuTe's GmmaDescriptor, in units of 16 bytes.
  const auto descriptor = [&](uint64_t address) {
    const uint64_t start = (address + (swizzled ? 64 : 0)) >> 4, leading = (swizzled ? 16 : k_stride) >> 4,
                   stride = (swizzled ? 1024 : row_stride) >> 4, type = swizzled ? 1 : 0;
    return start | leading << 16 | stride << 32 | type << 62;
  };
  const OneProduct how{a_in_registers, accumulate, descriptor(0), descriptor(b_begin)};
  const uint32_t origin = 0;
  EXPECT_EQ(descriptor(2048), swizzled ? wgmma_advance(wgmma_descriptor(origin + 2048), 64)
                                       : wgmma_descriptor_plain(origin + 2048, k_stride, row_stride));

  DeviceArray<uint32_t> y(128 * N / 2), device_operands(operands), device_registers(registers);
  ASSERT_EQ("", findings(one_product<T, N>, 1, 128, bytes, y, device_operands, device_registers, how,
                         static_cast<int>(operands.size())));
  for (int thread = 0; thread < 128; ++thread)
    for (int value = 0; value < N / 2; ++value) {
      const int at = kAccumulators(thread, value), row = at % 64, column = at / 64;
      float expected = accumulate ? static_cast<float>(value % 7) : 0.0f;
      for (int k = 0; k < kDepth; ++k)
        expected += a[static_cast<size_t>(row * kDepth + k)] * b[static_cast<size_t>(column * kDepth + k)];
      wgmma_sum_t<T> sum;
      std::memcpy(&sum, &y[thread * (N / 2) + value], sizeof sum);
      ASSERT_EQ(expected, static_cast<float>(sum)) << "thread " << thread << " value " << value;
    }
}

template <class T, int N>
void check_one_product() {
  for (const bool swizzled : {false, true})
    for (const bool a_in_registers : {false, true})
      for (const bool accumulate : {false, true}) check_one_product<T, N>(swizzled, a_in_registers, accumulate);
}

TEST(Hopper, ProductsOfHalf) {
  check_one_product<half_t, 8>();
  check_one_product<half_t, 64>();
  check_one_product<half_t, 256>();
}
TEST(Hopper, ProductsOfBfloat16) {
  check_one_product<bfloat16_t, 16>();
  check_one_product<bfloat16_t, 128>();
}
TEST(Hopper, ProductsOfFloat8) {
  check_one_product<float8_e4m3_t, 8>();
  check_one_product<float8_e4m3_t, 32>();
}
TEST(Hopper, ProductsOfInt8) {
  check_one_product<int8_t, 16>();
  check_one_product<int8_t, 64>();
}

TEST(Hopper, TilesOfTensors) {
  // A tensor of three matrices, 20 rows of 40 elements each, rows 48 elements apart.
  std::vector<uint16_t> values(3 * 20 * 48);
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<uint16_t>(i + 1);
  DeviceArray<uint16_t> x(values);
  const TensorMapRequest request{x.get(), 2, 3, {40, 20, 3}, {96, 20 * 96}, {64, 4, 2}, Swizzle::bytes_128};
  for (const bool swizzled : {false, true}) {
    TensorMapRequest tensor = request;
    tensor.swizzle = swizzled ? Swizzle::bytes_128 : Swizzle::none;
    const TensorMap map = make_tensor_map(tensor);
    for (const auto& [inner, row, matrix] : {std::array{0, 0, 0}, {8, 18, 1}, {-8, -2, 2}, {40, 0, 0}, {0, 20, 0}}) {
      constexpr int kBytes = 64 * 2 * 4 * 2;
      DeviceArray<unsigned char> y(kBytes);
      ASSERT_EQ("", findings(tile_bytes, 1, 32, kBytes, y, map, inner, row, matrix, 3, kBytes));
      for (int m = 0; m < 2; ++m)
        for (int r = 0; r < 4; ++r)
          for (int i = 0; i < 64; ++i) {
            const int at[] = {inner + i, row + r, matrix + m};
            const bool inside = at[0] >= 0 && at[0] < 40 && at[1] >= 0 && at[1] < 20 && at[2] >= 0 && at[2] < 3;
            const auto byte = static_cast<uint32_t>(((m * 4 + r) * 64 + i) * 2);
            uint16_t value;
            std::memcpy(&value, y.get() + (swizzled ? swizzle(3, 4, 3, byte) : byte), 2);
            ASSERT_EQ(inside ? values[static_cast<size_t>((at[2] * 20 + at[1]) * 48 + at[0])] : 0, value)
                << swizzled << " " << m << " " << r << " " << i;
          }
    }
  }
}

TEST(Hopper, TensorMapsThatTheCopyEngineRefuses) {
  alignas(16) static char data[16];
  const TensorMapRequest good{data, 2, 2, {64, 8}, {128}, {64, 8}, Swizzle::bytes_128};
  EXPECT_EQ("", refusal(good));
  const auto why = [&](auto&& change) {
    TensorMapRequest request = good;
    change(request);
    EXPECT_THROW(make_tensor_map(request), Refusal);
    return refusal(request);
  };
  EXPECT_EQ("elements of 4 bytes; 1 and 2 are supported", why([](auto& r) { r.element_bytes = 4; }));
  EXPECT_EQ("rank 1; 2 and 3 are supported", why([](auto& r) { r.rank = 1; }));
  EXPECT_EQ("the data is not aligned to 16 bytes", why([](auto& r) { r.data = data + 2; }));
  EXPECT_EQ("the extent of dimension 1 is 0, outside 1..2^32", why([](auto& r) { r.extent[1] = 0; }));
  EXPECT_EQ("the box's extent of dimension 1 is 257, outside 1..256", why([](auto& r) { r.box[1] = 257; }));
  EXPECT_EQ("the stride of dimension 1 is 130 bytes, not a positive multiple of 16 below 2^40",
            why([](auto& r) { r.stride_bytes[0] = 130; }));
  EXPECT_EQ("a row of the box has 24 bytes, not a multiple of 16", why([](auto& r) { r.box[0] = 12; }));
  EXPECT_EQ("a row of the box has 64 bytes; the swizzle needs 128", why([](auto& r) { r.box[0] = 32; }));
}

TEST(Hopper, ClustersAddInTheOrderOfRanks) {
  std::vector<float> values(8 * 128);
  std::mt19937 random(3);
  for (float& value : values) value = static_cast<float>(random()) * 1e-3f;
  DeviceArray<float> x(values);
  for (const unsigned size : {1u, 2u, 4u, 8u})
    under_every_schedule([&] {
      DeviceArray<float> y(8 / size * 128);
      ASSERT_EQ("", findings(cluster_sum, LaunchShape{.grid = 8, .block = 128, .cluster = size}, y, x));
      for (unsigned i = 0; i < 8 / size * 128; ++i) {
        float sum = 0;
        for (unsigned r = 0; r < size; ++r) sum += values[(i / 128 * size + r) * 128 + i % 128];
        ASSERT_EQ(sum, y[i]) << size << " " << i;
      }
    });
}

TEST(Hopper, RanksOfBlocks) {
  DeviceArray<uint32_t> y(4 * 6 * 2);
  ASSERT_EQ("", findings(cluster_ranks, LaunchShape{.grid = {4, 6, 2}, .block = 32, .cluster = {2, 3, 1}}, y));
  for (unsigned z = 0; z < 2; ++z)
    for (unsigned row = 0; row < 6; ++row)
      for (unsigned x = 0; x < 4; ++x)
        EXPECT_EQ((x % 2 + row % 3 * 2) * 100 + 6, y[x + 4 * (row + 6 * z)]) << x << " " << row << " " << z;
}

}  // namespace
}  // namespace testing
}  // namespace culebra::simt
