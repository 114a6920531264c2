// mixture_of_memories on every backend against the recurrence in double, where its long sequences gather what each memory gets.
#include "culebra/linear_attention.h"
#include "linear_attention_devices.h"

namespace culebra {
namespace {

using glue_testing::Tensor;
using linear_attention_testing::Device;

constexpr int64_t kMemories = 3, kSlots = 2, kHeads = 2, kKeys = 16, kValues = 8;  // one q/k head

// Each slot has q, k, v, beta and gate of its own. Packed sequences, a pool of states.
struct Memories {
  Memories(Device& m, int64_t T, std::vector<int32_t> lengths, std::vector<int32_t> from, std::vector<int32_t> to)
      : machine(m),
        T(T),
        lengths(std::move(lengths)),
        from(std::move(from)),
        to(std::move(to)),
        q(m, DType::f16, {1, T, kSlots, 1, kKeys}),
        k(m, DType::f16, {1, T, kSlots, 1, kKeys}),
        v(m, DType::f16, {1, T, kSlots, kHeads, kValues}),
        o(m, DType::f16, {1, T, kHeads, kValues}),
        beta(m, DType::f32, {1, T, kSlots, kHeads}),
        g(m, DType::f32, {1, T, kSlots, kHeads}),
        ids(m, DType::i32, {1, T, kSlots}),
        weights(m, DType::f32, {1, T, kSlots}),
        initial(m, DType::f32, {kPool, kMemories, kHeads, kValues, kKeys}),
        final(m, DType::f32, {kPool, kMemories, kHeads, kValues, kKeys}),
        cu(m, DType::i32, {count() + 1}),
        read(m, DType::i32, {count()}),
        write(m, DType::i32, {count()}) {
    std::mt19937_64 random(23);
    q.normal(random);
    k.normal(random, 0.25);
    v.normal(random);
    initial.normal(random);
    std::uniform_real_distribution<double> part(0, 1);
    for (Tensor* t : {&beta, &weights}) t->fill([&](int64_t) { return part(random); });
    g.fill([&](int64_t) { return -0.3 * part(random); });
    route(0, random);
    cu.fill([&](int64_t n) { return begin(n); });
    read.fill([&](int64_t n) { return this->from[static_cast<size_t>(n)]; });
    write.fill([&](int64_t n) { return this->to[static_cast<size_t>(n)]; });
  }
  static constexpr int64_t kPool = 5;

  // Two memories for each token from `first` on, or one, or none.
  void route(int64_t first, std::mt19937_64& random) {
    std::vector<int64_t> list;
    for (int64_t t = 0; t < T; ++t) {
      const int64_t m = static_cast<int64_t>(random() % kMemories);
      list.push_back(random() % 8 ? m : -1);
      list.push_back(random() % 4 ? (m + 1) % kMemories : -1);
    }
    ids.fill([&](int64_t i) { return i < first * kSlots ? ids[i] : static_cast<double>(list[static_cast<size_t>(i)]); });
  }
  int64_t count() const { return static_cast<int64_t>(lengths.size()); }
  int64_t begin(int64_t n) const { return std::accumulate(lengths.begin(), lengths.begin() + n, int64_t{0}); }

  void run(bool gathers) {
    auto args = glue_testing::args_of<cul_mixture_of_memories_args>();
    args.q = q;
    args.k = k;
    args.v = v;
    args.beta = beta;
    args.g = g;
    args.ids = ids;
    args.weights = weights;
    args.cu_seqlens = cu;
    args.state_read_index = read;
    args.state_write_index = write;
    args.initial_state = initial;
    args.final_state = final;
    args.o = o;
    args.call.flags = CUL_OP_PLAN_ONLY;
    ASSERT_EQ(cul_mixture_of_memories(machine.stream, &args), CUL_OK) << cul_last_error();
    EXPECT_EQ(gathers, std::string(cul_last_plan()).find("chunks of 64 tokens") != std::string::npos) << cul_last_plan();
    void* workspace = nullptr;
    const uint64_t bytes = cul_last_workspace_bytes();
    if (bytes) {
      ASSERT_EQ(cul_memory_alloc(machine.device, bytes, &workspace), CUL_OK) << cul_last_error();
    }
    args.call.flags = validate;
    args.call.workspace = workspace;
    args.call.workspace_bytes = bytes;
    ASSERT_EQ(cul_mixture_of_memories(machine.stream, &args), CUL_OK) << cul_last_error();
    o.read();
    final.read();
    EXPECT_EQ(cul_memory_free(machine.device, workspace), CUL_OK);
  }

