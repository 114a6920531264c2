// moe_dispatch, and moe_combine of what it placed: what the cases do not reach.
#include "culebra/moe.h"

#include "glue_harness.h"

namespace culebra {
namespace {

using glue_testing::Machine;
using glue_testing::Tensor;

class Dispatch : public ::testing::TestWithParam<int32_t> {
 protected:
  // Four tokens of two slots, six experts on two ranks, three rows for each.
  struct Call {
    explicit Call(int32_t backend)
        : machine(backend), x(machine, DType::bf16, {4, 8}), ids(machine, DType::i32, {4, 2}), rank(machine, DType::i32, {6}),
          local(machine, DType::i32, {6}), rows(machine, DType::bf16, {6, 8}), row_ids(machine, DType::i32, {6}),
          inverse(machine, DType::i32, {8}), counts(machine, DType::i32, {2}) {
      x.fill([](int64_t i) { return static_cast<double>(i); });
      set(ids, {0, 3, 1, -1, 5, 2, 1, 4});
      set(rank, {0, 1, 0, 1, 0, 1});
      set(local, {0, 0, 1, 1, 2, 2});
      rows.fill([](int64_t) { return 77; });
      args.call.struct_size = sizeof args;
      args.x = x, args.ids = ids, args.expert_rank = rank, args.expert_local = local;
      args.rows = rows, args.row_ids = row_ids, args.inverse = inverse, args.counts = counts;
    }
    ~Call() {
      if (!workspace) return;
      EXPECT_EQ(cul_memory_free(machine.device, workspace), CUL_OK);
    }
    static void set(Tensor& t, std::vector<double> values) {
      t.fill([&](int64_t i) { return values[static_cast<size_t>(i)]; });
    }
    cul_status run(uint32_t flags = 0) {
      if (!workspace) {
        args.call.flags = CUL_OP_PLAN_ONLY;
        if (const cul_status refused = cul_moe_dispatch(machine.stream, &args)) return refused;
        args.call.workspace_bytes = cul_last_workspace_bytes();
        EXPECT_EQ(cul_memory_alloc(machine.device, args.call.workspace_bytes, &workspace), CUL_OK);
        args.call.workspace = workspace;
      }
      args.call.flags = flags;
      if (const cul_status refused = cul_moe_dispatch(machine.stream, &args)) return refused;
      return cul_stream_synchronize(machine.stream);
    }
    void expect(Tensor& t, std::vector<double> values) {
      t.read();
      for (size_t i = 0; i < values.size(); ++i) EXPECT_EQ(t[static_cast<int64_t>(i)], values[i]) << i;
    }

