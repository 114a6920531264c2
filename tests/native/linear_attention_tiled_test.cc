// mlstm on every backend against the recurrence in double, where the cases do not reach: heads wide enough for the tiled form of the kernels, around
// the edges of its chunks, blocks and spans.
#include "culebra/linear_attention.h"
#include "linear_attention_devices.h"

namespace culebra {
namespace {

using glue_testing::Machine;
using glue_testing::Tensor;
using linear_attention_testing::Device;

struct Shape {
  int64_t T, H, K, V;
};
struct Options {
  bool exponential = true, normalize = true, kv = false;
  int32_t every = 0;
  std::vector<int32_t> lengths = {};      // packed sequences; else one of T tokens
  uint32_t validate = CUL_OP_VALIDATE;
  std::vector<int32_t> read = {}, write = {};  // rows of a pool
  bool initial = true;
  int64_t pad = 8;
};

double log_sigmoid(double x) { return std::min(x, 0.0) - std::log1p(std::exp(-std::abs(x))); }

struct Mlstm {
  Mlstm(Machine& m, DType type, Shape s, Options options)
      : machine(m),
        s(s),
        x(std::move(options)),
        q(m, type, {1, s.T, s.H, s.K}, rows(s.K)),
        k(m, type, {1, s.T, s.H, s.K}, rows(s.K)),
        v(m, type, {1, s.T, s.H, s.V}, rows(s.V)),
        o(m, type, {1, s.T, s.H, s.V}, rows(s.V)),
        i(m, DType::f32, {1, s.T, s.H}),
        f(m, DType::f32, {1, s.T, s.H}),
        c0(m, DType::f32, state(pool())),
        c1(m, DType::f32, state(pool())),
        n0(m, DType::f32, {pool(), s.H, s.K}),
        n1(m, DType::f32, {pool(), s.H, s.K}),
        m0(m, DType::f32, {pool(), s.H}),
        m1(m, DType::f32, {pool(), s.H}),
        checkpoints(m, DType::f32, state(checkpoint_count())),
        cu(m, DType::i32, {count() + 1}),
        read(m, DType::i32, {count()}),
        write(m, DType::i32, {count()}) {
    std::mt19937_64 random(11);
    q.normal(random);
    k.normal(random);
    v.normal(random);
    i.normal(random, 2);
    f.normal(random, 2, 3);
    c0.normal(random);
    n0.normal(random);
    m0.normal(random);
    cu.fill([&](int64_t n) { return begin(n); });
    if (!x.read.empty()) read.fill([&](int64_t n) { return x.read[static_cast<size_t>(n)]; });
    if (!x.write.empty()) write.fill([&](int64_t n) { return x.write[static_cast<size_t>(n)]; });
  }

  std::vector<int64_t> rows(int64_t dim) const {
    const int64_t head = dim + x.pad, token = s.H * head + x.pad;
    return {s.T * token, token, head, 1};
  }
  std::vector<int64_t> state(int64_t n) const { return {n, s.H, x.kv ? s.K : s.V, x.kv ? s.V : s.K}; }
  int64_t count() const { return x.lengths.empty() ? 1 : static_cast<int64_t>(x.lengths.size()); }
  int64_t pool() const { return x.read.empty() ? count() : 5; }
  int64_t length(int64_t n) const { return x.lengths.empty() ? s.T : x.lengths[static_cast<size_t>(n)]; }
  int64_t begin(int64_t n) const {
    int64_t sum = 0;
    for (int64_t before = 0; before < n; ++before) sum += length(before);
    return sum;
  }
  int64_t checkpoint_count() const {
    int64_t sum = 0;
    for (int64_t n = 0; x.every && n < count(); ++n) sum += length(n) / x.every;
    return sum;
  }