  void expect_reference() const {
    constexpr int64_t cells = kHeads * kValues * kKeys;
    double error[2] = {}, size[2] = {};
    for (int64_t n = 0; n < count(); ++n) {
      const int64_t from_row = from[static_cast<size_t>(n)], to_row = to[static_cast<size_t>(n)];
      const bool skipped = from_row < 0 || to_row < 0;
      std::vector<double> s(static_cast<size_t>(kMemories * cells));
      for (size_t i = 0; i < s.size() && !skipped; ++i) s[i] = initial[from_row * kMemories * cells + static_cast<int64_t>(i)];
      for (int64_t token = begin(n); token < begin(n) + lengths[static_cast<size_t>(n)]; ++token)
        for (int64_t h = 0; h < kHeads; ++h)
          for (int64_t x = 0; x < kValues; ++x) {
            double sum = 0;
            for (int64_t j = 0; j < kSlots && !skipped; ++j) {
              const int64_t slot = token * kSlots + j, m = static_cast<int64_t>(ids[slot]);
              if (m < 0) continue;
              double* row = &s[static_cast<size_t>((m * kHeads + h) * kValues * kKeys + x * kKeys)];
              double seen = 0, out = 0;
              for (int64_t c = 0; c < kKeys; ++c) seen += (row[c] *= std::exp(g[slot * kHeads + h])) * k[slot * kKeys + c];
              const double d = beta[slot * kHeads + h] * (v[(slot * kHeads + h) * kValues + x] - seen);
              for (int64_t c = 0; c < kKeys; ++c) out += (row[c] += d * k[slot * kKeys + c]) * q[slot * kKeys + c];
              sum += weights[slot] * out / 4;
            }
            error[0] += std::pow(o[(token * kHeads + h) * kValues + x] - sum, 2);
            size[0] += sum * sum;
          }
      for (size_t i = 0; i < s.size() && !skipped; ++i) {
        error[1] += std::pow(final[to_row * kMemories * cells + static_cast<int64_t>(i)] - s[i], 2);
        size[1] += s[i] * s[i];
      }
    }
    EXPECT_LE(std::sqrt(error[0]), 2e-3 * std::sqrt(size[0])) << "o";
    EXPECT_LE(std::sqrt(error[1]), 2e-3 * std::sqrt(size[1])) << "final_state";
  }

  Device& machine;
  int64_t T;
  std::vector<int32_t> lengths, from, to;
  uint32_t validate = CUL_OP_VALIDATE;
  Tensor q, k, v, o, beta, g, ids, weights, initial, final, cu, read, write;
};

class MixedMemories : public ::testing::TestWithParam<int32_t> {};
INSTANTIATE_TEST_SUITE_P(Devices, MixedMemories, ::testing::ValuesIn(linear_attention_testing::devices()),
                         [](const auto& info) { return linear_attention_testing::device_name(info.param); });

TEST_P(MixedMemories, haveSequencesOfEveryLength) {
  Device m(GetParam());
  Memories p(m, 740, {0, 5, 600, 16, 17, 100}, {0, 4, 2, 1, 3, -1}, {0, 1, 4, 3, 2, 3});
  p.validate = 0;  // two tokens belong to nobody
  p.run(GetParam() != CUL_BACKEND_CPU);
  p.expect_reference();
}

TEST_P(MixedMemories, haveBitsThatNoLaterRouteChanges) {
  Device m(GetParam());
  Memories p(m, 150, {150}, {0}, {1});
  p.run(GetParam() != CUL_BACKEND_CPU);
  std::mt19937_64 random(7);
  for (const int64_t first : {20, 90}) {
    std::vector<double> before;
    for (int64_t i = 0; i < first * kHeads * kValues; ++i) before.push_back(p.o[i]);
    p.route(first, random);
    p.run(GetParam() != CUL_BACKEND_CPU);
    for (size_t i = 0; i < before.size(); ++i) ASSERT_EQ(p.o[static_cast<int64_t>(i)], before[i]) << i;
  }
}

// The contract forbids it, and has no result for it; no kernel reads what is not there.
TEST_P(MixedMemories, mayBeNamedTwiceByAToken) {
  Device m(GetParam());
  Memories p(m, 40, {40}, {0}, {1});
  p.ids.fill([](int64_t i) { return i / kSlots % kMemories; });
  p.run(GetParam() != CUL_BACKEND_CPU);
  for (int64_t i = 0; i < 40 * kHeads * kValues; ++i) ASSERT_TRUE(std::isfinite(p.o[i])) << i;
}

}  // namespace
}  // namespace culebra
