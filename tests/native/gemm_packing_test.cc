// Packed weights: layouts, plans, round trips of every format on every backend, quantization.
#include "ops/gemm/packing/packed_weights.h"

#include <algorithm>
#include <bit>
#include <map>
#include <typeinfo>

#include "backends/backend.h"
#include "gemm_harness.h"

namespace culebra {
namespace {

using namespace culebra::testing;

template <class Layout>
std::vector<uint32_t> pack_all(int bits, PackedSize size, auto get) {
  std::vector<uint32_t> words(static_cast<size_t>(size.n * size.k * bits / 32));
  for (size_t i = 0; i < words.size(); ++i) words[i] = Layout::pack(static_cast<int64_t>(i), size, get);
  return words;
}

// Each weight with all bits set alone moves as many bits as it has, which no other weight moves, and comes back.
template <class Layout>
void expect_own_places(int bits) {
  SCOPED_TRACE(::testing::PrintToString(bits) + " bits, " + typeid(Layout).name());
  const PackedSize size{2 * Layout::kNTile, Layout::kKTile};
  std::vector<int> q(static_cast<size_t>(size.n * size.k));
  std::mt19937 rng(20260805);
  for (int& x : q) x = static_cast<int>(rng() % (1u << bits));
  const auto at = [&](int64_t n, int64_t k) { return q[static_cast<size_t>(n * size.k + k)]; };
  const std::vector<uint32_t> words = pack_all<Layout>(bits, size, at);
  const auto load = [&](int64_t word) { return words.at(static_cast<size_t>(word)); };
  for (int64_t n = 0; n < size.n; ++n)
    for (int64_t k = 0; k < size.k; ++k) ASSERT_EQ(Layout::unpack(n, k, size, load), at(n, k)) << n << ", " << k;
  std::vector<uint32_t> taken(words.size());  // bits that some weight moved
  const std::vector<uint32_t> zeros = pack_all<Layout>(bits, size, [](auto, auto) { return 0; });
  for (int64_t n = 0; n < size.n; n += Layout::kNTile - 1)
    for (int64_t k = 0; k < size.k; ++k) {
      const auto one = pack_all<Layout>(bits, size, [&](int64_t i, int64_t j) { return i == n && j == k ? (1 << bits) - 1 : 0; });
      int moved = 0;
      for (size_t i = 0; i < one.size(); ++i) {
        const uint32_t change = one[i] ^ zeros[i];
        ASSERT_EQ(change & taken[i], 0u) << n << ", " << k;
        taken[i] |= change;
        moved += std::popcount(change);
      }
      ASSERT_EQ(moved, bits);
    }
}

TEST(PackedLayout, everyWeightHasItsOwnPlace) {
  expect_own_places<MarlinLayout>(4);
  expect_own_places<Int4ByteFragments>(4);
  expect_own_places<SixBitFragments>(6);
  expect_own_places<SixBitByteFragments>(6);
  expect_own_places<ByteFragments>(8);
  expect_own_places<CpuLayout>(4);
  expect_own_places<CpuSixBitLayout>(6);
  expect_own_places<CpuByteLayout>(8);
}

// The picture of device/mma.h: register r of lane 4g + t of operand A holds row g + 8 (r % 2); m16n8k16: k = 2t + 8 (r / 2) + e; m16n8k32:
// k = 4t + 16 (r / 2) + e. Row g + 8h of weight tile w is column 8g + 2w + h. f(lane, w, r, e, n, k) for each weight of a step.
void each_operand(int elements, auto f) {
  for (int lane = 0; lane < 32; ++lane)
    for (int w = 0; w < 4; ++w)
      for (int r = 0; r < 4; ++r)
        for (int e = 0; e < elements; ++e)
          f(lane, w, r, e, int64_t{lane / 4 * 8 + 2 * w + r % 2}, int64_t{lane % 4 * elements + r / 2 * 4 * elements + e});
}
// The bits that the weight (n, k) moves in a packed matrix of one tile.
template <class Layout>
std::map<int64_t, uint32_t> places(int bits, int64_t n, int64_t k) {
  const PackedSize size{Layout::kNTile, Layout::kKTile};
  std::map<int64_t, uint32_t> result;
  for (int64_t i = 0; i < size.n * size.k * bits / 32; ++i) {
    const uint32_t change = Layout::pack(i, size, [&](int64_t a, int64_t b) { return a == n && b == k ? (1 << bits) - 1 : 0; }) ^
                            Layout::pack(i, size, [](auto, auto) { return 0; });
    if (change) result[i] = change;
  }
  return result;
}
using Places = std::map<int64_t, uint32_t>;

TEST(PackedLayout, wordsAreTheOperandsOfTheirLane) {
  each_operand(2, [](int lane, int w, int r, int e, int64_t n, int64_t k) {
    const int pair = r % 2 * 2 + r / 2;  // the pair that int4_weights.cuh unpacks into register r
    ASSERT_EQ(places<MarlinLayout>(4, n, k), (Places{{lane * 4 + w, 0xfu << (4 * pair + 16 * e)}}));
    ASSERT_EQ(places<ByteFragments>(8, n, k), (Places{{w / 2 * 128 + lane * 4 + w % 2 * 2 + r % 2, 0xffu << (8 * (r / 2) + 16 * e)}}));
    const int high = 2 * (r % 2 + 2 * (r / 2) + 4 * (w % 2)) + 16 * e;
    ASSERT_EQ(places<SixBitFragments>(6, n, k),
              (Places{{lane * 4 + w, 0xfu << (4 * pair + 16 * e)}, {512 + lane * 4 + w / 2, 3u << high}}));
  });
  each_operand(4, [](int lane, int w, int r, int e, int64_t n, int64_t k) {
    ASSERT_EQ(places<Int4ByteFragments>(4, n, k),
              (Places{{w / 2 * 128 + lane * 4 + w % 2 * 2 + r % 2, 0xfu << (4 * e + 16 * (r / 2))}}));
    ASSERT_EQ(places<SixBitByteFragments>(6, n, k),
              (Places{{w / 2 * 128 + lane * 4 + w % 2 * 2 + r % 2, 0xfu << (8 * e + 4 * (r / 2))},
                      {1024 + lane * 4 + w, 3u << (8 * e + 2 * (r / 2 + 2 * (r % 2)))}}));
  });
}

// ---------------------------------------------------------------------------------------------------------- plans

struct HostCheckpoint {
  std::vector<int32_t> words, zero_words, g_idx;
  std::vector<uint16_t> scale_bits;
  int64_t weight_shape[2], zero_shape[2], scale_shape[2], index_shape[1];
  cul_tensor weights{}, zeros{}, scales{}, index{};
  cul_checkpoint checkpoint{};