  void run(uint32_t flags = 0) {
    auto args = glue_testing::args_of<cul_mlstm_args>();
    args.q = q;
    args.k = k;
    args.v = v;
    args.i = i;
    args.f = f;
    args.o = o;
    if (!x.lengths.empty()) args.cu_seqlens = cu;
    if (!x.read.empty()) args.state_read_index = read, args.state_write_index = write;
    if (x.initial) {
      args.initial_state = c0;
      if (x.normalize) args.n_state = n0;
      if (x.exponential) args.m_state = m0;
    }
    args.final_state = c1;
    if (x.normalize) args.final_n_state = n1;
    if (x.exponential) args.final_m_state = m1;
    if (x.every) args.checkpoints = checkpoints;
    args.checkpoint_every = x.every;
    args.state_layout = x.kv ? CUL_STATE_KV : CUL_STATE_VK;
    args.input_gate = x.exponential ? CUL_INPUT_GATE_EXP : CUL_INPUT_GATE_SIGMOID;
    args.normalize = x.normalize;
    args.eps = 1e-6f;
    args.call.flags = flags | CUL_OP_PLAN_ONLY;
    ASSERT_EQ(cul_mlstm(machine.stream, &args), CUL_OK) << cul_last_error();
    plan = cul_last_plan();
    void* workspace = nullptr;
    const uint64_t bytes = cul_last_workspace_bytes();
    if (bytes) {
      ASSERT_EQ(cul_memory_alloc(machine.device, bytes, &workspace), CUL_OK) << cul_last_error();
    }
    args.call.flags = flags | x.validate;
    args.call.workspace = workspace;
    args.call.workspace_bytes = bytes;
    ASSERT_EQ(cul_mlstm(machine.stream, &args), CUL_OK) << cul_last_error();
    for (Tensor* t : {&o, &c1, &n1, &m1, &checkpoints}) t->read();
    EXPECT_EQ(cul_memory_free(machine.device, workspace), CUL_OK);
  }

  // |result - reference| and |reference|.
  struct Distance {
    double error = 0, size = 0;
    void add(double result, double reference) {
      error += std::isnan(result) ? INFINITY : (result - reference) * (result - reference);
      size += reference * reference;
    }
    void expect(double bound, const char* what) const { EXPECT_LE(std::sqrt(error), bound * std::sqrt(size)) << what; }
  };

  void expect_reference() const {
    Distance of_o, of_c, of_n, of_m, of_checkpoints;
    int64_t first_checkpoint = 0;
    for (int64_t n = 0; n < count(); ++n) {
      const int64_t from = x.read.empty() ? n : x.read[static_cast<size_t>(n)], to = x.write.empty() ? n : x.write[static_cast<size_t>(n)];
      const bool skipped = from < 0 || to < 0;
      for (int64_t h = 0; h < s.H; ++h) {
        const auto cell = [&](int64_t row, int64_t a, int64_t b) {
          return (row * s.H + h) * s.V * s.K + (x.kv ? b * s.V + a : a * s.K + b);
        };
        std::vector<double> c(static_cast<size_t>(s.V * s.K)), norm(static_cast<size_t>(s.K));
        double peak = 0;
        if (x.initial && !skipped) {
          for (int64_t a = 0; a < s.V; ++a)
            for (int64_t b = 0; b < s.K; ++b) c[static_cast<size_t>(a * s.K + b)] = c0[cell(from, a, b)];
          for (int64_t b = 0; b < s.K; ++b) norm[static_cast<size_t>(b)] = n0[(from * s.H + h) * s.K + b];
          peak = m0[from * s.H + h];
        }
        for (int64_t t = 0; t < length(n); ++t) {
          const int64_t token = (begin(n) + t) * s.H + h;
          const double log_f = log_sigmoid(f[token]), before = peak;
          peak = std::max(log_f + before, i[token]);
          const double decay = x.exponential ? std::exp(log_f + before - peak) : std::exp(log_f);
          const double weight = x.exponential ? std::exp(i[token] - peak) : std::exp(log_sigmoid(i[token]));
          const double least = x.exponential ? std::exp(-peak) : 1;
          double product = 0;
          for (int64_t b = 0; b < s.K; ++b) {
            double& cell_n = norm[static_cast<size_t>(b)];
            cell_n = decay * cell_n + weight * k[token * s.K + b];
            product += cell_n * q[token * s.K + b] / std::sqrt(static_cast<double>(s.K));
          }
          const double divisor = x.normalize ? std::max(std::abs(product), least) + 1e-6 : 1;
          for (int64_t a = 0; a < s.V; ++a) {
            double out = 0;
            for (int64_t b = 0; b < s.K; ++b) {
              double& value = c[static_cast<size_t>(a * s.K + b)];
              value = decay * value + weight * v[token * s.V + a] * k[token * s.K + b];
              out += value * q[token * s.K + b];
            }
            of_o.add(o[token * s.V + a], skipped ? 0 : out / std::sqrt(static_cast<double>(s.K)) / divisor);
          }
          if (x.every && (t + 1) % x.every == 0)
            for (int64_t a = 0; a < s.V; ++a)
              for (int64_t b = 0; b < s.K; ++b)
                of_checkpoints.add(checkpoints[cell(first_checkpoint + t / x.every, a, b)], skipped ? 0 : c[static_cast<size_t>(a * s.K + b)]);
        }
        if (skipped) continue;
        for (int64_t a = 0; a < s.V; ++a)
          for (int64_t b = 0; b < s.K; ++b) of_c.add(c1[cell(to, a, b)], c[static_cast<size_t>(a * s.K + b)]);
        for (int64_t b = 0; x.normalize && b < s.K; ++b) of_n.add(n1[(to * s.H + h) * s.K + b], norm[static_cast<size_t>(b)]);
        if (x.exponential) of_m.add(m1[to * s.H + h], peak);
      }
      if (x.every) first_checkpoint += length(n) / x.every;
    }
    const double bound = glue_testing::bound_of(q.type());
    of_o.expect(bound, "o");
    of_c.expect(bound, "final_state");
    of_n.expect(bound, "final_n_state");
    of_m.expect(bound, "final_m_state");
    of_checkpoints.expect(bound, "checkpoints");
  }

