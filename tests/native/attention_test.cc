// attention, paged_attention and paged_append on the cpu against sums in double.
#include "culebra/attention.h"

#include "cpu_op_harness.h"

namespace culebra {
namespace {

using testing::Array;
using testing::Cpu;
using testing::Random;
using testing::rms_ratio;
using testing::tolerance;
using testing::values;

constexpr double kInfinity = std::numeric_limits<double>::infinity();

struct Mask {
  bool causal = false;
  int64_t left = -1, right = -1;
  bool operator()(int64_t position, int64_t key) const {
    if (left >= 0 && key < position - left) return false;
    return causal ? key <= position : right < 0 || key <= position + right;
  }
};

// One query row as the contract writes it. key(j), value(j, d) of the sequence; returns lse.
template <class Score, class Value>
double attend(int64_t keys, int64_t position, const Mask& mask, double softcap, double sink, int64_t value_dim,
              Score&& score, Value&& value, double* o) {
  double max = -kInfinity, sum = 0;
  std::vector<double> scores(static_cast<size_t>(keys), -kInfinity);
  for (int64_t j = 0; j < keys; ++j)
    if (mask(position, j)) {
      double s = score(j);
      if (softcap > 0) s = softcap * std::tanh(s / softcap);
      scores[static_cast<size_t>(j)] = s;
      max = std::max(max, s);
    }
  std::fill(o, o + value_dim, 0.0);
  if (max == -kInfinity) return -kInfinity;
  for (double s : scores) sum += std::exp(s - max);
  for (int64_t j = 0; j < keys; ++j)
    for (int64_t d = 0; d < value_dim && scores[static_cast<size_t>(j)] > -kInfinity; ++d)
      o[d] += std::exp(scores[static_cast<size_t>(j)] - max) / (sum + std::exp(sink - max)) * value(j, d);
  return max + std::log(sum);
}

void expect_lse(const Array& lse, const std::vector<double>& ref) {
  for (int64_t i = 0; i < lse.size(); ++i) {
    const double r = ref[static_cast<size_t>(i)];
    EXPECT_TRUE(std::isinf(r) ? lse[i] == r : std::abs(lse[i] - r) <= 2e-5) << lse[i] << " for " << r;
  }
}

TEST(Attention, isExactUnderEveryMask) {
  testing::on_every_target([] {
    Random r(1);
    Cpu cpu;
    for (DType type : {DType::f32, DType::f16, DType::bf16})
      for (int variant = 0; variant < 8; ++variant) {
        SCOPED_TRACE(variant);
        // Sequences without queries, without keys, with fewer keys than queries, and longer than a tile.
        const std::vector<double> cu_q = {0, 0, 3, 12, 53}, cu_k = {0, 5, 5, 10, 87};
        const int64_t Hq = 6, Hkv = variant % 2 ? 2 : 6, D = 40, Dv = variant % 3 ? 40 : 72;
        const Mask mask{variant % 2 == 1, variant >= 4 ? r.below(20) : -1, variant % 4 == 2 ? r.below(9) : -1};
        const double softcap = variant % 3 == 1 ? 3 : 0;
        const Array q(type, {53, Hq, D}, r.normal(), 8), k(type, {87, Hkv, D}, r.normal(), 8),
            v(type, {87, Hkv, Dv}, r.normal(), 16);
        const Array lengths_q(DType::i32, {5}, values(cu_q)), lengths_k(DType::i32, {5}, values(cu_k));
        const Array sink(DType::f32, {Hq},
                         [&](int64_t h) { return h == 2 ? -kInfinity : 0.5 * static_cast<double>(h); });
        Array o(type, {53, Hq, Dv}, 24), lse(DType::f32, {53, Hq}, 2);
        const auto qs = q.numbers(), ks = k.numbers(), vs = v.numbers();
        std::vector<double> ref(static_cast<size_t>(o.size())), ref_lse(static_cast<size_t>(lse.size()));
        for (size_t b = 0; b < 4; ++b) {
          const auto q0 = static_cast<int64_t>(cu_q[b]), k0 = static_cast<int64_t>(cu_k[b]);
          const auto Lq = static_cast<int64_t>(cu_q[b + 1]) - q0, Lk = static_cast<int64_t>(cu_k[b + 1]) - k0;
          for (int64_t i = 0; i < Lq; ++i)
            for (int64_t h = 0; h < Hq; ++h) {
              const int64_t row = (q0 + i) * Hq + h, g = h / (Hq / Hkv);
              ref_lse[static_cast<size_t>(row)] = attend(
                  Lk, i + Lk - Lq, mask, softcap, variant >= 4 ? sink[h] : -kInfinity, Dv,
                  [&](int64_t j) {
                    double s = 0;
                    for (int64_t d = 0; d < D; ++d)
                      s += qs[static_cast<size_t>(row * D + d)] * ks[static_cast<size_t>(((k0 + j) * Hkv + g) * D + d)];
                    return s / std::sqrt(static_cast<double>(D));
                  },
                  [&](int64_t j, int64_t d) { return vs[static_cast<size_t>(((k0 + j) * Hkv + g) * Dv + d)]; },
                  &ref[static_cast<size_t>(row * Dv)]);
            }
        }
        cul_attention_args args{};
        args.q = q;
        args.k = k;
        args.v = v;
        args.cu_q = lengths_q;
        args.cu_k = lengths_k;
        if (variant >= 4) args.sink = sink;
        args.o = o;
        args.lse = lse;
        args.softcap = static_cast<float>(softcap);
        args.causal = mask.causal;
        args.window_left = static_cast<int32_t>(mask.left);
        args.window_right = static_cast<int32_t>(mask.right);
        ASSERT_EQ(cpu(cul_attention, args), CUL_OK) << cul_last_error();
        EXPECT_LE(rms_ratio(o, ref), tolerance(type));
        expect_lse(lse, ref_lse);
        EXPECT_TRUE(o.guards_untouched() && lse.guards_untouched());
      }
  });
}

TEST(Attention, hiddenKeysMayHoldAnything) {
  Random r(2);
  Cpu cpu;
  Array q(DType::f32, {40, 2, 16}, r.normal()), k(DType::f32, {40, 1, 16}, r.normal()),
      v(DType::f32, {40, 1, 16}, r.normal());
  const Array cu(DType::i32, {2}, values({0, 40}));
  Array o(DType::f32, {40, 2, 16});
  cul_attention_args args{};
  args.q = q;
  args.k = k;
  args.v = v;
  args.cu_q = args.cu_k = cu;
  args.o = o;
  args.causal = 1;
  args.window_left = args.window_right = -1;
  ASSERT_EQ(cpu(cul_attention, args), CUL_OK) << cul_last_error();
  const auto clean = o.bits();
  for (int64_t i = 21 * 16; i < 22 * 16; ++i) {
    k.set(i, NAN);
    v.set(i, NAN);
  }
  ASSERT_EQ(cpu(cul_attention, args), CUL_OK) << cul_last_error();
  EXPECT_EQ(o.bits(0, 21 * 2 * 16), std::vector<uint8_t>(clean.begin(), clean.begin() + 21 * 2 * 16 * 4));
  for (int64_t i = 21 * 2 * 16; i < o.size(); ++i) EXPECT_TRUE(std::isnan(o[i])) << "a NaN that is seen must show";
}

// Many rows meet keys by products of matrices: a row's bits depend neither on the rows beside it nor on the keys behind it, and values
// that it does not see may be anything, in a tile of which other rows see them too.
TEST(Attention, rowsOfAPrefillKeepTheirBitsInAShorterOne) {
  Random r(7);
  Cpu cpu;
  constexpr int64_t kTokens = 83, kHeads = 3, kDim = 72;
  for (const int32_t window : {-1, 20}) {
    Array q(DType::f32, {kTokens, kHeads, kDim}, r.normal()), k(DType::f32, {kTokens, 1, kDim}, r.normal()), v(DType::f32, {kTokens, 1, kDim}, r.normal());
    Array o(DType::f32, {kTokens, kHeads, kDim});
    std::vector<double> values_of_v;
    for (int64_t i = 0; i < v.size(); ++i) values_of_v.push_back(v[i]);
    const auto run = [&](int64_t tokens) {
      const Array cu(DType::i32, {2}, values({0, static_cast<double>(tokens)}));
      cul_attention_args args{};
      args.q = q;
      args.k = k;
      args.v = v;
      args.cu_q = args.cu_k = cu;
      args.o = o;
      args.causal = 1;
      args.window_left = window;
      args.window_right = -1;
      EXPECT_EQ(cpu(cul_attention, args), CUL_OK) << cul_last_error();
    };
    run(kTokens);
    const auto whole = o.bits();
    for (const int64_t tokens : {6, 11, 32, 47, 70}) {
      for (int64_t i = tokens * kDim; i < kTokens * kDim; ++i) v.set(i, NAN);  // behind the end
      run(tokens);
      EXPECT_EQ(o.bits(0, tokens * kHeads * kDim), std::vector<uint8_t>(whole.begin(), whole.begin() + tokens * kHeads * kDim * 4)) << tokens;
      run(kTokens);
      EXPECT_EQ(o.bits(0, tokens * kHeads * kDim), std::vector<uint8_t>(whole.begin(), whole.begin() + tokens * kHeads * kDim * 4)) << tokens;
      for (int64_t i = tokens * kDim; i < kTokens * kDim; ++i) v.set(i, values_of_v[static_cast<size_t>(i)]);
    }
  }
}

// ---------------------------------------------------------------------------------------------- the paged cache

// A cache whose unused rows are NaN, and one table that reaches B sequences of it.
struct Paged {
  DType type, cache_type;
  int64_t B, Sq, Hq, Hkv, D, page, max_pages;
  std::vector<double> lengths;
  Array q, k, v, k_scale, v_scale, table, kv_len, o, lse;