  HostCheckpoint(int64_t n, int64_t k, int32_t group, uint32_t stored_zeros, std::vector<int32_t> order = {}) {
    const int64_t groups = group == -1 ? 1 : (k + group - 1) / group;
    words.assign(static_cast<size_t>(k / 8 * n), 0);
    zero_words.assign(static_cast<size_t>(groups * n / 8), static_cast<int32_t>(stored_zeros));
    scale_bits.assign(static_cast<size_t>(groups * n), 0x3c00);
    g_idx = std::move(order);
    weight_shape[0] = k / 8, weight_shape[1] = n, zero_shape[0] = groups, zero_shape[1] = n / 8;
    scale_shape[0] = groups, scale_shape[1] = n, index_shape[0] = k;
    weights = {words.data(), {CUL_DEVICE_CPU, 0}, 2, kI32, weight_shape, nullptr, 0};
    zeros = {zero_words.data(), {CUL_DEVICE_CPU, 0}, 2, kI32, zero_shape, nullptr, 0};
    scales = {scale_bits.data(), {CUL_DEVICE_CPU, 0}, 2, kF16, scale_shape, nullptr, 0};
    index = {g_idx.data(), {CUL_DEVICE_CPU, 0}, 1, kI32, index_shape, nullptr, 0};
    checkpoint = {sizeof(cul_checkpoint), CUL_FORMAT_GPTQ_AUTO, 4, group, 0, 0, 0, 0, n, k, &weights, &scales, &zeros, g_idx.empty() ? nullptr : &index};
  }
  PackPlan plan(int32_t backend = CUL_BACKEND_SIMT) {
    DeviceCaps caps;
    caps.backend = backend;
    return plan_packing(caps, &checkpoint);
  }
};

TEST(PackPlan, gptqVersionsAreToldApartByTheirZeros) {
  EXPECT_EQ(HostCheckpoint(64, 64, 32, 0x77777777u).plan().result.format, CUL_FORMAT_GPTQ_V1);
  EXPECT_EQ(HostCheckpoint(64, 64, 32, 0x88888888u).plan().result.format, CUL_FORMAT_GPTQ_V2);
  EXPECT_EQ(HostCheckpoint(64, 64, 32, 0x88888887u).plan().result.format, CUL_FORMAT_GPTQ_V1);
  EXPECT_EQ(HostCheckpoint(64, 64, 32, 0x77777777u).plan().result.symmetric, 1);
  EXPECT_EQ(HostCheckpoint(64, 64, 32, 0x88888888u).plan().result.symmetric, 1);
  EXPECT_EQ(HostCheckpoint(64, 64, 32, 0x77777778u).plan().result.symmetric, 0);
  HostCheckpoint labelled(64, 64, 32, 0x88888888u);
  labelled.checkpoint.format = CUL_FORMAT_GPTQ_V1;  // z = 9: not symmetric, and the label holds
  EXPECT_EQ(labelled.plan().result.format, CUL_FORMAT_GPTQ_V1);
  EXPECT_EQ(labelled.plan().result.symmetric, 0);
}

TEST(PackPlan, paddingIsToWholeTilesAndGroups) {
  const auto r = HostCheckpoint(72, 136, 128, 0x77777777u).plan().result;
  EXPECT_EQ(r.n_padded, 128);
  EXPECT_EQ(r.k_padded, 256);
  EXPECT_EQ(r.groups, 2);
  EXPECT_EQ(r.packed_bytes, 128 * 256 / 2);
  const auto channel = HostCheckpoint(72, 136, -1, 0x77777777u).plan().result;
  EXPECT_EQ(channel.k_padded, 192);
  EXPECT_EQ(channel.group, 192);
  EXPECT_EQ(channel.groups, 1);
}

TEST(PackPlan, sortedGroupsNeedNoPermutation) {
  std::vector<int32_t> order(128);
  for (int k = 0; k < 128; ++k) order[static_cast<size_t>(k)] = k / 32;
  EXPECT_EQ(HostCheckpoint(64, 128, 32, 0x77777777u, order).plan().result.permuted, 0);
}

TEST(PackPlan, actOrderSortsStably) {
  std::vector<int32_t> order(128);
  for (int k = 0; k < 128; ++k) order[static_cast<size_t>(k)] = k % 2;
  const PackPlan p = HostCheckpoint(64, 128, 64, 0x77777777u, order).plan();
  EXPECT_EQ(p.result.permuted, 1);
  EXPECT_EQ(p.result.group, 64);
  EXPECT_EQ(p.result.groups, 2);
  for (int j = 0; j < 64; ++j) {
    EXPECT_EQ(p.perm[static_cast<size_t>(j)], 2 * j);
    EXPECT_EQ(p.perm[static_cast<size_t>(64 + j)], 2 * j + 1);
  }
  EXPECT_EQ(p.group_source, (std::vector<int32_t>{0, 1}));
}

TEST(PackPlan, unevenGroupsTakeWholeChunksAndEmptyOnesKeepOne) {
  std::vector<int32_t> order(128, 3);  // groups of 0, 33, 0 and 95 rows
  for (int k = 0; k < 33; ++k) order[static_cast<size_t>(3 * k)] = 1;
  const PackPlan p = HostCheckpoint(64, 128, 32, 0x77777777u, order).plan();
  EXPECT_EQ(p.result.group, 32);
  EXPECT_EQ(p.group_source, (std::vector<int32_t>{0, 1, 1, 2, 3, 3, 3, -1}));  // seven chunks, padded to whole tiles of 64 rows
  EXPECT_EQ(p.result.k_padded, 256);
  EXPECT_EQ(std::count(p.perm.begin(), p.perm.end(), -1), 128);
  for (size_t j = 0; j < p.perm.size(); ++j)
    EXPECT_TRUE(p.perm[j] < 0 || order[static_cast<size_t>(p.perm[j])] == p.group_source[j / 32]) << j;
}

void expect_refusal(HostCheckpoint& c, cul_status status, const char* text) {
  try {
    c.plan();
    FAIL() << "accepted";
  } catch (const Refusal& e) {
    EXPECT_EQ(e.status(), status) << e.what();
    EXPECT_NE(std::string(e.what()).find(text), std::string::npos) << e.what();
  }
}

TEST(PackPlan, badCheckpointsAreNamed) {
  HostCheckpoint high(64, 64, 32, 0x77777777u, std::vector<int32_t>(64, 2));
  expect_refusal(high, CUL_RANGE, "checkpoint.g_idx[0] is 2; there are 2 groups");
  HostCheckpoint negative(64, 64, 32, 0x77777777u, std::vector<int32_t>(64, 1));
  negative.g_idx[63] = -1;
  expect_refusal(negative, CUL_RANGE, "checkpoint.g_idx[63] is -1");
  HostCheckpoint group(64, 64, 32, 0x77777777u);
  group.checkpoint.group = 48;
  expect_refusal(group, CUL_RANGE, "checkpoint.group is 48");
  HostCheckpoint bits(64, 64, 32, 0x77777777u);
  bits.checkpoint.bits = 6;
  expect_refusal(bits, CUL_RANGE, "checkpoint.bits");
  HostCheckpoint rows(64, 64, 32, 0x77777777u);
  rows.checkpoint.k = 72;
  expect_refusal(rows, CUL_SHAPE, "checkpoint.qweight is [8, 64]");
  HostCheckpoint zeros(64, 64, 32, 0x77777777u);
  zeros.checkpoint.zeros = nullptr;
  expect_refusal(zeros, CUL_NULL_POINTER, "checkpoint.zeros");
  HostCheckpoint scales(64, 64, 32, 0x77777777u);
  scales.scales.dtype = kF32;
  expect_refusal(scales, CUL_DTYPE, "checkpoint.scales is f32");
}

// ----------------------------------------------------------------------------------------------------- round trips

class PackingTest : public ::testing::TestWithParam<int32_t> {};

struct Trip {
  int32_t format, bits, group;
  int64_t n, k;
  bool act_order, uneven;
};

// Packs a random checkpoint, unpacks it to its own format (the same bits) and to plain integers (what the formats' tables say).
void round_trip(int32_t backend, const Trip& trip, uint32_t seed) {
  SCOPED_TRACE(::testing::Message() << "format " << trip.format << ", bits " << trip.bits << ", group " << trip.group << ", n " << trip.n
                                    << ", k " << trip.k << ", act_order " << trip.act_order << ", seed " << seed);
  Context context(backend);
  std::mt19937 rng(seed);
  const auto draw = [&](int64_t below) { return std::uniform_int_distribution<int64_t>(0, below - 1)(rng); };
  const int64_t n = trip.n, k = trip.k, per = 32 / trip.bits, groups = trip.group == -1 ? 1 : (k + trip.group - 1) / trip.group;
  const bool plain = trip.format == CUL_FORMAT_PLAIN, by_group = !plain && trip.format != CUL_FORMAT_COMPRESSED_TENSORS;
  const auto up = [](int64_t a, int64_t b) { return (a + b - 1) / b; };
  std::vector<int> q(static_cast<size_t>(n * k)), z(static_cast<size_t>(n * groups));
  for (int& x : q) x = static_cast<int>(draw(1 << trip.bits));
  for (int& x : z) x = static_cast<int>(draw(1 << trip.bits));

  std::vector<int64_t> weight_shape = plain || !by_group ? std::vector<int64_t>{n, plain ? k : up(k, per)}
                                      : trip.format == CUL_FORMAT_AWQ ? std::vector<int64_t>{k, up(n, per)}
                                                                      : std::vector<int64_t>{up(k, per), n};
  std::vector<int64_t> zero_shape = plain      ? std::vector<int64_t>{n, groups}
                                    : by_group ? std::vector<int64_t>{groups, up(n, per)}
                                               : std::vector<int64_t>{up(n, per), groups};
  const cul_dtype integers = plain ? kU8 : kI32;
  DeviceTensor weights(context, integers, weight_shape, 3), zeros(context, integers, zero_shape, 2),
      scales(context, kBf16, by_group ? std::vector<int64_t>{groups, n} : std::vector<int64_t>{n, groups}, 1),
      g_idx(context, kI32, {k});
  // Element positions written down a second time, from the formats' documentation.
  static constexpr int kAwq4[] = {0, 4, 1, 5, 2, 6, 3, 7}, kAwq8[] = {0, 2, 1, 3};
  const auto put = [&](DeviceTensor& t, int64_t row, int64_t column, int64_t element, int value) {
    const auto word = static_cast<uint32_t>(static_cast<int64_t>(t.get(row, column)));
    t.set(row, column, static_cast<double>(static_cast<int32_t>(word | static_cast<uint32_t>(value) << (element * trip.bits))));
  };
  weights.fill([](auto, auto) { return 0; });
  zeros.fill([](auto, auto) { return 0; });
  for (int64_t i = 0; i < n; ++i) {
    const int64_t awq = trip.bits == 4 ? kAwq4[i % 8] : kAwq8[i % 4];
    for (int64_t j = 0; j < k; ++j) {
      const int value = q[static_cast<size_t>(i * k + j)];
      if (plain) weights.set(i, j, value);
      else if (trip.format == CUL_FORMAT_AWQ) put(weights, j, i / per, awq, value);
      else if (by_group) put(weights, j / per, i, j % per, value);
      else put(weights, i, j / per, j % per, value);
    }
    for (int64_t g = 0; g < groups; ++g) {
      int value = z[static_cast<size_t>(i * groups + g)];
      if (trip.format == CUL_FORMAT_GPTQ_V1) value = (value + (1 << trip.bits) - 1) % (1 << trip.bits);
      if (plain) zeros.set(i, g, value);
      else if (trip.format == CUL_FORMAT_AWQ) put(zeros, g, i / per, awq, value);
      else if (by_group) put(zeros, g, i / per, i % per, value);
      else put(zeros, i / per, g, i % per, value);
    }
  }
  weights.upload();
  zeros.upload();
  scales.fill([&](auto, auto) { return static_cast<double>(draw(1000)) / 64; });
  std::vector<int32_t> order(static_cast<size_t>(k));
  for (int64_t j = 0; j < k; ++j)
    order[static_cast<size_t>(j)] = static_cast<int32_t>(trip.uneven ? draw(groups) : j / (trip.group == -1 ? k : trip.group));
  if (trip.act_order) std::shuffle(order.begin(), order.end(), rng);
  g_idx.fill([&](auto, auto j) { return order[static_cast<size_t>(j)]; });

  cul_tensor host_weights = weights.host(), host_scales = scales.host(), host_zeros = zeros.host(), host_index = g_idx.host();
  cul_checkpoint checkpoint{sizeof checkpoint, trip.format, trip.bits, trip.group, 0, 0, 0, 0, n, k, &host_weights, &host_scales, &host_zeros,
                            trip.act_order ? &host_index : nullptr};
  cul_pack_plan_result plan{};
  plan.struct_size = sizeof plan;
  ASSERT_EQ(cul_pack_plan(context.device, &checkpoint, &plan, nullptr, nullptr), CUL_OK) << cul_last_error();
  std::vector<int32_t> perm(static_cast<size_t>(plan.k_padded)), source(static_cast<size_t>(plan.groups));
  ASSERT_EQ(cul_pack_plan(context.device, &checkpoint, &plan, perm.data(), source.data()), CUL_OK);
  DeviceTensor device_perm(context, kI32, {plan.k_padded}), device_source(context, kI32, {plan.groups});
  device_perm.fill([&](auto, auto j) { return perm[static_cast<size_t>(j)]; });
  device_source.fill([&](auto, auto j) { return source[static_cast<size_t>(j)]; });
  DeviceTensor packed(context, kU8, {plan.packed_bytes}), packed_scales(context, kBf16, {plan.groups, plan.n_padded}),
      packed_zeros(context, kU8, {plan.groups, plan.n_padded});

  checkpoint.qweight = &weights.tensor, checkpoint.scales = &scales.tensor, checkpoint.zeros = &zeros.tensor;
  if (trip.act_order) checkpoint.g_idx = &g_idx.tensor;
  cul_pack_weights_args pack{};
  pack.checkpoint = &checkpoint;
  if (plan.permuted) pack.perm = &device_perm.tensor, pack.group_source = &device_source.tensor;
  pack.packed = &packed.tensor, pack.packed_scales = &packed_scales.tensor, pack.packed_zeros = &packed_zeros.tensor;
  pack.packed_group = plan.group;
  ASSERT_EQ(context.run(cul_pack_weights, pack), CUL_OK) << cul_last_error();

  DeviceTensor weights2(context, integers, weight_shape, 5), zeros2(context, integers, zero_shape, 4),
      scales2(context, kBf16, {scales.rows(), scales.columns()}, 3), g_idx2(context, kI32, {k});
  cul_checkpoint back = checkpoint;
  back.qweight = &weights2.tensor, back.scales = &scales2.tensor, back.zeros = &zeros2.tensor;
  if (trip.act_order) back.g_idx = &g_idx2.tensor;
  cul_unpack_weights_args unpack{};
  unpack.checkpoint = &back, unpack.perm = pack.perm, unpack.group_source = pack.group_source, unpack.packed = pack.packed;
  unpack.packed_scales = pack.packed_scales, unpack.packed_zeros = pack.packed_zeros, unpack.packed_group = pack.packed_group;
  ASSERT_EQ(context.run(cul_unpack_weights, unpack), CUL_OK) << cul_last_error();
  for (DeviceTensor* t : {&weights2, &zeros2, &scales2, &g_idx2}) t->download();
  const auto same = [](const DeviceTensor& a, const DeviceTensor& b) {
    for (int64_t r = 0; r < a.rows(); ++r)
      for (int64_t c = 0; c < a.columns(); ++c)
        if (a.get(r, c) != b.get(r, c)) return false;
    return a.rows() == b.rows() && a.columns() == b.columns() && b.guards_untouched();
  };
  EXPECT_TRUE(same(weights, weights2));
  EXPECT_TRUE(same(zeros, zeros2));
  EXPECT_TRUE(same(scales, scales2));
  EXPECT_TRUE(!trip.act_order || same(g_idx, g_idx2));

  DeviceTensor plain_q(context, kU8, {n, k}, 1), plain_z(context, kU8, {n, groups}), plain_s(context, kBf16, {n, groups}),
      plain_g(context, kI32, {k});
  back.format = CUL_FORMAT_PLAIN;
  back.qweight = &plain_q.tensor, back.scales = &plain_s.tensor, back.zeros = &plain_z.tensor, back.g_idx = &plain_g.tensor;
  ASSERT_EQ(context.run(cul_unpack_weights, unpack), CUL_OK) << cul_last_error();
  for (DeviceTensor* t : {&plain_q, &plain_z, &plain_s, &plain_g}) t->download();
  int64_t wrong = 0;
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t j = 0; j < k; ++j) wrong += plain_q.get(i, j) != q[static_cast<size_t>(i * k + j)];
    for (int64_t g = 0; g < groups; ++g) {
      wrong += plain_z.get(i, g) != z[static_cast<size_t>(i * groups + g)];
      wrong += plain_s.get(i, g) != (by_group ? scales.get(g, i) : scales.get(i, g));
    }
  }
  for (int64_t j = 0; j < k; ++j)
    wrong += plain_g.get(0, j) != (trip.act_order ? order[static_cast<size_t>(j)] : trip.group == -1 ? 0 : j / trip.group);
  EXPECT_EQ(wrong, 0);
}

