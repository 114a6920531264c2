// Lists of key blocks on every device, and by the loop for compute capability 9.0 on the one that has it: lists of every length around
// the ring's, tails, padding, heads that share a list.
#include "attention_harness.h"
#include "culebra/sparse_attention.h"

namespace culebra {
namespace {

using namespace testing;

class SparseLists : public ::testing::TestWithParam<DeviceChoice> {
 protected:
  static bool hopper() { return GetParam().backend == CUL_BACKEND_SIMT && GetParam().index == 1; }
};
INSTANTIATE_TEST_SUITE_P(Devices, SparseLists, ::testing::ValuesIn(devices_here()), device_test_name);

struct ListedShape {
  cul_dtype type;
  std::vector<int64_t> queries, keys;
  int64_t heads, kv_heads, dim, value_dim;
  int32_t block_q, block_k, mask_heads;
  bool causal;
};

// Row i of the mask has i entries, spread over the sequence's blocks, then one of padding where i is odd. Keys that no list has hold NaN.
class Listed {
 public:
  Listed(Context& context, ListedShape shape)
      : s(std::move(shape)), Tq(sum(s.queries)), Tk(sum(s.keys)), context_(context) {
    std::vector<double> starts = {0};
    std::vector<bool> used(static_cast<size_t>(Tk));
    const auto batch = static_cast<int64_t>(s.queries.size());
    for (const int64_t queries : s.queries) rows = std::max(rows, (queries + s.block_q - 1) / s.block_q);
    int64_t k0 = 0, count = 0;
    for (int64_t b = 0; b < batch; k0 += s.keys[static_cast<size_t>(b++)])
      for (int64_t i = 0; i < s.mask_heads * rows; ++i) {
        const int64_t keys = s.keys[static_cast<size_t>(b)], blocks = (keys + s.block_k - 1) / s.block_k, n = std::min(count++ % (blocks + 1), blocks);
        lists.emplace_back();
        for (int64_t j = 0; j < n; ++j) {
          const int64_t block = blocks - 1 - j * blocks / n;  // the last one, which may hang over, among them
          lists.back().insert(lists.back().begin(), block);
          for (int64_t key = block * s.block_k; key < std::min((block + 1) * s.block_k, keys); ++key) used[static_cast<size_t>(k0 + key)] = true;
        }
        for (const int64_t block : lists.back()) entries.push_back(static_cast<double>(block));
        if (n % 2) entries.push_back(-1);
        starts.push_back(static_cast<double>(entries.size()));
      }
    const auto value = [&](int64_t heads, int64_t dim) {
      return [&, heads, dim](int64_t i) {
        const int64_t key = i / dim / heads;
        return key < Tk && used[static_cast<size_t>(key)] ? normal(random) : NAN;
      };
    };
    q = std::make_unique<Field>(context, s.type, std::vector{Tq, s.heads, s.dim}, [&](int64_t) { return normal(random); });
    k = std::make_unique<Field>(context, s.type, std::vector{Tk + 3, s.kv_heads, s.dim}, value(s.kv_heads, s.dim));
    v = std::make_unique<Field>(context, s.type, std::vector{Tk + 3, s.kv_heads, s.value_dim}, value(s.kv_heads, s.value_dim));
    o = std::make_unique<Field>(context, s.type, std::vector{Tq, s.heads, s.value_dim});
    lse = std::make_unique<Field>(context, kF32, std::vector{Tq, s.heads});
    const auto start = [](const std::vector<int64_t>& lengths) {
      return [&lengths](int64_t i) { return static_cast<double>(std::accumulate(lengths.begin(), lengths.begin() + i, int64_t{0})); };
    };
    cu_q = std::make_unique<Field>(context, kI32, std::vector{batch + 1}, start(s.queries));
    cu_k = std::make_unique<Field>(context, kI32, std::vector{batch + 1}, start(s.keys));
    row_ptr = std::make_unique<Field>(context, kI64, std::vector{static_cast<int64_t>(starts.size())}, [&](int64_t i) { return starts[static_cast<size_t>(i)]; });
    col = std::make_unique<Field>(context, kI32, std::vector{static_cast<int64_t>(entries.size())}, [&](int64_t i) { return entries[static_cast<size_t>(i)]; });
  }
  void expect(double bound, double log_bound) {
    cul_block_sparse_attention_args a{};
    a.q = *q, a.k = *k, a.v = *v, a.cu_q = *cu_q, a.cu_k = *cu_k, a.row_ptr = *row_ptr, a.col = *col, a.o = *o, a.lse = *lse;
    a.block_q = s.block_q, a.block_k = s.block_k, a.head_map = s.mask_heads, a.causal = s.causal;
    ASSERT_EQ(context_.run(cul_block_sparse_attention, a), CUL_OK) << cul_last_error();
    const auto qs = q->numbers(), ks = k->numbers(), vs = v->numbers(), out = o->numbers(), log = lse->numbers();
    std::vector<double> ref(static_cast<size_t>(s.value_dim));
    int64_t q0 = 0, k0 = 0;
    for (size_t b = 0; b < s.queries.size(); q0 += s.queries[b], k0 += s.keys[b], ++b)
      for (int64_t i = 0; i < s.queries[b]; ++i)
        for (int64_t h = 0; h < s.heads; ++h) {
          const auto& list = lists[static_cast<size_t>((static_cast<int64_t>(b) * s.mask_heads + h * s.mask_heads / s.heads) * rows + i / s.block_q)];
          const auto at = [&](int64_t j, int64_t dim) { return static_cast<size_t>(((k0 + j) * s.kv_heads + h / (s.heads / s.kv_heads)) * dim); };
          const int64_t row = (q0 + i) * s.heads + h;
          const double expected = attend(
              s.keys[b], s.value_dim,
              [&](int64_t j) { return std::count(list.begin(), list.end(), j / s.block_k) && (!s.causal || j <= i + s.keys[b] - s.queries[b]); },
              [&](int64_t j) {
                double sum = 0;
                for (int64_t d = 0; d < s.dim; ++d) sum += qs[static_cast<size_t>(row * s.dim + d)] * ks[at(j, s.dim) + static_cast<size_t>(d)];
                return sum / std::sqrt(static_cast<double>(s.dim));
              },
              [&](int64_t j, int64_t d) { return vs[at(j, s.value_dim) + static_cast<size_t>(d)]; }, ref.data());
          for (int64_t d = 0; d < s.value_dim; ++d)
            ASSERT_LE(std::abs(out[static_cast<size_t>(row * s.value_dim + d)] - ref[static_cast<size_t>(d)]), bound)
                << "sequence " << b << ", query " << i << ", head " << h << ", " << list.size() << " blocks";
          ASSERT_TRUE(std::isinf(expected) ? log[static_cast<size_t>(row)] == expected : std::abs(log[static_cast<size_t>(row)] - expected) <= log_bound)
              << log[static_cast<size_t>(row)] << " for " << expected << ", query " << i;
        }
  }

