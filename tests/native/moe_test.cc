// moe_route and moe_mlp on the cpu against sums in double.
#include "culebra/moe.h"

#include <algorithm>
#include <numeric>

#include "abi/call.h"
#include "backends/backend.h"
#include "backends/cpu/thread_pool.h"
#include "cpu_op_harness.h"
#include "ops/moe/moe_mlp.h"

namespace culebra {
namespace {

using testing::Array;
using testing::Cpu;
using testing::Random;
using testing::rms_ratio;
using testing::tolerance;
using testing::values;

// ---------------------------------------------------------------------------------------------- moe_route

struct Routing {
  std::vector<double> weights;
  std::vector<int64_t> ids;
};

// A row of the contract, by sorting.
Routing route_reference(const Array& logits, int64_t token, const Array* bias, const cul_moe_route_args& a) {
  const int64_t E = logits.dim(1), size = E / a.n_group;
  std::vector<double> score(static_cast<size_t>(E)), key;
  double max = -INFINITY, sum = 0;
  for (int64_t e = 0; e < E; ++e) max = std::max(max, logits[token * E + e]);
  for (int64_t e = 0; e < E; ++e) sum += std::exp(logits[token * E + e] - max);
  for (int64_t e = 0; e < E; ++e) {
    const double x = logits[token * E + e];
    const double s = a.score == CUL_SCORE_SIGMOID ? 1 / (1 + std::exp(-x)) : std::exp(x - max) / sum;
    score[static_cast<size_t>(e)] = std::isfinite(s) ? s : 0;
  }
  key = score;
  for (int64_t e = 0; bias && e < E; ++e) key[static_cast<size_t>(e)] += (*bias)[e];
  auto best_of = [](const std::vector<double>& keys, std::vector<int64_t> candidates, int64_t n) {
    std::stable_sort(candidates.begin(), candidates.end(),
                     [&](int64_t x, int64_t y) { return keys[static_cast<size_t>(x)] > keys[static_cast<size_t>(y)]; });
    candidates.resize(static_cast<size_t>(n));
    return candidates;
  };
  std::vector<double> group_key;
  for (int64_t g = 0; g < a.n_group; ++g) {
    std::vector<double> keys(key.begin() + g * size, key.begin() + (g + 1) * size);
    std::sort(keys.rbegin(), keys.rend());
    group_key.push_back(bias && size > 1 ? keys[0] + keys[1] : keys[0]);
  }
  std::vector<int64_t> groups(static_cast<size_t>(a.n_group)), candidates;
  std::iota(groups.begin(), groups.end(), 0);
  groups = best_of(group_key, groups, a.topk_group);
  std::sort(groups.begin(), groups.end());
  for (int64_t g : groups)
    for (int64_t e = g * size; e < (g + 1) * size; ++e) candidates.push_back(e);
  Routing r;
  r.ids = best_of(key, candidates, a.k);
  double selected = 1e-20;
  for (int64_t id : r.ids) selected += score[static_cast<size_t>(id)];
  for (int64_t id : r.ids)
    r.weights.push_back(score[static_cast<size_t>(id)] / (a.renormalize ? selected : 1) * static_cast<double>(a.scale));
  for (int64_t j = 0; j < a.n_shared; ++j) {
    r.ids.push_back(E + j);
    r.weights.push_back(1);
  }
  return r;
}

TEST(MoeRoute, selectsByScoreAndBiasWithinGroups) {
  testing::on_every_target([] {
    Random r(1);
    Cpu cpu;
    for (DType type : {DType::f32, DType::f16, DType::bf16})
      for (int variant = 0; variant < 16; ++variant) {
        SCOPED_TRACE(variant);
        const int64_t E = 48, T = 33;
        const bool biased = variant & 4;
        Array logits(type, {T, E}, r.normal(2), 16);
        for (int64_t e = 0; e < E; ++e) logits.set(e, 0.25);               // all equal
        logits.set(E + 3, NAN);                                            // NaN
        logits.set(2 * E + 7, INFINITY);                                   // infinite
        for (int64_t e = 0; e < E; ++e) logits.set(3 * E + e, -INFINITY);  // nothing
        const Array bias(DType::f32, {E}, r.normal(0.1));
        cul_moe_route_args args{};
        args.k = 6;
        args.score = variant & 1;
        args.n_group = variant & 2 ? 8 : 1;
        args.topk_group = variant & 2 ? 3 : 1;
        args.renormalize = variant & 8 ? 1 : 0;
        args.n_shared = variant & 8 ? 2 : 0;
        args.scale = 2.5f;
        const int64_t columns = args.k + args.n_shared;
        Array weights(DType::f32, {T, columns}, 3), ids(DType::i32, {T, columns}, 5);
        args.logits = logits;
        if (biased) args.bias = bias;
        args.weights = weights;
        args.ids = ids;
        ASSERT_EQ(cpu(cul_moe_route, args), CUL_OK) << cul_last_error();
        for (int64_t t = 0; t < T; ++t) {
          const Routing ref = route_reference(logits, t, biased ? &bias : nullptr, args);
          for (int64_t j = 0; j < columns; ++j) {
            EXPECT_EQ(ids[t * columns + j], static_cast<double>(ref.ids[static_cast<size_t>(j)])) << t << ' ' << j;
            EXPECT_NEAR(weights[t * columns + j], ref.weights[static_cast<size_t>(j)],
                        1e-6 * ref.weights[static_cast<size_t>(j)]);
          }
        }
        EXPECT_TRUE(weights.guards_untouched() && ids.guards_untouched());
      }
  });
}

TEST(MoeRoute, maskedExpertsComeLastAndOnce) {
  Cpu cpu;
  const Array logits(DType::f32, {1, 6}, values({5, 1, 2, 3, 4, 0}));
  const Array bias(DType::f32, {6}, values({-INFINITY, 0, NAN, 0, -INFINITY, 0}));
  Array weights(DType::f32, {1, 6}), ids(DType::i32, {1, 6});
  cul_moe_route_args args{};
  args.logits = logits;
  args.bias = bias;
  args.weights = weights;
  args.ids = ids;
  args.k = 6;
  args.n_group = args.topk_group = 1;
  args.scale = 1;
  ASSERT_EQ(cpu(cul_moe_route, args), CUL_OK) << cul_last_error();
  const std::vector<double> expected = {3, 1, 5, 0, 4, 2};
  for (int64_t j = 0; j < 6; ++j) EXPECT_EQ(ids[j], expected[static_cast<size_t>(j)]);
}

TEST(MoeRoute, refusals) {
  Random r(2);
  Cpu cpu;
  using Args = cul_moe_route_args;
  const Array logits(DType::f32, {3, 8}, r.normal()), bias(DType::f32, {8}, r.normal());
  Array weights(DType::f32, {3, 2}), ids(DType::i32, {3, 2});
  auto status = [&](auto&& change) {
    Args args{};
    args.logits = logits;
    args.bias = bias;
    args.weights = weights;
    args.ids = ids;
    args.k = 2;
    args.n_group = args.topk_group = 1;
    args.scale = 1;
    change(args);
    return cpu(cul_moe_route, args);
  };
  auto with = [&](const cul_tensor* Args::* field, DType type, std::vector<int64_t> shape) {
    const Array replacement(type, shape);
    return status([&](Args& a) { a.*field = replacement; });
  };
  EXPECT_EQ(status([](Args&) {}), CUL_OK);
  for (auto field : {&Args::logits, &Args::weights, &Args::ids})
    EXPECT_EQ(status([&](Args& a) { a.*field = nullptr; }), CUL_NULL_POINTER);
  EXPECT_EQ(with(&Args::bias, DType::f32, {7}), CUL_SHAPE);
  EXPECT_EQ(with(&Args::bias, DType::f16, {8}), CUL_DTYPE);
  EXPECT_EQ(with(&Args::logits, DType::i32, {3, 8}), CUL_DTYPE);
  EXPECT_EQ(with(&Args::logits, DType::f32, {24}), CUL_SHAPE);
  EXPECT_EQ(with(&Args::weights, DType::f32, {3, 3}), CUL_SHAPE);
  EXPECT_EQ(with(&Args::ids, DType::i64, {3, 2}), CUL_DTYPE);
  EXPECT_EQ(status([](Args& a) { a.k = 9; }), CUL_RANGE);
  EXPECT_EQ(status([](Args& a) { a.k = 0; }), CUL_RANGE);
  EXPECT_EQ(status([](Args& a) { a.n_group = 3; }), CUL_RANGE);
  EXPECT_EQ(status([](Args& a) { a.topk_group = 2; }), CUL_RANGE);
  EXPECT_EQ(status([](Args& a) { a.n_group = 8; }), CUL_RANGE) << "one group of one expert for k = 2";
  EXPECT_EQ(status([](Args& a) { a.score = 2; }), CUL_RANGE);
  EXPECT_EQ(status([](Args& a) { a.n_shared = -1; }), CUL_RANGE);
  EXPECT_EQ(status([](Args& a) { a.scale = NAN; }), CUL_RANGE);
  const Array many(DType::f32, {1, 2049}, [](int64_t) { return 0.0; });
  EXPECT_EQ(status([&](Args& a) {
              a.logits = many;
              a.bias = nullptr;
            }),
            CUL_UNSUPPORTED);
}

// ---------------------------------------------------------------------------------------------- moe_mlp

constexpr int32_t kGroup = 32;

// One set of experts [E,N,K] in one storage, and what its numbers are.
struct Experts {
  int64_t E, N, K;
  std::vector<Array> data, scales, zeros;
  std::vector<double> numbers;