TEST_P(PackingTest, unpackingGivesBackTheCheckpoint) {
  const uint32_t seed = 20260801;
  const Trip trips[] = {{CUL_FORMAT_GPTQ_V1, 4, 32, 40, 96, false, false},
                        {CUL_FORMAT_GPTQ_V1, 4, 32, 72, 160, true, false},
                        {CUL_FORMAT_GPTQ_V2, 4, 64, 40, 200, true, true},
                        {CUL_FORMAT_GPTQ_V2, 8, 128, 36, 260, true, true},
                        {CUL_FORMAT_AWQ, 4, 128, 72, 131, false, false},
                        {CUL_FORMAT_AWQ, 8, 32, 68, 64, false, false},
                        {CUL_FORMAT_COMPRESSED_TENSORS, 4, -1, 77, 131, false, false},
                        {CUL_FORMAT_COMPRESSED_TENSORS, 4, 32, 9, 77, true, true},
                        {CUL_FORMAT_COMPRESSED_TENSORS, 8, 64, 5, 70, false, false},
                        {CUL_FORMAT_PLAIN, 4, 64, 33, 100, true, false},
                        {CUL_FORMAT_PLAIN, 6, 128, 50, 200, false, false},
                        {CUL_FORMAT_PLAIN, 8, -1, 1, 1, false, false}};
  for (uint32_t i = 0; i < std::size(trips); ++i) round_trip(GetParam(), trips[i], seed + i);
}