  Paged(Random& r, DType type, DType cache_type, int64_t Sq, int64_t Hq, int64_t Hkv, int64_t D, int64_t page,
        std::vector<double> lens)
      : type(type),
        cache_type(cache_type),
        B(static_cast<int64_t>(lens.size())),
        Sq(Sq),
        Hq(Hq),
        Hkv(Hkv),
        D(D),
        page(page),
        max_pages(static_cast<int64_t>(*std::max_element(lens.begin(), lens.end())) / page + 2),
        lengths(lens),
        q(type, {B, Sq, Hq, D}, r.normal(), 8),
        k(cache_type, {B * max_pages, page, Hkv, D}, 16),
        v(cache_type, {B * max_pages, page, Hkv, D}, 16),
        k_scale(DType::f32, {Hkv}, r.uniform(0.5, 2)),
        v_scale(DType::f32, {Hkv}, r.uniform(0.5, 2)),
        table(
            DType::i32, {B, max_pages}, [](int64_t) { return -1; }, 3),
        kv_len(DType::i32, {B}, values(lens)),
        o(type, {B, Sq, Hq, D}, 8),
        lse(DType::f32, {B, Sq, Hq}, 1) {
    std::vector<int64_t> pages(static_cast<size_t>(B * max_pages));
    for (size_t i = 0; i < pages.size(); ++i)
      std::swap(pages[i] = static_cast<int64_t>(i), pages[static_cast<size_t>(r.below(static_cast<int64_t>(i) + 1))]);
    auto draw = r.normal();
    for (int64_t b = 0; b < B; ++b)
      for (int64_t j = 0; j < static_cast<int64_t>(lengths[static_cast<size_t>(b)]); ++j) {
        if (j % page == 0) {
          table.set(b * max_pages + j / page, static_cast<double>(pages.back()));
          pages.pop_back();
        }
        for (int64_t i = 0; i < Hkv * D; ++i) {
          k.set(cell(b, j) * Hkv * D + i, draw(0));
          v.set(cell(b, j) * Hkv * D + i, draw(0));
        }
      }
  }
  int64_t cell(int64_t b, int64_t j) const {
    return static_cast<int64_t>(table[b * max_pages + j / page]) * page + j % page;
  }
  cul_paged_attention_args args() const {
    cul_paged_attention_args a{};
    a.q = q;
    a.k_cache = k;
    a.v_cache = v;
    if (cache_type == DType::f8e4m3) {
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
  void expect_reference(const Mask& mask) const {
    const bool f8 = cache_type == DType::f8e4m3;
    const auto qs = q.numbers(), ks = k.numbers(), vs = v.numbers();
    std::vector<double> ref(static_cast<size_t>(o.size())), ref_lse(static_cast<size_t>(lse.size()));
    for (int64_t b = 0; b < B; ++b) {
      const auto L = static_cast<int64_t>(lengths[static_cast<size_t>(b)]);
      for (int64_t i = 0; i < Sq; ++i)
        for (int64_t h = 0; h < Hq; ++h) {
          const int64_t row = (b * Sq + i) * Hq + h, g = h / (Hq / Hkv);
          ref_lse[static_cast<size_t>(row)] = attend(
              L, i + L - Sq, mask, 0, -kInfinity, D,
              [&](int64_t j) {
                const int64_t key = (cell(b, j) * Hkv + g) * D;
                double s = 0;
                for (int64_t d = 0; d < D; ++d)
                  s += qs[static_cast<size_t>(row * D + d)] * ks[static_cast<size_t>(key + d)];
                return s * (f8 ? k_scale[g] : 1) / std::sqrt(static_cast<double>(D));
              },
              [&](int64_t j, int64_t d) {
                return vs[static_cast<size_t>((cell(b, j) * Hkv + g) * D + d)] * (f8 ? v_scale[g] : 1);
              },
              &ref[static_cast<size_t>(row * D)]);
        }
    }
    EXPECT_LE(rms_ratio(o, ref), tolerance(type));
    expect_lse(lse, ref_lse);
    EXPECT_TRUE(o.guards_untouched() && lse.guards_untouched());
  }
};

TEST(PagedAttention, readsEveryCacheThroughItsTable) {
  testing::on_every_target([] {
    Random r(3);
    Cpu cpu;
    for (DType type : {DType::f32, DType::f16, DType::bf16})
      for (DType cache : {type, DType::f8e4m3})
        for (int64_t page : {1, 5, 16}) {
          Paged p(r, type, cache, 5, 6, 2, 40, page, {0, 1, 3, 70});
          cul_paged_attention_args args = p.args();
          ASSERT_EQ(cpu(cul_paged_attention, args), CUL_OK) << cul_last_error();
          p.expect_reference({true});
          args.causal = 0;
          args.window_right = 1;
          args.window_left = 9;
          // Pages that the window hides completely may be absent.
          for (int64_t j = 0; (j + 1) * page <= 70 - 5 - 9; ++j) {
            EXPECT_EQ(cpu(cul_paged_attention, args), CUL_OK) << cul_last_error();
            p.expect_reference({false, 9, 1});
            if (page == 1) break;  // one page is enough there
            const double hidden = p.table[3 * p.max_pages + j];
            p.table.set(3 * p.max_pages + j, -1);
            ASSERT_EQ(cpu(cul_paged_attention, args), CUL_OK) << cul_last_error();
            p.table.set(3 * p.max_pages + j, hidden);
          }
        }
  });
}

// Long sequences, whose keys go to several work items; groups that fill the registers' rows and that do not; heads of whole vectors, which are
// read where they lie, and others.
TEST(PagedAttention, keysOfLongSequencesAreShared) {
  testing::on_every_target([] {
    Random r(11);
    Cpu one(1), many(4);
    struct Shape {
      DType type, cache;
      int64_t Sq, group, D;
    };
    for (const Shape& s : {Shape{DType::bf16, DType::bf16, 1, 4, 64}, {DType::f16, DType::f16, 1, 5, 48}, {DType::f32, DType::f32, 2, 3, 40},
                           {DType::bf16, DType::f8e4m3, 1, 7, 80}, {DType::bf16, DType::bf16, 1, 12, 64}, {DType::bf16, DType::f8e4m3, 1, 1, 72}}) {
      SCOPED_TRACE(::testing::Message() << "group " << s.group << ", D " << s.D);
      Paged p(r, s.type, s.cache, s.Sq, 3 * s.group, 3, s.D, 16, {1291, 512, 30, 513});
      cul_paged_attention_args args = p.args();
      for (const int64_t left : {-1, 600}) {
        args.window_left = static_cast<int32_t>(left);
        ASSERT_EQ(many(cul_paged_attention, args), CUL_OK) << cul_last_error();
        p.expect_reference({true, left});
        const auto bits = p.o.bits();
        ASSERT_EQ(one(cul_paged_attention, args), CUL_OK) << cul_last_error();
        EXPECT_EQ(bits, p.o.bits());  // threads do not matter
      }
    }
  });
}

// A NaN of the cache reaches the rows that see it, and no others.
TEST(PagedAttention, nanOfACacheShows) {
  testing::on_every_target([] {
    Random r(12);
    Cpu cpu;
    for (const DType cache : {DType::bf16, DType::f8e4m3})
      for (const bool in_values : {false, true}) {
        Paged p(r, DType::bf16, cache, 2, 4, 2, 64, 16, {1100, 700});
        cul_paged_attention_args args = p.args();
        (in_values ? p.v : p.k).set((p.cell(0, 1099) * 2 + 1) * 64 + 5, NAN);  // the last key, which the first query does not see
        ASSERT_EQ(cpu(cul_paged_attention, args), CUL_OK) << cul_last_error();
        for (int64_t row = 0; row < 2 * 2 * 4; ++row)
          for (int64_t d = 0; d < 64; ++d)
            ASSERT_EQ(std::isnan(p.o[row * 64 + d]), row / 4 == 1 && row % 4 >= 2 && (!in_values || d == 5)) << row << ", " << d;
      }
  });
}

TEST(PagedAttention, rowsKeepTheirBitsAlone) {
  Random r(4);
  Cpu one(1), many(4);
  Paged all(r, DType::bf16, DType::bf16, 4, 8, 2, 64, 16, {200});
  cul_paged_attention_args together = all.args();
  together.call.flags = CUL_OP_BATCH_INVARIANT;
  ASSERT_EQ(many(cul_paged_attention, together), CUL_OK) << cul_last_error();
  const int64_t row = 8 * 64;
  for (int64_t i = 0; i < 4; ++i) {
    Array q(DType::bf16, {1, 1, 8, 64}, [&](int64_t j) { return all.q[i * row + j]; }), o(DType::bf16, {1, 1, 8, 64});
    const Array length(DType::i32, {1}, values({static_cast<double>(197 + i)}));
    cul_paged_attention_args args = together;
    args.q = q;
    args.o = o;
    args.lse = nullptr;
    args.kv_len = length;
    ASSERT_EQ(one(cul_paged_attention, args), CUL_OK) << cul_last_error();
    EXPECT_EQ(o.bits(), all.o.bits(i * row, (i + 1) * row));
  }
}

TEST(PagedAttention, indicesThatLeadOutsideFailTheDevice) {
  Random r(5);
  auto failure = [&](auto&& change) {
    Cpu cpu;
    Paged p(r, DType::f32, DType::f32, 1, 1, 1, 8, 4, {6, 3});
    change(p);
    EXPECT_EQ(cpu(cul_paged_attention, p.args()), CUL_DEVICE_ERROR);
    return std::string(cul_last_error());
  };
  EXPECT_NE(failure([](Paged& p) { p.table.set(1, -1); }).find("page_table[0, 1] = -1"), std::string::npos);
  EXPECT_NE(failure([](Paged& p) { p.table.set(0, 99); }).find("page_table[0, 0] = 99"), std::string::npos);
  EXPECT_NE(failure([](Paged& p) { p.kv_len.set(1, 13); }).find("kv_len[1] = 13"), std::string::npos);
  EXPECT_NE(failure([](Paged& p) { p.kv_len.set(1, -1); }).find("kv_len[1] = -1"), std::string::npos);
}

// k of one slot after RoPE, or as it is.
double rotated(const Array& k, const Array& cos, const Array& sin, bool interleaved, int64_t t, int64_t row,
               int64_t d) {
  const int64_t pairs = cos.dim(1), D = k.dim(2);
  if (d >= 2 * pairs) return k[row * D + d];
  const int64_t pair = interleaved ? d / 2 : d % pairs;
  const double c = cos[t * pairs + pair], s = sin[t * pairs + pair];
  const double a = k[row * D + (interleaved ? 2 * pair : pair)],
               b = k[row * D + (interleaved ? 2 * pair + 1 : pair + pairs)];
  return (interleaved ? d % 2 : d >= pairs) ? b * c + a * s : a * c - b * s;
}

TEST(PagedAppend, writesItsSlotsAndNothingElse) {
  Random r(6);
  Cpu cpu;
  for (DType type : {DType::f32, DType::f16, DType::bf16})
    for (DType cache : {type, DType::f8e4m3})
      for (int variant = 0; variant < 3; ++variant) {
        const bool f8 = cache == DType::f8e4m3, rope = variant > 0;
        const int64_t H = 3, D = 24, Dv = 40;
        const Array k(type, {4, H, D}, r.normal(100), 8), v(type, {4, H, Dv}, r.normal(100), 8);
        const std::vector<double> slots = {17, -1, 0, 11};
        const Array slot(DType::i64, {4}, values(slots)), cos(DType::f32, {4, 8}, r.uniform(-1, 1), 4),
            sin(DType::f32, {4, 8}, r.uniform(-1, 1), 4);
        const Array k_scale(DType::f32, {H}, r.uniform(0.1, 2)), v_scale(DType::f32, {H}, r.uniform(0.1, 2));
        Array k_cache(cache, {3, 6, H, D}, r.normal(), 16), v_cache(cache, {3, 6, H, Dv}, r.normal(), 16);
        Array k_before(cache, {3, 6, H, D}), v_before(cache, {3, 6, H, Dv});
        k_before.copy_from(k_cache);
        v_before.copy_from(v_cache);
        cul_paged_append_args args{};
        args.k = k;
        args.v = v;
        args.slot = slot;
        if (rope) {
          args.cos = cos;
          args.sin = sin;
        }
        if (f8) {
          args.k_scale = k_scale;
          args.v_scale = v_scale;
        }
        args.k_cache = k_cache;
        args.v_cache = v_cache;
        args.interleaved = variant == 2;
        ASSERT_EQ(cpu(cul_paged_append, args), CUL_OK) << cul_last_error();
        for (int64_t cell = 0; cell < 18; ++cell) {
          const auto found = std::find(slots.begin(), slots.end(), static_cast<double>(cell));
          if (found == slots.end()) {
            EXPECT_EQ(k_cache.bits(cell * H * D, (cell + 1) * H * D), k_before.bits(cell * H * D, (cell + 1) * H * D));
            EXPECT_EQ(v_cache.bits(cell * H * Dv, (cell + 1) * H * Dv),
                      v_before.bits(cell * H * Dv, (cell + 1) * H * Dv));
            continue;
          }
          const int64_t t = found - slots.begin();
          // One rounding to the cache's type: half a unit in its last place, with room for the f32 arithmetic before
          // it.
          const double unit = f8 ? 0x1p-4 : type == DType::f32 ? 1e-6 : type == DType::f16 ? 0x1p-11 : 0x1p-8;
          for (int64_t h = 0; h < H; ++h) {
            const double kx = f8 ? k_scale[h] : 1, vx = f8 ? v_scale[h] : 1;
            auto expect = [&](double stored, double value) {
              if (f8) value = std::clamp(value, -448.0, 448.0);
              EXPECT_NEAR(stored, value, std::abs(value) * unit * 1.001 + (f8 ? 0x1p-10 : 1e-4));
            };
            for (int64_t d = 0; d < D; ++d)
              expect(k_cache[(cell * H + h) * D + d],
                     (rope ? rotated(k, cos, sin, variant == 2, t, t * H + h, d) : k[(t * H + h) * D + d]) / kx);
            for (int64_t d = 0; d < Dv; ++d) expect(v_cache[(cell * H + h) * Dv + d], v[(t * H + h) * Dv + d] / vx);
            EXPECT_TRUE(f8 || v_cache.bits((cell * H + h) * Dv, (cell * H + h + 1) * Dv) ==
                                  v.bits((t * H + h) * Dv, (t * H + h + 1) * Dv));
          }
        }
        EXPECT_TRUE(k_cache.guards_untouched() && v_cache.guards_untouched());
      }
}

// ---------------------------------------------------------------------------------------------- refusals

TEST(Attention, refusals) {
  Random r(7);
  Cpu cpu;
  const Array q(DType::f16, {8, 4, 16}, r.normal()), k(DType::f16, {8, 2, 16}, r.normal()),
      v(DType::f16, {8, 2, 16}, r.normal());
  const Array cu(DType::i32, {2}, values({0, 8}));
  Array o(DType::f16, {8, 4, 16});
  using Args = cul_attention_args;
  auto status = [&](auto&& change) {
    Args args{};
    args.q = q;
    args.k = k;
    args.v = v;
    args.cu_q = args.cu_k = cu;
    args.o = o;
    args.window_left = args.window_right = -1;
    change(args);
    return cpu(cul_attention, args);
  };
  auto with = [&](const cul_tensor* Args::* field, DType type, std::vector<int64_t> shape) {
    const Array replacement(type, shape);
    return status([&](Args& a) { a.*field = replacement; });
  };
  EXPECT_EQ(status([](Args&) {}), CUL_OK);
  for (auto field : {&Args::q, &Args::k, &Args::v, &Args::cu_q, &Args::cu_k, &Args::o})
    EXPECT_EQ(status([&](Args& a) { a.*field = nullptr; }), CUL_NULL_POINTER);
  EXPECT_EQ(with(&Args::q, DType::f16, {8, 5, 16}), CUL_SHAPE);
  EXPECT_EQ(with(&Args::q, DType::f16, {8, 64}), CUL_SHAPE);
  EXPECT_EQ(with(&Args::k, DType::f16, {8, 2, 24}), CUL_SHAPE);
  EXPECT_EQ(with(&Args::k, DType::bf16, {8, 2, 16}), CUL_DTYPE);
  EXPECT_EQ(with(&Args::v, DType::f16, {7, 2, 16}), CUL_SHAPE);
  EXPECT_EQ(with(&Args::v, DType::f16, {8, 4, 16}), CUL_SHAPE);
  EXPECT_EQ(with(&Args::cu_k, DType::i32, {3}), CUL_SHAPE);
  EXPECT_EQ(with(&Args::cu_q, DType::i64, {2}), CUL_DTYPE);
  EXPECT_EQ(with(&Args::sink, DType::f32, {2}), CUL_SHAPE);
  EXPECT_EQ(with(&Args::sink, DType::f16, {4}), CUL_DTYPE);
  EXPECT_EQ(with(&Args::o, DType::f16, {8, 4, 24}), CUL_SHAPE);
  EXPECT_EQ(with(&Args::lse, DType::f32, {8, 2}), CUL_SHAPE);
  EXPECT_EQ(with(&Args::lse, DType::f16, {8, 4}), CUL_DTYPE);
  EXPECT_EQ(status([](Args& a) { a.window_left = -2; }), CUL_RANGE);
  EXPECT_EQ(status([](Args& a) { a.window_right = -2; }), CUL_RANGE);
  EXPECT_EQ(status([](Args& a) { a.softcap = -1; }), CUL_RANGE);
  EXPECT_EQ(status([](Args& a) { a.scale = NAN; }), CUL_RANGE);
  EXPECT_EQ(status([](Args& a) { a.causal = 2; }), CUL_RANGE);
  EXPECT_EQ(status([](Args& a) { a.o = a.q; }), CUL_UNSUPPORTED);
  const cul_tensor one_row = o.broadcast();
  EXPECT_EQ(status([&](Args& a) { a.o = &one_row; }), CUL_STRIDE);
}

TEST(PagedAttention, refusals) {
  Random r(8);
  Cpu cpu;
  using Args = cul_paged_attention_args;
  Paged half(r, DType::f16, DType::f16, 2, 4, 2, 16, 4, {5, 9}),
      f8(r, DType::f16, DType::f8e4m3, 2, 4, 2, 16, 4, {5, 9});
  auto status = [&](Paged& p, auto&& change) {
    Args args = p.args();
    change(args);
    return cpu(cul_paged_attention, args);
  };
  auto with = [&](Paged& p, const cul_tensor* Args::* field, DType type, std::vector<int64_t> shape) {
    const Array replacement(type, shape);
    return status(p, [&](Args& a) { a.*field = replacement; });
  };
  EXPECT_EQ(status(half, [](Args&) {}), CUL_OK);
  EXPECT_EQ(status(f8, [](Args&) {}), CUL_OK);
  for (auto field : {&Args::q, &Args::k_cache, &Args::v_cache, &Args::page_table, &Args::kv_len, &Args::o,
                     &Args::k_scale, &Args::v_scale})
    EXPECT_EQ(status(f8, [&](Args& a) { a.*field = nullptr; }), CUL_NULL_POINTER);
  EXPECT_EQ(with(half, &Args::k_scale, DType::f32, {2}), CUL_UNSUPPORTED);
  EXPECT_EQ(with(f8, &Args::k_scale, DType::f32, {4}), CUL_SHAPE);
  EXPECT_EQ(with(f8, &Args::v_scale, DType::f16, {2}), CUL_DTYPE);
  const int64_t pages = half.B * half.max_pages;
  EXPECT_EQ(with(f8, &Args::v_cache, DType::f16, {pages, 4, 2, 16}), CUL_DTYPE);
  EXPECT_EQ(with(half, &Args::v_cache, DType::f8e4m3, {pages, 4, 2, 16}), CUL_DTYPE);
  EXPECT_EQ(with(half, &Args::k_cache, DType::bf16, {pages, 4, 2, 16}), CUL_DTYPE);
  EXPECT_EQ(with(half, &Args::k_cache, DType::f16, {pages, 4, 2, 24}), CUL_SHAPE);
  EXPECT_EQ(with(half, &Args::v_cache, DType::f16, {pages, 8, 2, 16}), CUL_SHAPE);
  EXPECT_EQ(with(half, &Args::kv_len, DType::i32, {3}), CUL_SHAPE);
  EXPECT_EQ(with(half, &Args::kv_len, DType::i64, {2}), CUL_DTYPE);
  EXPECT_EQ(with(half, &Args::page_table, DType::i32, {3, 4}), CUL_SHAPE);
  EXPECT_EQ(with(half, &Args::page_table, DType::i32, {8}), CUL_SHAPE);
  EXPECT_EQ(status(half, [](Args& a) { a.window_left = -3; }), CUL_RANGE);
  EXPECT_EQ(status(half, [](Args& a) { a.split_kv_tokens = -1; }), CUL_RANGE);
  Paged wide(r, DType::f16, DType::f16, 17, 4, 2, 16, 4, {5, 9});
  EXPECT_EQ(status(wide, [](Args&) {}), CUL_UNSUPPORTED);
}

TEST(PagedAppend, refusals) {
  Cpu cpu;
  using Args = cul_paged_append_args;
  auto zero = [](int64_t) { return 0.0; };
  const Array k(DType::bf16, {4, 2, 16}, zero), v(DType::bf16, {4, 2, 16}, zero),
      slot(DType::i64, {4}, [](int64_t i) { return i; });
  const Array table(DType::f32, {4, 4}, zero), scale(DType::f32, {2}, zero);
  Array k_cache(DType::bf16, {2, 8, 2, 16}), v_cache(DType::bf16, {2, 8, 2, 16});
  auto status = [&](auto&& change) {
    Args args{};
    args.k = k;
    args.v = v;
    args.slot = slot;
    args.k_cache = k_cache;
    args.v_cache = v_cache;
    change(args);
    return cpu(cul_paged_append, args);
  };
  auto with = [&](const cul_tensor* Args::* field, DType type, std::vector<int64_t> shape) {
    const Array replacement(type, shape, zero);
    return status([&](Args& a) { a.*field = replacement; });
  };
  EXPECT_EQ(status([](Args&) {}), CUL_OK);
  for (auto field : {&Args::k, &Args::v, &Args::slot, &Args::k_cache, &Args::v_cache})
    EXPECT_EQ(status([&](Args& a) { a.*field = nullptr; }), CUL_NULL_POINTER);
  EXPECT_EQ(status([&](Args& a) { a.cos = table; }), CUL_NULL_POINTER);
  EXPECT_EQ(status([&](Args& a) { a.sin = table; }), CUL_NULL_POINTER);
  EXPECT_EQ(status([&](Args& a) { a.k_scale = scale; }), CUL_UNSUPPORTED);
  EXPECT_EQ(with(&Args::slot, DType::i32, {4}), CUL_DTYPE);
  EXPECT_EQ(with(&Args::slot, DType::i64, {5}), CUL_SHAPE);
  EXPECT_EQ(with(&Args::v, DType::f16, {4, 2, 16}), CUL_DTYPE);
  EXPECT_EQ(with(&Args::v, DType::bf16, {4, 1, 16}), CUL_SHAPE);
  EXPECT_EQ(with(&Args::k_cache, DType::bf16, {2, 8, 2, 32}), CUL_SHAPE);
  EXPECT_EQ(with(&Args::k_cache, DType::f32, {2, 8, 2, 16}), CUL_DTYPE);
  EXPECT_EQ(with(&Args::v_cache, DType::bf16, {3, 8, 2, 16}), CUL_SHAPE);
  const Array wide(DType::f32, {4, 9}, zero);
  EXPECT_EQ(status([&](Args& a) { a.cos = a.sin = wide; }), CUL_SHAPE) << "18 channels of 16";
  EXPECT_EQ(status([](Args& a) { a.interleaved = 2; }), CUL_RANGE);
  EXPECT_EQ(status([](Args& a) { a.v_cache = a.k_cache; }), CUL_UNSUPPORTED);
  const Array outside(DType::i64, {4}, values({0, 16, 1, 2}));
  Cpu other;
  Args args{};
  args.k = k;
  args.v = v;
  args.slot = outside;
  args.k_cache = k_cache;
  args.v_cache = v_cache;
  EXPECT_EQ(other(cul_paged_append, args), CUL_DEVICE_ERROR);
  EXPECT_NE(std::string(cul_last_error()).find("slot[1] = 16"), std::string::npos);
}

}  // namespace
}  // namespace culebra
