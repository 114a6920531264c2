// attention and paged_attention on every device: what the conformance cases do not reach.
#include "attention_harness.h"
#include "backends/backend.h"
#include "ops/attention/attention.h"

namespace culebra {
namespace {

using namespace testing;

class AttentionKernels : public ::testing::TestWithParam<DeviceChoice> {};
INSTANTIATE_TEST_SUITE_P(Devices, AttentionKernels, ::testing::ValuesIn(devices_here()), device_test_name);

struct Window {
  bool causal;
  int32_t left, right;
  bool sees(int64_t position, int64_t key) const {
    if (left >= 0 && key < position - left) return false;
    return causal ? key <= position : right < 0 || key <= position + right;
  }
};

// Packed sequences of the given lengths; rows of k and v behind the last sequence are NaN.
struct Packed {
  Packed(Context& context, cul_dtype type, std::vector<int64_t> queries, std::vector<int64_t> keys, int64_t Hq, int64_t Hkv, int64_t D,
         int64_t pad = 0)
      : queries(std::move(queries)), keys(std::move(keys)), Hq(Hq), Hkv(Hkv), D(D),
        Tq(std::accumulate(this->queries.begin(), this->queries.end(), int64_t{0})),
        Tk(std::accumulate(this->keys.begin(), this->keys.end(), int64_t{0})),
        q(context, type, {Tq, Hq, D}, [this](int64_t) { return normal(random); }, pad),
        k(context, type, {Tk + 3, Hkv, D}, [this](int64_t i) { return i < Tk * this->Hkv * this->D ? normal(random) : NAN; }, pad),
        v(context, type, {Tk + 3, Hkv, D}, [this](int64_t i) { return i < Tk * this->Hkv * this->D ? normal(random) : NAN; }, pad),
        cu_q(context, kI32, {static_cast<int64_t>(this->queries.size()) + 1}, [this](int64_t i) { return start(this->queries, i); }),
        cu_k(context, kI32, {static_cast<int64_t>(this->keys.size()) + 1}, [this](int64_t i) { return start(this->keys, i); }),
        o(context, type, {Tq, Hq, D}, nullptr, pad), lse(context, kF32, {Tq, Hq}) {}

  static double start(const std::vector<int64_t>& lengths, int64_t i) {
    return static_cast<double>(std::accumulate(lengths.begin(), lengths.begin() + i, int64_t{0}));
  }
  cul_attention_args args(const Window& window) {
    cul_attention_args a{};
    a.q = q;
    a.k = k;
    a.v = v;
    a.cu_q = cu_q;
    a.cu_k = cu_k;
    a.o = o;
    a.lse = lse;
    a.causal = window.causal;
    a.window_left = window.left;
    a.window_right = window.right;
    return a;
  }
  // f(row of o, query's head row of o and lse in double). round: what a plain implementation in this type would do to weights.
  void reference(const Window& window, std::vector<double>& ref, std::vector<double>& logs) {
    const auto qs = q.numbers(), ks = k.numbers(), vs = v.numbers();
    ref.assign(static_cast<size_t>(Tq * Hq * D), 0);
    logs.assign(static_cast<size_t>(Tq * Hq), 0);
    int64_t q0 = 0, k0 = 0;
    for (size_t b = 0; b < queries.size(); q0 += queries[b], k0 += keys[b], ++b)
      for (int64_t i = 0; i < queries[b]; ++i)
        for (int64_t h = 0; h < Hq; ++h) {
          const int64_t row = (q0 + i) * Hq + h, group = h / (Hq / Hkv), position = i + keys[b] - queries[b];
          const auto key = [&](int64_t j) { return static_cast<size_t>(((k0 + j) * Hkv + group) * D); };
          logs[static_cast<size_t>(row)] = attend(
              keys[b], D, [&](int64_t j) { return window.sees(position, j); },
              [&](int64_t j) {
                double sum = 0;
                for (int64_t d = 0; d < D; ++d) sum += qs[static_cast<size_t>(row * D + d)] * ks[key(j) + static_cast<size_t>(d)];
                return sum / std::sqrt(static_cast<double>(D));
              },
              [&](int64_t j, int64_t d) { return vs[key(j) + static_cast<size_t>(d)]; }, &ref[static_cast<size_t>(row * D)]);
        }
  }
  void expect(Context& context, const Window& window, double bound, double log_bound, uint32_t flags = 0) {
    cul_attention_args a = args(window);
    ASSERT_EQ(context.run(cul_attention, a, flags), CUL_OK) << cul_last_error();
    std::vector<double> ref, logs;
    reference(window, ref, logs);
    const auto out = o.numbers(), log = lse.numbers();
    double worst = 0;
    for (size_t i = 0; i < ref.size(); ++i) worst = std::max(worst, std::isnan(out[i]) ? kInfinite : std::abs(out[i] - ref[i]));
    EXPECT_LE(worst, bound) << "causal " << window.causal << ", left " << window.left << ", right " << window.right;
    for (size_t i = 0; i < logs.size(); ++i)
      ASSERT_TRUE(std::isinf(logs[i]) ? log[i] == logs[i] : std::abs(log[i] - logs[i]) <= log_bound) << log[i] << " for " << logs[i] << ", row " << i;
  }