// Weights of the byte products and of f8e4m3: random bytes of q and scales, packed and unpacked to the same bytes.
struct Kind {
  cul_dtype q, scales;
  int32_t bits, group, scaling, operand;
  int64_t n, k;
};

TEST_P(PackingTest, everyKindComesBackBitForBit) {
  const auto block = CUL_SCALING_BLOCK128, each = CUL_SCALING_GROUP;
  const auto half = CUL_OPERAND_HALF, byte = CUL_OPERAND_BYTE;
  const Kind kinds[] = {{kF8, kBf16, 8, -1, each, half, 77, 131}, {kF8, kF16, 8, 32, each, half, 33, 70},
                        {kF8, kF32, 8, -1, block, half, 200, 320}, {kI8, kF32, 8, -1, block, half, 129, 129},
                        {kI8, kF16, 8, 64, each, half, 65, 100},  {kI8, kF16, 6, 128, each, half, 50, 200},
                        {kU8, kBf16, 6, 128, each, byte, 65, 130}, {kI8, kF16, 6, 128, each, byte, 72, 384},
                        {kI8, kF8, 4, 128, each, byte, 136, 256}, {kU8, kF8, 4, 128, each, byte, 1, 1}};
  uint32_t seed = 20260820;
  for (const Kind& kind : kinds) {
    SCOPED_TRACE(::testing::Message() << "kind " << &kind - kinds << ", seed " << seed);
    Context context(GetParam());
    std::mt19937 rng(seed++);
    const int64_t scale_rows = kind.scaling == block ? (kind.n + 127) / 128 : kind.n;
    const int64_t group = kind.scaling == block ? 128 : kind.group, groups = group == -1 ? 1 : (kind.k + group - 1) / group;
    DeviceTensor q(context, kind.q, {kind.n, kind.k}, 3), scales(context, kind.scales, {scale_rows, groups}, 2),
        q2(context, kind.q, {kind.n, kind.k}, 5), scales2(context, kind.scales, {scale_rows, groups});
    const int span = 1 << kind.bits, low = kind.q.code == CUL_INT ? -span / 2 : 0;
    q.fill([&](auto, auto) {
      const auto code = static_cast<int>(rng() % static_cast<unsigned>(span));
      if (kind.q.code != kF8.code) return static_cast<double>(code + low);
      return static_cast<double>(to_float(float8_e4m3_t{static_cast<uint8_t>((code & 127) == 127 ? 0 : code)}));  // every number, no NaN
    });
    scales.fill([&](auto, auto) { return static_cast<double>(rng() % 256); });
    cul_tensor host_q = q.host(), host_scales = scales.host();
    cul_checkpoint checkpoint{sizeof checkpoint, CUL_FORMAT_PLAIN, kind.bits, kind.group, kind.scaling, CUL_SPARSITY_NONE, kind.operand, 0,
                              kind.n, kind.k, &host_q, &host_scales, nullptr, nullptr};
    cul_pack_plan_result plan{};
    plan.struct_size = sizeof plan;
    ASSERT_EQ(cul_pack_plan(context.device, &checkpoint, &plan, nullptr, nullptr), CUL_OK) << cul_last_error();
    EXPECT_EQ(plan.symmetric, 1);
    EXPECT_EQ(plan.permuted, 0);
    EXPECT_EQ(plan.packed_bytes, plan.n_padded * plan.k_padded * kind.bits / 8);
    EXPECT_EQ(plan.scale_columns, kind.scaling == block ? (plan.n_padded + 127) / 128 : plan.n_padded);
    DeviceTensor packed(context, kind.q.code == kF8.code ? kF8 : kU8, {plan.packed_bytes}),
        packed_scales(context, kind.scales, {plan.groups, plan.scale_columns});
    checkpoint.qweight = &q.tensor, checkpoint.scales = &scales.tensor;
    cul_pack_weights_args pack{};
    pack.checkpoint = &checkpoint, pack.packed = &packed.tensor, pack.packed_scales = &packed_scales.tensor, pack.packed_group = plan.group;
    ASSERT_EQ(context.run(cul_pack_weights, pack), CUL_OK) << cul_last_error();
    packed.download();
    packed_scales.download();
    if (kind.bits == 8 && kind.q.code == kF8.code) {  // padding is +0
      std::map<double, int64_t> before, after;
      for (int64_t i = 0; i < kind.n; ++i)
        for (int64_t j = 0; j < kind.k; ++j) ++before[q.get(i, j)];
      before[0] += plan.packed_bytes - kind.n * kind.k;
      for (int64_t i = 0; i < plan.packed_bytes; ++i) ++after[packed.get(0, i)];
      EXPECT_EQ(before, after);
    }
    for (int64_t g = 0; g < plan.groups; ++g)
      for (int64_t i = 0; i < plan.scale_columns; ++i)
        ASSERT_EQ(packed_scales.get(g, i), i < scale_rows && g < groups ? scales.get(i, g) : 0) << g << ", " << i;
    checkpoint.qweight = &q2.tensor, checkpoint.scales = &scales2.tensor;
    cul_unpack_weights_args unpack{};
    unpack.checkpoint = &checkpoint, unpack.packed = pack.packed, unpack.packed_scales = pack.packed_scales;
    unpack.packed_group = plan.group;
    ASSERT_EQ(context.run(cul_unpack_weights, unpack), CUL_OK) << cul_last_error();
    q2.download();
    scales2.download();
    int64_t wrong = 0;
    for (int64_t i = 0; i < kind.n; ++i)
      for (int64_t j = 0; j < kind.k; ++j) wrong += q.get(i, j) != q2.get(i, j);
    for (int64_t i = 0; i < scale_rows; ++i)
      for (int64_t g = 0; g < groups; ++g) wrong += scales.get(i, g) != scales2.get(i, g);
    EXPECT_EQ(wrong, 0);
    EXPECT_TRUE(q2.guards_untouched());
  }
}

