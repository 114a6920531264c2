// The KV cache family through the C ABI on every backend of the build: what the conformance cases do not reach.
#include "culebra/kv_cache.h"

#include "glue_harness.h"
#include "ops/kv_cache/bitmap_kv_attention.h"
#include "ops/kv_cache/mla_index_topk.h"

namespace culebra {
namespace {

using namespace culebra::glue_testing;

class KvCacheTest : public ::testing::TestWithParam<int32_t> {};

TEST_P(KvCacheTest, compressedRowsHoldTheLargestChannelsAndNan) {
  Machine m(GetParam());
  std::mt19937_64 random(3);
  for (const DType type : {DType::f32, DType::bf16}) {
    Tensor x(m, type, {3, 2, 192}, {400, 200, 1}), values(m, type, {3, 2, 64}), bits(m, DType::i32, {3, 2, 6});
    x.normal(random);
    const double nan = std::nan("");
    std::vector<double> in = values_of(x);
    in[5] = nan;
    x.fill([&](int64_t i) { return in[static_cast<size_t>(i)]; });
    cul_tensor words = *static_cast<const cul_tensor*>(bits);  // the same memory as i64
    int64_t shape[] = {3, 2, 3}, strides[] = {6, 3, 1};
    words.dtype = {CUL_INT, 64, 1};
    words.shape = shape;
    words.strides = strides;
    cul_bitmap_kv_compress_args args{};
    args.x = x, args.values = values, args.bits = &words, args.keep = 64;
    ASSERT_EQ(call(m, cul_bitmap_kv_compress, args), CUL_OK) << cul_last_error();
    values.read();
    bits.read();
    for (int64_t row = 0; row < 6; ++row) {
      double least = kInfinity, dropped = 0;
      int64_t kept = 0;
      for (int64_t c = 0; c < 192; ++c) {
        const double v = in[static_cast<size_t>(row * 192 + c)];
        const bool take = static_cast<uint32_t>(static_cast<int32_t>(bits[row * 6 + c / 32])) >> c % 32 & 1;
        if (!take) {
          dropped = std::max(dropped, std::abs(v));
          continue;
        }
        EXPECT_TRUE(values[row * 64 + kept] == v || (std::isnan(v) && std::isnan(values[row * 64 + kept])));
        if (!std::isnan(v)) least = std::min(least, std::abs(v));
        ++kept;
      }
      EXPECT_EQ(kept, 64);
      EXPECT_GE(least, dropped);
    }
    EXPECT_EQ(static_cast<int32_t>(bits[0]) >> 5 & 1, 1) << "NaN is kept";
  }
}

// A cache of B sequences with room for `pages` pages of 16 each, filled at random; channel c of row r is kept if (c + r) % 2.
struct Cache {
  Cache(Machine& m, std::mt19937_64& random, int64_t sequences, int64_t pages)
      : values(m, DType::bf16, {sequences * pages, 16, 1, 32}), bits(m, DType::i64, {sequences * pages, 16, 1, 1}),
        tail(m, DType::bf16, {sequences, 4, 1, 64}), table(m, DType::i32, {sequences, pages}) {
    values.normal(random);
    tail.normal(random);
    bits.fill([](int64_t) { return 0x55555555; });
    table.fill([](int64_t i) { return static_cast<double>(i); });
  }
  Tensor values, bits, tail, table;
};

TEST_P(KvCacheTest, bitmapAttentionDoesNotDependOnTheBatchWhereAsked) {
  Machine m(GetParam());
  std::mt19937_64 random(5);
  constexpr int64_t kSequences = 3, kPages = 8;
  Cache cache(m, random, kSequences, kPages);
  Tensor q(m, DType::bf16, {kSequences, 2, 2, 64}), o(m, DType::bf16, {kSequences, 2, 2, 64}), lse(m, DType::f32, {kSequences, 2, 2});
  Tensor length(m, DType::i32, {kSequences}), tail(m, DType::i32, {kSequences});
  q.normal(random);
  const int64_t lengths[] = {128, 0, 70}, tails[] = {1, 4, 3};
  length.fill([&](int64_t i) { return static_cast<double>(lengths[i]); });
  tail.fill([&](int64_t i) { return static_cast<double>(tails[i]); });
  cul_bitmap_kv_attention_args args{};
  args.q = q, args.k_values = cache.values, args.k_bits = cache.bits, args.v_values = cache.values, args.v_bits = cache.bits;
  args.page_table = cache.table, args.kv_len = length, args.k_tail = cache.tail, args.v_tail = cache.tail, args.tail_len = tail;
  args.o = o, args.lse = lse, args.split_kv_tokens = 64;
  ASSERT_EQ(call(m, cul_bitmap_kv_attention, args), CUL_OK) << cul_last_error();
  const auto split = values_of(o);
  args.split_kv_tokens = 0;
  ASSERT_EQ(call(m, cul_bitmap_kv_attention, args), CUL_OK) << cul_last_error();
  const auto whole = values_of(o);
  for (size_t i = 0; i < split.size(); ++i) EXPECT_NEAR(split[i], whole[i], 0.02);
  // Each sequence by itself, its own page table row and tail: the same bits.
  for (int64_t b = 0; b < kSequences; ++b) {
    const auto one = [&](Tensor& t, cul_tensor& view, int64_t* shape) {
      view = *static_cast<const cul_tensor*>(t);
      std::copy_n(view.shape, view.ndim, shape);
      view.byte_offset += static_cast<uint64_t>(b * view.strides[0]) * view.dtype.bits / 8;
      shape[0] = 1;
      view.shape = shape;
      return static_cast<const cul_tensor*>(&view);
    };
    // Lengths of one sequence begin at a multiple of 16 bytes only in tensors of their own.
    Tensor own_length(m, DType::i32, {1}), own_tail(m, DType::i32, {1}), own_lse(m, DType::f32, {1, 2, 2}), table(m, DType::i32, {1, kPages});
    own_length.fill([&](int64_t) { return static_cast<double>(lengths[b]); });
    own_tail.fill([&](int64_t) { return static_cast<double>(tails[b]); });
    table.fill([&](int64_t i) { return static_cast<double>(b * kPages + i); });
    cul_tensor views[3];
    int64_t shapes[3][4];
    Tensor own(m, DType::bf16, {1, 2, 2, 64});
    args.q = one(q, views[0], shapes[0]), args.page_table = table;
    args.k_tail = args.v_tail = one(cache.tail, views[2], shapes[2]);
    args.kv_len = own_length, args.tail_len = own_tail, args.o = own, args.lse = own_lse;
    args.split_kv_tokens = 64;
    ASSERT_EQ(call(m, cul_bitmap_kv_attention, args), CUL_OK) << cul_last_error();
    const auto alone = values_of(own);
    for (size_t i = 0; i < alone.size(); ++i) EXPECT_EQ(alone[i], split[static_cast<size_t>(b) * alone.size() + i]) << "sequence " << b;
  }
}

// A page of -1 below kv_len is the caller's mistake: the cpu always reports it, kernels do when they validate, and never follow it.
TEST_P(KvCacheTest, bitmapAttentionNeverFollowsAMissingPage) {
  Machine m(GetParam());
  std::mt19937_64 random(6);
  Cache cache(m, random, 1, 3);
  Tensor q(m, DType::bf16, {1, 1, 2, 64}), o(m, DType::bf16, {1, 1, 2, 64}), length(m, DType::i32, {1}), tail(m, DType::i32, {1});
  q.normal(random);
  cache.table.fill([](int64_t i) { return i == 1 ? -1.0 : 0.0; });
  length.fill([](int64_t) { return 48; });
  tail.fill([](int64_t) { return 2; });
  cul_bitmap_kv_attention_args args{};
  args.q = q, args.k_values = cache.values, args.k_bits = cache.bits, args.v_values = cache.values, args.v_bits = cache.bits;
  args.page_table = cache.table, args.kv_len = length, args.k_tail = cache.tail, args.v_tail = cache.tail, args.tail_len = tail;
  args.o = o;
  if (GetParam() == CUL_BACKEND_CPU) {
    EXPECT_EQ(call(m, cul_bitmap_kv_attention, args), CUL_DEVICE_ERROR);
    return;
  }
  EXPECT_EQ(call(m, cul_bitmap_kv_attention, args), CUL_OK) << cul_last_error();
  for (const double x : values_of(o)) EXPECT_TRUE(std::isfinite(x));
  EXPECT_EQ(call(m, cul_bitmap_kv_attention, args, CUL_OP_VALIDATE), CUL_DEVICE_ERROR);
}

TEST_P(KvCacheTest, pageStatisticsShowNanAndPassOverMissingPages) {
  Machine m(GetParam());
  Tensor cache(m, DType::f32, {2, 4, 1, 8}), table(m, DType::i32, {1, 3}), first(m, DType::i32, {1}), length(m, DType::i32, {1});
  Tensor low(m, DType::f32, {2, 1, 8}), high(m, DType::f32, {2, 1, 8});
  cache.fill([](int64_t i) { return i == 8 + 3 ? std::nan("") : static_cast<double>(i / 8); });
  table.fill([](int64_t i) { return i == 1 ? -1.0 : i == 0 ? 0.0 : 1.0; });
  first.fill([](int64_t) { return 0; });
  length.fill([](int64_t) { return 10; });
  low.fill([](int64_t) { return -7; });
  high.fill([](int64_t) { return 7; });
  cul_kv_page_stats_args args{};
  args.k_cache = cache, args.page_table = table, args.first_token = first, args.kv_len = length, args.page_min = low, args.page_max = high;
  ASSERT_EQ(call(m, cul_kv_page_stats, args), CUL_OK) << cul_last_error();
  low.read();
  high.read();
  for (int64_t c = 0; c < 8; ++c) {
    EXPECT_TRUE(c == 3 ? std::isnan(low[c]) && std::isnan(high[c]) : low[c] == 0 && high[c] == 3);
    EXPECT_EQ(low[8 + c], 4);  // tokens 8 and 9, the first two of page 1
    EXPECT_EQ(high[8 + c], 5);
  }
}

TEST_P(KvCacheTest, aMissingPageIsChosenLast) {
  Machine m(GetParam());
  Tensor q(m, DType::f32, {1, 1, 8}), low(m, DType::f32, {3, 1, 8}), high(m, DType::f32, {3, 1, 8}), table(m, DType::i32, {1, 4}),
      pages(m, DType::i32, {1}), idx(m, DType::i32, {1, 1, 3}), count(m, DType::i32, {1, 1});
  q.fill([](int64_t) { return 1; });
  for (Tensor* t : {&low, &high}) t->fill([](int64_t i) { return static_cast<double>(-1 - i / 8); });
  table.fill([](int64_t i) { return i == 0 ? -1.0 : static_cast<double>(i - 1); });
  pages.fill([](int64_t) { return 4; });
  cul_kv_select_args args{};
  args.q = q, args.page_min = low, args.page_max = high, args.page_table = table, args.page_count = pages, args.idx = idx, args.count = count;
  args.topk = 3;
  ASSERT_EQ(call(m, cul_kv_select, args), CUL_OK) << cul_last_error();
  EXPECT_EQ(values_of(idx), (std::vector<double>{1, 2, 3}));
  EXPECT_EQ(values_of(count), std::vector<double>{3});
}

TEST_P(KvCacheTest, aSplitIndexFindsWhatAWholeOneFinds) {
  Machine m(GetParam());
  constexpr int64_t kTokens = 2100, kPage = 64, kPages = (kTokens + kPage - 1) / kPage, kTopk = 40;
  Tensor q(m, DType::f8e4m3, {1, 64, 128}), keys(m, DType::u8, {kPages, kPage, 132}), weights(m, DType::f32, {1, 64}), cu(m, DType::i32, {2}),
      table(m, DType::i32, {1, kPages}), length(m, DType::i32, {1}), idx(m, DType::i32, {1, kTopk});
  // Head 0 alone counts, and a key has but one element, times the scale 1.
  q.fill([](int64_t i) { return i == 0 ? 1.0 : 0.0; });
  weights.fill([](int64_t i) { return i == 0 ? 1.0 : 0.0; });
  cu.fill([](int64_t i) { return static_cast<double>(i); });
  table.fill([](int64_t i) { return static_cast<double>(i); });
  length.fill([](int64_t) { return static_cast<double>(kTokens); });
  cul_mla_index_topk_args args{};
  args.q = q, args.keys = keys, args.weights = weights, args.cu_q = cu, args.page_table = table, args.kv_len = length, args.idx = idx;
  args.topk = kTopk;
  // e4m3 bits of positive numbers ascend with them. Many scores are equal; they come in any order, or ascend, so that later keys displace
  // earlier ones again and again.
  const std::function<int64_t(int64_t)> scores[] = {[](int64_t s) { return 56 - s * 7 % 50; }, [](int64_t s) { return s / 17; }};
  for (const auto& score : scores) {
    keys.fill([&](int64_t i) {
      const int64_t row = i / 132, byte = i % 132;
      if (byte == 0) return static_cast<double>(std::min<int64_t>(score(row), 126));
      return byte == 130 ? 128.0 : byte == 131 ? 63.0 : 0.0;
    });
    ASSERT_EQ(call(m, cul_mla_index_topk, args), CUL_OK) << cul_last_error();
    std::vector<int64_t> order(kTokens);
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return score(a) > score(b); });
    std::vector<double> expected(order.begin(), order.begin() + kTopk);
    std::sort(expected.begin(), expected.end());
    EXPECT_EQ(values_of(idx), expected);
  }
}

