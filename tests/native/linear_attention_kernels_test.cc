// The recurrences on every backend against the recurrence in double, where the cases do not reach: lengths around the chunk, hostile
// gates and keys, and what must be the same bits.
#include <sys/mman.h>

#include <memory>

#include "culebra/linear_attention.h"
#include "linear_attention_devices.h"
#if CULEBRA_HAS_SIMT
#include "backends/simt/emulator/global_memory.h"
#endif

namespace culebra {
namespace {

using glue_testing::Machine;
using glue_testing::Tensor;
using linear_attention_testing::Device;
using linear_attention_testing::devices;
using linear_attention_testing::device_name;
using linear_attention_testing::kHopper;

struct Operator {
  const char* name;
  cul_status (*run)(cul_stream*, const cul_recurrence_args*);
  bool delta, token_gate, channel_gate;
};
constexpr Operator kOperators[] = {{"simple_gla", cul_simple_gla, false, true, false},
                                   {"gated_linear_attention", cul_gated_linear_attention, false, false, true},
                                   {"delta_rule", cul_delta_rule, true, false, false},
                                   {"gated_delta_rule", cul_gated_delta_rule, true, true, false},
                                   {"kda", cul_kda, true, false, true}};

struct Shape {
  int64_t B, T, H, HV, K, V;
};

// One call on one device. Tensors stand in padded rows, so that nothing is contiguous by luck.
struct Problem {
  Problem(Machine& m, const Operator& op, DType type, Shape s, std::vector<int32_t> lengths = {}, int64_t pad = 8)
      : machine(m),
        op(op),
        type(type),
        s(s),
        cu(lengths.empty() ? lengths : std::vector<int32_t>{0}),
        q(m, type, {s.B, s.T, s.H, s.K}, rows(s.T, s.H, s.K, pad)),
        k(m, type, {s.B, s.T, s.H, s.K}, rows(s.T, s.H, s.K, pad)),
        v(m, type, {s.B, s.T, s.HV, s.V}, rows(s.T, s.HV, s.V, pad)),
        o(m, type, {s.B, s.T, s.HV, s.V}, rows(s.T, s.HV, s.V, pad)),
        beta(m, DType::f32, {s.B, s.T, s.HV}),
        g(m, DType::f32, op.channel_gate ? std::vector<int64_t>{s.B, s.T, s.HV, s.K} : std::vector<int64_t>{s.B, s.T, s.HV}),
        initial(m, DType::f32, {sequences(lengths), s.HV, s.V, s.K}),
        final(m, DType::f32, {sequences(lengths), s.HV, s.V, s.K}),
        index(m, DType::i32, {sequences(lengths) + 1}) {
    for (const int32_t length : lengths) cu.push_back(cu.back() + length);
    if (!cu.empty()) index.fill([&](int64_t i) { return cu[static_cast<size_t>(i)]; });
    std::mt19937_64 random(17);
    const double unit = 1 / std::sqrt(static_cast<double>(s.K));
    q.normal(random);
    k.normal(random, unit);
    v.normal(random);
    initial.normal(random);
    std::uniform_real_distribution<double> strength(0, 1), gate(-0.5, 0);
    beta.fill([&](int64_t) { return strength(random); });
    g.fill([&](int64_t) { return gate(random); });
  }

  static std::vector<int64_t> rows(int64_t T, int64_t heads, int64_t dim, int64_t pad) {
    return {T * (heads * (dim + pad) + pad), heads * (dim + pad) + pad, dim + pad, 1};
  }
  int64_t sequences(const std::vector<int32_t>& lengths) const { return lengths.empty() ? s.B : static_cast<int64_t>(lengths.size()); }
  // States after `every` tokens, 2 `every`, ... of each sequence are wanted too.
  void want_checkpoints(int32_t tokens) {
    every = tokens;
    int64_t rows = 0;
    for (int64_t n = 0; n < count(); ++n) rows += length(n) / every;
    checkpoints = std::make_unique<Tensor>(machine, DType::f32, std::vector<int64_t>{rows, s.HV, s.V, s.K});
  }
  std::vector<cul_tensor> far;  // q, k, v and o somewhere else, instead of the tensors
  int64_t length(int64_t n) const { return cu.empty() ? s.T : cu[static_cast<size_t>(n) + 1] - cu[static_cast<size_t>(n)]; }
  int64_t count() const { return cu.empty() ? s.B : static_cast<int64_t>(cu.size()) - 1; }