TEST(PackPlan, impossibleKindsAreNamed) {
  static int8_t q_data[2 * 256];
  static float scale_data[2];
  int64_t q_shape[] = {2, 256}, scale_shape[] = {2, 2}, zero_shape[] = {2, 2}, index_shape[] = {256};
  cul_tensor q{q_data, {CUL_DEVICE_CPU, 0}, 2, kI8, q_shape, nullptr, 0}, scales{scale_data, {CUL_DEVICE_CPU, 0}, 2, kF16, scale_shape, nullptr, 0};
  cul_tensor zeros{q_data, {CUL_DEVICE_CPU, 0}, 2, kI8, zero_shape, nullptr, 0}, index{q_data, {CUL_DEVICE_CPU, 0}, 1, kI32, index_shape, nullptr, 0};
  const cul_checkpoint byte6{sizeof byte6, CUL_FORMAT_PLAIN, 6, 128, 0, 0, CUL_OPERAND_BYTE, 0, 2, 256, &q, &scales, nullptr, nullptr};
  const auto refused = [&](cul_status status, const char* text, auto change) {
    cul_checkpoint c = byte6;
    q.dtype = kI8, scales.dtype = kF16, scale_shape[0] = scale_shape[1] = 2;
    change(c);
    DeviceCaps caps;
    caps.backend = CUL_BACKEND_CPU;
    try {
      plan_packing(caps, &c);
      ADD_FAILURE() << "accepted, not: " << text;
    } catch (const Refusal& e) {
      EXPECT_EQ(e.status(), status) << e.what();
      EXPECT_NE(std::string(e.what()).find(text), std::string::npos) << e.what() << " lacks " << text;
    }
  };
  using C = cul_checkpoint;
  refused(CUL_RANGE, "checkpoint.scaling", [](C& c) { c.scaling = 2; });
  refused(CUL_RANGE, "checkpoint.sparsity", [](C& c) { c.sparsity = 2; });
  refused(CUL_RANGE, "checkpoint.operand", [](C& c) { c.operand = -1; });
  refused(CUL_RANGE, "checkpoint.bits (of weights for byte operands)", [](C& c) { c.bits = 8; });
  refused(CUL_RANGE, "checkpoint.group (of 6-bit weights)", [](C& c) { c.group = 64, c.operand = CUL_OPERAND_HALF; });
  refused(CUL_RANGE, "checkpoint.group (of weights for byte operands)", [](C& c) { c.bits = 4, c.group = 32; });
  refused(CUL_RANGE, "checkpoint.bits (of blocks of 128 x 128)", [](C& c) { c.scaling = CUL_SCALING_BLOCK128; });
  refused(CUL_RANGE, "checkpoint.group (of blocks of 128 x 128)",
          [](C& c) { c.scaling = CUL_SCALING_BLOCK128, c.bits = 8, c.operand = CUL_OPERAND_HALF; });
  refused(CUL_UNSUPPORTED, "checkpoint.zeros is given, which weights for byte operands", [&](C& c) { c.zeros = &zeros; });
  refused(CUL_UNSUPPORTED, "checkpoint.g_idx is given, which weights for byte operands", [&](C& c) { c.g_idx = &index; });
  refused(CUL_DTYPE, "checkpoint.qweight is f8e4m3", [&](C&) { q.dtype = kF8; });
  refused(CUL_DTYPE, "checkpoint.scales is f16", [](C& c) { c.bits = 4; });
  refused(CUL_DTYPE, "checkpoint.scales is f32", [&](C&) { scales.dtype = kF32; });
  refused(CUL_DTYPE, "checkpoint.scales is f16",
          [](C& c) { c.scaling = CUL_SCALING_BLOCK128, c.bits = 8, c.operand = CUL_OPERAND_HALF, c.group = -1; });
  refused(CUL_UNSUPPORTED, "checkpoint.zeros is given, which f8e4m3 weights",
          [&](C& c) { c.bits = 8, c.operand = CUL_OPERAND_HALF, q.dtype = kF8, c.zeros = &zeros; });
  refused(CUL_SHAPE, "checkpoint.scales is [2, 3]", [&](C&) { scale_shape[1] = 3; });
  refused(CUL_SHAPE, "checkpoint.scales is [2, 2]", [&](C& c) {
    c.scaling = CUL_SCALING_BLOCK128, c.bits = 8, c.operand = CUL_OPERAND_HALF, c.group = -1, scales.dtype = kF32;
  });
  std::fill_n(q_data, 3, int8_t{1});
  refused(CUL_RANGE, "row 0 has 3 weights that are not zero among k = 0 .. 3",
          [](C& c) { c.bits = 4, c.sparsity = CUL_SPARSITY_2_4, c.operand = CUL_OPERAND_HALF; });
}

