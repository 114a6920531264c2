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

// Few distinct scores, so that ties decide; scales that change the order, weights of both signs, pages in disorder; more keys asked for than
// there are, exactly as many, fewer; queries in the middle of a sequence.
TEST_P(KvCacheTest, anIndexTakesTheHighestScoresAndOfEqualOnesTheFirst) {
  Machine m(GetParam());
  constexpr int64_t kTokens = 4, kPage = 8, kPages = 24;
  const int64_t lengths[] = {90, 13};
  Tensor q(m, DType::f8e4m3, {kTokens, 64, 128}), keys(m, DType::u8, {kPages, kPage, 132}, {kPage * 136 + 8, 136, 1}),
      weights(m, DType::f32, {kTokens, 64}, {67, 1}), cu(m, DType::i32, {3}), table(m, DType::i32, {2, 14}, {17, 1}), length(m, DType::i32, {2});
  std::mt19937_64 random(17);
  const double steps[] = {-1, 0, 0.5, 1};
  const auto draw = [&](int64_t n) { return static_cast<int64_t>(random() % static_cast<uint64_t>(n)); };
  // One channel and two heads count.
  std::vector<double> q_of(kTokens * 2), w_of(kTokens * 2), k_of(kPages * kPage), scale_of(kPages * kPage);
  for (double& x : q_of) x = draw(2) ? 1 : -1;
  for (double& x : w_of) x = draw(3) ? 1 : -0.5;
  for (double& x : k_of) x = steps[draw(4)];
  for (double& x : scale_of) x = static_cast<double>(1 << draw(3));
  q.fill([&](int64_t i) { return i % 128 == 3 && i / 128 % 64 % 40 == 0 ? q_of[static_cast<size_t>(i / 8192 * 2 + i / 128 % 64 / 40)] : 0.0; });
  weights.fill([&](int64_t i) { return i % 64 % 40 == 0 ? w_of[static_cast<size_t>(i / 64 * 2 + i % 64 / 40)] : 1.0; });
  keys.fill([&](int64_t i) {
    const auto row = static_cast<size_t>(i / 132);
    const int64_t byte = i % 132;
    uint32_t bits;
    const auto scale = static_cast<float>(scale_of[row]);
    std::memcpy(&bits, &scale, 4);
    if (byte >= 128) return static_cast<double>(bits >> (byte - 128) * 8 & 255);
    return byte == 3 ? static_cast<double>(from_float<float8_e4m3_t>(static_cast<float>(k_of[row])).bits) : 0.0;
  });
  const double starts[] = {0, 3, 4};
  cu.fill([&](int64_t i) { return starts[i]; });
  table.fill([](int64_t i) { return (i >= 12 && i < 14) || i > 15 ? -1.0 : static_cast<double>(i < 14 ? (i * 5 + 3) % 12 : 12 + (i * 7) % 11); });
  length.fill([&](int64_t b) { return static_cast<double>(lengths[b]); });
  for (const int64_t topk : {1, 12, 13, 14, 40, 88, 89, 90, 91, 200})
    for (const bool slots : {false, true}) {
      Tensor idx(m, DType::i32, {kTokens, topk});
      cul_mla_index_topk_args args{};
      args.q = q, args.keys = keys, args.weights = weights, args.cu_q = cu, args.page_table = table, args.kv_len = length, args.idx = idx;
      args.topk = static_cast<int32_t>(topk);
      args.slots = slots;
      ASSERT_EQ(call(m, cul_mla_index_topk, args), CUL_OK) << cul_last_error();
      std::vector<double> expected;
      for (int64_t t = 0; t < kTokens; ++t) {
        const int64_t b = t < 3 ? 0 : 1, end = lengths[b] - (t < 3 ? 2 - t : 0);
        std::vector<int64_t> order(static_cast<size_t>(end));
        std::iota(order.begin(), order.end(), 0);
        const auto slot = [&](int64_t s) { return static_cast<int64_t>(table[b * 14 + s / kPage]) * kPage + s % kPage; };
        const auto score = [&](int64_t s) {
          const auto row = static_cast<size_t>(slot(s));
          double sum = 0;
          for (size_t h = 0; h < 2; ++h)
            sum += w_of[static_cast<size_t>(t) * 2 + h] * std::max(q_of[static_cast<size_t>(t) * 2 + h] * k_of[row] * scale_of[row], 0.0);
          return sum;
        };
        std::stable_sort(order.begin(), order.end(), [&](int64_t x, int64_t y) { return score(x) > score(y); });
        order.resize(static_cast<size_t>(std::min(topk, end)));
        std::sort(order.begin(), order.end());
        for (const int64_t s : order) expected.push_back(static_cast<double>(slots ? slot(s) : s));
        expected.resize(static_cast<size_t>((t + 1) * topk), -1);
      }
      EXPECT_EQ(values_of(idx), expected) << topk;
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

TEST_P(KvCacheTest, validationLooksAtEveryIndexTensor) {
  // Which tensor has a bad entry; a device that failed stays failed.
  for (const std::string fault : {"", "cu_seqlens", "cu_q", "kv_len", "page_table", "page_count", "tail_len"}) {
    SCOPED_TRACE(fault);
    const auto expect = [&](std::initializer_list<const char*> indices, auto op, auto fill) {
      Machine m(GetParam());
      Tensor cu(m, DType::i32, {3}), length(m, DType::i32, {2}), table(m, DType::i32, {2, 2}), pages(m, DType::i32, {2}), tail(m, DType::i32, {2});
      cu.fill([&](int64_t i) { return fault == "cu_seqlens" || fault == "cu_q" ? (i == 1 ? 5.0 : i == 2 ? 4.0 : 0.0) : 2.0 * static_cast<double>(i); });
      length.fill([&](int64_t i) { return i == 0 ? 16.0 : fault == "kv_len" ? 33.0 : 32.0; });
      table.fill([&](int64_t i) { return i == 3 ? (fault == "page_table" ? 3.0 : 2.0) : i == 1 ? -1.0 : 0.0; });
      pages.fill([&](int64_t i) { return i == 0 ? 1.0 : fault == "page_count" ? 3.0 : 2.0; });
      tail.fill([&](int64_t i) { return i == 0 ? 4.0 : fault == "tail_len" ? 5.0 : 0.0; });
      const bool reads = std::find(indices.begin(), indices.end(), fault) != indices.end();
      EXPECT_EQ(fill(m, cu, length, table, pages, tail, op), reads ? CUL_DEVICE_ERROR : CUL_OK) << cul_last_error();
    };
    expect({"cu_seqlens", "cu_q"}, cul_kv_merge, [](Machine& m, Tensor& cu, Tensor&, Tensor&, Tensor&, Tensor&, auto op) {
      Tensor k(m, DType::f16, {4, 1, 16}), v(m, DType::f16, {4, 1, 16}), mass(m, DType::f32, {4, 1}), to_k(m, DType::f16, {4, 1, 16}),
          to_v(m, DType::f16, {4, 1, 16}), origin(m, DType::i32, {4, 1}), count(m, DType::i32, {2, 1});
      cul_kv_merge_args a{};
      a.k = k, a.v = v, a.attn_mass = mass, a.cu_seqlens = cu, a.merged_k = to_k, a.merged_v = to_v, a.origin = origin, a.count = count, a.eps = 0.5;
      return call(m, op, a, CUL_OP_VALIDATE);
    });
    expect({"page_table", "page_count"}, cul_kv_select, [](Machine& m, Tensor&, Tensor&, Tensor& table, Tensor& pages, Tensor&, auto op) {
      Tensor q(m, DType::f16, {2, 2, 16}), low(m, DType::f16, {3, 1, 16}), high(m, DType::f16, {3, 1, 16}), idx(m, DType::i32, {2, 1, 2}),
          count(m, DType::i32, {2, 1});
      cul_kv_select_args a{};
      a.q = q, a.page_min = low, a.page_max = high, a.page_table = table, a.page_count = pages, a.idx = idx, a.count = count, a.topk = 2;
      return call(m, op, a, CUL_OP_VALIDATE);
    });
    expect({"cu_seqlens", "cu_q", "kv_len", "page_table"}, cul_mla_index_topk,
           [](Machine& m, Tensor& cu, Tensor& length, Tensor& table, Tensor&, Tensor&, auto op) {
             Tensor q(m, DType::f8e4m3, {4, 64, 128}), keys(m, DType::u8, {3, 16, 132}), weights(m, DType::f32, {4, 64}), idx(m, DType::i32, {4, 3});
             cul_mla_index_topk_args a{};
             a.q = q, a.keys = keys, a.weights = weights, a.cu_q = cu, a.page_table = table, a.kv_len = length, a.idx = idx, a.topk = 3;
             return call(m, op, a, CUL_OP_VALIDATE);
           });
    expect({"kv_len", "page_table", "tail_len"}, cul_bitmap_kv_attention,
           [](Machine& m, Tensor&, Tensor& length, Tensor& table, Tensor&, Tensor& tail, auto op) {
             std::mt19937_64 random(3);
             Cache cache(m, random, 2, 2);
             Tensor q(m, DType::bf16, {2, 1, 2, 64}), o(m, DType::bf16, {2, 1, 2, 64}), values(m, DType::bf16, {3, 16, 1, 32}), bits(m, DType::i64, {3, 16, 1, 1});
             bits.fill([](int64_t) { return 0x55555555; });
             cul_bitmap_kv_attention_args a{};
             a.q = q, a.k_values = a.v_values = values, a.k_bits = a.v_bits = bits, a.page_table = table, a.kv_len = length;
             a.k_tail = a.v_tail = cache.tail, a.tail_len = tail, a.o = o;
             return call(m, op, a, CUL_OP_VALIDATE);
           });
  }
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
