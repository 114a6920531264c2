// gated_delta_rule, causal_conv1d and gated_rms_norm on the cpu against sums in double.
#include "culebra/linear_attention.h"

#include "cpu_op_harness.h"

namespace culebra {
namespace {

using testing::Array;
using testing::Cpu;
using testing::Random;
using testing::rms_ratio;
using testing::tolerance;
using testing::values;

// ---------------------------------------------------------------------------------------------- gated delta rule

// One call's tensors; B = 1 where cu_seqlens is there.
struct DeltaRule {
  int64_t B, T, H, HV, K, V;
  bool softplus = false, l2norm = false, kv = false;
  int32_t every = 0;
  Array q, k, v, beta, gate, a_log, dt_bias, o;
  std::vector<int32_t> cu, read, write;
  std::vector<Array> initial, final, checkpoints, index;  // at most one, or cu, read, write

  DeltaRule(Random& r, DType type, int64_t B, int64_t T, int64_t H, int64_t HV, int64_t K, int64_t V,
            bool softplus = false)
      : B(B),
        T(T),
        H(H),
        HV(HV),
        K(K),
        V(V),
        softplus(softplus),
        q(type, {B, T, H, K}, r.normal(), 8),
        k(type, {B, T, H, K}, r.normal(1 / std::sqrt(static_cast<double>(K))), 16),
        v(type, {B, T, HV, V}, r.normal(), 8),
        beta(DType::f32, {B, T, HV}, r.uniform(0, 1), 3),
        gate(softplus ? type : DType::f32, {B, T, HV}, softplus ? r.normal() : r.uniform(-2, 0), 1),
        a_log(DType::f32, {HV}, r.uniform(-1, 1)),
        dt_bias(DType::f32, {HV}, r.normal()),
        o(type, {B, T, HV, V}, 8) {}

  int64_t sequences() const { return cu.empty() ? B : static_cast<int64_t>(cu.size()) - 1; }
  Array state(int64_t rows, const std::function<double(int64_t)>& f) const {
    return Array(DType::f32, {rows, HV, kv ? K : V, kv ? V : K}, f, 4);
  }
  cul_recurrence_args args() {
    index.clear();
    for (const auto* list : {&cu, &read, &write})
      index.emplace_back(DType::i32, std::vector<int64_t>{static_cast<int64_t>(list->size())},
                         [&](int64_t i) { return (*list)[static_cast<size_t>(i)]; });
    cul_recurrence_args a{};
    a.q = q;
    a.k = k;
    a.v = v;
    a.beta = beta;
    (softplus ? a.a : a.g) = gate;
    if (softplus) {
      a.a_log = a_log;
      a.dt_bias = dt_bias;
    }
    if (!cu.empty()) a.cu_seqlens = index[0];
    if (!read.empty()) a.state_read_index = index[1];
    if (!write.empty()) a.state_write_index = index[2];
    if (!initial.empty()) a.initial_state = initial[0];
    if (!final.empty()) a.final_state = final[0];
    if (!checkpoints.empty()) a.checkpoints = checkpoints[0];
    a.o = o;
    a.state_layout = kv ? CUL_STATE_KV : CUL_STATE_VK;
    a.checkpoint_every = every;
    a.qk_l2norm = l2norm;
    a.gate_mode = softplus ? CUL_GATE_SOFTPLUS : CUL_GATE_LOG;
    return a;
  }