TEST_P(PackingTest, overlapsAndHalfAPermutationAreRefused) {
  Context context(GetParam());
  DeviceTensor q(context, kU8, {64, 64}), scales(context, kF16, {64, 1}), packed(context, kU8, {64 * 64 / 2}),
      packed_scales(context, kF16, {1, 64}), perm(context, kI32, {64});
  cul_checkpoint checkpoint{sizeof checkpoint, CUL_FORMAT_PLAIN, 4, 64, 0, 0, 0, 0, 64, 64, &q.tensor, &scales.tensor, nullptr, nullptr};
  cul_pack_weights_args args{};
  args.checkpoint = &checkpoint;
  args.packed = &packed.tensor, args.packed_scales = &packed_scales.tensor, args.packed_group = 64;
  EXPECT_EQ(context.run(cul_pack_weights, args), CUL_OK) << cul_last_error();
  args.perm = &perm.tensor;
  EXPECT_EQ(context.run(cul_pack_weights, args), CUL_NULL_POINTER);
  args.perm = nullptr;
  cul_tensor inside = packed.tensor;
  inside.data = q.tensor.data;
  args.packed = &inside;
  EXPECT_EQ(context.run(cul_pack_weights, args), CUL_UNSUPPORTED);
  EXPECT_NE(std::string(cul_last_error()).find("packed overlaps checkpoint.qweight"), std::string::npos) << cul_last_error();
}