  std::mt19937 random{7};
  std::normal_distribution<double> normal;
  std::vector<int64_t> queries, keys;
  int64_t Hq, Hkv, D, Tq, Tk;
  Field q, k, v, cu_q, cu_k, o, lse;
};

// Each length below 40 with the same number of keys, fewer and more.
TEST_P(AttentionKernels, windowsAtTheBordersOfEveryLength) {
  std::vector<int64_t> queries, keys;
  for (int64_t length = 0; length < 40; ++length) {
    queries.push_back(length);
    keys.push_back(std::max<int64_t>(length + length % 3 * 5 - 5, 0));
  }
  Context context(GetParam());
  Packed packed(context, kF16, queries, keys, 2, 1, 16);
  for (const Window& window : {Window{true, -1, -1}, Window{false, 3, 2}, Window{false, 0, 0}, Window{true, 7, -1}})
    packed.expect(context, window, 4e-3, 1e-3, CUL_OP_BATCH_INVARIANT);  // on 9.0: its own kernel, however few the queries
}

// The first row misses the last key of a step, the second does not.
TEST_P(AttentionKernels, aStepThatOneRowSeesNotWholly) {
  Context context(GetParam());
  for (const int64_t keys : {16, 32, 64, 128}) {
    Packed packed(context, kF16, {2}, {keys}, 2, 1, 16);
    for (const uint32_t flags : {0u, static_cast<uint32_t>(CUL_OP_BATCH_INVARIANT)}) packed.expect(context, {true, -1, -1}, 4e-3, 1e-3, flags);
  }
}

// Several tiles and key steps in both designs, channels that fill no class, rows that only an element aligns.
TEST_P(AttentionKernels, longSequencesOfAnyWidth) {
  Context context(GetParam());
  for (const int64_t D : {72, 128, 200})
    for (const int64_t pad : {0, 1}) {
      if (pad && D != 72) continue;
      Packed packed(context, kBf16, {150, 0, 33}, {290, 4, 33}, 3, 1, D, pad);
      packed.expect(context, {true, 170, -1}, 3e-2, 1e-3);
      if (D == 72) packed.expect(context, {false, -1, 20}, 3e-2, 1e-3);
    }
}

// The error is at most twice that of attention whose scores and weights are rounded to the type, plus the rounding of o.
TEST_P(AttentionKernels, errorStaysWithinTwiceThatOfPlainAttention) {
  Context context(GetParam());
  Packed packed(context, kBf16, {70}, {140}, 2, 2, 64);
  cul_attention_args a = packed.args({true, -1, -1});
  ASSERT_EQ(context.run(cul_attention, a), CUL_OK) << cul_last_error();
  std::vector<double> ref, logs;
  packed.reference({true, -1, -1}, ref, logs);
  const auto qs = packed.q.numbers(), ks = packed.k.numbers(), vs = packed.v.numbers(), out = packed.o.numbers();
  const auto rounded = [](double x) { return static_cast<double>(to_float(from_float<bfloat16_t>(static_cast<float>(x)))); };
  double error = 0, plain = 0, rounding = 0;
  for (int64_t i = 0; i < 70; ++i)
    for (int64_t h = 0; h < 2; ++h) {
      const int64_t row = i * 2 + h, keys = 71 + i;
      std::vector<double> weights(static_cast<size_t>(keys)), sums(64);
      double max = -kInfinite, sum = 0;
      for (int64_t j = 0; j < keys; ++j) {
        double s = 0;
        for (int64_t d = 0; d < 64; ++d) s += qs[static_cast<size_t>(row * 64 + d)] * ks[static_cast<size_t>((j * 2 + h) * 64 + d)];
        max = std::max(max, weights[static_cast<size_t>(j)] = rounded(s / 8));
      }
      for (double& w : weights) sum += w = std::exp(w - max);
      for (int64_t j = 0; j < keys; ++j)
        for (int64_t d = 0; d < 64; ++d)
          sums[static_cast<size_t>(d)] += rounded(weights[static_cast<size_t>(j)] / sum) * vs[static_cast<size_t>((j * 2 + h) * 64 + d)];
      for (int64_t d = 0; d < 64; ++d) {
        const auto at = static_cast<size_t>(row * 64 + d);
        error = std::max(error, std::abs(out[at] - ref[at]));
        plain = std::max(plain, std::abs(rounded(sums[static_cast<size_t>(d)]) - ref[at]));
        rounding = std::max(rounding, std::abs(rounded(ref[at]) - ref[at]));
      }
    }
  EXPECT_LE(error, 2 * plain + 2 * rounding);
}

// More rows than 65535, whatever dimension of a grid they might be in.
class AttentionGrids : public ::testing::TestWithParam<int32_t> {};
INSTANTIATE_TEST_SUITE_P(Backends, AttentionGrids, ::testing::ValuesIn(backends_here()), backend_test_name);

TEST_P(AttentionGrids, seventyThousandQueries) {
  Context context(GetParam());
  Packed packed(context, kF16, {70000}, {3}, 1, 1, 8);
  cul_attention_args a = packed.args({false, -1, -1});
  ASSERT_EQ(context.run(cul_attention, a), CUL_OK) << cul_last_error();
  std::vector<double> ref, logs;
  packed.reference({false, -1, -1}, ref, logs);
  const auto out = packed.o.numbers();
  for (size_t i = 0; i < ref.size(); ++i) ASSERT_NEAR(out[i], ref[i], 4e-3) << i;
}

// What no row sees may hold anything; a key's NaN stays with the rows that see it. (A value's does not: attention.h.)
TEST_P(AttentionKernels, keysThatNoRowSeesMayHoldAnything) {
  Context context(GetParam());
  for (const cul_dtype type : {kBf16, kF32})
    for (const auto& [queries, keys, left] : {std::tuple{70, 300, 40}, std::tuple{2, 1200, 500}}) {
      const int64_t first_seen = keys - queries - left, bad = keys - 1;  // the last row alone sees the last key
      Packed packed(context, type, {queries}, {keys}, 1, 1, 16);
      for (int64_t i = 0; i < first_seen * 16; ++i) {
        packed.k.set(i, NAN);
        packed.v.set(i, i % 2 ? INFINITY : NAN);
      }
      packed.k.set(bad * 16, NAN);
      packed.k.upload();
      packed.v.upload();
      cul_attention_args a = packed.args({true, left, -1});
      for (const uint32_t flags : {0u, static_cast<uint32_t>(CUL_OP_BATCH_INVARIANT)}) {
        ASSERT_EQ(context.run(cul_attention, a, flags), CUL_OK) << cul_last_error();
        const auto out = packed.o.numbers(), log = packed.lse.numbers();
        for (int64_t r = 0; r < queries; ++r)
          for (int64_t d = 0; d < 16; ++d)
            ASSERT_EQ(std::isfinite(out[static_cast<size_t>(r * 16 + d)]), r + 1 < queries) << "row " << r << ", " << context.plan;
        EXPECT_TRUE(std::isnan(log.back()));
      }
    }
}

TEST_P(AttentionKernels, twentyRunsHaveTheSameBits) {
  Context context(GetParam());
  Packed packed(context, kBf16, {20, 70}, {140, 70}, 2, 1, 64);
  cul_attention_args a = packed.args({true, -1, -1});
  std::vector<std::byte> first;
  for (int i = 0; i < 20; ++i) {
    ASSERT_EQ(context.run(cul_attention, a), CUL_OK) << cul_last_error();
    if (i == 0) first = packed.o.bytes();
    ASSERT_EQ(packed.o.bytes(), first) << i;
  }
}

// ---------------------------------------------------------------------------------------------- few queries, many keys

// Splits in each design: keys on the M side, rows there, FMAs. Sequences without queries, and with fewer keys than splits.
TEST_P(AttentionKernels, fewQueriesSplitTheirKeys) {
  Context context(GetParam());
  const auto expect = [&](Packed& packed, const char* design, const char* splits, double bound) {
    for (const Window& window : {Window{true, -1, -1}, Window{false, 300, 5}}) {
      packed.expect(context, window, bound, 1e-3);
      if (GetParam().backend == CUL_BACKEND_CPU) continue;  // it has no plan
      EXPECT_NE(context.plan.find(design), std::string::npos) << context.plan;
      EXPECT_NE(context.plan.find(splits), std::string::npos) << context.plan;
    }
  };
  Packed decode(context, kF16, {1, 0, 2}, {700, 5, 1100}, 4, 2, 24);
  expect(decode, "keys on the M side", "2 splits", 4e-3);
  Packed short_keys(context, kBf16, {1, 1}, {20, 1100}, 9, 1, 16);
  expect(short_keys, "keys on the M side", "2 splits", 3e-2);
  Packed wide(context, kBf16, {1}, {520}, 3, 1, 136);
  expect(wide, "keys on the M side", "2 splits", 3e-2);
  Packed rows(context, kBf16, {40}, {1300}, 2, 1, 24);
  expect(rows, "mma.sync and cp.async", "5 splits", 3e-2);
  Packed exact(context, kF32, {3}, {600}, 2, 2, 20);
  expect(exact, "FMAs", "2 splits", 1e-5);
}

// The sink enters the denominator once, however many splits there are; rows of no sequence keep what they held.
TEST_P(AttentionKernels, splitsShareOneSink) {
  Context context(GetParam());
  for (const cul_dtype type : {kF16, kF32})
    for (const int64_t Hq : {2, 34}) {  // few rows; a tile of them
      Packed packed(context, type, {1, 1}, {1100, 1000}, Hq, 1, 16);
      packed.cu_q.set(2, 1);
      packed.cu_q.upload();
      cul_attention_args a = packed.args({true, -1, -1});
      ASSERT_EQ(context.run(cul_attention, a), CUL_OK) << cul_last_error();
      EXPECT_EQ(context.plan.find("splits") == std::string::npos, GetParam().backend == CUL_BACKEND_CPU) << context.plan;
      const auto plain = packed.o.numbers(), log = packed.lse.numbers();
      packed.o.fill([](int64_t) { return 7; });
      packed.lse.fill([](int64_t) { return 7; });
      Field sink(context, kF32, {Hq}, [](int64_t h) { return h % 3 ? 7.5 : -2.0; });
      a.sink = sink;
      ASSERT_EQ(context.run(cul_attention, a), CUL_OK) << cul_last_error();
      const auto sunk = packed.o.numbers(), again = packed.lse.numbers();
      for (int64_t h = 0; h < Hq; ++h) {
        const double factor = 1 / (1 + std::exp(sink[h] - log[static_cast<size_t>(h)]));
        EXPECT_EQ(again[static_cast<size_t>(h)], log[static_cast<size_t>(h)]);
        for (int64_t d = 0; d < 16; ++d) {
          const auto at = static_cast<size_t>(h * 16 + d);
          EXPECT_NEAR(sunk[at], plain[at] * factor, 1e-3) << h;
        }
      }
      for (int64_t i = Hq * 16; i < 2 * Hq * 16; ++i) ASSERT_EQ(sunk[static_cast<size_t>(i)], 7) << i;
      for (int64_t i = Hq; i < 2 * Hq; ++i) ASSERT_EQ(again[static_cast<size_t>(i)], 7) << i;
    }
}

TEST(AttentionPlanTest, keysAreSplitWhereQueriesAreFew) {
  AttentionParams p;
  DeviceCaps caps;
  caps.compute_major = 9;
  caps.multiprocessors = 132;
  caps.l2_bytes = 50 << 20;
  p.dtype = p.cache_dtype = DType::bf16;
  p.sequences = 1, p.query_heads = 32, p.kv_heads = 8, p.dim = p.value_dim = 128, p.query_rows = 1, p.key_rows = 32768;
  p.aligned = true;
  const int32_t cu[2] = {0, 1};
  p.cu_q = p.cu_k = cu;
  p.q = {nullptr, 0, 32 * 128, 128};
  p.k = p.v = {nullptr, 0, 8 * 128, 128};
  std::string reason;
  AttentionPlan plan = plan_attention(p, caps, &reason);
  EXPECT_EQ(plan.design, AttentionDesign::few_rows) << reason;
  EXPECT_EQ(plan.tile_rows, 8);
  EXPECT_EQ(plan.splits, 49) << reason;  // 3 blocks a multiprocessor: 396 / 8
  EXPECT_EQ(plan.workspace_bytes, uint64_t{49 * 32 * 129 * 4});
  p.batch_invariant = true;
  plan = plan_attention(p, caps, &reason);
  EXPECT_FALSE(plan.partial) << reason;
  EXPECT_EQ(plan.design, AttentionDesign::hopper) << "whatever the batch is";
  p.batch_invariant = false;
  p.key_rows = 511;
  EXPECT_FALSE(plan_attention(p, caps, &reason).partial) << reason;
  p.key_rows = 512;
  EXPECT_EQ(plan_attention(p, caps, &reason).splits, 2) << reason;
  p.sequences = p.query_rows = 64, p.key_rows = 64 * 32768;
  EXPECT_FALSE(plan_attention(p, caps, &reason).partial) << "512 blocks fill the device";
  // Few blocks of queries: 2 x 32 x 2 <= 132 are, 2 x 32 x 3 are not, whatever the keys; without many keys neither.
  p.sequences = 1, p.query_rows = 256, p.key_rows = 32768;
  EXPECT_EQ(plan_attention(p, caps, &reason).design, AttentionDesign::tile) << reason;
  EXPECT_EQ(plan_attention(p, caps, &reason).splits, 2) << reason;  // 264 / (8 heads x 16 tiles)
  p.query_rows = 257;
  EXPECT_EQ(plan_attention(p, caps, &reason).design, AttentionDesign::hopper) << reason;
  p.query_rows = 256, p.key_rows = 1023;
  EXPECT_EQ(plan_attention(p, caps, &reason).design, AttentionDesign::hopper) << reason;
  // 16 rows a KV head, then 17; of 256 channels tiles of 8.
  p.query_rows = 4, p.key_rows = 8192;
  EXPECT_EQ(plan_attention(p, caps, &reason).tile_rows, 16) << reason;
  p.query_rows = 5;
  EXPECT_EQ(plan_attention(p, caps, &reason).design, AttentionDesign::tile) << reason;
  p.query_rows = 4, p.dim = p.value_dim = 192;
  EXPECT_EQ(plan_attention(p, caps, &reason).tile_rows, 8) << reason;
}

// ---------------------------------------------------------------------------------------------- pages

// Sequences on shuffled pages, the first page shared by all that have one; every other row of the cache is NaN.
struct Pages {
  Pages(Context& context, cul_dtype type, cul_dtype stored, std::vector<int64_t> lengths, int64_t Sq, int64_t Hq, int64_t Hkv, int64_t D,
        int64_t page, int64_t spare_columns = 1)
      : lengths(std::move(lengths)), Sq(Sq), Hq(Hq), Hkv(Hkv), D(D), page(page), B(static_cast<int64_t>(this->lengths.size())),
        columns(*std::max_element(this->lengths.begin(), this->lengths.end()) / page + 1 + spare_columns), count(1 + B * columns),
        q(context, type, {B, Sq, Hq, D}, [this](int64_t) { return normal(random); }),
        k(context, stored, {count, page, Hkv, D}, [](int64_t) { return NAN; }), v(context, stored, {count, page, Hkv, D}, [](int64_t) { return NAN; }),
        k_scale(context, kF32, {Hkv}, [](int64_t h) { return 0.7 + 0.1 * static_cast<double>(h); }),
        v_scale(context, kF32, {Hkv}, [](int64_t h) { return 1.3 - 0.1 * static_cast<double>(h); }),
        table(context, kI32, {B, columns}, [](int64_t) { return -1; }, 3),
        kv_len(context, kI32, {B}, [this](int64_t b) { return static_cast<double>(this->lengths[static_cast<size_t>(b)]); }),
        o(context, type, {B, Sq, Hq, D}), lse(context, kF32, {B, Sq, Hq}), f8(dtype_of(stored) == DType::f8e4m3) {
    std::vector<int64_t> free(static_cast<size_t>(count - 1));
    std::iota(free.begin(), free.end(), 1);
    std::shuffle(free.begin(), free.end(), random);
    std::vector<bool> written(static_cast<size_t>(count * page));
    for (int64_t b = 0; b < B; ++b)
      for (int64_t j = 0; j < this->lengths[static_cast<size_t>(b)]; ++j) {
        if (j % page == 0) {
          table.set(b * columns + j / page, j == 0 ? 0.0 : static_cast<double>(free.back()));
          if (j > 0) free.pop_back();
        }
        if (written[static_cast<size_t>(cell(b, j))]) continue;
        written[static_cast<size_t>(cell(b, j))] = true;
        for (int64_t i = 0; i < Hkv * D; ++i) {
          k.set(cell(b, j) * Hkv * D + i, normal(random));
          v.set(cell(b, j) * Hkv * D + i, normal(random));
        }
      }
    k.upload();
    v.upload();
    table.upload();
  }
  int64_t cell(int64_t b, int64_t j) const { return static_cast<int64_t>(table[b * columns + j / page]) * page + j % page; }
  cul_paged_attention_args args() {
    cul_paged_attention_args a{};
    a.q = q;
    a.k_cache = k;
    a.v_cache = v;
    if (f8) {
      a.k_scale = k_scale;
      a.v_scale = v_scale;
    }
    a.page_table = table;
    a.kv_len = kv_len;
    a.o = o;
    a.lse = lse;
    a.causal = 1;
    a.window_left = a.window_right = -1;
    return a;
  }
  void expect(Context& context, int32_t split, double bound) {
    cul_paged_attention_args a = args();
    a.split_kv_tokens = split;
    ASSERT_EQ(context.run(cul_paged_attention, a), CUL_OK) << cul_last_error();
    const auto qs = q.numbers(), ks = k.numbers(), vs = v.numbers(), out = o.numbers(), log = lse.numbers();
    std::vector<double> ref(static_cast<size_t>(D));
    for (int64_t b = 0; b < B; ++b)
      for (int64_t i = 0; i < Sq; ++i)
        for (int64_t h = 0; h < Hq; ++h) {
          const int64_t row = (b * Sq + i) * Hq + h, group = h / (Hq / Hkv), keys = lengths[static_cast<size_t>(b)];
          const auto at = [&](int64_t j) { return static_cast<size_t>((cell(b, j) * Hkv + group) * D); };
          const double expected = attend(
              keys, D, [&](int64_t j) { return j <= i + keys - Sq; },
              [&](int64_t j) {
                double sum = 0;
                for (int64_t d = 0; d < D; ++d) sum += qs[static_cast<size_t>(row * D + d)] * ks[at(j) + static_cast<size_t>(d)];
                return sum * (f8 ? k_scale[group] : 1) / std::sqrt(static_cast<double>(D));
              },
              [&](int64_t j, int64_t d) { return vs[at(j) + static_cast<size_t>(d)] * (f8 ? v_scale[group] : 1); }, ref.data());
          const double got = log[static_cast<size_t>(row)];
          ASSERT_TRUE(std::isinf(expected) ? got == expected : std::abs(got - expected) < 2e-3) << got << " for " << expected;
          for (int64_t d = 0; d < D; ++d) {
            const double x = out[static_cast<size_t>(row * D + d)];
            ASSERT_TRUE(std::abs(x - ref[static_cast<size_t>(d)]) <= bound) << x << " for " << ref[static_cast<size_t>(d)] << ", head " << h;
          }
        }
  }