  // The recurrence as it is written, in double. States are [N or P, HV, V, K] here.
  struct Reference {
    std::vector<double> o, final, checkpoints;
  };
  Reference reference() const {
    const int64_t cells = V * K, rows = initial.empty() ? sequences() : initial[0].dim(0);
    Reference ref;
    ref.o.assign(static_cast<size_t>(o.size()), 0.0);
    ref.final.assign(static_cast<size_t>(rows * HV * cells), 0.0);
    auto stored = [&](const Array& s, int64_t row, int64_t h, int64_t i) {
      return s[(row * HV + h) * cells + (kv ? i % K * V + i / K : i)];
    };
    if (!initial.empty())
      for (int64_t i = 0; i < rows * HV * cells; ++i)
        ref.final[static_cast<size_t>(i)] = stored(initial[0], i / cells / HV, i / cells % HV, i % cells);
    for (int64_t n = 0; n < sequences(); ++n) {
      const int64_t from = read.empty() ? n : read[static_cast<size_t>(n)],
                    to = write.empty() ? n : write[static_cast<size_t>(n)];
      const int64_t batch = cu.empty() ? n : 0, begin = cu.empty() ? 0 : cu[static_cast<size_t>(n)];
      const int64_t length = cu.empty() ? T : cu[static_cast<size_t>(n) + 1] - begin;
      const size_t checkpoint_row = ref.checkpoints.size();
      if (every) ref.checkpoints.resize(checkpoint_row + static_cast<size_t>(length / every * HV * cells), 0.0);
      if (from < 0 || to < 0) continue;
      for (int64_t h = 0; h < HV; ++h) {
        std::vector<double> s(static_cast<size_t>(cells), 0.0);
        if (!initial.empty())
          for (int64_t i = 0; i < cells; ++i) s[static_cast<size_t>(i)] = stored(initial[0], from, h, i);
        for (int64_t t = 0; t < length; ++t) {
          const int64_t token = batch * T + begin + t, head = token * H + h / (HV / H);
          double g = gate[token * HV + h];
          if (softplus) g = -std::exp(a_log[h]) * std::log1p(std::exp(g + dt_bias[h]));
          const double decay = std::exp(std::max(g, -30.0));
          std::vector<double> qs(static_cast<size_t>(K)), ks(static_cast<size_t>(K));
          double qq = l2norm ? 1e-6 : 1, kk = qq;
          for (int64_t i = 0; i < K; ++i) {
            qs[static_cast<size_t>(i)] = q[head * K + i];
            ks[static_cast<size_t>(i)] = k[head * K + i];
            if (l2norm) qq += q[head * K + i] * q[head * K + i];
            if (l2norm) kk += k[head * K + i] * k[head * K + i];
          }
          for (double& x : qs) x /= std::sqrt(qq * static_cast<double>(K));
          for (double& x : ks) x /= std::sqrt(kk);
          for (int64_t x = 0; x < V; ++x) {
            double u = 0, out = 0;
            double* row = &s[static_cast<size_t>(x * K)];
            for (size_t i = 0; i < ks.size(); ++i) u += (row[i] *= decay) * ks[i];
            const double delta = beta[token * HV + h] * (v[(token * HV + h) * V + x] - u);
            for (size_t i = 0; i < ks.size(); ++i) out += (row[i] += delta * ks[i]) * qs[i];
            ref.o[static_cast<size_t>((token * HV + h) * V + x)] = out;
          }
          if (every && (t + 1) % every == 0)
            std::copy(s.begin(), s.end(),
                      ref.checkpoints.begin() + static_cast<std::ptrdiff_t>(checkpoint_row) +
                          ((t + 1) / every - 1) * HV * cells + h * cells);
        }
        std::copy(s.begin(), s.end(), ref.final.begin() + (to * HV + h) * cells);
      }
    }
    if (kv)
      for (auto* states : {&ref.final, &ref.checkpoints}) {
        const std::vector<double> vk = *states;
        for (size_t i = 0; i < vk.size(); ++i) {
          const int64_t cell = static_cast<int64_t>(i) % cells;
          (*states)[i - static_cast<size_t>(cell) + static_cast<size_t>(cell % K * V + cell / K)] = vk[i];
        }
      }
    return ref;
  }