  std::vector<double> outputs(int64_t from, int64_t to) const {
    std::vector<double> list;
    for (int64_t at = from * s.H * s.V; at < to * s.H * s.V; ++at) list.push_back(o[at]);
    return list;
  }

  Machine& machine;
  Shape s;
  Options x;
  std::string plan;
  Tensor q, k, v, o, i, f, c0, c1, n0, n1, m0, m1, checkpoints, cu, read, write;
};

// Whether the backend has the tiled form, and a plan says so.
void expect_tiled(const Mlstm& p, int32_t backend) {
  EXPECT_EQ(backend != CUL_BACKEND_CPU, p.plan.find("spans of 256 tokens") != std::string::npos) << p.plan;
}

class WideMlstm : public ::testing::TestWithParam<int32_t> {};
INSTANTIATE_TEST_SUITE_P(Devices, WideMlstm, ::testing::ValuesIn(linear_attention_testing::devices()),
                         [](const auto& info) { return linear_attention_testing::device_name(info.param); });

TEST_P(WideMlstm, hasEveryLengthAroundChunksBlocksAndSpans) {
  Device m(GetParam());
  for (const int64_t T : {17, 64, 65, 128, 193, 256, 257, 330}) {
    SCOPED_TRACE(::testing::Message() << "T " << T);
    Options x;
    x.exponential = T % 2;
    x.normalize = x.exponential || T != 128;
    x.initial = T != 256 && T != 65;
    Mlstm p(m, T % 3 ? DType::bf16 : DType::f16, {T, 1, T == 330 ? 256 : 136, T == 193 ? 80 : 16}, x);
    p.run();
    expect_tiled(p, GetParam());
    p.expect_reference();
  }
}

TEST_P(WideMlstm, hasHeadsOfSeveralTiles) {
  Device m(GetParam());
  for (const bool exponential : {true, false}) {
    SCOPED_TRACE(exponential);
    Options x;
    x.exponential = exponential;
    x.kv = exponential;
    x.pad = exponential ? 3 : 8;  // rows that are not aligned
    Mlstm p(m, exponential ? DType::bf16 : DType::f16, {260, 1, 200, 296}, x);
    p.run();
    expect_tiled(p, GetParam());
    p.expect_reference();
  }
}

TEST_P(WideMlstm, carriesItsMaximumOverManyChunks) {
  Device m(GetParam());
  Mlstm p(m, DType::f16, {2120, 1, 8, 8}, {});
  p.run();
  p.expect_reference();
}

TEST_P(WideMlstm, packsSequencesAndKeepsCheckpoints) {
  Device m(GetParam());
  Options x;
  x.lengths = {1, 5, 130, 300, 70, 16};
  x.read = {4, 0, 2, 4, -1, 3};
  x.write = {0, 1, 2, 3, 4, -1};
  x.every = 64;
  x.validate = 0;  // three tokens belong to nobody
  Mlstm p(m, DType::bf16, {525, 2, 136, 24}, x);
  p.run();
  p.expect_reference();
  const int64_t T = 300, begin = p.begin(3), cells = 2 * 136 * 24;
  Mlstm alone(m, DType::bf16, {T, 2, 136, 24}, {});
  const auto part = [&](Tensor& to, const Tensor& from) {
    const int64_t token = to.elements() / T;
    to.fill([&](int64_t at) { return from[begin * token + at]; });
  };
  part(alone.q, p.q);
  part(alone.k, p.k);
  part(alone.v, p.v);
  part(alone.i, p.i);
  part(alone.f, p.f);
  alone.c0.fill([&](int64_t at) { return p.c0[4 * cells + at]; });
  alone.n0.fill([&](int64_t at) { return p.n0[4 * 2 * 136 + at]; });
  alone.m0.fill([&](int64_t at) { return p.m0[4 * 2 + at]; });
  alone.run(CUL_OP_BATCH_INVARIANT);
  EXPECT_EQ(alone.outputs(0, T), p.outputs(begin, begin + T));
  for (int64_t at = 0; at < cells; ++at) EXPECT_EQ(alone.c1[at], p.c1[3 * cells + at]);
}

TEST_P(WideMlstm, neverLetsATokenChangeAnEarlierOutput) {
  Device m(GetParam());
  for (const int64_t changed : {37, 100, 270}) {
    SCOPED_TRACE(changed);
    Mlstm p(m, DType::f16, {290, 1, 136, 16}, {});
    p.run();
    const auto before = p.outputs(0, changed);
    for (Tensor* t : {&p.q, &p.k, &p.v, &p.i, &p.f}) {
      const int64_t from = t->elements() / 290 * changed;
      t->fill([&](int64_t at) { return at < from ? (*t)[at] : -3 * (*t)[at] + 1; });
    }
    p.run();
    EXPECT_EQ(p.outputs(0, changed), before);
  }
}

TEST_P(WideMlstm, standsGatesThatCloseAndOpen) {
  Device m(GetParam());
  for (const bool exponential : {true, false}) {
    Options x;
    x.exponential = exponential;
    Mlstm p(m, DType::bf16, {300, 1, 136, 16}, x);
    std::mt19937_64 random(3);
    const double gates[] = {-40, -1, 0, 8, 40};
    p.f.fill([&](int64_t) { return gates[random() % 5]; });
    p.i.fill([&](int64_t) { return gates[random() % 5]; });
    p.run();
    p.expect_reference();
  }
}

TEST_P(WideMlstm, hasACousinThatReadsTheLastState) {
  Device m(GetParam());
  const int64_t T = 150, K = 136, V = 16;
  Tensor q(m, DType::f16, {1, T, 1, K}), k(m, DType::f16, {1, T, 1, K}), v(m, DType::f16, {1, T, 1, V}), o(m, DType::f16, {1, T, 1, V});
  std::mt19937_64 random(5);
  q.normal(random);
  k.normal(random);
  v.normal(random);
  auto args = glue_testing::args_of<cul_linear_attention_args>();
  args.q = q;
  args.k = k;
  args.v = v;
  args.o = o;  // neither causal nor normalised, and no states
  args.call.flags = CUL_OP_PLAN_ONLY;
  ASSERT_EQ(cul_linear_attention(m.stream, &args), CUL_OK) << cul_last_error();
  EXPECT_EQ(GetParam() != CUL_BACKEND_CPU, std::string(cul_last_plan()).find("spans of 256 tokens") != std::string::npos);
  void* workspace = nullptr;
  if (const uint64_t bytes = cul_last_workspace_bytes()) {
    ASSERT_EQ(cul_memory_alloc(m.device, bytes, &workspace), CUL_OK) << cul_last_error();
    args.call.workspace = workspace;
    args.call.workspace_bytes = bytes;
  }
  args.call.flags = 0;
  ASSERT_EQ(cul_linear_attention(m.stream, &args), CUL_OK) << cul_last_error();
  o.read();
  EXPECT_EQ(cul_memory_free(m.device, workspace), CUL_OK);
  std::vector<double> reference;
  for (int64_t t = 0; t < T; ++t) {
    std::vector<double> row(static_cast<size_t>(V));
    for (int64_t s = 0; s < T; ++s) {
      double score = 0;
      for (int64_t c = 0; c < K; ++c) score += q[t * K + c] * k[s * K + c] / std::sqrt(static_cast<double>(K));
      for (int64_t c = 0; c < V; ++c) row[static_cast<size_t>(c)] += score * v[s * V + c];
    }
    reference.insert(reference.end(), row.begin(), row.end());
  }
  glue_testing::expect_close(o, reference);
}

}  // namespace
}  // namespace culebra