  Experts(Random& r, DType half, int32_t storage, bool zero_points, int64_t E, int64_t N, int64_t K)
      : E(E), N(N), K(K) {
    const double size = 1 / std::sqrt(static_cast<double>(K));
    const int64_t groups = (K + kGroup - 1) / kGroup;
    if (storage == CUL_EXPERTS_HALF) {
      data.emplace_back(half, std::vector<int64_t>{E, N, K}, r.normal(size), 8);
    } else if (storage == CUL_EXPERTS_F8) {
      data.emplace_back(DType::f8e4m3, std::vector<int64_t>{E, N, K}, r.normal(100), 16);
      scales.emplace_back(DType::f32, std::vector<int64_t>{E, (N + 127) / 128, (K + 127) / 128},
                          r.uniform(size / 200, size / 50), 4);
    } else {
      data.emplace_back(DType::u8, std::vector<int64_t>{E, N, K / 2}, r.uniform(0, 256), 16);
      // Of the other half type than x: a checkpoint's scales may be.
      scales.emplace_back(half == DType::f16 ? DType::bf16 : DType::f16, std::vector<int64_t>{E, N, groups},
                          r.uniform(size / 10, size / 2), 8);
      if (zero_points) zeros.emplace_back(DType::u8, std::vector<int64_t>{E, N / 2, groups}, r.uniform(0, 256), 3);
    }
    for (int64_t i = 0; i < E * N * K; ++i) {
      const int64_t e = i / K / N, n = i / K % N, k = i % K;
      if (storage == CUL_EXPERTS_HALF) {
        numbers.push_back(data[0][i]);
      } else if (storage == CUL_EXPERTS_F8) {
        numbers.push_back(data[0][i] * scales[0][(e * ((N + 127) / 128) + n / 128) * ((K + 127) / 128) + k / 128]);
      } else {
        const int zero =
            zeros.empty() ? 8
                          : static_cast<int>(zeros[0][(e * (N / 2) + n / 2) * groups + k / kGroup]) >> (n % 2 * 4) & 15;
        const int q = static_cast<int>(data[0][(e * N + n) * (K / 2) + k / 2]) >> (k % 2 * 4) & 15;
        numbers.push_back((q - zero) * scales[0][(e * N + n) * groups + k / kGroup]);
      }
    }
  }
  const double* row(int64_t e, int64_t n) const { return &numbers[static_cast<size_t>((e * N + n) * K)]; }
};

struct Mlp {
  int64_t T, k, E, D, I;
  DType type;
  int32_t storage, act;
  Experts w13, w2;
  Array x, b13, b2, weights, ids, y;