  void expect_reference() const {
    const Reference ref = reference();
    EXPECT_LE(rms_ratio(o, ref.o), tolerance(o.type()));
    EXPECT_TRUE(o.guards_untouched());
    for (const auto& [states, expected] : {std::pair{&final, &ref.final}, std::pair{&checkpoints, &ref.checkpoints}})
      for (const Array& s : *states) {
        EXPECT_LE(rms_ratio(s, *expected), tolerance(o.type()));
        EXPECT_TRUE(s.guards_untouched());
      }
  }
};

TEST(GatedDeltaRule, followsTheRecurrence) {
  testing::on_every_target([] {
    Random r(1);
    Cpu cpu;
    for (DType type : {DType::f32, DType::f16, DType::bf16})
      for (int variant = 0; variant < 4; ++variant) {
        SCOPED_TRACE(variant);
        const int64_t V = variant == 3 ? 40 : 24;
        DeltaRule d(r, type, 1, 195, 2, 4, 40, V, variant & 1);
        d.l2norm = variant & 1;
        d.kv = variant >= 2;
        d.cu = {0, 0, 1, 131, 195};
        d.initial.push_back(d.state(4, r.normal()));
        d.final.push_back(d.state(4, values(std::vector<double>(4 * 4 * 40 * 40, 0.0))));
        d.every = 64;
        d.checkpoints.push_back(d.state(3, values(std::vector<double>(3 * 4 * 40 * 40, 0.0))));
        ASSERT_EQ(cpu(cul_gated_delta_rule, d.args()), CUL_OK) << cul_last_error();
        d.expect_reference();
        // An empty sequence's state is copied, not computed.
        EXPECT_EQ(d.final[0].bits(0, 4 * V * 40), d.initial[0].bits(0, 4 * V * 40));
      }
  });
}

TEST(GatedDeltaRule, poolsSkipPaddingAndMoveInPlace) {
  Random r(2);
  Cpu cpu;
  DeltaRule d(r, DType::f32, 4, 3, 1, 2, 16, 8);
  d.every = 1;
  d.read = {5, -1, 2, 5};
  d.write = {0, 3, -1, 1};
  d.initial.push_back(d.state(6, r.normal()));
  d.checkpoints.push_back(d.state(12, r.normal()));
  const Array before = d.state(6, [&](int64_t i) { return d.initial[0][i]; });
  const auto reference = d.reference();
  cul_recurrence_args args = d.args();
  args.final_state = d.initial[0];
  ASSERT_EQ(cpu(cul_gated_delta_rule, args), CUL_OK) << cul_last_error();
  EXPECT_LE(rms_ratio(d.o, reference.o), 1e-5);
  EXPECT_LE(rms_ratio(d.initial[0], reference.final), 1e-5);
  EXPECT_LE(rms_ratio(d.checkpoints[0], reference.checkpoints), 1e-5);
  const int64_t row = 2 * 8 * 16;
  EXPECT_EQ(d.initial[0].bits(2 * row), before.bits(2 * row)) << "rows that no sequence writes";
  for (int64_t i = 3 * 2 * 8; i < 9 * 2 * 8; ++i) EXPECT_EQ(d.o[i], 0) << "outputs of skipped sequences";
}

TEST(GatedDeltaRule, prefixesAndThreadsKeepTheirBits) {
  Random r(3);
  Cpu one(1), many(4);
  DeltaRule d(r, DType::bf16, 2, 70, 2, 4, 64, 72, true);
  ASSERT_EQ(one(cul_gated_delta_rule, d.args()), CUL_OK) << cul_last_error();
  const auto bits = d.o.bits();
  for (int64_t i = 0; i < d.o.size(); ++i) d.o.set(i, 0);
  ASSERT_EQ(many(cul_gated_delta_rule, d.args()), CUL_OK) << cul_last_error();
  EXPECT_EQ(d.o.bits(), bits);
  // Tokens from 37 on change; what stands before them does not.
  for (int64_t b = 0; b < 2; ++b)
    for (int64_t i = b * 70 + 37; i < (b + 1) * 70; ++i)
      for (int64_t j = 0; j < 2 * 64; ++j) d.k.set(i * 2 * 64 + j, NAN);
  ASSERT_EQ(many(cul_gated_delta_rule, d.args()), CUL_OK) << cul_last_error();
  const int64_t token = 4 * 72;
  EXPECT_EQ(d.o.bits(0, 37 * token), std::vector<uint8_t>(bits.begin(), bits.begin() + 37 * token * 2));
  EXPECT_TRUE(std::isnan(d.o[37 * token]));
}

TEST(GatedDeltaRule, refusals) {
  Random r(4);
  Cpu cpu;
  auto status = [&](auto&& change) {
    DeltaRule d(r, DType::f32, 1, 9, 2, 4, 16, 16);
    d.initial.push_back(d.state(1, r.normal()));
    d.final.push_back(d.state(1, r.normal()));
    cul_recurrence_args args = d.args();
    std::vector<Array> keep;
    keep.reserve(2);
    change(args, keep);
    const auto before = d.o.bits();
    const cul_status s = cpu(cul_gated_delta_rule, args);
    EXPECT_TRUE(s == CUL_OK || d.o.bits() == before) << "a refused call wrote";
    return s;
  };
  using Args = cul_recurrence_args;
  using Keep = std::vector<Array>;
  auto replace = [](const cul_tensor* Args::* field, DType type, std::vector<int64_t> shape) {
    return [=](Args& a, Keep& keep) { a.*field = keep.emplace_back(type, shape, [](int64_t) { return 0.0; }); };
  };
  EXPECT_EQ(status([](Args&, Keep&) {}), CUL_OK);
  for (auto field : {&Args::q, &Args::k, &Args::v, &Args::beta, &Args::g, &Args::o})
    EXPECT_EQ(status([&](Args& a, Keep&) { a.*field = nullptr; }), CUL_NULL_POINTER);
  EXPECT_EQ(status(replace(&Args::q, DType::f32, {1, 9, 32})), CUL_SHAPE);
  EXPECT_EQ(status(replace(&Args::k, DType::f32, {1, 9, 2, 24})), CUL_SHAPE);
  EXPECT_EQ(status(replace(&Args::v, DType::f32, {1, 9, 3, 16})), CUL_SHAPE);
  EXPECT_EQ(status(replace(&Args::v, DType::f32, {1, 8, 4, 16})), CUL_SHAPE);
  EXPECT_EQ(status(replace(&Args::beta, DType::f32, {1, 9, 2})), CUL_SHAPE);
  EXPECT_EQ(status(replace(&Args::initial_state, DType::f32, {2, 4, 16, 16})), CUL_SHAPE);
  EXPECT_EQ(status(replace(&Args::final_state, DType::f32, {1, 4, 16, 8})), CUL_SHAPE);
  EXPECT_EQ(status(replace(&Args::cu_seqlens, DType::i32, {3})), CUL_SHAPE) << "two sequences, one state";
  EXPECT_EQ(status(replace(&Args::cu_seqlens, DType::i64, {2})), CUL_DTYPE);
  EXPECT_EQ(status(replace(&Args::k, DType::f16, {1, 9, 2, 16})), CUL_DTYPE);
  EXPECT_EQ(status(replace(&Args::beta, DType::f16, {1, 9, 4})), CUL_DTYPE);
  EXPECT_EQ(status(replace(&Args::initial_state, DType::f16, {1, 4, 16, 16})), CUL_DTYPE);
  EXPECT_EQ(status(replace(&Args::state_read_index, DType::i32, {1})), CUL_NULL_POINTER);
  EXPECT_EQ(status(replace(&Args::state_write_index, DType::i32, {1})), CUL_NULL_POINTER);
  EXPECT_EQ(status(replace(&Args::a_log, DType::f32, {4})), CUL_UNSUPPORTED);
  EXPECT_EQ(status([](Args& a, Keep&) { a.gate_mode = CUL_GATE_SOFTPLUS; }), CUL_NULL_POINTER);
  EXPECT_EQ(status([](Args& a, Keep&) { a.gate_mode = 2; }), CUL_RANGE);
  EXPECT_EQ(status([](Args& a, Keep&) { a.state_layout = 2; }), CUL_RANGE);
  EXPECT_EQ(status([](Args& a, Keep&) { a.qk_l2norm = 2; }), CUL_RANGE);
  EXPECT_EQ(status([](Args& a, Keep&) { a.scale = NAN; }), CUL_RANGE);
  EXPECT_EQ(status([](Args& a, Keep&) { a.checkpoint_every = 48; }), CUL_RANGE);
  EXPECT_EQ(status([](Args& a, Keep&) { a.checkpoint_every = -64; }), CUL_RANGE);
  EXPECT_EQ(status([](Args& a, Keep&) { a.checkpoint_every = 1; }), CUL_RANGE) << "T is 9";
  EXPECT_EQ(status([](Args& a, Keep&) { a.checkpoint_every = 64; }), CUL_NULL_POINTER);
  EXPECT_EQ(status(replace(&Args::checkpoints, DType::f32, {1, 4, 16, 16})), CUL_RANGE);
  EXPECT_EQ(status([](Args& a, Keep&) { a.o = a.v; }), CUL_UNSUPPORTED);
}

TEST(GatedDeltaRule, indicesThatLeadOutsideFailTheDevice) {
  Random r(5);
  auto failure = [&](std::vector<int32_t> cu, std::vector<int32_t> read, std::vector<int32_t> write,
                     int64_t checkpoints = 0, uint32_t flags = 0) {
    Cpu cpu;
    DeltaRule d(r, DType::f32, cu.empty() ? 2 : 1, 130, 1, 1, 8, 8);
    d.cu = cu;
    d.read = read;
    d.write = write;
    d.initial.push_back(d.state(2, r.normal()));
    if (checkpoints) {
      d.every = 64;
      d.checkpoints.push_back(d.state(checkpoints, r.normal()));
    }
    cul_recurrence_args args = d.args();
    args.call.flags |= flags;
    EXPECT_EQ(cpu(cul_gated_delta_rule, args), CUL_DEVICE_ERROR);
    return std::string(cul_last_error());
  };
  EXPECT_NE(failure({0, 9, 8}, {}, {}).find("cu_seqlens[2] = 8"), std::string::npos);
  EXPECT_NE(failure({1, 9, 10}, {}, {}).find("begins with 1"), std::string::npos);
  EXPECT_NE(failure({0, 9, 131}, {}, {}).find("T = 130"), std::string::npos);
  EXPECT_NE(failure({0, 9, 129}, {}, {}, 0, CUL_OP_VALIDATE).find("ends with 129"), std::string::npos);
  EXPECT_NE(failure({}, {0, 2}, {0, 1}).find("state_read_index[1] = 2"), std::string::npos);
  EXPECT_NE(failure({}, {0, 1}, {-2, 1}).find("state_write_index[0] = -2"), std::string::npos);
  EXPECT_NE(failure({0, 65, 130}, {}, {}, 1).find("checkpoints has 1 rows"), std::string::npos);
}

// ---------------------------------------------------------------------------------------------- causal_conv1d

TEST(CausalConv1d, convolvesAndKeepsTheLastInputs) {
  testing::on_every_target([] {
    Random r(6);
    Cpu cpu;
    for (DType type : {DType::f32, DType::f16, DType::bf16})
      for (int64_t W = 2; W <= 4; ++W)
        for (bool silu : {false, true}) {
          const int64_t C = 75, T = 23;
          const std::vector<double> cu = {0, 0, 1, 3, 23};
          const Array x(type, {1, T, C}, r.normal(), 5), w(type, {C, W}, r.normal(), 4), bias(type, {C}, r.normal());
          const Array state(type, {4, C, W - 1}, r.normal(), 3), lengths(DType::i32, {5}, values(cu));
          Array y(type, {1, T, C}, 5), final(type, {4, C, W - 1}, 5);
          cul_causal_conv1d_args args{};
          args.x = x;
          args.w = w;
          args.bias = bias;
          args.state = state;
          args.cu_seqlens = lengths;
          args.y = y;
          args.final_state = final;
          args.act = silu;
          ASSERT_EQ(cpu(cul_causal_conv1d, args), CUL_OK) << cul_last_error();
          std::vector<double> ref(static_cast<size_t>(T * C));
          for (int64_t n = 0; n < 4; ++n) {
            const auto begin = static_cast<int64_t>(cu[static_cast<size_t>(n)]);
            const int64_t length = static_cast<int64_t>(cu[static_cast<size_t>(n) + 1]) - begin;
            auto input = [&](int64_t t, int64_t c) {
              return t < 0 ? state.at((n * C + c) * (W - 1) + W - 1 + t) : x.at((begin + t) * C + c);
            };
            auto value = [&](int64_t t, int64_t c) {
              return t < 0 ? state[(n * C + c) * (W - 1) + W - 1 + t] : x[(begin + t) * C + c];
            };
            for (int64_t t = 0; t < length; ++t)
              for (int64_t c = 0; c < C; ++c) {
                double sum = bias[c];
                for (int64_t j = 0; j < W; ++j) sum += w[c * W + j] * value(t - W + 1 + j, c);
                ref[static_cast<size_t>((begin + t) * C + c)] = silu ? sum / (1 + std::exp(-sum)) : sum;
              }
            for (int64_t c = 0; c < C; ++c)
              for (int64_t j = 0; j < W - 1; ++j)
                EXPECT_EQ(std::memcmp(final.at((n * C + c) * (W - 1) + j), input(length - W + 1 + j, c), size_of(type)),
                          0);
          }
          EXPECT_LE(rms_ratio(y, ref), tolerance(type));
          EXPECT_TRUE(y.guards_untouched() && final.guards_untouched());
        }
  });
}

TEST(CausalConv1d, poolsMoveInPlace) {
  Random r(7);
  Cpu cpu;
  const int64_t C = 16;
  const Array x(DType::f32, {3, 1, C}, r.normal()), w(DType::f32, {C, 4}, r.normal());
  Array pool(DType::f32, {4, C, 3}, r.normal()), y(DType::f32, {3, 1, C});
  Array before(DType::f32, {4, C, 3});
  before.copy_from(pool);
  const Array read(DType::i32, {3}, values({3, -1, 1})), write(DType::i32, {3}, values({3, 0, 2}));
  cul_causal_conv1d_args args{};
  args.x = x;
  args.w = w;
  args.state = pool;
  args.final_state = pool;
  args.state_read_index = read;
  args.state_write_index = write;
  args.y = y;
  ASSERT_EQ(cpu(cul_causal_conv1d, args), CUL_OK) << cul_last_error();
  EXPECT_EQ(pool.bits(0, 2 * C * 3), before.bits(0, 2 * C * 3));
  for (int64_t c = 0; c < C; ++c) {
    for (int64_t j = 0; j < 3; ++j) {
      EXPECT_EQ(pool[(3 * C + c) * 3 + j], j < 2 ? before[(3 * C + c) * 3 + j + 1] : x[c]);
      EXPECT_EQ(pool[(2 * C + c) * 3 + j], j < 2 ? before[(C + c) * 3 + j + 1] : x[2 * C + c]);
    }
    EXPECT_EQ(y[C + c], 0);
  }
}

TEST(CausalConv1d, refusals) {
  Random r(8);
  Cpu cpu;
  const Array x(DType::f32, {2, 5, 16}, r.normal()), w(DType::f32, {16, 4}, r.normal()),
      bias(DType::f32, {16}, r.normal());
  const Array state(DType::f32, {2, 16, 3}, r.normal());
  Array y(DType::f32, {2, 5, 16});
  using Args = cul_causal_conv1d_args;
  auto status = [&](const cul_tensor* Args::* field, const cul_tensor* replacement) {
    Args args{};
    args.x = x;
    args.w = w;
    args.bias = bias;
    args.state = state;
    args.y = y;
    args.*field = replacement;
    return cpu(cul_causal_conv1d, args);
  };
  EXPECT_EQ(status(&Args::state, nullptr), CUL_OK);
  for (auto field : {&Args::x, &Args::w, &Args::y}) EXPECT_EQ(status(field, nullptr), CUL_NULL_POINTER);
  EXPECT_EQ(status(&Args::w, Array(DType::f32, {16, 5})), CUL_SHAPE);
  EXPECT_EQ(status(&Args::w, Array(DType::f32, {16, 1})), CUL_SHAPE);
  EXPECT_EQ(status(&Args::w, Array(DType::f32, {12, 4})), CUL_SHAPE);
  EXPECT_EQ(status(&Args::w, Array(DType::bf16, {16, 4})), CUL_DTYPE);
  EXPECT_EQ(status(&Args::bias, Array(DType::f32, {15})), CUL_SHAPE);
  EXPECT_EQ(status(&Args::state, Array(DType::f32, {2, 16, 4})), CUL_SHAPE);
  EXPECT_EQ(status(&Args::state, Array(DType::f32, {3, 16, 3})), CUL_SHAPE);
  EXPECT_EQ(status(&Args::state, Array(DType::f16, {2, 16, 3})), CUL_DTYPE);
  EXPECT_EQ(status(&Args::cu_seqlens, Array(DType::i32, {2})), CUL_SHAPE) << "two rows";
  EXPECT_EQ(status(&Args::y, x), CUL_UNSUPPORTED);
}

// ---------------------------------------------------------------------------------------------- gated_rms_norm

TEST(GatedRmsNorm, normalisesGroupsBeforeOrAfterTheGate) {
  testing::on_every_target([] {
    Random r(9);
    Cpu cpu;
    for (DType type : {DType::f32, DType::f16, DType::bf16})
      for (int variant = 0; variant < 16; ++variant) {
        const bool sigmoid = variant & 1, before = variant & 2, gated = variant & 4;
        const int64_t groups = variant & 8 ? 3 : 1, D = 51, rows = 2 * 3 * 5;
        const DType weight_type = variant & 1 ? DType::f32 : type;
        const Array gate(type, {2, 3, 5, D}, r.normal(2), 9), weight(weight_type, {D}, r.normal());
        Array x(type, {2, 3, 5, D}, r.normal(type == DType::f32 && variant == 5 ? 1e25 : 1), 13);
        std::vector<double> ref(static_cast<size_t>(rows * D));
        for (int64_t row = 0; row < rows; ++row)
          for (int64_t g = 0; g < groups; ++g) {
            const int64_t n = D / groups, first = row * D + g * n;
            auto act = [&](int64_t i) { return gated ? (sigmoid ? 1 : gate[i]) / (1 + std::exp(-gate[i])) : 1; };
            double mean = 0;
            for (int64_t i = first; i < first + n; ++i)
              mean += std::pow(x[i] * (before ? 1 : act(i)), 2) / static_cast<double>(n);
            for (int64_t i = first; i < first + n; ++i)
              ref[static_cast<size_t>(i)] =
                  x[i] * act(i) / std::sqrt(mean + static_cast<double>(1e-5f)) * weight[i % D];
          }
        cul_gated_rms_norm_args args{};
        args.x = x;
        if (gated) args.gate = gate;
        args.weight = weight;
        args.y = x;  // in place
        args.eps = 1e-5f;
        args.act = sigmoid;
        args.norm_before_gate = before;
        args.groups = static_cast<int32_t>(groups);
        ASSERT_EQ(cpu(cul_gated_rms_norm, args), CUL_OK) << cul_last_error();
        EXPECT_LE(rms_ratio(x, ref), tolerance(type)) << variant;
        EXPECT_TRUE(x.guards_untouched());
      }
  });
}

TEST(GatedRmsNorm, refusals) {
  Random r(10);
  Cpu cpu;
  const Array x(DType::f32, {4, 32}, r.normal()), weight(DType::f32, {32}, r.normal());
  Array y(DType::f32, {4, 32});
  using Args = cul_gated_rms_norm_args;
  auto status = [&](auto&& change) {
    Args args{};
    args.x = x;
    args.weight = weight;
    args.y = y;
    args.norm_before_gate = 1;
    args.groups = 1;
    change(args);
    return cpu(cul_gated_rms_norm, args);
  };
  EXPECT_EQ(status([](Args&) {}), CUL_OK);
  for (auto field : {&Args::x, &Args::weight, &Args::y})
    EXPECT_EQ(status([&](Args& a) { a.*field = nullptr; }), CUL_NULL_POINTER);
  const Array long_weight(DType::f32, {64}), half_weight(DType::f16, {32}), gate(DType::f32, {4, 16}),
      half_gate(DType::f16, {4, 32});
  EXPECT_EQ(status([&](Args& a) { a.weight = long_weight; }), CUL_SHAPE);
  EXPECT_EQ(status([&](Args& a) { a.weight = half_weight; }), CUL_DTYPE);
  EXPECT_EQ(status([&](Args& a) { a.gate = gate; }), CUL_SHAPE);
  EXPECT_EQ(status([&](Args& a) { a.gate = half_gate; }), CUL_DTYPE);
  EXPECT_EQ(status([](Args& a) { a.eps = -1; }), CUL_RANGE);
  EXPECT_EQ(status([](Args& a) { a.act = 2; }), CUL_RANGE);
  EXPECT_EQ(status([](Args& a) { a.norm_before_gate = 7; }), CUL_RANGE);
  EXPECT_EQ(status([](Args& a) { a.groups = 0; }), CUL_RANGE);
  EXPECT_EQ(status([](Args& a) { a.groups = 5; }), CUL_SHAPE);
  const cul_tensor one_row = y.broadcast();
  EXPECT_EQ(status([&](Args& a) { a.y = &one_row; }), CUL_STRIDE);
}

// ---------------------------------------------------------------------------------------------- index tensors

// A failed device stays failed: each wrong index gets one of its own.
TEST(MixtureOfMemories, idsOutsideTheMemoriesFailTheDevice) {
  for (const double id : {-2.0, 3.0}) {
    Random r(12);
    Cpu cpu;
    const Array q(DType::f32, {1, 2, 1, 8}, r.normal()), v(DType::f32, {1, 2, 1, 8}, r.normal());
    const Array gate(DType::f32, {1, 2, 1}, r.uniform(-1, 0)), weights(DType::f32, {1, 2, 1}, r.uniform(0, 1));
    const Array ids(DType::i32, {1, 2, 1}, values({0, id}));
    const Array state(DType::f32, {1, 3, 1, 8, 8}, r.normal());
    const Array o(DType::f32, {1, 2, 1, 8});
    cul_mixture_of_memories_args args{};
    args.q = q;
    args.k = q;
    args.v = v;
    args.beta = weights;
    args.g = gate;
    args.ids = ids;
    args.weights = weights;
    args.initial_state = state;
    args.o = o;
    EXPECT_EQ(cpu(cul_mixture_of_memories, args), CUL_DEVICE_ERROR);
    EXPECT_NE(std::string(cul_last_error()).find("ids[0, 1, 0]"), std::string::npos) << cul_last_error();
  }
}

TEST(LocalLinearAttention, lengthsThatContradictEachOtherFailTheDevice) {
  Random r(13);
  const Array q(DType::f32, {1, 4, 1, 8}, r.normal()), k(DType::f32, {1, 6, 1, 8}, r.normal()), o(DType::f32, {1, 4, 1, 8});
  const auto status = [&](std::vector<double> queries, std::vector<double> keys, uint32_t flags = 0) {
    Cpu cpu;
    const Array cu_queries(DType::i32, {3}, values(std::move(queries))), cu_keys(DType::i32, {3}, values(std::move(keys)));
    cul_local_linear_attention_args args{};
    args.call.flags = flags;
    args.q = q;
    args.k = k;
    args.v = k;
    args.cu_seqlens = cu_queries;
    args.cu_seqlens_k = cu_keys;
    args.o = o;
    args.ridge_lambda = 1;
    args.cg_iters = 1;
    return cpu(cul_local_linear_attention, args);
  };
  EXPECT_EQ(status({0, 1, 4}, {0, 3, 6}), CUL_OK) << cul_last_error();
  EXPECT_EQ(status({0, 1, 4}, {0, 4, 6}), CUL_DEVICE_ERROR) << "three queries of two keys";
  EXPECT_EQ(status({1, 1, 4}, {0, 3, 6}), CUL_DEVICE_ERROR);
  EXPECT_EQ(status({0, 2, 1}, {0, 3, 6}), CUL_DEVICE_ERROR);
  EXPECT_EQ(status({0, 1, 4}, {0, 3, 7}), CUL_DEVICE_ERROR);
  EXPECT_EQ(status({0, 1, 3}, {0, 3, 6}), CUL_OK) << "the fourth query belongs to none";
  EXPECT_EQ(status({0, 1, 3}, {0, 3, 6}, CUL_OP_VALIDATE), CUL_DEVICE_ERROR);
  EXPECT_EQ(status({0, 1, 4}, {0, 2, 5}, CUL_OP_VALIDATE), CUL_OK) << "a cache may be larger than what it holds";
}

TEST(LinearAttention, emptyWorkSucceeds) {
  Random r(11);
  Cpu cpu;
  DeltaRule d(r, DType::f32, 2, 0, 1, 1, 8, 8);
  d.initial.push_back(d.state(2, r.normal()));
  d.final.push_back(d.state(2, r.normal()));
  ASSERT_EQ(cpu(cul_gated_delta_rule, d.args()), CUL_OK) << cul_last_error();
  EXPECT_EQ(d.final[0].bits(), d.initial[0].bits());
  DeltaRule none(r, DType::f32, 0, 4, 1, 1, 8, 8);
  EXPECT_EQ(cpu(cul_gated_delta_rule, none.args()), CUL_OK) << cul_last_error();
}

}  // namespace
}  // namespace culebra