TEST_P(KvCacheTest, stepsWithTheirStateInPlaceContinueAPrefill) {
  Machine m(GetParam());
  std::mt19937_64 random(13);
  constexpr int64_t kTokens = 5, kHeads = 2, kDim = 16, kChannels = (kHeads + 1) * kDim;
  Tensor x_q(m, DType::f32, {1, kTokens, kHeads * kDim}), x_k(m, DType::f32, {1, kTokens, kDim}), v1(m, DType::f32, {1, kTokens, 8}),
      v2(m, DType::f32, {1, kTokens, 8}), w1(m, DType::f32, {kChannels, 2}), w2(m, DType::f32, {kChannels, kDim, 2}), temp(m, DType::f32, {1});
  for (Tensor* t : {&x_q, &x_k, &v1, &v2, &w1, &w2, &temp}) t->normal(random);
  Tensor q(m, DType::f32, {1, kTokens, kHeads, kDim}), k(m, DType::f32, {1, kTokens, 1, kDim}), v(m, DType::f32, {1, kTokens, 1, kDim});
  Tensor conv(m, DType::f32, {1, kChannels, 2}), value(m, DType::f32, {1, 8});
  conv.fill([](int64_t) { return 0; });
  value.fill([](int64_t) { return 0; });
  cul_cca_qkv_args args{};
  args.x_q = x_q, args.x_k = x_k, args.x_v1 = v1, args.x_v2 = v2, args.conv1_w = w1, args.conv2_w = w2, args.temp = temp;
  args.q = q, args.k = k, args.v = v;
  ASSERT_EQ(call(m, cul_cca_qkv, args), CUL_OK) << cul_last_error();
  std::vector<double> whole[] = {values_of(q), values_of(k), values_of(v)};
  for (int64_t begin = 0, count; begin < kTokens; begin += count) {
    count = begin == 0 ? 2 : 1;
    cul_tensor views[7];
    int64_t shapes[7][4];
    int next = 0;
    const auto part = [&](Tensor& t) {
      cul_tensor& view = views[next];
      int64_t* shape = shapes[next++];
      view = *static_cast<const cul_tensor*>(t);
      std::copy_n(view.shape, view.ndim, shape);
      view.byte_offset += static_cast<uint64_t>(begin * view.strides[1]) * 4;
      shape[1] = count;
      view.shape = shape;
      return static_cast<const cul_tensor*>(&view);
    };
    args.x_q = part(x_q), args.x_k = part(x_k), args.x_v1 = part(v1), args.x_v2 = part(v2);
    args.q = part(q), args.k = part(k), args.v = part(v);
    args.conv_state = conv, args.v_state = value, args.new_conv_state = conv, args.new_v_state = value;
    ASSERT_EQ(call(m, cul_cca_qkv, args), CUL_OK) << cul_last_error();
  }
  int which = 0;
  for (Tensor* t : {&q, &k, &v}) {
    const auto steps = values_of(*t);
    for (size_t i = 0; i < steps.size(); ++i) EXPECT_NEAR(steps[i], whole[which][i], 1e-4) << which << " " << i;
    ++which;
  }
}

