// Sampling: its arithmetic, and the op on every backend against the contract computed in double.
#include "glue_harness.h"
#include "ops/glue/sample_weights.h"

namespace culebra {
namespace {

using namespace glue_testing;

TEST(GlueSample, PhiloxKnownAnswers) {  // published with the Random123 library
  const auto expect = [](uint64_t low, uint64_t high, uint64_t key, std::array<uint32_t, 4> want) {
    const Philox4x32 got = philox4x32_10(low, high, key);
    for (int i = 0; i < 4; ++i) EXPECT_EQ(got.v[i], want[static_cast<size_t>(i)]);
  };
  expect(0, 0, 0, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8});
  expect(~0ull, ~0ull, ~0ull, {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd});
  expect(0x85a308d3243f6a88, 0x0370734413198a2e, 0x299f31d0a4093822, {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1});
}

TEST(GlueSample, WeightsAreExponentials) {
  const double largest = 0x1p62;
  EXPECT_EQ(glue::sample_weight(0, 0), uint64_t{1} << 62);
  uint64_t before = ~0ull;
  for (uint64_t key = 0; key < 1ull << 32; key += 65521) {
    const uint64_t weight = glue::sample_weight(static_cast<uint32_t>(key), 0);
    EXPECT_LE(weight, before);
    before = weight;
    const double want = largest * std::exp(-static_cast<double>(key) * 0x1p-26);
    EXPECT_NEAR(static_cast<double>(weight), want, want * 5e-9 + 1);
  }
  EXPECT_EQ(glue::sample_weight(glue::kLastKey, 0), 0u);
  EXPECT_EQ(glue::sample_shift(1), 0);
  EXPECT_EQ(glue::sample_shift(262144), 18);
  EXPECT_EQ(glue::sample_shift(262145), 19);
}

struct SampleRow {
  double temperature;
  int top_k;
  double top_p, min_p;
  int64_t seed, position;
};

// The contract in double, by sorting.
int64_t sample_reference(const std::vector<double>& logits, const SampleRow& s, bool* near_a_boundary) {
  std::vector<int64_t> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return logits[static_cast<size_t>(a)] > logits[static_cast<size_t>(b)]; });
  const double largest = logits[static_cast<size_t>(order[0])];
  std::vector<double> p;
  double total = 0;
  for (int64_t id : order) total += p.emplace_back(std::exp((logits[static_cast<size_t>(id)] - largest) / static_cast<float>(s.temperature)));
  for (double& v : p) v /= total;
  size_t kept = p.size();
  *near_a_boundary = false;
  const auto near = [&](double a, double b) { *near_a_boundary |= std::abs(a - b) < 1e-6 * std::max(1e-3, std::abs(b)); };
  if (s.top_k > 0) kept = std::min(kept, static_cast<size_t>(s.top_k));
  if (static_cast<float>(s.top_p) < 1) {
    const double reach = static_cast<float>(s.top_p) * std::accumulate(p.begin(), p.begin() + static_cast<int64_t>(kept), 0.0);
    double sum = 0;
    for (size_t i = 0; i < kept; ++i) {
      sum += p[i];
      near(sum, reach);
      if (sum >= reach) kept = i + 1;
    }
  }
  double mass = 0;
  size_t n = 0;
  for (; n < kept && p[n] >= static_cast<float>(s.min_p) * p[0]; ++n) {
    near(p[n], static_cast<float>(s.min_p) * p[0]);
    mass += p[n];
  }
  if (n < kept) near(p[n], static_cast<float>(s.min_p) * p[0]);
  const Philox4x32 random = philox4x32_10(static_cast<uint64_t>(s.position), 0, static_cast<uint64_t>(s.seed));
  const double target = random.v[0] * 0x1p-32 * mass;
  double sum = 0;
  for (size_t i = 0; i < n; ++i) {
    sum += p[i];
    near(target, sum);
    if (sum > target) return order[i];
  }
  return order[n - 1];
}

struct SampleResult {
  std::vector<double> ids, logprobs;
};