// --------------------------------------------------------------------------------------------------- quantization

TEST_P(PackingTest, quantizationIsTheSameOnEveryBackendAndNoWorseThanRounding) {
  const uint32_t seed = 20260802;
  for (const bool symmetric : {true, false})
    for (const int bits : {4, 6, 8}) {
      SCOPED_TRACE(::testing::Message() << bits << " bits, symmetric " << symmetric << ", seed " << seed);
      const int64_t n = 5, k = 77, group = 32, groups = 3;
      std::vector<std::vector<std::byte>> results;
      for (const int32_t backend : {GetParam(), int32_t{CUL_BACKEND_CPU}}) {
        Context context(backend);
        std::mt19937 rng(seed);
        std::normal_distribution<double> normal;
        DeviceTensor w(context, kF32, {n, k}, 3), q(context, kU8, {n, k}, 1), scales(context, kF16, {n, groups}), zeros(context, kU8, {n, groups});
        w.fill([&](int64_t r, int64_t c) { return r == 2 && c < 32 ? 0.0 : normal(rng) * (c % 13 == 0 ? 5 : 1); });
        cul_quantize_weights_args args{};
        args.w = &w.tensor, args.q = &q.tensor, args.scales = &scales.tensor, args.zeros = symmetric ? nullptr : &zeros.tensor;
        args.bits = bits, args.group = static_cast<int32_t>(group), args.symmetric = symmetric;
        ASSERT_EQ(context.run(cul_quantize_weights, args), CUL_OK) << cul_last_error();
        for (DeviceTensor* t : {&q, &scales, &zeros}) t->download();
        EXPECT_TRUE(q.guards_untouched());
        results.push_back(q.image);
        results.back().insert(results.back().end(), scales.image.begin(), scales.image.end());
        double error = 0, rounding = 0;
        for (int64_t r = 0; r < n; ++r)
          for (int64_t g = 0; g < groups; ++g) {
            double low = 0, high = 0, zero_group = 0;
            for (int64_t c = g * group; c < std::min(k, (g + 1) * group); ++c) low = std::min(low, w.get(r, c)), high = std::max(high, w.get(r, c));
            const double top = (1 << bits) - 1, middle = 1 << (bits - 1);
            const double s = symmetric ? std::max(-low, high) / (middle - 1) : (high - low) / top;
            const double z = symmetric ? middle : s > 0 ? std::nearbyint(-low / s) : 0;
            for (int64_t c = g * group; c < std::min(k, (g + 1) * group); ++c) {
              const double stored_z = symmetric ? middle : zeros.get(r, g), x = w.get(r, c);
              const double e = (q.get(r, c) - stored_z) * scales.get(r, g) - x;
              error += e * e;
              zero_group += e != 0;
              const double plain = s > 0 ? (std::clamp(std::nearbyint(x / s) + z, 0.0, top) - z) * s - x : -x;
              rounding += plain * plain;
            }
            EXPECT_TRUE(r != 2 || g != 0 || zero_group == 0) << "an all-zero group gives exact zeros";
          }
        EXPECT_LE(std::sqrt(error), 1.01 * std::sqrt(rounding));
      }
      EXPECT_EQ(results[0], results[1]);
    }
}

INSTANTIATE_TEST_SUITE_P(, PackingTest, ::testing::ValuesIn(backends_here()), backend_test_name);

}  // namespace
}  // namespace culebra