// A bad index fails the device: on the cpu always, elsewhere where validation is asked for.
TEST_P(KvCacheTest, aBadIndexIsAnErrorOfTheDevice) {
  Machine m(GetParam());
  Tensor cache(m, DType::f16, {2, 4, 1, 8}), table(m, DType::i32, {1, 2}), first(m, DType::i32, {1}), length(m, DType::i32, {1});
  Tensor low(m, DType::f16, {2, 1, 8}), high(m, DType::f16, {2, 1, 8});
  cache.fill([](int64_t) { return 0; });
  first.fill([](int64_t) { return 0; });
  table.fill([](int64_t i) { return i == 1 ? 2.0 : 0.0; });  // there is no page 2
  length.fill([](int64_t) { return 8; });
  cul_kv_page_stats_args args{};
  args.k_cache = cache, args.page_table = table, args.first_token = first, args.kv_len = length, args.page_min = low, args.page_max = high;
  EXPECT_EQ(call(m, cul_kv_page_stats, args, CUL_OP_VALIDATE), CUL_DEVICE_ERROR);
  EXPECT_NE(std::string(cul_last_error()).find("kv_page_stats: sequence 0"), std::string::npos) << cul_last_error();
}

INSTANTIATE_TEST_SUITE_P(Backends, KvCacheTest, ::testing::ValuesIn(backends()),
                         [](const auto& info) { return std::string(cul_backend_name(info.param)); });