SampleResult sample_on(int32_t backend, DType type, const std::vector<double>& logits, int64_t columns, const std::vector<SampleRow>& rows,
                       bool padded = false) {
  Machine m(backend);
  const auto n = static_cast<int64_t>(rows.size());
  Tensor x(m, type, {n, columns}, padded ? std::vector<int64_t>{columns + 3, 1} : std::vector<int64_t>{});
  Tensor temperature(m, DType::f32, {n}), top_k(m, DType::i32, {n}), top_p(m, DType::f32, {n}), min_p(m, DType::f32, {n}), seed(m, DType::i64, {n}),
      position(m, DType::i64, {n}), ids(m, DType::i32, {n}), logprob(m, DType::f32, {n});
  x.fill([&](int64_t i) { return logits[static_cast<size_t>(i)]; });
  const auto row = [&](int64_t i) -> const SampleRow& { return rows[static_cast<size_t>(i)]; };
  temperature.fill([&](int64_t i) { return row(i).temperature; });
  top_k.fill([&](int64_t i) { return row(i).top_k; });
  top_p.fill([&](int64_t i) { return row(i).top_p; });
  min_p.fill([&](int64_t i) { return row(i).min_p; });
  seed.fill([&](int64_t i) { return static_cast<double>(row(i).seed); });
  position.fill([&](int64_t i) { return static_cast<double>(row(i).position); });
  auto args = args_of<cul_sample_args>();
  args.logits = x, args.temperature = temperature, args.top_k = top_k, args.top_p = top_p, args.min_p = min_p, args.seed = seed;
  args.position = position, args.ids = ids, args.logprob = logprob;
  run(m, cul_sample, args, {&ids, &logprob});
  SampleResult result;
  for (int64_t i = 0; i < n; ++i) result.ids.push_back(ids[i]), result.logprobs.push_back(logprob[i]);
  return result;
}

TEST(GlueSample, AgreesWithTheContractAndBetweenBackends) {
  const uint64_t seed = 77;
  std::mt19937_64 random(seed);
  int compared = 0;
  for (DType type : {DType::f32, DType::f16, DType::bf16})
    for (int64_t columns : {1, 2, 50, 1000, 4099}) {
      const int64_t n = columns > 1000 ? 8 : 24;
      std::normal_distribution<double> d(0, 4);
      std::vector<double> logits;
      for (int64_t i = 0; i < n * columns; ++i) {  // as stored
        const auto v = static_cast<float>(d(random));
        logits.push_back(type == DType::f32 ? v : type == DType::f16 ? to_float(from_float<half_t>(v)) : to_float(from_float<bfloat16_t>(v)));
      }
      std::vector<SampleRow> rows;
      for (int64_t i = 0; i < n; ++i)
        rows.push_back({std::vector<double>{1, 0.7, 1.5, 0.05, 100}[random() % 5], std::vector<int>{0, 0, 1, 5, 40, 100000}[random() % 6],
                        std::vector<double>{1, 1, 0.9, 0.5, 0.01}[random() % 5], std::vector<double>{0, 0, 0.05, 0.5}[random() % 4],
                        static_cast<int64_t>(random() >> 12), static_cast<int64_t>(random() % 5000)});
      const SampleResult cpu = sample_on(CUL_BACKEND_CPU, type, logits, columns, rows);
      for (int64_t i = 0; i < n; ++i) {
        const std::vector<double> row(logits.begin() + i * columns, logits.begin() + (i + 1) * columns);
        const SampleRow& s = rows[static_cast<size_t>(i)];
        SCOPED_TRACE(testing::Message() << name_of(type) << " V " << columns << " row " << i << " seed " << seed << ": T " << s.temperature << " k "
                                        << s.top_k << " p " << s.top_p << " min " << s.min_p);
        bool near_a_boundary;
        const int64_t want = sample_reference(row, s, &near_a_boundary);
        const auto id = static_cast<int64_t>(cpu.ids[static_cast<size_t>(i)]);
        compared += !near_a_boundary;
        EXPECT_TRUE(near_a_boundary || id == want) << id << " instead of " << want;
        ASSERT_TRUE(id >= 0 && id < columns);
        double largest = *std::max_element(row.begin(), row.end()), sum = 0;
        for (double l : row) sum += std::exp(l - largest);
        EXPECT_NEAR(cpu.logprobs[static_cast<size_t>(i)], row[static_cast<size_t>(id)] - largest - std::log(sum), 2e-5);
      }
#if CULEBRA_HAS_SIMT
      const SampleResult simt = sample_on(CUL_BACKEND_SIMT, type, logits, columns, rows, true);
      EXPECT_EQ(simt.ids, cpu.ids);
      for (size_t i = 0; i < rows.size(); ++i) EXPECT_NEAR(simt.logprobs[i], cpu.logprobs[i], 2e-5);
#endif
    }
  EXPECT_GT(compared, 200) << "too many rows lie near a boundary for this test to mean anything";
}