  void run(uint32_t flags = 0) {
    auto args = glue_testing::args_of<cul_recurrence_args>();
    args.q = q;
    args.k = k;
    args.v = v;
    args.o = o;
    if (!far.empty()) args.q = &far[0], args.k = &far[1], args.v = &far[2], args.o = &far[3];
    if (op.delta) args.beta = beta;
    if (op.token_gate || op.channel_gate) args.g = g;
    if (!cu.empty()) args.cu_seqlens = index;
    args.initial_state = initial;
    args.final_state = final;
    if (checkpoints) args.checkpoints = *checkpoints;
    args.checkpoint_every = every;
    args.call.flags = flags | CUL_OP_PLAN_ONLY;
    ASSERT_EQ(op.run(machine.stream, &args), CUL_OK) << cul_last_error();
    void* workspace = nullptr;
    plan = cul_last_plan();
    const uint64_t bytes = cul_last_workspace_bytes();
    if (bytes) {
      ASSERT_EQ(cul_memory_alloc(machine.device, bytes, &workspace), CUL_OK) << cul_last_error();
    }
    args.call.flags = flags | (validate ? CUL_OP_VALIDATE : 0);
    args.call.workspace = workspace;
    args.call.workspace_bytes = bytes;
    ASSERT_EQ(op.run(machine.stream, &args), CUL_OK) << cul_last_error();
    o.read();
    final.read();
    if (checkpoints) checkpoints->read();
    EXPECT_EQ(cul_memory_free(machine.device, workspace), CUL_OK);
  }

  // The recurrence as it is written.
  void expect_reference(double bound) const {
    double error[3] = {}, size[3] = {};
    int64_t checkpoint = 0;  // the sequence's first
    for (int64_t n = 0; n < count(); checkpoint += every ? length(n) / every : 0, ++n)
      for (int64_t h = 0; h < s.HV; ++h) {
        const int64_t batch = cu.empty() ? n : 0, begin = cu.empty() ? 0 : cu[static_cast<size_t>(n)];
        std::vector<double> state(static_cast<size_t>(s.V * s.K));
        for (size_t i = 0; i < state.size(); ++i) state[i] = initial[(n * s.HV + h) * s.V * s.K + static_cast<int64_t>(i)];
        for (int64_t t = 0; t < length(n); ++t) {
          const int64_t token = batch * s.T + begin + t, keys = (token * s.H + h / (s.HV / s.H)) * s.K, head = token * s.HV + h;
          for (int64_t x = 0; x < s.V; ++x) {
            double* row = &state[static_cast<size_t>(x * s.K)];
            double u = 0, out = 0;
            for (int64_t i = 0; i < s.K; ++i) {
              const double gate = op.channel_gate ? g[head * s.K + i] : op.token_gate ? g[head] : 0;
              row[i] *= std::exp(std::max(gate, -30.0));
              u += row[i] * k[keys + i];
            }
            const double d = op.delta ? beta[head] * (v[head * s.V + x] - u) : v[head * s.V + x];
            for (int64_t i = 0; i < s.K; ++i) out += (row[i] += d * k[keys + i]) * q[keys + i];
            out /= std::sqrt(static_cast<double>(s.K));
            error[0] += std::pow(o[head * s.V + x] - out, 2);
            size[0] += out * out;
          }
          if (!every || (t + 1) % every) continue;
          for (size_t i = 0; i < state.size(); ++i) {
            const int64_t row = (checkpoint + t / every) * s.HV + h;
            error[2] += std::pow((*checkpoints)[row * s.V * s.K + static_cast<int64_t>(i)] - state[i], 2);
            size[2] += state[i] * state[i];
          }
        }
        for (size_t i = 0; i < state.size(); ++i) {
          error[1] += std::pow(final[(n * s.HV + h) * s.V * s.K + static_cast<int64_t>(i)] - state[i], 2);
          size[1] += state[i] * state[i];
        }
      }
    EXPECT_LE(std::sqrt(error[0]), bound * std::sqrt(size[0])) << "o";
    EXPECT_LE(std::sqrt(error[1]), bound * std::sqrt(size[1])) << "final_state";
    EXPECT_LE(std::sqrt(error[2]), bound * std::sqrt(size[2])) << "checkpoints";
  }