TEST(BitmapPlan, splitsFillTheDeviceUnlessTheyAreFixed) {
  BitmapAttentionParams p;
  p.dtype = DType::bf16;
  p.sequences = 1, p.queries = 1, p.query_heads = 8, p.kv_heads = 2, p.dim = 128;
  p.page_size = 64, p.table_pages = 1024, p.tail_rows = 64;
  std::string reason;
  const BitmapAttentionPlan tuned = plan_bitmap_kv_attention(p, 0, false, 132, &reason);
  EXPECT_EQ(tuned.tile_rows, 8);
  EXPECT_EQ(tuned.splits, 64);
  EXPECT_EQ(tuned.split_tokens, 0);
  EXPECT_NE(reason.find("to fill the device"), std::string::npos) << reason;
  p.sequences = 512;
  EXPECT_FALSE(plan_bitmap_kv_attention(p, 0, false, 132, &reason).partial);
  const BitmapAttentionPlan fixed = plan_bitmap_kv_attention(p, 100, false, 132, &reason);
  EXPECT_EQ(fixed.split_tokens, 128);
  EXPECT_TRUE(fixed.partial);
  EXPECT_EQ(plan_bitmap_kv_attention(p, 0, true, 132, &reason).split_tokens, plan_bitmap_kv_attention(p, 0, true, 8, &reason).split_tokens);
}

TEST(IndexPlan, fewQueriesShareOutTheirKeys) {
  IndexTopkParams p;
  p.tokens = 1, p.page_size = 64, p.table_pages = 1024, p.topk = 2048;
  std::string reason;
  const IndexTopkPlan one = plan_mla_index_topk(p, 132, &reason);
  EXPECT_EQ(one.splits, 16);
  EXPECT_GE(one.splits * one.split_keys, 65536);
  p.tokens = 1000;
  EXPECT_EQ(plan_mla_index_topk(p, 132, &reason).splits, 1);
  EXPECT_EQ(plan_mla_index_topk(p, 132, &reason).workspace_bytes, 0u);
}

}  // namespace
}  // namespace culebra
