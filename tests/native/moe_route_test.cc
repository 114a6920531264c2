// moe_route, moe_align, moe_permute, moe_combine through the C ABI on every backend that runs here.
#include <algorithm>
#include <set>

#include "culebra/moe.h"
#include "gemm_harness.h"

namespace culebra {
namespace {

using namespace culebra::testing;

class MoeRouteTest : public ::testing::TestWithParam<DeviceChoice> {};

// ---------------------------------------------------------------------------------------------- moe_route

// The choice of one row by sorting, from scores in double.
std::vector<int> choose(const std::vector<double>& scores, const std::vector<double>& keys, const cul_moe_route_args& a, bool biased) {
  const int experts = static_cast<int>(scores.size()), size = experts / a.n_group;
  const auto best = [](std::vector<int> candidates, auto key, int n) {
    std::stable_sort(candidates.begin(), candidates.end(), [&](int x, int y) { return key(x) > key(y); });
    candidates.resize(static_cast<size_t>(n));
    return candidates;
  };
  std::vector<int> groups(static_cast<size_t>(a.n_group)), candidates;
  std::iota(groups.begin(), groups.end(), 0);
  groups = best(groups, [&](int g) {
    std::vector<double> of(keys.begin() + g * size, keys.begin() + (g + 1) * size);
    std::sort(of.rbegin(), of.rend());
    return biased && size > 1 ? of[0] + of[1] : of[0];
  }, a.topk_group);
  std::sort(groups.begin(), groups.end());
  for (const int g : groups)
    for (int e = g * size; e < (g + 1) * size; ++e) candidates.push_back(e);
  return best(candidates, [&](int e) { return keys[static_cast<size_t>(e)]; }, a.k);
}

TEST_P(MoeRouteTest, everyWidthAndGrouping) {
  struct Row {
    int experts, k, groups, kept;
  };
  std::mt19937 rng(1);
  for (const Row& c : {Row{1, 1, 1, 1}, Row{7, 7, 1, 1}, Row{33, 5, 3, 2}, Row{64, 8, 8, 4}, Row{64, 32, 64, 40}, Row{2048, 32, 1, 1}, Row{2048, 6, 512, 3}})
    for (const bool biased : {false, true}) {
      SCOPED_TRACE(::testing::Message() << c.experts << " experts, k " << c.k << ", " << c.groups << " groups, bias " << biased);
      Context context(GetParam());
      const int tokens = 9;
      DeviceTensor logits(context, kF32, {tokens, c.experts}, 3), bias(context, kF32, {c.experts}), weights(context, kF32, {tokens, c.k + 1}, 2),
          ids(context, kI32, {tokens, c.k + 1}, 1);
      // On a grid, in another order each row: nothing is nearly equal. Row 2 is one tie.
      std::vector<int> order(static_cast<size_t>(c.experts));
      std::iota(order.begin(), order.end(), 0);
      logits.fill([&](int64_t t, int64_t e) {
        if (e == 0) std::shuffle(order.begin(), order.end(), rng);
        return t == 2 ? 0.5 : (order[static_cast<size_t>(e)] - c.experts / 2) * 8.0 / c.experts;
      });
      bias.fill([&](auto, int64_t e) { return static_cast<double>(e % 7) / 64; });
      cul_moe_route_args args{};
      args.logits = &logits.tensor, args.bias = biased ? &bias.tensor : nullptr, args.weights = &weights.tensor, args.ids = &ids.tensor;
      args.k = c.k, args.score = biased ? CUL_SCORE_SIGMOID : CUL_SCORE_SOFTMAX, args.n_group = c.groups, args.topk_group = c.kept;
      args.renormalize = 1, args.n_shared = 1, args.scale = 2.5f;
      ASSERT_EQ(context.run(cul_moe_route, args), CUL_OK) << cul_last_error();
      weights.download();
      ids.download();
      for (int64_t t = 0; t < tokens; ++t) {
        std::vector<double> scores, keys;
        double max = -1e30, total = 0;
        for (int64_t e = 0; e < c.experts; ++e) max = std::max(max, logits.get(t, e));
        for (int64_t e = 0; e < c.experts; ++e) total += std::exp(logits.get(t, e) - max);
        for (int64_t e = 0; e < c.experts; ++e) {
          scores.push_back(biased ? 1 / (1 + std::exp(-logits.get(t, e))) : std::exp(logits.get(t, e) - max) / total);
          keys.push_back(scores.back() + (biased ? bias.get(0, e) : 0));
        }
        double sum = 0;
        std::set<double> seen;
        for (int j = 0; j < c.k; ++j) sum += scores[static_cast<size_t>(ids.get(t, j))];
        const auto want = choose(scores, keys, args, biased);
        for (int j = 0; j < c.k; ++j) {
          const double id = ids.get(t, j);
          EXPECT_TRUE(seen.insert(id).second) << id << " twice";
          // Equal but for rounding may change places.
          EXPECT_NEAR(keys[static_cast<size_t>(id)], keys[static_cast<size_t>(want[static_cast<size_t>(j)])], 1e-6) << t << ' ' << j;
          EXPECT_NEAR(weights.get(t, j), 2.5 * scores[static_cast<size_t>(id)] / sum, 1e-5 * weights.get(t, j)) << t << ' ' << j;
        }
        EXPECT_EQ(ids.get(t, c.k), c.experts);
        EXPECT_EQ(weights.get(t, c.k), 1);
      }
      EXPECT_TRUE(weights.guards_untouched() && ids.guards_untouched());
    }
}

TEST_P(MoeRouteTest, whatIsNotFiniteCountsAsNothing) {
  Context context(GetParam());
  const double inf = INFINITY, nan = NAN;
  const std::vector<std::vector<double>> rows = {{1, nan, 3, 2, 0, 0}, {1, inf, 3, 2, 0, 0}, {-inf, -inf, -inf, -inf, -inf, -inf}, {-inf, 5, 1, 2, 3, 4}};
  DeviceTensor logits(context, kF32, {4, 6}), bias(context, kF32, {6}), weights(context, kF32, {4, 6}), ids(context, kI32, {4, 6});
  logits.fill([&](int64_t t, int64_t e) { return rows[static_cast<size_t>(t)][static_cast<size_t>(e)]; });
  const std::vector<double> biases = {-inf, 0, nan, 0, -inf, 0};
  bias.fill([&](auto, int64_t e) { return biases[static_cast<size_t>(e)]; });
  cul_moe_route_args args{};
  args.logits = &logits.tensor, args.weights = &weights.tensor, args.ids = &ids.tensor;
  args.k = 6, args.n_group = args.topk_group = 1, args.scale = 1;
  ASSERT_EQ(context.run(cul_moe_route, args), CUL_OK) << cul_last_error();
  ids.download();
  weights.download();
  const double order[4][6] = {{0, 1, 2, 3, 4, 5}, {0, 1, 2, 3, 4, 5}, {0, 1, 2, 3, 4, 5}, {1, 5, 4, 3, 2, 0}};
  for (int t = 0; t < 4; ++t)
    for (int j = 0; j < 6; ++j) {
      EXPECT_EQ(ids.get(t, j), order[t][j]) << t << ' ' << j;
      if (t < 3) {
        EXPECT_EQ(weights.get(t, j), 0);
      }
    }
  args.bias = &bias.tensor;  // masked experts come last, and once: -inf, then NaN
  ASSERT_EQ(context.run(cul_moe_route, args), CUL_OK) << cul_last_error();
  ids.download();
  const double masked[6] = {1, 5, 3, 0, 4, 2};
  for (int j = 0; j < 6; ++j) EXPECT_EQ(ids.get(3, j), masked[j]) << j;
}

// ---------------------------------------------------------------------------------------------- moe_align and its users

struct Alignment {
  Alignment(Context& context, int64_t slots, int local, int block, int64_t spare = 0)
      : capacity((slots + local * (block - 1) + block - 1) / block * block + spare * block), sorted(context, kI32, {capacity}),
        block_expert(context, kI32, {capacity / block}), offsets(context, kI64, {local + 1}), inverse(context, kI32, {slots}),
        n_padded(context, kI32, {1}) {}
  void set(cul_moe_align_args& args) const {
    args.sorted = &sorted.tensor, args.block_expert = &block_expert.tensor, args.offsets = &offsets.tensor;
    args.inverse = &inverse.tensor, args.n_padded = &n_padded.tensor;
  }
  void download() {
    for (DeviceTensor* t : {&sorted, &block_expert, &offsets, &inverse, &n_padded}) t->download();
  }
  int64_t capacity;
  DeviceTensor sorted, block_expert, offsets, inverse, n_padded;
};

void check_alignment(DeviceChoice device, int64_t tokens, int64_t k, int experts, int local, int block, int one_expert, uint32_t seed) {
  SCOPED_TRACE(::testing::Message() << tokens << " tokens, k " << k << ", " << experts << " experts, " << local << " local, block " << block);
  Context context(device);
  std::mt19937 rng(seed);
  DeviceTensor ids(context, kI32, {tokens, k}, 3), map(context, kI32, {experts});
  ids.fill([&](auto, auto) { return one_expert >= 0 ? one_expert : static_cast<double>(rng() % static_cast<unsigned>(experts + 2)) - 1; });
  map.fill([&](auto, auto) { return static_cast<double>(rng() % static_cast<unsigned>(local + 1)) - 1; });
  const int64_t slots = tokens * k;
  Alignment a(context, slots, local, block, 2);
  cul_moe_align_args args{};
  args.ids = &ids.tensor, args.expert_map = local < experts ? &map.tensor : nullptr;
  args.experts = experts, args.local_experts = local, args.block = block;
  a.set(args);
  ASSERT_EQ(context.run(cul_moe_align, args), CUL_OK) << cul_last_error();
  a.download();
  int64_t at = 0, padded = 0;
  std::vector<double> inverse(static_cast<size_t>(slots), -1);
  for (int e = 0; e < local; ++e) {
    EXPECT_EQ(a.offsets.get(0, e), at);
    const int64_t begin = padded;
    for (int64_t slot = 0; slot < slots; ++slot) {
      const auto id = static_cast<int64_t>(ids.get(slot / k, slot % k));
      if (id < 0 || id >= experts || (local < experts ? map.get(0, id) : static_cast<double>(id)) != e) continue;
      EXPECT_EQ(a.sorted.get(0, padded++), slot);
      inverse[static_cast<size_t>(slot)] = static_cast<double>(at++);
    }
    for (; padded % block; ++padded) EXPECT_EQ(a.sorted.get(0, padded), slots);
    for (int64_t b = begin / block; b < padded / block; ++b) EXPECT_EQ(a.block_expert.get(0, b), e);
  }
  EXPECT_EQ(a.offsets.get(0, local), at);
  EXPECT_EQ(a.n_padded.get(0, 0), padded);
  for (int64_t b = padded / block; b < a.capacity / block; ++b) EXPECT_EQ(a.block_expert.get(0, b), -1);
  for (; padded < a.capacity; ++padded) EXPECT_EQ(a.sorted.get(0, padded), slots);
  for (int64_t slot = 0; slot < slots; ++slot) EXPECT_EQ(a.inverse.get(0, slot), inverse[static_cast<size_t>(slot)]);
}

TEST_P(MoeRouteTest, alignmentIsStable) {
  check_alignment(GetParam(), 0, 3, 5, 5, 8, -1, 1);
  check_alignment(GetParam(), 7, 0, 5, 5, 8, -1, 1);
  check_alignment(GetParam(), 1, 1, 1, 1, 128, -1, 2);
  check_alignment(GetParam(), 130, 5, 257, 257, 16, -1, 3);  // several chunks, the last one ragged
  check_alignment(GetParam(), 300, 4, 40, 13, 32, -1, 4);    // several experts on one
  check_alignment(GetParam(), 400, 3, 37, 37, 64, 29, 5);    // all to one
  check_alignment(GetParam(), 90, 2, 13000, 13000, 8, -1, 6);  // counters that do not fit shared memory
}

TEST_P(MoeRouteTest, badIdsAreReported) {
  for (int fault = 0; fault < 3; ++fault) {
    Context context(GetParam());
    DeviceTensor ids(context, kI32, {5, 2}, 1), map(context, kI32, {4});
    ids.fill([](auto t, auto) { return static_cast<double>(t) - 1; });
    map.fill([](auto, int64_t e) { return e == 3 ? -1.0 : static_cast<double>(e % 2); });
    if (fault == 1) ids.set(3, 1, 4);
    if (fault == 2) map.set(0, 2, 2);
    ids.upload();
    map.upload();
    Alignment a(context, 10, 2, 8);
    cul_moe_align_args args{};
    args.ids = &ids.tensor, args.expert_map = &map.tensor, args.experts = 4, args.local_experts = 2, args.block = 8;
    a.set(args);
    EXPECT_EQ(context.run(cul_moe_align, args, CUL_OP_VALIDATE), fault ? CUL_DEVICE_ERROR : CUL_OK) << cul_last_error();
    if (fault == 1) {
      EXPECT_NE(std::string(cul_last_error()).find("ids[3, 1] = 4"), std::string::npos) << cul_last_error();
    }
    if (fault == 2) {
      EXPECT_NE(std::string(cul_last_error()).find("expert_map[2] = 2"), std::string::npos) << cul_last_error();
    }
  }
}

// Rows go where the alignment says and come back; what no slot addresses is neither written nor read.
TEST_P(MoeRouteTest, rowsGoAndComeBack) {
  for (const cul_dtype type : {kF32, kF16, kBf16})
    for (const int64_t width : {64, 37}) {
      Context context(GetParam());
      const int64_t tokens = 23, k = 3, slots = tokens * k;
      std::mt19937 rng(7);
      DeviceTensor ids(context, kI32, {tokens, k}), x(context, type, {tokens, width}, width % 2 ? 1 : 16), rows(context, type, {slots, width}, 16),
          weights(context, kF32, {tokens, k}, 1), y(context, type, {tokens, width}, 16);
      ids.fill([&](auto, auto) { return static_cast<double>(rng() % 11) - 1; });
      x.fill([&](int64_t t, int64_t d) { return static_cast<double>((t * 31 + d * 7) % 64) / 8 - 4; });
      rows.fill([](auto, auto) { return 77.0; });
      weights.fill([&](auto, auto) { return static_cast<double>(rng() % 16) / 16; });
      Alignment a(context, slots, 10, 8);
      cul_moe_align_args align{};
      align.ids = &ids.tensor, align.experts = align.local_experts = 10, align.block = 8;
      a.set(align);
      ASSERT_EQ(context.run(cul_moe_align, align), CUL_OK) << cul_last_error();
      a.download();
      cul_moe_permute_args permute{};
      permute.x = &x.tensor, permute.inverse = &a.inverse.tensor, permute.rows = &rows.tensor, permute.k = static_cast<int32_t>(k);
      ASSERT_EQ(context.run(cul_moe_permute, permute, CUL_OP_VALIDATE), CUL_OK) << cul_last_error();
      rows.download();
      int64_t used = 0;
      for (int64_t slot = 0; slot < slots; ++slot) {
        const auto row = static_cast<int64_t>(a.inverse.get(0, slot));
        used += row >= 0;
        for (int64_t d = 0; row >= 0 && d < width; ++d) EXPECT_EQ(rows.get(row, d), x.get(slot / k, d));
      }
      for (int64_t row = used; row < slots; ++row)
        for (int64_t d = 0; d < width; ++d) EXPECT_EQ(rows.get(row, d), 77) << row;
      EXPECT_TRUE(rows.guards_untouched());

      for (int64_t row = used; row < slots; ++row) rows.set(row, 0, NAN);
      rows.upload();
      cul_moe_combine_args combine{};
      combine.rows = &rows.tensor, combine.inverse = &a.inverse.tensor, combine.weights = &weights.tensor, combine.y = &y.tensor,
      combine.k = static_cast<int32_t>(k);
      ASSERT_EQ(context.run(cul_moe_combine, combine, CUL_OP_VALIDATE), CUL_OK) << cul_last_error();
      y.download();
      for (int64_t t = 0; t < tokens; ++t)
        for (int64_t d = 0; d < width; ++d) {
          double want = 0;
          for (int64_t j = 0; j < k; ++j)
            if (a.inverse.get(0, t * k + j) >= 0) want += weights.get(t, j) * x.get(t, d);
          EXPECT_NEAR(y.get(t, d), want, 0.01 + 0.004 * std::abs(want));
        }
      EXPECT_TRUE(y.guards_untouched());

      a.inverse.set(0, 5, static_cast<double>(slots));
      a.inverse.upload();
      EXPECT_EQ(context.run(cul_moe_combine, combine, CUL_OP_VALIDATE), CUL_DEVICE_ERROR);
      EXPECT_NE(std::string(cul_last_error()).find("moe_combine: inverse[5]"), std::string::npos) << cul_last_error();
    }
}

INSTANTIATE_TEST_SUITE_P(Devices, MoeRouteTest, ::testing::ValuesIn(devices_here()),
                         [](const auto& info) { return device_test_name(info); });

}  // namespace
}  // namespace culebra