  std::mt19937 random{11};
  std::normal_distribution<double> normal;
  std::vector<int64_t> lengths;
  int64_t Sq, Hq, Hkv, D, page, B, columns, count;
  Field q, k, v, k_scale, v_scale, table, kv_len, o, lse;
  bool f8;
};

TEST_P(AttentionKernels, groupsOfAnySize) {
  Context context(GetParam());
  for (int64_t group = 1; group <= 16; ++group) {
    SCOPED_TRACE(group);
    Pages pages(context, kF16, kF16, {0, 1, 41, 17}, group % 3 == 0 ? 2 : 1, group, 1, 24, 4);
    pages.expect(context, group % 2 ? 0 : 16, 4e-3);
  }
}

// Enough rows for the tile loop, two KV heads, every cache type, splits that leave some without keys.
TEST_P(AttentionKernels, manyRowsAndEveryCache) {
  Context context(GetParam());
  for (const cul_dtype type : {kF16, kBf16, kF32})
    for (const cul_dtype stored : {type, kF8}) {
      Pages pages(context, type, stored, {150, 3, 0}, 3, 12, 2, 40, 16);
      pages.expect(context, 64, dtype_of(type) == DType::f32 ? 1e-5 : 2e-2);
    }
  Pages wide(context, kBf16, kBf16, {40, 90}, 1, 4, 2, 136, 8);
  wide.expect(context, 0, 2e-2);
}

// With a fixed split, and with batch_invariant, a sequence's bits depend on nothing but itself: not on its batch, nor on the table's width.
TEST_P(AttentionKernels, sequencesKeepTheirBitsAlone) {
  Context context(GetParam());
  for (const int32_t split : {0, 64})
    for (const int64_t Hq : {2, 20}) {
      Pages all(context, kBf16, kBf16, {70, 300, 5}, 1, Hq, 1, 32, 16, 90);
      cul_paged_attention_args a = all.args();
      a.split_kv_tokens = split;
      const uint32_t flags = split ? 0 : static_cast<uint32_t>(CUL_OP_BATCH_INVARIANT);
      ASSERT_EQ(context.run(cul_paged_attention, a, flags), CUL_OK) << cul_last_error();
      const auto together = all.o.numbers();
      for (int64_t b = 0; b < 3; ++b) {
        const int64_t columns = all.lengths[static_cast<size_t>(b)] / 16 + 1, row = Hq * 32;
        Field q(context, kBf16, {1, 1, Hq, 32}, [&](int64_t i) { return all.q[b * row + i]; }), o(context, kBf16, {1, 1, Hq, 32});
        Field table(context, kI32, {1, columns}, [&](int64_t i) { return all.table[b * all.columns + i]; });
        Field length(context, kI32, {1}, [&](int64_t) { return static_cast<double>(all.lengths[static_cast<size_t>(b)]); });
        a.q = q;
        a.o = o;
        a.lse = nullptr;
        a.page_table = table;
        a.kv_len = length;
        ASSERT_EQ(context.run(cul_paged_attention, a, flags), CUL_OK) << cul_last_error();
        EXPECT_EQ(o.numbers(), std::vector<double>(together.begin() + b * row, together.begin() + (b + 1) * row)) << b;
      }
    }
}

// A batch whose slots are all empty is captured; what the lengths say at each launch counts.
TEST_P(AttentionKernels, zeroLengthRequestsInACapturedGraph) {
  Context context(GetParam());
  Pages pages(context, kBf16, kBf16, {300, 9, 0}, 1, 4, 2, 32, 16);
  cul_paged_attention_args a = pages.args();
  ASSERT_EQ(context.run(cul_paged_attention, a), CUL_OK) << cul_last_error();
  const auto expected = pages.o.bytes();
  for (int64_t b = 0; b < 3; ++b) pages.kv_len.set(b, 0);
  pages.kv_len.upload();

  a.call = {sizeof a, CUL_OP_PLAN_ONLY, nullptr, 0};
  ASSERT_EQ(cul_paged_attention(context.stream, &a), CUL_OK) << cul_last_error();
  const uint64_t bytes = cul_last_workspace_bytes();
  void* workspace = nullptr;
  if (bytes) {
    ASSERT_EQ(cul_memory_alloc(context.device, bytes, &workspace), CUL_OK);
  }
  a.call = {sizeof a, 0, workspace, bytes};
  cul_graph* graph = nullptr;
  ASSERT_EQ(cul_graph_begin_capture(context.stream), CUL_OK) << cul_last_error();
  ASSERT_EQ(cul_paged_attention(context.stream, &a), CUL_OK) << cul_last_error();
  ASSERT_EQ(cul_graph_end_capture(context.stream, &graph), CUL_OK) << cul_last_error();
  ASSERT_EQ(cul_graph_launch(graph, context.stream), CUL_OK) << cul_last_error();
  for (const double x : pages.o.numbers()) ASSERT_EQ(x, 0);
  for (const double x : pages.lse.numbers()) ASSERT_EQ(x, -kInfinite);
  for (int64_t b = 0; b < 3; ++b) pages.kv_len.set(b, static_cast<double>(pages.lengths[static_cast<size_t>(b)]));
  pages.kv_len.upload();
  ASSERT_EQ(cul_graph_launch(graph, context.stream), CUL_OK) << cul_last_error();
  EXPECT_EQ(pages.o.bytes(), expected);
  EXPECT_EQ(cul_stream_synchronize(context.stream), CUL_OK);
  EXPECT_EQ(cul_graph_destroy(graph), CUL_OK);
  if (workspace) {
    EXPECT_EQ(cul_memory_free(context.device, workspace), CUL_OK);
  }
}

// A page of -1 below kv_len is the caller's mistake: the cpu reports it, kernels do when they validate, and otherwise take its keys and values
// for zeros. What lies before the pool is not zero.
TEST_P(AttentionKernels, aMissingPageIsNeverFollowed) {
  Context context(GetParam());
  for (const cul_dtype type : {kF16, kF32})
    for (const int64_t Hq : {2, 20}) {  // few rows; a tile of them
      Pages pages(context, type, type, {40, 300}, 1, Hq, 1, 16, 4);
      const int64_t entry = pages.columns + 30, zeros = pages.count - 1;  // a page that no sequence has
      const auto run = [&](int64_t page) {
        pages.table.set(entry, static_cast<double>(page));
        pages.table.upload();
        cul_paged_attention_args a = pages.args();
        // The pool without its first page: what page -1 would be is there, and large.
        cul_tensor caches[2] = {*a.k_cache, *a.v_cache};
        int64_t shape[4] = {pages.count - 1, 4, 1, 16};
        for (cul_tensor& cache : caches) {
          cache.shape = shape;
          cache.byte_offset += static_cast<uint64_t>(cache.strides[0]) * cache.dtype.bits / 8;
        }
        a.k_cache = &caches[0];
        a.v_cache = &caches[1];
        return context.run(cul_paged_attention, a);
      };
      for (int64_t i = 0; i < 4 * 16; ++i)
        for (Field* cache : {&pages.k, &pages.v}) {
          cache->set(i, 9);
          cache->set(zeros * 4 * 16 + i, 0);
        }
      for (int64_t b = 0; b < pages.B; ++b)
        for (int64_t j = 0; j * 4 < pages.lengths[static_cast<size_t>(b)]; ++j) pages.table.set(b * pages.columns + j, static_cast<double>(j % 3));
      for (int64_t i = 4 * 16; i < 4 * 4 * 16; ++i) {
        pages.k.set(i, pages.normal(pages.random));
        pages.v.set(i, pages.normal(pages.random));
      }
      pages.k.upload();
      pages.v.upload();
      ASSERT_EQ(run(zeros - 1), CUL_OK) << cul_last_error();
      const auto expected = pages.o.numbers();
      if (GetParam().backend == CUL_BACKEND_CPU) {
        EXPECT_EQ(run(-1), CUL_DEVICE_ERROR);
        return;
      }
      ASSERT_EQ(run(-1), CUL_OK) << cul_last_error();
      EXPECT_EQ(pages.o.numbers(), expected) << context.plan;
    }
}

TEST_P(AttentionKernels, indicesThatLeadOutsideFailUnderTheValidator) {
  const auto failure = [&](const std::function<void(Pages&)>& change) {
    Context context(GetParam());
    Pages pages(context, kF16, kF16, {20, 9}, 1, 2, 1, 16, 4);
    change(pages);
    pages.table.upload();
    pages.kv_len.upload();
    cul_paged_attention_args a = pages.args();
    return context.run(cul_paged_attention, a, CUL_OP_VALIDATE);
  };
  EXPECT_EQ(failure([](Pages&) {}), CUL_OK) << cul_last_error();
  EXPECT_EQ(failure([](Pages& p) { p.table.set(1, 1000); }), CUL_DEVICE_ERROR);
  EXPECT_EQ(failure([](Pages& p) { p.table.set(1, -1); }), CUL_DEVICE_ERROR);
  EXPECT_EQ(failure([](Pages& p) { p.kv_len.set(0, 1000); }), CUL_DEVICE_ERROR);
}

// The others' index tensors, each with one entry that leads outside; and none.
TEST_P(AttentionKernels, validationLooksAtEveryIndexTensor) {
  for (const std::string bad : {"", "cu_q", "cu_k", "slot", "page_table", "kv_len", "indices", "topk_len"}) {
    SCOPED_TRACE(bad);
    const auto good = [](int64_t) { return 0.0; };
    if (bad == "" || bad[0] == 'c') {
      Context context(GetParam());
      Packed packed(context, kF16, {3, 5}, {4, 9}, 2, 1, 16);
      if (bad == "cu_q") packed.cu_q.set(1, 9);
      if (bad == "cu_k") packed.cu_k.set(2, 17);  // of 16 rows
      packed.cu_q.upload();
      packed.cu_k.upload();
      cul_attention_args a = packed.args({true, -1, -1});
      EXPECT_EQ(context.run(cul_attention, a, CUL_OP_VALIDATE), bad.empty() ? CUL_OK : CUL_DEVICE_ERROR) << cul_last_error();
    }
    if (bad == "" || bad == "slot")
      for (const double slot : {-2.0, 8.0}) {
        Context context(GetParam());
        Field k(context, kF16, {3, 1, 16}, good), k_cache(context, kF16, {2, 4, 1, 16}, good), v_cache(context, kF16, {2, 4, 1, 16}, good);
        Field slots(context, kI64, {3}, [&](int64_t t) { return t < 2 ? 7.0 - 8 * static_cast<double>(t) : bad.empty() ? 0.0 : slot; });
        cul_paged_append_args a{};
        a.k = a.v = k, a.slot = slots, a.k_cache = k_cache, a.v_cache = v_cache;
        EXPECT_EQ(context.run(cul_paged_append, a, CUL_OP_VALIDATE), bad.empty() ? CUL_OK : CUL_DEVICE_ERROR) << cul_last_error();
      }
    for (const bool listed : {false, true}) {
      if (!bad.empty() && (listed ? bad != "indices" && bad != "topk_len" : bad != "page_table" && bad != "kv_len")) continue;
      Context context(GetParam());
      Field q(context, kF16, {2, 1, 1, 576}, good), cache(context, kF16, {2, 4, 576}, good), o(context, kF16, {2, 1, 1, 512});
      Field table(context, kI32, {2, 2}, [&](int64_t i) { return i == 2 ? (bad == "page_table" ? 2.0 : 1.0) : -1.0 + (i == 0); });
      Field length(context, kI32, {2}, [&](int64_t b) { return b == 0 ? 3.0 : bad == "kv_len" ? 9.0 : 4.0; });
      Field indices(context, kI32, {2, 1, 3}, [&](int64_t i) { return i == 4 ? (bad == "indices" ? 8.0 : 7.0) : i == 5 ? 99.0 : -1.0; });
      Field entries(context, kI32, {2, 1}, [&](int64_t b) { return b == 0 ? 3.0 : bad == "topk_len" ? 4.0 : 2.0; });  // entry 99 is not looked at
      cul_mla_attention_args a{};
      a.q = q, a.cache = cache, a.o = o, a.dv = 512;
      if (listed)
        a.indices = indices, a.topk_len = entries;
      else
        a.page_table = table, a.kv_len = length;
      EXPECT_EQ(context.run(cul_mla_attention, a, CUL_OP_VALIDATE), bad.empty() ? CUL_OK : CUL_DEVICE_ERROR) << cul_last_error();
    }
  }
}

}  // namespace
}  // namespace culebra