  std::vector<double> outputs(int64_t begin, int64_t end) const {  // of tokens, B = 1
    std::vector<double> list;
    for (int64_t i = begin * s.HV * s.V; i < end * s.HV * s.V; ++i) list.push_back(o[i]);
    return list;
  }

  Machine& machine;
  const Operator& op;
  DType type;
  Shape s;
  std::vector<int32_t> cu;
  std::string plan;
  int32_t every = 0;
  bool validate = true;
  std::unique_ptr<Tensor> checkpoints;
  Tensor q, k, v, o, beta, g, initial, final, index;
};

class Recurrences : public ::testing::TestWithParam<int32_t> {};
INSTANTIATE_TEST_SUITE_P(Devices, Recurrences, ::testing::ValuesIn(devices()), [](const auto& info) { return device_name(info.param); });

TEST_P(Recurrences, haveEveryLengthAroundAChunk) {
  Device m(GetParam());
  for (const Operator& op : kOperators)
    for (const int64_t T : {1, 16, 17, 64, 65, 130, 1000}) {
      SCOPED_TRACE(::testing::Message() << op.name << " T " << T);
      Problem p(m, op, T % 2 ? DType::bf16 : DType::f16, {1, T, 1, 2, T == 65 ? 72 : 24, T == 130 ? 40 : T == 1000 ? 8 : 24}, {}, T == 64 ? 0 : 8);
      p.run();
      p.expect_reference(glue_testing::bound_of(p.type));
    }
}

TEST_P(Recurrences, takeRowsThatAreNotAligned) {
  Device m(GetParam());
  for (const Operator& op : kOperators)
    for (const DType type : {DType::bf16, DType::f32}) {
      SCOPED_TRACE(op.name);
      Problem p(m, op, type, {2, 67, 1, 1, 16, 8}, {}, 3);
      p.run();
      p.expect_reference(glue_testing::bound_of(type));
    }
}

TEST_P(Recurrences, standHostileGatesAndKeys) {
  Device m(GetParam());
  const double gates[] = {0, -5, -30, -1000};
  for (const Operator& op : kOperators)
    for (int hostile = 0; hostile < 4; ++hostile) {
      SCOPED_TRACE(::testing::Message() << op.name << " " << hostile);
      Problem p(m, op, DType::bf16, {1, 97, 1, 1, 32, 16});
      std::mt19937_64 random(5);
      if (hostile == 0) p.g.fill([&](int64_t) { return gates[random() % 4]; });
      if (hostile == 1) p.beta.fill([&](int64_t) { return static_cast<double>(random() % 3); });
      if (hostile == 2) p.k.fill([](int64_t i) { return (1 + 0.01 * static_cast<double>(i % 7)) / std::sqrt(32.0); });
      if (hostile == 3) p.k.fill([](int64_t i) { return i / 32 % 3 ? std::abs(std::sin(static_cast<double>(i))) / 4 : 0.0; });
      if (hostile == 0) p.g.fill([&](int64_t i) { return i % 5 ? gates[random() % 4] : -0.1; });
      // Nothing decays: what the chunk's inverse must get right is at its largest.
      if (hostile > 0) p.g.fill([](int64_t) { return 0.0; });
      p.run();
      p.expect_reference(2e-2);
    }
}

TEST_P(Recurrences, neverLetATokenChangeAnEarlierOutput) {
  Device m(GetParam());
  for (const Operator& op : kOperators)
    for (const int64_t changed : {37, 81}) {
      SCOPED_TRACE(op.name);
      Problem p(m, op, DType::bf16, {1, 97, 1, 1, 24, 16});
      p.run();
      const auto before = p.outputs(0, changed);
      for (Tensor* t : {&p.q, &p.k, &p.v, &p.beta, &p.g}) {
        const int64_t from = t->elements() / 97 * changed;
        t->fill([&](int64_t i) { return i < from ? (*t)[i] : t == &p.g ? -7.0 : -3 * (*t)[i]; });
      }
      p.run();
      EXPECT_EQ(p.outputs(0, changed), before);
    }
}

TEST_P(Recurrences, giveAPackedSequenceTheBitsItHasAlone) {
  Device m(GetParam());
  const std::vector<int32_t> lengths = {0, 1, 70, 16, 0, 130, 3};
  for (const Operator& op : kOperators)
    for (const DType type : {DType::f16, DType::f32}) {
      SCOPED_TRACE(op.name);
      Problem packed(m, op, type, {1, 223, 1, 2, 24, 16}, lengths);
      packed.validate = false;  // three tokens belong to nobody
      packed.run();
      packed.expect_reference(glue_testing::bound_of(type));
      for (size_t n = 0; n < lengths.size(); ++n) {
        const int64_t T = lengths[n], begin = packed.cu[n], cells = 2 * 16 * 24;
        Problem alone(m, op, type, {1, T, 1, 2, 24, 16});
        const auto part = [&](Tensor& to, const Tensor& from) {
          const int64_t token = to.elements() / std::max<int64_t>(T, 1);
          to.fill([&](int64_t i) { return from[begin * token + i]; });
        };
        part(alone.q, packed.q);
        part(alone.k, packed.k);
        part(alone.v, packed.v);
        part(alone.beta, packed.beta);
        part(alone.g, packed.g);
        alone.initial.fill([&](int64_t i) { return packed.initial[static_cast<int64_t>(n) * cells + i]; });
        alone.run();
        EXPECT_EQ(alone.outputs(0, T), packed.outputs(begin, begin + T));
        for (int64_t i = 0; i < cells; ++i) EXPECT_EQ(alone.final[i], packed.final[static_cast<int64_t>(n) * cells + i]);
      }
    }
}

TEST_P(Recurrences, cutLongSequencesWhereHeadsAreFew) {
  Device m(GetParam());
  const int64_t T = 1541, V = GetParam() == kHopper ? 48 : 8;
  for (const Operator& op : {kOperators[0], kOperators[3], kOperators[4]}) {
    SCOPED_TRACE(op.name);
    Problem p(m, op, DType::bf16, {1, T, 1, 1, 16, V}, op.channel_gate ? std::vector<int32_t>{T} : std::vector<int32_t>{});
    p.run();
    EXPECT_EQ(GetParam() != CUL_BACKEND_CPU, p.plan.find("are cut after") != std::string::npos) << p.plan;
    p.expect_reference(5e-3);
    if (!op.token_gate || op.delta) continue;
    const auto once = p.outputs(0, T);
    p.run();
    EXPECT_EQ(p.outputs(0, T), once);
    p.run(CUL_OP_BATCH_INVARIANT);
    EXPECT_EQ(p.plan.find("are cut"), std::string::npos) << p.plan;
  }
}

TEST_P(Recurrences, keepCheckpointsOfChunks) {
  Device m(GetParam());
  for (const Operator& op : kOperators)
    for (const int32_t every : {64, 128}) {
      SCOPED_TRACE(::testing::Message() << op.name << " every " << every);
      Problem p(m, op, DType::f16, {1, 360, 1, 2, 24, 16}, every == 64 ? std::vector<int32_t>{70, 0, 128, 12, 150} : std::vector<int32_t>{});
      p.want_checkpoints(every);
      p.run();
      p.expect_reference(glue_testing::bound_of(p.type));
    }
}

// What a segment does to a state shows only where it forgets little: keys that stay the same for a while leave most of the state alone.
TEST_P(Recurrences, mergeSegmentsThatRememberMuch) {
  Device m(GetParam());
  const int64_t T = 1541, V = GetParam() == kHopper ? 48 : 8;
  for (const Operator& op : kOperators) {
    SCOPED_TRACE(op.name);
    Problem p(m, op, DType::f16, {1, T, 1, 1, 16, V});
    std::mt19937_64 random(29);
    std::uniform_real_distribution<double> gate(-0.004, 0), strength(0, 0.3);
    p.g.fill([&](int64_t) { return gate(random); });
    p.beta.fill([&](int64_t) { return strength(random); });
    if (op.delta) p.k.fill([](int64_t i) { return std::sin(static_cast<double>(i % 16 * (i / 16 / 90 * 7 + 3))) / 3; });
    p.run();
    EXPECT_EQ(GetParam() != CUL_BACKEND_CPU, p.plan.find("are cut after") != std::string::npos) << p.plan;
    p.expect_reference(glue_testing::bound_of(p.type));
  }
}

TEST_P(Recurrences, haveRowsForSeveralWarps) {
  Device m(GetParam());
  for (const Operator& op : kOperators)
    for (const int64_t T : {40, 150}) {
      SCOPED_TRACE(::testing::Message() << op.name << " T " << T);
      Problem p(m, op, T == 40 ? DType::f16 : DType::bf16, {1, T, 1, 2, T == 40 ? 40 : 96, T == 40 ? 48 : 72});
      p.run();
      p.expect_reference(glue_testing::bound_of(p.type));
    }
}

TEST_P(Recurrences, haveWideKeysThatValueHeadsShare) {
  Device m(GetParam());
  for (const int64_t T : {40, 300}) {
    SCOPED_TRACE(T);
    Problem p(m, kOperators[0], DType::f16, {2, T, 1, 2, 144, 24}, {}, 3);
    p.run();
    EXPECT_EQ(GetParam() != CUL_BACKEND_CPU, p.plan.find("spans of 256 tokens") != std::string::npos) << p.plan;
    p.expect_reference(glue_testing::bound_of(p.type));
  }
}

// q, k and v of a token side by side, o behind them all, tokens so far apart that the last ones lie beyond 2^31 elements; memory becomes real where
// it is touched.
TEST_P(Recurrences, reachTokensThatLieFarApart) {
  Device m(GetParam());
  for (const int64_t T : {3, 20}) {
    const int64_t step = ((int64_t{1} << 31) / (T - 1) / 64 + 1) * 64;
    ASSERT_GT((T - 1) * step, int64_t{1} << 31);
    const int64_t span = (T - 1) * step + 64;
    const auto bytes = static_cast<size_t>(2 * span) * sizeof(bfloat16_t);
    void* const memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    ASSERT_NE(memory, MAP_FAILED);
    const auto row = [&](size_t part, int64_t t) {
      return static_cast<bfloat16_t*>(memory) + t * step + (part == 3 ? span : 16 * static_cast<int64_t>(part));
    };
    int64_t shape[] = {1, T, 1, 16}, strides[] = {T * step, step, 16, 1};
#if CULEBRA_HAS_SIMT
    for (int64_t t = 0; t < T; ++t)  // what emulated kernels may touch
      for (const auto& [part, parts] : {std::pair<size_t, size_t>{0, 3}, {3, 1}}) {
        simt::register_global(row(part, t), parts * 16 * sizeof(bfloat16_t));
        simt::mark_initialized(row(part, t), parts * 16 * sizeof(bfloat16_t));
      }
#endif
    for (const Operator& op : kOperators) {
      SCOPED_TRACE(::testing::Message() << op.name << " T " << T);
      Problem p(m, op, DType::bf16, {1, T, 1, 1, 16, 16});
      p.run();
      const auto expected = p.outputs(0, T);
      const Tensor* const near[] = {&p.q, &p.k, &p.v};
      for (size_t part = 0; part < 4; ++part) {
        p.far.push_back({row(part, 0), m.id, 4, glue_testing::encoding(DType::bf16), shape, strides, 0});
        for (int64_t t = 0; t < T && part < 3; ++t)
          for (int64_t i = 0; i < 16; ++i) row(part, t)[i] = from_float<bfloat16_t>(static_cast<float>((*near[part])[t * 16 + i]));
      }
      p.run();
      for (int64_t t = 0; t < T; ++t)
        for (int64_t i = 0; i < 16; ++i) EXPECT_EQ(to_float(row(3, t)[i]), expected[static_cast<size_t>(t * 16 + i)]) << t;
    }
#if CULEBRA_HAS_SIMT
    for (int64_t t = 0; t < T; ++t)
      for (const size_t part : {0, 3}) simt::unregister_global(row(part, t));
#endif
    EXPECT_EQ(munmap(memory, bytes), 0);
  }
}

TEST_P(Recurrences, haveMoreHeadsThanAGridIsHigh) {
  Device m(GetParam());
  Problem p(m, kOperators[3], DType::bf16, {33000, 1, 1, 2, 8, 8}, {}, 0);
  p.run();
  p.expect_reference(5e-3);
}

}  // namespace
}  // namespace culebra
