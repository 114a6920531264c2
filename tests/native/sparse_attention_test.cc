// Sparse attention: what masks, boxes and selections are made of, and what the cases do not reach.
#include "culebra/sparse_attention.h"

#include <set>

#include "glue_harness.h"
#include "ops/sparse_attention/estimated_sparse_attention.h"
#include "ops/sparse_attention/neighborhood.h"
#include "ops/sparse_attention/nsa.h"
#include "ops/sparse_attention/nsa_cpu.h"
#include "ops/sparse_attention/sparse_linear_attention.h"

namespace culebra {
namespace {

using namespace culebra::glue_testing;

// ------------------------------------------------------------------------------------------------------ neighborhoods

TEST(Neighborhood, everyWindowOfEveryShortAxis) {
  for (int32_t length = 1; length < 40; ++length)
    for (int32_t window = 1; window <= length; ++window)
      for (int32_t stride = 1; stride <= window; ++stride)
        for (bool causal : {false, true}) {
          const NeighborhoodAxis axis{length, window, stride, 1, causal};
          AxisRange before{0, 0};
          for (int32_t i = 0; i < length; ++i) {
            const AxisRange seen = axis.seen(i, length);
            ASSERT_TRUE(seen.begin >= 0 && seen.begin <= i && i < seen.end && seen.end <= length)
                << length << " " << window << " " << stride << " " << causal << " " << i;
            if (!causal) {
              ASSERT_EQ(seen.end - seen.begin, window);
            }
            if (causal) {
              ASSERT_TRUE(seen.end == i + 1 && seen.end - seen.begin <= window);
            }
            ASSERT_TRUE(seen.begin >= before.begin && seen.end >= before.end) << "bounds that fall";
            if (!causal && i % stride) {
              ASSERT_EQ(seen.begin, before.begin) << "queries of a stride share their window";
            }
            before = seen;
          }
        }
  // Stride 1 is a sliding window; as wide as the window it is attention in blocks.
  const NeighborhoodAxis sliding{20, 5, 1, 1, false}, blocked{20, 5, 5, 1, false};
  for (int32_t i = 2; i < 18; ++i) EXPECT_EQ(sliding.seen(i, 20).begin, i - 2);
  for (int32_t i = 0; i < 20; ++i) EXPECT_EQ(blocked.seen(i, 20).begin, i / 5 * 5);
}

TEST(Neighborhood, dilationGroupsShareAnAxis) {
  for (int32_t length = 1; length < 40; ++length)
    for (int32_t dilation = 1; dilation <= length; ++dilation) {
      const NeighborhoodAxis axis{length, 1, 1, dilation, false};
      int32_t sum = 0;
      for (int32_t group = 0; group < dilation; ++group) sum += axis.group_length(group);
      EXPECT_EQ(sum, length);
    }
}

TEST(Neighborhood, tilesAreCountedOneByOne) {
  for (bool causal : {false, true})
    for (int32_t dilation : {1, 3}) {
      const NeighborhoodAxis axes[2] = {{37, 5, 2, dilation, causal}, {29, 7, 7, 1, false}};
      const int32_t q[2] = {4, 8}, k[2] = {8, 4};
      double visited = 1, all = 1;
      for (int a = 0; a < 2; ++a) {
        std::set<std::array<int32_t, 3>> seen, every;
        for (int32_t t = 0; t < axes[a].length; ++t) {
          const int32_t group = t % axes[a].dilation, i = t / axes[a].dilation, n = axes[a].group_length(group);
          const AxisRange range = axes[a].seen(i, n);
          for (int32_t j = range.begin; j < range.end; ++j) seen.insert({group, i / q[a], j / k[a]});
          // Dense attention meets the keys of every group.
          for (int32_t other = 0; other < axes[a].dilation; ++other)
            for (int32_t j = 0; j < axes[a].group_length(other); ++j) every.insert({group * 64 + i / q[a], other, j / k[a]});
        }
        visited *= static_cast<double>(seen.size());
        all *= static_cast<double>(every.size());
      }
      const TileCount count = count_tiles(axes, 2, q, k);
      EXPECT_EQ(count.visited, visited);
      EXPECT_EQ(count.all, all);
    }
  // 32k tokens, a window of 2k in blocks of 2k: a sixteenth of the tiles.
  const NeighborhoodAxis line{32768, 2048, 2048, 1, false};
  const int32_t tile = 128;
  EXPECT_EQ(count_tiles(&line, 1, &tile, &tile).bound(), 16);
}

TEST(Neighborhood, aBoxFitsItsTileAndFollowsTheStride) {
  const NeighborhoodAxis video[3] = {{30, 18, 16, 1, false}, {48, 24, 8, 1, false}, {80, 24, 8, 1, false}};
  const BoxExtent box = choose_box(video, 64, 64);
  EXPECT_EQ(box.axis[0] * box.axis[1] * box.axis[2], 64);
  for (int a = 0; a < 3; ++a) EXPECT_EQ(video[a].stride % box.axis[a], 0) << "its queries share one window";
  const NeighborhoodAxis line[3] = {{1, 1, 1, 1, false}, {1, 1, 1, 1, false}, {1000, 64, 1, 1, false}};
  const BoxExtent run = choose_box(line, 64, 64);
  EXPECT_EQ(run.axis[0] * run.axis[1], 1) << "axes of one token take no part of the tile";
}

// ---------------------------------------------------------------------------------------------------------- selection

NsaParams selection(int64_t l, int64_t d, int64_t block, int64_t topk, int64_t init, int64_t local) {
  NsaParams p;
  p.query_heads = p.kv_heads = 1;
  p.dim = 64;
  p.l = l;
  p.d = d;
  p.block = block;
  p.topk = topk;
  p.init = init;
  p.local = local;
  return p;
}

TEST(NsaSelect, weightsCountThePiecesThatCoincide) {
  const NsaParams p = selection(32, 16, 64, 16, 1, 2);
  ASSERT_EQ(p.score_terms(), 5);
  const int64_t expected[] = {1, 2, 2, 2, 1};
  for (int64_t o = 0; o < 5; ++o) EXPECT_EQ(p.score_weight(o), expected[o]);
  for (int64_t a : {1, 2, 3, 8})
    for (int64_t b : {1, 2, 5, 8}) {
      const NsaParams q = selection(a, 1, b, 1, 0, 0);
      for (int64_t o = 0; o < q.score_terms(); ++o) {
        int64_t pairs = 0;
        for (int64_t i = 0; i < a; ++i)
          if (o - i >= 0 && o - i < b) ++pairs;
        EXPECT_EQ(q.score_weight(o), pairs) << a << " " << b << " " << o;
      }
    }
}

TEST(NsaSelect, tiesGoToTheLowerBlockAndNanComesLast) {
  const NsaParams p = selection(16, 16, 16, 5, 1, 1);
  const std::vector<float> scores = {0, .5f, .7f, .5f, NAN, .5f, .7f, 0, .1f, 0};
  int32_t idx[5];
  EXPECT_EQ(cpu::choose_blocks(p, scores.data(), 10, 10, idx), 5);
  EXPECT_EQ(std::vector<int32_t>(idx, idx + 5), (std::vector<int32_t>{0, 1, 2, 6, 9}));
  EXPECT_EQ(cpu::choose_blocks(p, scores.data(), 10, 3, idx), 3);
  EXPECT_EQ(std::vector<int32_t>(idx, idx + 5), (std::vector<int32_t>{0, 1, 2, -1, -1}));
  EXPECT_EQ(cpu::choose_blocks(p, scores.data(), 0, 0, idx), 0);
}

TEST(NsaSelect, thePlanFitsInSharedMemory) {
  NsaParams p = selection(32, 16, 64, 16, 1, 2);
  p.dtype = DType::bf16;
  for (int64_t rows : {0, 100, 4096, 100000})
    for (int64_t group : {1, 4, 16, 100}) {
      p.cmp_rows = rows;
      p.query_heads = group;
      const SelectPlan plan = plan_select(p, 227 << 10);
      EXPECT_GE(plan.queries, 1);
      EXPECT_LE(plan.queries, std::max<int64_t>(64 / group, 1));
      EXPECT_LE(plan.queries * plan.slots * 4, 227 << 10);
      EXPECT_GE(plan.slots * 64, rows * 16) << "every block that a compressed key overlaps";
    }
  p.cmp_rows = int64_t{1} << 24;
  EXPECT_EQ(plan_select(p, 227 << 10).queries, 0);
}

// ------------------------------------------------------------------------------------------------------------ devices

void expect_nothing(Tensor& o, Tensor& lse) {
  o.read();
  lse.read();
  for (int64_t i = 0; i < o.elements(); ++i) ASSERT_EQ(o[i], 0) << i;
  for (int64_t i = 0; i < lse.elements(); ++i) ASSERT_EQ(lse[i], -kInfinity) << i;
}

// Keys that nobody sees hold NaN.
struct Packed {
  Packed(Machine& m, DType type, int64_t queries, int64_t keys, int64_t heads, int64_t kv_heads)
      : q(m, type, {queries, heads, 32}), k(m, type, {keys, kv_heads, 32}), v(m, type, {keys, kv_heads, 32}),
        o(m, type, {queries, heads, 32}), lse(m, DType::f32, {queries, heads}), cu_q(m, DType::i32, {2}), cu_k(m, DType::i32, {2}) {
    std::mt19937_64 random(3);
    q.normal(random);
    k.fill([](int64_t) { return NAN; });
    v.fill([](int64_t) { return NAN; });
    cu_q.fill([&](int64_t i) { return static_cast<double>(i * queries); });
    cu_k.fill([&](int64_t i) { return static_cast<double>(i * keys); });
  }
  Tensor q, k, v, o, lse, cu_q, cu_k;
};

TEST(SparseAttention, rowsWithoutBlocksGiveZeros) {
  for (int32_t backend : backends())
    for (DType type : {DType::f32, DType::bf16}) {
      SCOPED_TRACE(cul_backend_name(backend));
      Machine m(backend);
      Packed x(m, type, 20, 40, 4, 2);
      Tensor row_ptr(m, DType::i64, {3}), col(m, DType::i32, {3}), idx(m, DType::i32, {2, 20, 3});
      row_ptr.fill([](int64_t i) { return i == 2 ? 3.0 : 0.0; });
      col.fill([](int64_t) { return -1; });
      idx.fill([](int64_t i) { return i % 2 ? -1 : 7; });  // block 7 begins behind the last key
      cul_block_sparse_attention_args blocks{};
      blocks.q = x.q, blocks.k = x.k, blocks.v = x.v, blocks.cu_q = x.cu_q, blocks.cu_k = x.cu_k, blocks.o = x.o, blocks.lse = x.lse;
      blocks.row_ptr = row_ptr;
      blocks.col = col;
      blocks.block_q = blocks.block_k = 16;
      blocks.head_map = 1;
      ASSERT_EQ(call(m, cul_block_sparse_attention, blocks), CUL_OK) << cul_last_error();
      expect_nothing(x.o, x.lse);
      cul_nsa_selected_attention_args selected{};
      selected.q = x.q, selected.k = x.k, selected.v = x.v, selected.cu_q = x.cu_q, selected.cu_k = x.cu_k, selected.o = x.o,
      selected.lse = x.lse;
      selected.idx = idx;
      selected.block = 16;
      for (int32_t order : {CUL_NSA_ORDER_QUERY, CUL_NSA_ORDER_KV}) {
        selected.order = order;
        x.o.fill([](int64_t) { return 1; });
        ASSERT_EQ(call(m, cul_nsa_selected_attention, selected), CUL_OK) << cul_last_error();
        expect_nothing(x.o, x.lse);
      }
    }
}

TEST(SparseAttention, validationFindsWhatLeadsOutside) {
  for (int32_t backend : backends())
    for (int fault = 0; fault < 4; ++fault) {
      SCOPED_TRACE(cul_backend_name(backend));
      SCOPED_TRACE(fault);
      Machine m(backend);
      Packed x(m, DType::f32, 20, 40, 4, 2);
      Tensor row_ptr(m, DType::i64, {3}), col(m, DType::i32, {3});
      row_ptr.fill([&](int64_t i) { return fault == 0 && i == 1 ? 4.0 : i == 2 ? 3.0 : i; });
      col.fill([&](int64_t i) { return fault == 1 && i == 2 ? 3 : fault == 2 ? 2 - static_cast<double>(i) : static_cast<double>(i); });
      if (fault == 3) x.cu_k.fill([](int64_t i) { return i ? 41 : 0; });
      cul_block_sparse_attention_args blocks{};
      blocks.q = x.q, blocks.k = x.k, blocks.v = x.v, blocks.cu_q = x.cu_q, blocks.cu_k = x.cu_k, blocks.o = x.o, blocks.lse = x.lse;
      blocks.row_ptr = row_ptr;
      blocks.col = col;
      blocks.block_q = blocks.block_k = 16;
      blocks.head_map = 1;
      EXPECT_EQ(call(m, cul_block_sparse_attention, blocks, CUL_OP_VALIDATE), CUL_DEVICE_ERROR);
      EXPECT_NE(std::string(cul_last_error()).find(fault == 3 ? "cu_k" : fault == 0 ? "row_ptr" : "col"), std::string::npos)
          << cul_last_error();
    }
}

// Each index tensor of the nsa operators and of the estimated one with one entry that leads outside, among good ones.
TEST(SparseAttention, validationLooksAtEveryIndexTensor) {
  for (int32_t backend : backends())
    for (const char* bad : {"", "cu_q", "cu_k", "cu_cmp", "idx"}) {
      const std::string fault = bad;
      SCOPED_TRACE(cul_backend_name(backend) + std::string(" ") + bad);
      // A device that failed stays failed: one for each call.
      const auto expect = [&](std::initializer_list<const char*> indices, auto op, auto fill) {
        Machine m(backend);
        Tensor q(m, DType::f16, {20, 2, 16}), k(m, DType::f16, {20, 1, 16}), v(m, DType::f16, {20, 1, 16}), o(m, DType::f16, {20, 2, 16}),
            cmp(m, DType::f16, {4, 1, 16}), lse(m, DType::f32, {20, 2}), gates(m, DType::f32, {20, 2, 3}), tau(m, DType::f32, {2});
        Tensor cu_q(m, DType::i32, {3}), cu_k(m, DType::i32, {3}), cu_cmp(m, DType::i32, {3}), idx(m, DType::i32, {1, 20, 2}), count(m, DType::i32, {1, 20}),
            cu_out(m, DType::i32, {3}), y(m, DType::f16, {5, 1, 16});
        for (Tensor* t : {&q, &k, &v, &cmp, &lse, &gates, &tau}) t->fill([](int64_t) { return 1; });
        const auto starts = [&](const char* name, double last) {
          return [=](int64_t i) { return i == 2 ? last : i == 0 ? 0.0 : fault == name ? last + 1 : 9.0; };  // the next one falls
        };
        cu_q.fill(starts("cu_q", 20));
        cu_k.fill(starts("cu_k", 20));
        cu_cmp.fill([&](int64_t i) { return i == 2 ? 4.0 : fault == "cu_cmp" && i == 1 ? 5.0 : 2.0 * static_cast<double>(i); });
        idx.fill([&](int64_t i) { return fault == "idx" && i == 31 ? -2.0 : static_cast<double>(i % 2) - 1; });
        struct Operands {
          Tensor &q, &k, &v, &o, &cmp, &lse, &gates, &tau, &cu_q, &cu_k, &cu_cmp, &idx, &count, &cu_out, &y;
        };
        const auto args = fill(Operands{q, k, v, o, cmp, lse, gates, tau, cu_q, cu_k, cu_cmp, idx, count, cu_out, y});
        const bool reads = std::find(indices.begin(), indices.end(), fault) != indices.end();
        const cul_status status = call(m, op, args, CUL_OP_VALIDATE);
        EXPECT_EQ(status, reads ? CUL_DEVICE_ERROR : CUL_OK) << cul_last_error();
        if (reads && status == CUL_DEVICE_ERROR) {
          EXPECT_NE(std::string(cul_last_error()).find(fault == "cu_k" && indices.size() == 1 ? "cu_seqlens" : fault), std::string::npos) << cul_last_error();
        }
      };
      expect({"cu_k"}, cul_nsa_compress, [](auto x) {
        cul_nsa_compress_args a{};
        a.x = x.k, a.cu_seqlens = x.cu_k, a.y = x.y, a.cu_out = x.cu_out, a.dialect = CUL_NSA_MEAN, a.l = a.d = 4;
        return a;
      });
      expect({"cu_q", "cu_k", "cu_cmp"}, cul_nsa_compressed_attention, [](auto x) {
        cul_nsa_compressed_attention_args a{};
        a.q = x.q, a.k_cmp = a.v_cmp = x.cmp, a.cu_q = x.cu_q, a.cu_k = x.cu_k, a.cu_cmp = x.cu_cmp, a.o = x.o, a.l = a.d = 4;
        return a;
      });
      expect({"cu_q", "cu_k", "cu_cmp"}, cul_nsa_select, [](auto x) {
        cul_nsa_select_args a{};
        a.q = x.q, a.k_cmp = x.cmp, a.lse = x.lse, a.cu_q = x.cu_q, a.cu_k = x.cu_k, a.cu_cmp = x.cu_cmp, a.idx = x.idx, a.count = x.count;
        a.l = a.d = a.block = 4, a.topk = 2;
        return a;
      });
      for (const int32_t order : {CUL_NSA_ORDER_QUERY, CUL_NSA_ORDER_KV})
        expect({"cu_q", "cu_k", "idx"}, cul_nsa_selected_attention, [=](auto x) {
          cul_nsa_selected_attention_args a{};
          a.q = x.q, a.k = x.k, a.v = x.v, a.cu_q = x.cu_q, a.cu_k = x.cu_k, a.idx = x.idx, a.o = x.o, a.block = 4, a.order = order;
          return a;
        });
      expect({"cu_q", "cu_k", "cu_cmp"}, cul_nsa_attention, [](auto x) {
        cul_nsa_attention_args a{};
        a.q = x.q, a.k = x.k, a.v = x.v, a.cu_q = x.cu_q, a.cu_k = x.cu_k, a.gates = x.gates, a.k_cmp = a.v_cmp = x.cmp, a.cu_cmp = x.cu_cmp, a.o = x.o;
        a.dialect = CUL_NSA_LINEAR, a.l = a.d = a.block = 4, a.topk = 2, a.window = 3;
        return a;
      });
      expect({"cu_q", "cu_k"}, cul_estimated_sparse_attention, [](auto x) {
        cul_estimated_sparse_attention_args a{};
        a.q = x.q, a.k = x.k, a.v = x.v, a.cu_q = x.cu_q, a.cu_k = x.cu_k, a.tau = x.tau, a.o = x.o, a.block_q = a.block_k = 16;
        return a;
      });
    }
}

// Each of 70000 queries is its own sequence's last token and selects its first block.
TEST(SparseAttention, seventyThousandQueries) {
  Machine m(CUL_BACKEND_CPU);
  constexpr int64_t kQueries = 70000;
  Tensor q(m, DType::f32, {kQueries, 1, 8}), k(m, DType::f32, {kQueries, 1, 8}), v(m, DType::f32, {kQueries, 1, 8}),
      o(m, DType::f32, {kQueries, 1, 8}), cu(m, DType::i32, {2}), idx(m, DType::i32, {1, kQueries, 1});
  std::mt19937_64 random(5);
  q.normal(random);
  k.normal(random);
  v.normal(random);
  cu.fill([](int64_t i) { return static_cast<double>(i * kQueries); });
  idx.fill([](int64_t i) { return static_cast<double>(i / 4); });
  cul_nsa_selected_attention_args args{};
  args.q = q, args.k = k, args.v = v, args.cu_q = args.cu_k = cu, args.idx = idx, args.o = o;
  args.block = 4;
  ASSERT_EQ(call(m, cul_nsa_selected_attention, args), CUL_OK) << cul_last_error();
  o.read();
  for (int64_t t = 0; t < kQueries; t += 4)
    for (int64_t c = 0; c < 8; ++c) ASSERT_FLOAT_EQ(static_cast<float>(o[t * 8 + c]), static_cast<float>(v[t * 8 + c])) << "one key alone";
}

// ------------------------------------------------------------------------------------------ blocks that an estimate chooses

#if CULEBRA_HAS_SIMT

struct LinearShape {
  DType type;
  int64_t heads, length, dim;
  int32_t block, phi, mode;
  double critical, negligible;
  bool projected;
  int64_t pad;  // elements between rows
};

std::vector<double> sparse_linear(int32_t backend, const LinearShape& s) {
  Machine m(backend);
  const int64_t row = s.dim + s.pad;
  const std::vector<int64_t> shape = {1, s.heads, s.length, s.dim}, strides = {s.heads * s.length * row, s.length * row, row, 1};
  Tensor q(m, s.type, shape, strides), k(m, s.type, shape, strides), v(m, s.type, shape, strides), o(m, s.type, shape, strides);
  Tensor w(m, s.type, {s.dim, s.dim}, {row, 1}), bias(m, s.type, {s.dim});
  std::mt19937_64 random(7);
  q.normal(random);
  k.normal(random);
  v.normal(random, 1, 0.5);
  w.normal(random, 1 / std::sqrt(static_cast<double>(s.dim)));
  bias.normal(random);
  cul_sparse_linear_attention_args args{};
  args.q = q, args.k = k, args.v = v, args.o = o;
  if (s.projected) args.proj_w = w, args.proj_b = bias;
  args.block = s.block;
  args.phi = s.phi;
  args.mode = s.mode;
  args.critical = s.critical;
  args.negligible = s.negligible;
  args.eps = 0.5f;  // as large as the divisors: it counts times what softmax divides by
  EXPECT_EQ(call(m, cul_sparse_linear_attention, args), CUL_OK) << cul_last_error();
  return values_of(o);
}

// Many short sequences: more lists than the workspace has room for at once.
TEST(EstimatedAttention, listsInTurnAreThoseOfTheCpu) {
  constexpr int64_t kSequences = 180, kKeys = 80, kHeads = 4;
  std::vector<double> out[2], kept[2];
  for (int which = 0; which < 2; ++which) {
    Machine m(which ? CUL_BACKEND_SIMT : CUL_BACKEND_CPU);
    Tensor q(m, DType::f16, {kSequences, kHeads, 16}), k(m, DType::f16, {kSequences * kKeys, 1, 16}), v(m, DType::f16, {kSequences * kKeys, 1, 16}),
        o(m, DType::f16, {kSequences, kHeads, 16}), cu_q(m, DType::i32, {kSequences + 1}), cu_k(m, DType::i32, {kSequences + 1}),
        tau(m, DType::f32, {kHeads}), count(m, DType::i64, {kHeads});
    std::mt19937_64 random(19);
    v.normal(random);
    // A key block of a sequence is far off or near zero: the estimate decides as the score does.
    k.fill([](int64_t i) { return (i / 16 / 16 + i / 16 / kKeys) % 3 ? -4.0 : 4.0 - static_cast<double>(i % 7) / 8; });
    q.fill([&](int64_t i) { return 1 + static_cast<double>(i % 5) / 8; });
    cu_q.fill([](int64_t i) { return static_cast<double>(i); });
    cu_k.fill([](int64_t i) { return static_cast<double>(i * kKeys); });
    tau.fill([](int64_t) { return 1e-3; });
    cul_estimated_sparse_attention_args args{};
    args.q = q, args.k = k, args.v = v, args.cu_q = cu_q, args.cu_k = cu_k, args.tau = tau, args.o = o, args.kept = count;
    args.block_q = args.block_k = 16;
    args.sink = args.local = 16;
    ASSERT_EQ(call(m, cul_estimated_sparse_attention, args), CUL_OK) << cul_last_error();
    if (which) {
      args.call = {sizeof args, CUL_OP_PLAN_ONLY, nullptr, 0};
      ASSERT_EQ(cul_estimated_sparse_attention(m.stream, &args), CUL_OK) << cul_last_error();
      EXPECT_EQ(std::string(cul_last_plan()), "lists of 145 of 191 query blocks at a time");
    }
    out[which] = values_of(o);
    kept[which] = values_of(count);
  }
  EXPECT_EQ(kept[0], kept[1]);
  EXPECT_LT(kept[1][0], static_cast<double>(kSequences * kKeys / 16)) << "some blocks are left out";
  for (size_t i = 0; i < out[0].size(); ++i) ASSERT_NEAR(out[1][i], out[0][i], 4e-3) << i;
}

// Two queries of which the second alone sees the last compressed key; blocks in any order among padding, behind the query, cut by it.
TEST(NsaAttention, edgesAndPaddingAreThoseOfTheCpu) {
  for (DType type : {DType::f16, DType::f32})
    for (int64_t group : {2, 20}) {
      std::vector<double> out[2][3];
      for (int which = 0; which < 2; ++which) {
        Machine m(which ? CUL_BACKEND_SIMT : CUL_BACKEND_CPU);
        Tensor q(m, type, {2, group, 16}), k(m, type, {64, 1, 16}), v(m, type, {64, 1, 16}), o(m, type, {2, group, 16}), cu_q(m, DType::i32, {2}),
            cu_k(m, DType::i32, {2}), cu_cmp(m, DType::i32, {2}), idx(m, DType::i32, {1, 2, 6});
        std::mt19937_64 random(31);
        for (Tensor* t : {&q, &k, &v}) t->normal(random);
        cu_q.fill([](int64_t i) { return static_cast<double>(2 * i); });
        cu_k.fill([](int64_t i) { return static_cast<double>(64 * i); });
        cu_cmp.fill([](int64_t i) { return static_cast<double>(4 * i); });
        cul_nsa_compressed_attention_args compressed{};
        compressed.q = q, compressed.k_cmp = k, compressed.v_cmp = v, compressed.cu_q = cu_q, compressed.cu_k = cu_k, compressed.cu_cmp = cu_cmp;
        compressed.o = o, compressed.l = compressed.d = 16;
        Tensor few_k(m, type, {4, 1, 16}), few_v(m, type, {4, 1, 16});
        few_k.normal(random);
        few_v.normal(random);
        compressed.k_cmp = few_k, compressed.v_cmp = few_v;
        ASSERT_EQ(call(m, cul_nsa_compressed_attention, compressed), CUL_OK) << cul_last_error();
        out[which][0] = values_of(o);
        const double blocks[] = {-1, 3, -1, 0, 2, -1, -1, 3, 1, -1, -1, 0};
        idx.fill([&](int64_t i) { return blocks[i]; });
        cul_nsa_selected_attention_args selected{};
        selected.q = q, selected.k = k, selected.v = v, selected.cu_q = cu_q, selected.cu_k = cu_k, selected.o = o;
        selected.idx = idx;
        selected.block = 16;
        for (int32_t order : {CUL_NSA_ORDER_QUERY, CUL_NSA_ORDER_KV}) {
          selected.order = order;
          ASSERT_EQ(call(m, cul_nsa_selected_attention, selected), CUL_OK) << cul_last_error();
          out[which][1 + (order == CUL_NSA_ORDER_KV)] = values_of(o);
        }
      }
      for (int part = 0; part < 3; ++part)
        for (size_t i = 0; i < out[0][part].size(); ++i)
          ASSERT_NEAR(out[1][part][i], out[0][part][i], type == DType::f32 ? 1e-5 : 4e-3) << part << " " << i << " group " << group;
    }
}

// Positions 40 to 46 see compressed key 0 of tokens 0 to 31, not key 1 of tokens 16 to 47, whose product is the largest: to them blocks 0 and 1 are equal.
TEST(NsaSelect, aCompressedKeyNotYetCompleteHasNoScore) {
  for (int32_t backend : backends())
    for (DType type : {DType::f16, DType::f32}) {
      Machine m(backend);
      Tensor q(m, type, {8, 1, 16}), k(m, type, {2, 1, 16}), lse(m, DType::f32, {8, 1}), cu_q(m, DType::i32, {2}), cu_k(m, DType::i32, {2}),
          cu_cmp(m, DType::i32, {2}), idx(m, DType::i32, {1, 8, 1}), count(m, DType::i32, {1, 8});
      q.fill([](int64_t) { return 1; });
      k.fill([](int64_t i) { return i / 16 ? 1.0 : 0.0; });
      lse.fill([](int64_t) { return 0; });
      cu_q.fill([](int64_t i) { return static_cast<double>(8 * i); });
      cu_k.fill([](int64_t i) { return static_cast<double>(48 * i); });
      cu_cmp.fill([](int64_t i) { return static_cast<double>(2 * i); });
      cul_nsa_select_args args{};
      args.q = q, args.k_cmp = k, args.lse = lse, args.cu_q = cu_q, args.cu_k = cu_k, args.cu_cmp = cu_cmp, args.idx = idx, args.count = count;
      args.l = 32, args.d = args.block = 16, args.topk = 1;
      ASSERT_EQ(call(m, cul_nsa_select, args), CUL_OK) << cul_last_error();
      EXPECT_EQ(values_of(idx), (std::vector<double>{0, 0, 0, 0, 0, 0, 0, 1}));
    }
}

// A query block whose first row misses one key of a block, its last row none.
TEST(EstimatedAttention, blocksThatOneRowSeesNotWholly) {
  for (int64_t missing : {0, 1, 2, 15}) {
    std::vector<double> out[2];
    for (int which = 0; which < 2; ++which) {
      Machine m(which ? CUL_BACKEND_SIMT : CUL_BACKEND_CPU);
      const int64_t queries = 24, keys = 64 + queries - 1 - missing;  // the first row sees 64 - missing
      Tensor q(m, DType::f16, {queries, 2, 16}), k(m, DType::f16, {keys, 1, 16}), v(m, DType::f16, {keys, 1, 16}), o(m, DType::f16, {queries, 2, 16}),
          cu_q(m, DType::i32, {2}), cu_k(m, DType::i32, {2}), tau(m, DType::f32, {2});
      std::mt19937_64 random(23);
      for (Tensor* t : {&q, &k, &v}) t->normal(random);
      cu_q.fill([&](int64_t i) { return static_cast<double>(i * queries); });
      cu_k.fill([&](int64_t i) { return static_cast<double>(i * keys); });
      tau.fill([](int64_t h) { return h ? 0 : 1e-30; });  // a dense head, and one that keeps everything
      cul_estimated_sparse_attention_args args{};
      args.q = q, args.k = k, args.v = v, args.cu_q = cu_q, args.cu_k = cu_k, args.tau = tau, args.o = o;
      args.block_q = args.block_k = 16;
      args.sink = args.local = 16;
      ASSERT_EQ(call(m, cul_estimated_sparse_attention, args), CUL_OK) << cul_last_error();
      out[which] = values_of(o);
    }
    for (size_t i = 0; i < out[0].size(); ++i) ASSERT_NEAR(out[1][i], out[0][i], 4e-3) << missing << " " << i;
  }
}

// Boxes in which one query sees one key more than another, at either end, and a step of 64 keys ends there.
TEST(NeighborhoodAttention, masksAtTheEdgesOfBoxes) {
  struct Shape {
    int32_t length, window, stride, dilation, causal;
  };
  for (const Shape& x : {Shape{2, 2, 1, 1, 1}, Shape{3, 2, 1, 1, 0}, Shape{66, 65, 1, 1, 0}, Shape{65, 64, 1, 1, 0}, Shape{129, 127, 1, 1, 0}, Shape{130, 65, 3, 2, 0}, Shape{70, 9, 4, 3, 1}}) {
    SCOPED_TRACE(x.length);
    std::vector<double> out[2];
    for (int which = 0; which < 2; ++which) {
      Machine m(which ? CUL_BACKEND_SIMT : CUL_BACKEND_CPU);
      Tensor q(m, DType::f16, {1, x.length, 1, 16}), k(m, DType::f16, {1, x.length, 1, 16}), v(m, DType::f16, {1, x.length, 1, 16}),
          o(m, DType::f16, {1, x.length, 1, 16});
      std::mt19937_64 random(29);
      for (Tensor* t : {&q, &k, &v}) t->normal(random, 2);
      cul_neighborhood_attention_args args{};
      args.q = q, args.k = k, args.v = v, args.o = o;
      args.window_entries = args.stride_entries = args.dilation_entries = args.causal_entries = 1;
      args.window[0] = x.window, args.stride[0] = x.stride, args.dilation[0] = x.dilation, args.causal[0] = x.causal;
      ASSERT_EQ(call(m, cul_neighborhood_attention, args), CUL_OK) << cul_last_error();
      out[which] = values_of(o);
    }
    for (size_t i = 0; i < out[0].size(); ++i) ASSERT_NEAR(out[1][i], out[0][i], 8e-3) << i;
  }
}

// Boxes of two and three axes, whose runs of keys pass from line to line: at the end of an axis windows stand still, under a causal axis only
// their ends move.
TEST(NeighborhoodAttention, boxesOfSeveralAxesAreThoseOfTheCpu) {
  struct Shape {
    std::vector<int32_t> length, window, stride, dilation, causal;
  };
  const Shape shapes[] = {
      {{9, 11}, {4, 5}, {2, 3}, {1, 1}, {0, 0}},          {{5, 34}, {3, 20}, {1, 1}, {1, 1}, {0, 1}},
      {{12, 7}, {5, 7}, {1, 7}, {1, 1}, {1, 0}},          {{16, 16}, {7, 9}, {1, 1}, {2, 1}, {1, 1}},
      {{4, 5, 9}, {2, 3, 4}, {1, 2, 4}, {2, 1, 2}, {1, 0, 0}}, {{3, 6, 6}, {3, 4, 3}, {3, 1, 1}, {1, 1, 1}, {0, 0, 1}},
  };
  for (size_t which_shape = 0; which_shape < std::size(shapes); ++which_shape) {
    SCOPED_TRACE(which_shape);
    const Shape& x = shapes[which_shape];
    std::vector<int64_t> shape = {1};
    for (const int32_t n : x.length) shape.push_back(n);
    shape.push_back(1);
    shape.push_back(16);
    std::vector<double> out[2];
    for (int which = 0; which < 2; ++which) {
      Machine m(which ? CUL_BACKEND_SIMT : CUL_BACKEND_CPU);
      Tensor q(m, DType::f16, shape), k(m, DType::f16, shape), v(m, DType::f16, shape), o(m, DType::f16, shape);
      std::mt19937_64 random(37);
      for (Tensor* t : {&q, &k, &v}) t->normal(random, 2);
      cul_neighborhood_attention_args args{};
      args.q = q, args.k = k, args.v = v, args.o = o;
      args.window_entries = args.stride_entries = args.dilation_entries = args.causal_entries = static_cast<int32_t>(x.length.size());
      for (size_t a = 0; a < x.length.size(); ++a)
        args.window[a] = x.window[a], args.stride[a] = x.stride[a], args.dilation[a] = x.dilation[a], args.causal[a] = x.causal[a];
      ASSERT_EQ(call(m, cul_neighborhood_attention, args), CUL_OK) << cul_last_error();
      out[which] = values_of(o);
    }
    for (size_t i = 0; i < out[0].size(); ++i) ASSERT_NEAR(out[1][i], out[0][i], 8e-3) << i;
  }
}

// Scores are small integers, exact in every estimate: a block counts by what its rows see of it, and one whose best score is a little below the
// threshold is left out, a little above is not.
TEST(EstimatedAttention, blocksAreKeptByWhatTheirRowsSeeAboveTheThreshold) {
  constexpr int64_t kQueries = 64, kKeys = 160, kDim = 16, kBlock = 16, kFirstRows = 12;
  for (const double margin : {-0.25, 0.25})
    for (const DType type : {DType::f16, DType::f32}) {
      std::vector<double> out[2];
      for (int which = 0; which < 2; ++which) {
        Machine m(which ? CUL_BACKEND_SIMT : CUL_BACKEND_CPU);
        Tensor q(m, type, {kQueries, 1, kDim}), k(m, type, {kKeys, 1, kDim}), v(m, type, {kKeys, 1, kDim}), o(m, type, {kQueries, 1, kDim}),
            cu_q(m, DType::i32, {2}), cu_k(m, DType::i32, {2}), tau(m, DType::f32, {1}), kept(m, DType::i64, {1});
        std::mt19937_64 random(41);
        v.normal(random);
        // The first rows read channel 0, the others channel 1. Certain are block 0, whose scores are 0, and block 9, of which the first rows see
        // nothing: their sum is 16. One key in each of blocks 2 and 5 lies near the threshold, 3 - margin. Block 1 would add to the sum if it were
        // certain. Keys that the first rows do not see, from the middle of block 6 on, would be far above.
        q.fill([&](int64_t i) { return i % kDim == (i / kDim < kFirstRows ? 0 : 1) ? 1.0 : 0.0; });
        k.fill([&](int64_t i) {
          const int64_t key = i / kDim, channel = i % kDim, block = key / kBlock;
          if (channel == 0) {
            if (key == 2 * kBlock + 5 || key == 5 * kBlock + 15) return 3.0;
            return key >= kKeys - kQueries + kFirstRows ? 90.0 : block < 2 ? 0.0 : -50.0;
          }
          if (channel == 1) return block == 0 || block == 9 ? 0.0 : -50.0;
          return channel == 2 ? 127.0 : 0.0;  // nobody reads it: keys are integers in units of 1
        });
        cu_q.fill([](int64_t i) { return static_cast<double>(i * kQueries); });
        cu_k.fill([](int64_t i) { return static_cast<double>(i * kKeys); });
        tau.fill([&](int64_t) { return std::exp(3 - margin) / 16; });
        cul_estimated_sparse_attention_args args{};
        args.q = q, args.k = k, args.v = v, args.cu_q = cu_q, args.cu_k = cu_k, args.tau = tau, args.o = o, args.kept = kept;
        args.block_q = 64;
        args.block_k = args.sink = args.local = kBlock;
        args.scale = 1;
        ASSERT_EQ(call(m, cul_estimated_sparse_attention, args), CUL_OK) << cul_last_error();
        EXPECT_EQ(values_of(kept), std::vector<double>{margin > 0 ? 4.0 : 2.0}) << "backend " << which << ", margin " << margin;
        out[which] = values_of(o);
      }
      for (size_t i = 0; i < out[0].size(); ++i) ASSERT_NEAR(out[1][i], out[0][i], type == DType::f32 ? 1e-5 : 4e-3) << i;
    }
}

// More query blocks than a tile of the mask has, heads in several groups, blocks of one and of two steps of tokens, tails everywhere.
TEST(SparseLinearAttention, statesOnTensorCoresAreThoseOfTheCpu) {
  const LinearShape shapes[] = {
      {DType::bf16, 2, 2107, 64, 16, CUL_SLA_SOFTMAX, CUL_SLA_PAPER, .02, .3, true, 0},
      {DType::f16, 1, 300, 128, 128, CUL_SLA_ELU1, CUL_SLA_COMPLEMENT, .4, .3, true, 1},
      {DType::f16, 5, 530, 32, 16, CUL_SLA_SOFTMAX, CUL_SLA_PAPER, .05, .5, false, 0},
      {DType::bf16, 3, 200, 48, 64, CUL_SLA_RELU, CUL_SLA_ALL, .3, 0, false, 8},
      {DType::f16, 2, 95, 20, 32, CUL_SLA_SOFTMAX, CUL_SLA_PAPER, .3, .3, true, 0},
      {DType::f32, 2, 159, 24, 16, CUL_SLA_ELU1, CUL_SLA_PAPER, .3, .3, true, 1},
  };
  for (const LinearShape& s : shapes) {
    SCOPED_TRACE(s.length);
    const std::vector<double> cpu = sparse_linear(CUL_BACKEND_CPU, s), simt = sparse_linear(CUL_BACKEND_SIMT, s);
    double error = 0, size = 0;
    for (size_t i = 0; i < cpu.size(); ++i) {
      ASSERT_TRUE(std::isfinite(simt[i])) << i;
      error += std::pow(cpu[i] - simt[i], 2);
      size += cpu[i] * cpu[i];
    }
    EXPECT_LE(std::sqrt(error / size), bound_of(s.type)) << std::sqrt(error / size);
  }
}

#endif

TEST(EstimatedPlanTest, listsOfManyKeysFollowInTurn) {
  EstimatedParams p;
  p.dtype = DType::bf16;
  p.sequences = 1, p.query_heads = 32, p.kv_heads = 8, p.dim = p.value_dim = 128, p.query_rows = p.key_rows = 131072;
  const EstimatedPlan plan = plan_estimated_sparse_attention(p, 132);
  EXPECT_EQ(plan.slots_at_once, 66);
  EXPECT_LT(plan.workspace_bytes, uint64_t{200} << 20);
  p.query_rows = p.key_rows = int64_t{1} << 22;
  EXPECT_EQ(plan_estimated_sparse_attention(p, 132).slots_at_once, 2);
  p.query_rows = p.key_rows = 4096;
  EXPECT_EQ(plan_estimated_sparse_attention(p, 132).slots_at_once, 65) << "all of them";
  p.query_rows = p.sequences = 0;
  EXPECT_EQ(plan_estimated_sparse_attention(p, 132).slots_at_once, 1);
}

TEST(SparseLinearPlan, groupsOfHeadsFitInTheL2) {
  SparseLinearParams p;
  p.dtype = DType::bf16;
  p.batch = 2, p.heads = 12, p.length = 32768, p.dim = 128, p.blocks = 512, p.critical = 25, p.negligible = 51;
  const SparseLinearPlan video = plan_sparse_linear_attention(p, false, 132);
  EXPECT_TRUE(video.tensor_cores);
  EXPECT_EQ(video.heads_at_once, 1);
  EXPECT_LT(video.workspace_bytes, uint64_t{64} << 20) << "whatever the batch is";
  p.length = 1024, p.blocks = 16, p.critical = 1, p.negligible = 1;
  EXPECT_EQ(plan_sparse_linear_attention(p, false, 132).heads_at_once, 24);
  p.dtype = DType::f16;
  EXPECT_EQ(plan_sparse_linear_attention(p, false, 132).parts, 2);
  EXPECT_EQ(plan_sparse_linear_attention(p, false, 8).heads_at_once, 1);
  p.dim = 136;
  EXPECT_FALSE(plan_sparse_linear_attention(p, false, 132).tensor_cores);
  p.negligible = 15;  // nothing is left to the linear part
  EXPECT_EQ(plan_sparse_linear_attention(p, false, 132).sums_at, plan_sparse_linear_attention(p, false, 132).norms_at);
}

}  // namespace
}  // namespace culebra