    Machine machine;
    Tensor x, ids, rank, local, rows, row_ids, inverse, counts;
    cul_moe_dispatch_args args{};
    void* workspace = nullptr;
  };
};

TEST_P(Dispatch, slotsGoToTheRanksOfTheirExperts) {
  Call c(GetParam());
  ASSERT_EQ(c.run(CUL_OP_VALIDATE), CUL_OK) << cul_last_error();
  // Rank 0 has experts 0, 2, 4: slots 0, 5, 7. Rank 1 has 1, 3, 5: slots 1, 2, 4, and 6, for which there is no room.
  c.expect(c.inverse, {0, 3, 4, -1, 5, 1, -2, 2});
  c.expect(c.row_ids, {0, 1, 2, 1, 0, 2});
  c.expect(c.counts, {3, 4});
  c.rows.read();
  const int64_t tokens[] = {0, 2, 3, 0, 1, 2};
  for (int64_t row = 0; row < 6; ++row)
    for (int64_t i = 0; i < 8; ++i) EXPECT_EQ(c.rows[row * 8 + i], static_cast<double>(tokens[row] * 8 + i)) << row;
}

TEST_P(Dispatch, badNumbersAreSkippedAndToldWhenAsked) {
  {
    Call c(GetParam());
    Call::set(c.ids, {6, -7, 1, -1, 5, 2, 1 << 30, 4});
    Call::set(c.rank, {0, 2, 0, 1, -5, 1});
    ASSERT_EQ(c.run(), CUL_OK) << cul_last_error();
    c.expect(c.inverse, {-1, -1, -1, -1, 3, 0, -1, -1});
    c.expect(c.row_ids, {1, -1, -1, 2, -1, -1});
    c.expect(c.counts, {1, 1});
    c.rows.read();
    EXPECT_EQ(c.rows[8], 77);  // of no slot
    EXPECT_EQ(c.run(CUL_OP_VALIDATE), CUL_DEVICE_ERROR);
    EXPECT_NE(std::string(cul_last_error()).find("moe_dispatch: ids[0, 0] = 6"), std::string::npos) << cul_last_error();
  }
  Call c(GetParam());
  Call::set(c.rank, {0, 2, 0, 1, -1, 1});
  EXPECT_EQ(c.run(CUL_OP_VALIDATE), CUL_DEVICE_ERROR);
  EXPECT_NE(std::string(cul_last_error()).find("expert_rank[1] = 2"), std::string::npos) << cul_last_error();
}

TEST_P(Dispatch, refusals) {
  Call c(GetParam());
  EXPECT_EQ(cul_moe_dispatch(c.machine.stream, &c.args), CUL_WORKSPACE);
  ASSERT_EQ(c.run(), CUL_OK) << cul_last_error();
  const auto with = [&](const cul_tensor* cul_moe_dispatch_args::*member, const cul_tensor* value) {
    cul_moe_dispatch_args changed = c.args;
    changed.*member = value;
    return cul_moe_dispatch(c.machine.stream, &changed);
  };
  EXPECT_EQ(with(&cul_moe_dispatch_args::inverse, c.ids), CUL_SHAPE);
  EXPECT_EQ(with(&cul_moe_dispatch_args::counts, nullptr), CUL_NULL_POINTER);
  EXPECT_EQ(with(&cul_moe_dispatch_args::row_ids, c.rank), CUL_UNSUPPORTED) << "an output is an input";
  EXPECT_NE(std::string(cul_last_error()).find("row_ids overlaps expert_rank"), std::string::npos) << cul_last_error();
  Tensor wide(c.machine, DType::bf16, {6, 9});
  EXPECT_EQ(with(&cul_moe_dispatch_args::rows, wide), CUL_SHAPE);
}

// Under validation -2 is an entry as others where rows were dispatched, and none where they were not.
TEST_P(Dispatch, combineKnowsSlotsWithoutRoom) {
  for (const int32_t dispatched : {1, 0}) {
    Machine machine(GetParam());
    Tensor rows(machine, DType::f32, {dispatched ? 3 : 4, 4}), inverse(machine, DType::i32, {4}), weights(machine, DType::f32, {2, 2}),
        y(machine, DType::f32, {2, 4});
    rows.fill([](int64_t i) { return static_cast<double>(i); });
    inverse.fill([](int64_t i) { return i == 1 ? -2.0 : i == 3 ? -1.0 : 2.0; });
    weights.fill([](int64_t) { return 2; });
    cul_moe_combine_args args{};
    args.call.struct_size = sizeof args;
    args.rows = rows, args.inverse = inverse, args.weights = weights, args.y = y, args.k = 2, args.dispatched = dispatched;
    ASSERT_EQ(cul_moe_combine(machine.stream, &args), CUL_OK) << cul_last_error();
    y.read();
    for (int64_t i = 0; i < 4; ++i) {
      EXPECT_EQ(std::isnan(y[i]) ? -1 : y[i], dispatched ? -1 : 2 * static_cast<double>(8 + i));
      EXPECT_EQ(y[4 + i], 2 * static_cast<double>(8 + i));
    }
    args.call.flags = CUL_OP_VALIDATE;
    ASSERT_EQ(cul_moe_combine(machine.stream, &args), CUL_OK);
    EXPECT_EQ(cul_stream_synchronize(machine.stream), dispatched ? CUL_OK : CUL_DEVICE_ERROR) << cul_last_error();
    args.dispatched = 2;
    EXPECT_NE(cul_moe_combine(machine.stream, &args), CUL_OK);
  }
}

INSTANTIATE_TEST_SUITE_P(, Dispatch, ::testing::Values(CUL_BACKEND_CPU
#if CULEBRA_HAS_SIMT
                                                       ,
                                                       CUL_BACKEND_SIMT
#endif
                                                       ),
                         [](const auto& info) { return std::string(cul_backend_name(info.param)); });

}  // namespace
}  // namespace culebra