 private:
  static int64_t sum(const std::vector<int64_t>& x) { return std::accumulate(x.begin(), x.end(), int64_t{0}); }
  ListedShape s;
  int64_t Tq, Tk, rows = 0;
  Context& context_;
  std::mt19937 random{11};
  std::normal_distribution<double> normal;
  std::vector<std::vector<int64_t>> lists;
  std::vector<double> entries;
  std::unique_ptr<Field> q, k, v, o, lse, cu_q, cu_k, row_ptr, col;
};

// One warpgroup: steps of 64 keys in three stages, lists of 0 to 5 blocks. Two: steps of 128 in two or four stages, two halves of a query
// block or two heads. Boxes of 16, 32, 64 and 128 keys; sequences of fewer queries than keys and of more.
TEST_P(SparseLists, listsOfEveryLength) {
  const ListedShape shapes[] = {
      {kBf16, {350}, {330}, 1, 1, 128, 128, 64, 64, 1, false},
      {kBf16, {260, 64}, {410, 20}, 2, 1, 128, 64, 64, 128, 2, true},
      {kF16, {300, 0, 130}, {390, 40, 100}, 1, 1, 128, 128, 128, 128, 1, true},
      {kF16, {200}, {270}, 4, 2, 40, 24, 64, 16, 2, true},
      {kBf16, {100, 30}, {130, 150}, 3, 1, 64, 64, 96, 32, 1, false},
      {kBf16, {130}, {300}, 1, 1, 64, 64, 64, 32, 1, true},
  };
  for (const ListedShape& s : shapes) {
    SCOPED_TRACE(s.block_q * 1000 + s.block_k);
    Context context(GetParam());
    Listed listed(context, s);
    listed.expect(s.type.code == kBf16.code ? 2e-2 : 3e-3, 2e-3);
    EXPECT_EQ(context.plan.find("wgmma") != std::string::npos, hopper()) << context.plan;
  }
}

// What the loop does not take goes the other way.
TEST_P(SparseLists, otherBlocksGoTheOtherWay) {
  for (const ListedShape& s : {ListedShape{kBf16, {70}, {100}, 2, 1, 16, 16, 32, 64, 1, true}, ListedShape{kBf16, {70}, {100}, 2, 1, 16, 16, 64, 48, 1, true},
                               ListedShape{kBf16, {70}, {100}, 1, 1, 20, 16, 64, 64, 1, true}, ListedShape{kBf16, {70}, {100}, 1, 1, 136, 16, 64, 64, 1, true}}) {
    SCOPED_TRACE(s.block_q * 1000 + s.block_k);
    Context context(GetParam());
    Listed listed(context, s);
    listed.expect(2e-2, 2e-3);
    EXPECT_EQ(context.plan.find("wgmma"), std::string::npos) << context.plan;
  }
}

std::vector<double> sparse_linear(DeviceChoice device, int64_t batch, int64_t length, int32_t block, std::string& plan) {
  Context context(device);
  std::mt19937 random(5);
  std::normal_distribution<double> normal;
  const auto any = [&](int64_t) { return normal(random); };
  const std::vector<int64_t> shape = {batch, 2, length, 64};
  Field q(context, kBf16, shape, any), k(context, kBf16, shape, any), v(context, kBf16, shape, any), o(context, kBf16, shape);
  cul_sparse_linear_attention_args a{};
  a.q = q, a.k = k, a.v = v, a.o = o;
  a.block = block;
  a.critical = .5;
  a.negligible = .25;
  a.mode = CUL_SLA_PAPER;
  a.eps = 1e-5f;
  EXPECT_EQ(context.run(cul_sparse_linear_attention, a), CUL_OK) << cul_last_error();
  plan = context.plan;
  return o.numbers();
}

// Critical blocks of sparse-linear attention, the heads of a batch in line; the last block has a tail, or a single token.
TEST_P(SparseLists, criticalBlocksAreThoseOfTheCpu) {
  for (const auto& [batch, length, block] : {std::tuple{2, 290, 64}, std::tuple{1, 257, 64}, std::tuple{1, 300, 128}}) {
    SCOPED_TRACE(length);
    std::string plan;
    const auto expected = sparse_linear(CUL_BACKEND_CPU, batch, length, block, plan), out = sparse_linear(GetParam(), batch, length, block, plan);
    EXPECT_EQ(plan.find("wgmma") != std::string::npos, hopper()) << plan;
    double error = 0, size = 0;
    for (size_t i = 0; i < out.size(); ++i) error += std::pow(out[i] - expected[i], 2), size += std::pow(expected[i], 2);
    EXPECT_LE(std::sqrt(error / size), 5e-3);
  }
}

std::vector<double> estimated(DeviceChoice device, int64_t queries, int64_t keys, int32_t block_k, std::string& plan) {
  Context context(device);
  std::mt19937 random(23);
  std::normal_distribution<double> normal;
  const auto any = [&](int64_t) { return normal(random); };
  Field q(context, kF16, {queries + 70, 2, 16}, any), k(context, kF16, {keys + 80, 1, 16}, any), v(context, kF16, {keys + 80, 1, 16}, any),
      o(context, kF16, {queries + 70, 2, 16}), lse(context, kF32, {queries + 70, 2}),
      cu_q(context, kI32, {3}, [&](int64_t i) { return static_cast<double>(i == 0 ? 0 : i == 1 ? queries : queries + 70); }),
      cu_k(context, kI32, {3}, [&](int64_t i) { return static_cast<double>(i == 0 ? 0 : i == 1 ? keys : keys + 80); }),
      tau(context, kF32, {2}, [](int64_t h) { return h ? 0 : 1e-30; });  // a dense head, and one that keeps everything
  cul_estimated_sparse_attention_args a{};
  a.q = q, a.k = k, a.v = v, a.cu_q = cu_q, a.cu_k = cu_k, a.tau = tau, a.o = o, a.lse = lse;
  a.block_q = 64;
  a.block_k = block_k;
  a.sink = a.local = 16;
  EXPECT_EQ(context.run(cul_estimated_sparse_attention, a), CUL_OK) << cul_last_error();
  plan = context.plan;
  auto out = o.numbers();
  for (const double x : lse.numbers()) out.push_back(x);
  return out;
}

// Kept blocks of two sequences, of which each row sees one key more than the one before.
TEST_P(SparseLists, keptBlocksAreThoseOfTheCpu) {
  for (const auto& [queries, keys, block_k] : {std::tuple{130, 200, 32}, std::tuple{64, 191, 64}, std::tuple{100, 60, 16}}) {
    SCOPED_TRACE(keys);
    std::string plan;
    const auto expected = estimated(CUL_BACKEND_CPU, queries, keys, block_k, plan), out = estimated(GetParam(), queries, keys, block_k, plan);
    EXPECT_EQ(plan.find("wgmma") != std::string::npos, hopper()) << plan;
    for (size_t i = 0; i < out.size(); ++i)
      ASSERT_TRUE(std::isinf(expected[i]) ? out[i] == expected[i] : std::abs(out[i] - expected[i]) <= 4e-3) << i << ": " << out[i] << " for " << expected[i];
  }
}

#if CULEBRA_HAS_SIMT

struct EstimateShape {
  int64_t queries, keys, heads, kv_heads, dim;
  int32_t block_q, block_k, sink, local;
  double tau;
};

// o, then how many blocks each head keeps. The last head is dense, the others keep some.
std::vector<double> estimate(int32_t index, const EstimateShape& s, std::string& plan) {
  Context context(DeviceChoice(CUL_BACKEND_SIMT, index));
  std::mt19937 random(29);
  std::normal_distribution<double> normal;
  const auto any = [&](int64_t) { return normal(random); };
  const int64_t queries = s.queries + 20, keys = s.keys + 150;
  Field q(context, kBf16, {queries, s.heads, s.dim}, any), k(context, kBf16, {keys, s.kv_heads, s.dim}, any), v(context, kBf16, {keys, s.kv_heads, 16}, any),
      o(context, kBf16, {queries, s.heads, 16}), kept(context, kI64, {s.heads}),
      cu_q(context, kI32, {3}, [&](int64_t i) { return static_cast<double>(i == 0 ? 0 : i == 1 ? s.queries : queries); }),
      cu_k(context, kI32, {3}, [&](int64_t i) { return static_cast<double>(i == 0 ? 0 : i == 1 ? s.keys : keys); }),
      taus(context, kF32, {s.heads}, [&](int64_t h) { return h + 1 == s.heads ? 0 : s.tau; });
  cul_estimated_sparse_attention_args a{};
  a.q = q, a.k = k, a.v = v, a.cu_q = cu_q, a.cu_k = cu_k, a.tau = taus, a.o = o, a.kept = kept;
  a.block_q = s.block_q, a.block_k = s.block_k, a.sink = s.sink, a.local = s.local;
  EXPECT_EQ(context.run(cul_estimated_sparse_attention, a), CUL_OK) << cul_last_error();
  plan = context.plan;
  auto out = o.numbers();
  for (const double x : kept.numbers()) out.push_back(x);
  return out;
}

// The estimate on wgmma decides as that on mma.sync does, whose integers and comparisons are the same: units of several heads and of
// halves of query blocks, tiles that are not full, spans of no, of one and of more tiles than stages, rows that see nothing certain or nothing at
// all, blocks that only keys in a row's future would keep.
TEST(EstimateHopper, keepsTheSameBlocks) {
  for (const EstimateShape& s : {EstimateShape{70, 700, 3, 1, 96, 64, 32, 32, 64, .3}, EstimateShape{130, 330, 6, 1, 128, 64, 16, 16, 0, 1},
                                 EstimateShape{150, 300, 2, 2, 72, 128, 64, 0, 0, .02}, EstimateShape{260, 200, 2, 2, 72, 128, 16, 16, 0, 1},
                                 EstimateShape{100, 290, 4, 2, 128, 96, 128, 0, 128, .3}, EstimateShape{64, 90, 2, 1, 128, 64, 32, 32, 64, .3}}) {
    SCOPED_TRACE(s.keys);
    std::string plan;
    const auto expected = estimate(0, s, plan);
    EXPECT_EQ(plan.find("wgmma"), std::string::npos) << plan;
    const auto out = estimate(1, s, plan);
    EXPECT_NE(plan.find("estimate and softmax by wgmma"), std::string::npos) << plan;
    const size_t heads = static_cast<size_t>(s.heads), values = out.size() - heads;
    for (size_t h = 0; h < heads; ++h) EXPECT_EQ(out[values + h], expected[values + h]) << "head " << h;
    EXPECT_LE(out[values], out[values + heads - 1]);
    for (size_t i = 0; i < values; ++i) ASSERT_NEAR(out[i], expected[i], 2e-2) << i;
  }
}

#endif

}  // namespace
}  // namespace culebra