TEST(GlueSample, TiesCutsAndOddRows) {
  const double nan = std::nan(""), inf = kInfinity;
  const std::vector<double> equal = {1, 1, 1, 1}, odd = {nan, 2, -inf, 1}, infinite = {1, inf, inf, nan}, masked = {-inf, -inf, -inf, -inf},
                            nothing = {nan, nan, nan, nan};
  std::vector<double> logits;
  std::vector<SampleRow> rows;
  const auto add = [&](const std::vector<double>& row, SampleRow s) {
    logits.insert(logits.end(), row.begin(), row.end());
    rows.push_back(s);
  };
  for (int64_t position = 0; position < 8; ++position) {
    add(equal, {1, 2, 1, 0, 5, position});       // ids 0, 1
    add(equal, {1, 0, 0.5, 0, 5, position});     // 0.5 is reached by exactly two
    add(odd, {1, 0, 1, 0, 5, position});         // ids 1, 3
    add(odd, {1, 0, 1, 0.9, 5, position});       // id 1
    add(infinite, {1, 0, 1, 0, 5, position});    // ids 1, 2
    add(masked, {1, 0, 1, 0, 5, position});      // any
    add(nothing, {1, 0, 1, 0, 5, position});     // id 0
    add(odd, {0, 0, 1, 0, 5, position});         // argmax: NaN, id 0
    add(odd, {1, 0, 0, 2, 5, position});         // cuts that would leave nothing leave the largest
  }
  for (const int32_t backend : backends()) {
    const SampleResult got = sample_on(backend, DType::f32, logits, 4, rows);
    std::vector<std::vector<bool>> seen(9, std::vector<bool>(4));
    for (size_t i = 0; i < rows.size(); ++i) seen[i % 9][static_cast<size_t>(got.ids[i])] = true;
    EXPECT_EQ(seen[0], (std::vector<bool>{true, true, false, false}));
    EXPECT_EQ(seen[1], (std::vector<bool>{true, true, false, false}));
    EXPECT_EQ(seen[2], (std::vector<bool>{false, true, false, true}));
    EXPECT_EQ(seen[3], (std::vector<bool>{false, true, false, false}));
    EXPECT_EQ(seen[4], (std::vector<bool>{false, true, true, false}));
    EXPECT_EQ(seen[6], (std::vector<bool>{true, false, false, false}));
    EXPECT_EQ(seen[7], (std::vector<bool>{true, false, false, false}));
    EXPECT_EQ(seen[8], (std::vector<bool>{false, true, false, false}));
  }
}

TEST(GlueSample, FrequenciesFollowTheProbabilities) {
  const std::vector<double> row = {0, 1, 2, -1, 0.5};
  const int64_t draws = 20000;
  std::vector<double> logits;
  std::vector<SampleRow> rows;
  for (int64_t i = 0; i < draws; ++i) logits.insert(logits.end(), row.begin(), row.end()), rows.push_back({1, 0, 1, 0, 99, i});
  const SampleResult got = sample_on(CUL_BACKEND_CPU, DType::f32, logits, 5, rows);
  std::vector<double> count(5);
  for (double id : got.ids) ++count[static_cast<size_t>(id)];
  double sum = 0, chi_squared = 0;
  for (double l : row) sum += std::exp(l);
  for (size_t i = 0; i < 5; ++i) chi_squared += std::pow(count[i] - draws * std::exp(row[i]) / sum, 2) / (draws * std::exp(row[i]) / sum);
  EXPECT_LT(chi_squared, 18.5);  // 4 degrees of freedom, 0.1%
}

}  // namespace
}  // namespace culebra