  Mlp(Random& r, DType type, int32_t storage, int32_t act, bool zero_points, int64_t T, int64_t k, int64_t E, int64_t D,
      int64_t I)
      : T(T),
        k(k),
        E(E),
        D(D),
        I(I),
        type(type),
        storage(storage),
        act(act),
        w13(r, type, storage, zero_points, E, 2 * I, D),
        w2(r, type, storage, zero_points, E, D, I),
        x(type, {T, D}, r.normal(2), 8),
        b13(type, {E, 2 * I}, r.normal(), 8),
        b2(type, {E, D}, r.normal(), 8),
        weights(DType::f32, {T, k}, r.uniform(0, 1), 1),
        // -1 and E are skipped; an expert may occur twice.
        ids(
            DType::i32, {T, k}, [&r, E](int64_t) { return static_cast<double>(r.below(E + 2) - 1); }, 1),
        y(type, {T, D}, 8) {}

  cul_moe_mlp_args args() const {
    cul_moe_mlp_args a{};
    a.x = x;
    a.w13 = w13.data[0];
    a.w2 = w2.data[0];
    if (!w13.scales.empty()) {
      a.w13_scales = w13.scales[0];
      a.w2_scales = w2.scales[0];
    }
    if (!w13.zeros.empty()) {
      a.w13_zeros = w13.zeros[0];
      a.w2_zeros = w2.zeros[0];
    }
    a.b13 = b13;
    a.b2 = b2;
    a.weights = weights;
    a.ids = ids;
    a.y = y;
    a.experts = storage;
    a.group = kGroup;
    a.act = act;
    a.alpha = 1.7f;
    a.limit = 2;
    return a;
  }
  double activate(double gate, double up) const {
    if (act == CUL_MOE_ACT_GELU) return 0.5 * gate * (1 + std::erf(gate / std::sqrt(2.0))) * up;
    if (act == CUL_MOE_ACT_SILU) return gate / (1 + std::exp(-gate)) * up;
    gate = std::min(gate, 2.0);
    up = std::clamp(up, -2.0, 2.0);
    return (up + 1) * gate / (1 + std::exp(-static_cast<double>(1.7f) * gate));
  }
  std::vector<double> reference() const {
    const auto xs = x.numbers();
    std::vector<double> ref(static_cast<size_t>(T * D), 0.0), hidden(static_cast<size_t>(I));
    for (int64_t slot = 0; slot < T * k; ++slot) {
      const auto e = static_cast<int64_t>(ids[slot]);
      if (e < 0 || e >= E) continue;
      auto product = [&](const double* row, int64_t n, auto&& input) {
        double sum = 0;
        for (int64_t i = 0; i < n; ++i) sum += row[i] * input(i);
        return sum;
      };
      auto token = [&](int64_t i) { return xs[static_cast<size_t>(slot / k * D + i)]; };
      for (int64_t i = 0; i < I; ++i)
        hidden[static_cast<size_t>(i)] = activate(product(w13.row(e, i), D, token) + b13[e * 2 * I + i],
                                                  product(w13.row(e, I + i), D, token) + b13[e * 2 * I + I + i]);
      for (int64_t d = 0; d < D; ++d)
        ref[static_cast<size_t>(slot / k * D + d)] +=
            weights[slot] *
            (product(w2.row(e, d), I, [&](int64_t i) { return hidden[static_cast<size_t>(i)]; }) + b2[e * D + d]);
    }
    return ref;
  }
};

TEST(MoeMlp, computesEveryStorageAndActivation) {
  testing::on_every_target([] {
    Random r(3);
    Cpu cpu;
    for (DType type : {DType::f16, DType::bf16})
      for (int32_t storage : {CUL_EXPERTS_HALF, CUL_EXPERTS_F8, CUL_EXPERTS_INT4})
        for (int32_t act : {CUL_MOE_ACT_SILU, CUL_MOE_ACT_GELU, CUL_MOE_ACT_SWIGLU_OAI})
          for (int64_t T : {1, 23}) {
            SCOPED_TRACE(storage * 10 + act);
            // No dimension is a multiple of a vector or of a block; the last group is partial.
            Mlp m(r, type, storage, act, act != CUL_MOE_ACT_GELU, T, 3, 5, 150, 70);
            ASSERT_EQ(cpu(cul_moe_mlp, m.args()), CUL_OK) << cul_last_error();
            EXPECT_LE(rms_ratio(m.y, m.reference()), tolerance(type));
            EXPECT_TRUE(m.y.guards_untouched());
          }
  });
}

// Widths of whole vectors: few tokens meet stored rows in registers, more of them rows that wait as f32, to the same bits.
TEST(MoeMlp, fewTokensMeetStoredRows) {
  testing::on_every_target([] {
    Random r(5);
    Cpu cpu;
    for (int32_t storage : {CUL_EXPERTS_F8, CUL_EXPERTS_INT4}) {
      SCOPED_TRACE(storage);
      Mlp m(r, DType::bf16, storage, CUL_MOE_ACT_SILU, true, 11, 1, 1, 160, 96);
      for (int64_t t = 0; t < 11; ++t) m.ids.set(t, 0);
      ASSERT_EQ(cpu(cul_moe_mlp, m.args()), CUL_OK) << cul_last_error();
      EXPECT_LE(rms_ratio(m.y, m.reference()), tolerance(DType::bf16));
      for (int64_t T = 1; T <= 5; ++T) {
        Mlp few(r, DType::bf16, storage, CUL_MOE_ACT_SILU, true, T, 1, 1, 160, 96);
        cul_moe_mlp_args args = m.args();
        for (int64_t i = 0; i < T * 160; ++i) few.x.set(i, m.x[i]);
        for (int64_t t = 0; t < T; ++t) {
          few.ids.set(t, 0);
          few.weights.set(t, m.weights[t]);
        }
        args.x = few.x, args.ids = few.ids, args.weights = few.weights, args.y = few.y;
        ASSERT_EQ(cpu(cul_moe_mlp, args), CUL_OK) << cul_last_error();
        EXPECT_EQ(few.y.bits(), m.y.bits(0, T * 160)) << T;
      }
      if (storage != CUL_EXPERTS_F8) continue;
      m.w2.data[0].set(7 * 96 + 50, NAN);  // of output 7 alone
      ASSERT_EQ(cpu(cul_moe_mlp, m.args()), CUL_OK) << cul_last_error();
      Mlp one(r, DType::bf16, storage, CUL_MOE_ACT_SILU, true, 1, 1, 1, 160, 96);
      one.ids.set(0, 0);
      cul_moe_mlp_args args = m.args();
      args.x = one.x, args.ids = one.ids, args.weights = one.weights, args.y = one.y;
      ASSERT_EQ(cpu(cul_moe_mlp, args), CUL_OK) << cul_last_error();
      for (int64_t d = 0; d < 160; ++d) EXPECT_EQ(std::isnan(one.y[d]), d == 7) << d;
    }
  });
}

TEST(MoeMlp, bitsDependOnNeitherThreadsNorNeighboursNorChunks) {
  Random r(4);
  Cpu one(1), many(4);
  Mlp m(r, DType::bf16, CUL_EXPERTS_INT4, CUL_MOE_ACT_SILU, true, 41, 2, 3, 96, 64);
  ASSERT_EQ(one(cul_moe_mlp, m.args()), CUL_OK) << cul_last_error();
  const auto bits = m.y.bits();
  ASSERT_EQ(many(cul_moe_mlp, m.args()), CUL_OK) << cul_last_error();
  EXPECT_EQ(m.y.bits(), bits);

  // The plan as it is, but with chunks of 7 tokens.
  DeviceCaps caps;
  caps.id = {CUL_DEVICE_CPU, 0};
  const cul_op_call plan_only{sizeof(cul_moe_mlp_args), CUL_OP_PLAN_ONLY, nullptr, 0};
  MoeMlpParams p = check_moe_mlp(Call("moe_mlp", caps, plan_only), m.args());
  EXPECT_EQ(p.chunk, 41);
  p.chunk = 7;
  auto workspace = hwy::AllocateAligned<uint8_t>(p.workspace_bytes());
  std::memset(workspace.get(), 0xff, p.workspace_bytes());
  p.workspace = workspace.get();
  for (int64_t i = 0; i < m.y.size(); ++i) m.y.set(i, NAN);
  ThreadPool pool(2);
  cpu::moe_mlp(p, pool);
  EXPECT_EQ(m.y.bits(), bits);

  Mlp alone(r, DType::bf16, CUL_EXPERTS_HALF, CUL_MOE_ACT_SILU, false, 1, 2, 3, 96, 64);
  cul_moe_mlp_args args = m.args();
  for (int64_t i = 0; i < 96; ++i) alone.x.set(i, m.x[29 * 96 + i]);
  for (int64_t j = 0; j < 2; ++j) {
    alone.ids.set(j, m.ids[29 * 2 + j]);
    alone.weights.set(j, m.weights[29 * 2 + j]);
  }
  args.x = alone.x;
  args.ids = alone.ids;
  args.weights = alone.weights;
  args.y = alone.y;
  ASSERT_EQ(many(cul_moe_mlp, args), CUL_OK) << cul_last_error();
  EXPECT_EQ(alone.y.bits(), m.y.bits(29 * 96, 30 * 96));
}

TEST(MoeMlp, idsAreCheckedWhenAsked) {
  Random r(5);
  Cpu cpu;
  Mlp m(r, DType::f16, CUL_EXPERTS_HALF, CUL_MOE_ACT_SILU, false, 2, 2, 3, 16, 16);
  for (int64_t j = 0; j < 4; ++j) m.ids.set(j, -1);
  cul_moe_mlp_args args = m.args();
  args.call.flags = CUL_OP_VALIDATE;
  EXPECT_EQ(cpu(cul_moe_mlp, args), CUL_OK) << cul_last_error();
  for (int64_t i = 0; i < m.y.size(); ++i) EXPECT_EQ(m.y[i], 0);
  m.ids.set(3, 3);
  EXPECT_EQ(cpu(cul_moe_mlp, args), CUL_DEVICE_ERROR);
  EXPECT_NE(std::string(cul_last_error()).find("ids[1, 1] = 3"), std::string::npos);
}

TEST(MoeMlp, refusals) {
  Random r(6);
  Cpu cpu;
  using Args = cul_moe_mlp_args;
  Mlp half(r, DType::bf16, CUL_EXPERTS_HALF, CUL_MOE_ACT_SILU, false, 3, 2, 4, 64, 32);
  Mlp f8(r, DType::bf16, CUL_EXPERTS_F8, CUL_MOE_ACT_SILU, false, 3, 2, 4, 64, 32);
  Mlp int4(r, DType::bf16, CUL_EXPERTS_INT4, CUL_MOE_ACT_SILU, true, 3, 2, 4, 64, 32);
  auto status = [&](Mlp& m, auto&& change) {
    Args args = m.args();
    change(args);
    return cpu(cul_moe_mlp, args);
  };
  auto with = [&](Mlp& m, const cul_tensor* Args::* field, DType type, std::vector<int64_t> shape) {
    const Array replacement(type, shape);
    return status(m, [&](Args& a) { a.*field = replacement; });
  };
  for (Mlp* m : {&half, &f8, &int4}) EXPECT_EQ(status(*m, [](Args&) {}), CUL_OK) << cul_last_error();
  for (auto field :
       {&Args::x, &Args::w13, &Args::w2, &Args::weights, &Args::ids, &Args::y, &Args::w13_scales, &Args::w2_scales})
    for (Mlp* m : {&f8, &int4}) EXPECT_EQ(status(*m, [&](Args& a) { a.*field = nullptr; }), CUL_NULL_POINTER);
  EXPECT_EQ(with(half, &Args::w2, DType::bf16, {4, 64, 16}), CUL_SHAPE);
  EXPECT_EQ(with(half, &Args::w2, DType::bf16, {3, 64, 32}), CUL_SHAPE);
  EXPECT_EQ(with(half, &Args::w13, DType::bf16, {4, 63, 64}), CUL_SHAPE);
  EXPECT_EQ(with(half, &Args::w13, DType::bf16, {4, 64, 32}), CUL_SHAPE);
  EXPECT_EQ(with(half, &Args::w13, DType::f16, {4, 64, 64}), CUL_DTYPE);
  EXPECT_EQ(with(half, &Args::x, DType::f32, {3, 64}), CUL_DTYPE);
  EXPECT_EQ(with(half, &Args::ids, DType::i64, {3, 2}), CUL_DTYPE);
  EXPECT_EQ(with(half, &Args::ids, DType::i32, {2, 2}), CUL_SHAPE);
  EXPECT_EQ(with(half, &Args::weights, DType::f32, {3, 3}), CUL_SHAPE);
  EXPECT_EQ(with(half, &Args::weights, DType::bf16, {3, 2}), CUL_DTYPE);
  EXPECT_EQ(with(half, &Args::b13, DType::bf16, {4, 32}), CUL_SHAPE);
  EXPECT_EQ(with(half, &Args::b2, DType::f32, {4, 64}), CUL_DTYPE);
  EXPECT_EQ(with(half, &Args::w13_scales, DType::f32, {4, 1, 1}), CUL_UNSUPPORTED);
  EXPECT_EQ(with(f8, &Args::w2_scales, DType::f32, {4, 2, 1}), CUL_SHAPE);
  EXPECT_EQ(with(f8, &Args::w13_scales, DType::bf16, {4, 1, 1}), CUL_DTYPE);
  EXPECT_EQ(with(f8, &Args::w13_zeros, DType::u8, {4, 32, 2}), CUL_UNSUPPORTED);
  EXPECT_EQ(with(int4, &Args::w13, DType::i8, {4, 64, 32}), CUL_DTYPE);
  EXPECT_EQ(with(int4, &Args::w13_scales, DType::bf16, {4, 64, 1}), CUL_SHAPE);
  EXPECT_EQ(with(int4, &Args::w13_zeros, DType::u8, {4, 64, 2}), CUL_SHAPE);
  EXPECT_EQ(status(int4, [](Args& a) { a.group = 48; }), CUL_RANGE);
  EXPECT_EQ(status(half, [](Args& a) { a.experts = 3; }), CUL_RANGE);
  EXPECT_EQ(status(half, [](Args& a) { a.act = 3; }), CUL_RANGE);
  EXPECT_EQ(status(half,
                   [](Args& a) {
                     a.act = CUL_MOE_ACT_SWIGLU_OAI;
                     a.limit = 0;
                   }),
            CUL_RANGE);
  EXPECT_EQ(status(half, [](Args& a) { a.y = a.x; }), CUL_UNSUPPORTED);
}

}  // namespace
}  // namespace culebra
