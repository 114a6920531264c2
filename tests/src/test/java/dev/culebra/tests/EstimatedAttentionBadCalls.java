package dev.culebra.tests;

import static dev.culebra.DType.BF16;
import static dev.culebra.DType.F16;
import static dev.culebra.DType.F32;
import static dev.culebra.DType.I32;

import dev.culebra.DType;
import dev.culebra.EstimatedSparseOptions;
import dev.culebra.Ops;
import dev.culebra.SparseLinearOptions;
import dev.culebra.Tensor;

/** Bad calls of attention to chosen blocks. */
final class EstimatedAttentionBadCalls {
    private EstimatedAttentionBadCalls() {}

    private static void linear(TestDevice on, int keys, Tensor weights, Tensor bias, SparseLinearOptions options) {
        Ops.sparseLinearAttention(on.stream, on.zeros(BF16, 1, 2, 128, 64), on.zeros(BF16, 1, 2, keys, 64), on.zeros(BF16, 1, 2, 128, 64),
                weights, bias, on.zeros(BF16, 1, 2, 128, 64), options);
    }

    private static void estimated(TestDevice on, int heads, int thresholds, DType tau, EstimatedSparseOptions options) {
        Ops.estimatedSparseAttention(on.stream, on.zeros(BF16, 64, heads, 64), on.zeros(BF16, 64, 2, 64), on.zeros(BF16, 64, 2, 64),
                on.zeros(I32, 2), on.zeros(I32, 2), on.zeros(tau, thresholds), on.zeros(BF16, 64, heads, 64), null, null, options);
    }

    static void add(BadCalls table) {
        var linear = SparseLinearOptions.DEFAULT;
        table.bad("sparse_linear_attention", "L differs", Refused.SHAPE, on -> linear(on, 64, null, null, linear), "k", "64", "128");
        table.bad("sparse_linear_attention", "critical > 1", Refused.RANGE, on -> linear(on, 128, null, null, linear.withShares(1.5, 0)), "critical", "1.5");
        table.bad("sparse_linear_attention", "negligible < 0", Refused.RANGE, on -> linear(on, 128, null, null, linear.withShares(0.5, -0.5)), "negligible", "-0.5");
        table.bad("sparse_linear_attention", "block 0", Refused.RANGE, on -> linear(on, 128, null, null, linear.withBlock(0)), "block", "0");
        table.bad("sparse_linear_attention", "eps -1", Refused.RANGE, on -> linear(on, 128, null, null, new SparseLinearOptions(
                64, 0.05, 0.1, SparseLinearOptions.Phi.RELU, SparseLinearOptions.Mode.ALL, -1, 0)), "eps", "-1");
        table.bad("sparse_linear_attention", "a projection of another shape", Refused.SHAPE, on -> linear(on, 128, on.zeros(BF16, 64, 32), null, linear), "proj_w", "32");
        table.bad("sparse_linear_attention", "a projection of another type", Refused.DTYPE, on -> linear(on, 128, on.zeros(F16, 64, 64), null, linear), "proj_w", "f16");
        table.bad("sparse_linear_attention", "a bias alone", Refused.NULL, on -> linear(on, 128, null, on.zeros(BF16, 64), linear), "proj_w");
        var sparse = EstimatedSparseOptions.DEFAULT;
        table.bad("estimated_sparse_attention", "Hq % Hkv", Refused.SHAPE, on -> estimated(on, 3, 3, F32, sparse), "3", "2");
        table.bad("estimated_sparse_attention", "tau of one head", Refused.SHAPE, on -> estimated(on, 4, 1, F32, sparse), "tau", "1", "4");
        table.bad("estimated_sparse_attention", "tau in bf16", Refused.DTYPE, on -> estimated(on, 4, 4, BF16, sparse), "tau", "bf16");
        table.bad("estimated_sparse_attention", "block_q 0", Refused.RANGE, on -> estimated(on, 4, 4, F32, sparse.withBlocks(0, 32)), "block_q", "0");
        table.bad("estimated_sparse_attention", "block_k 20", Refused.RANGE, on -> estimated(on, 4, 4, F32, sparse.withBlocks(64, 20)), "block_k", "20");
        table.bad("estimated_sparse_attention", "negative sink", Refused.RANGE, on -> estimated(on, 4, 4, F32, sparse.withCertain(-1, 128)), "sink", "-1");
        table.bad("estimated_sparse_attention", "negative dense_length", Refused.RANGE, on -> estimated(on, 4, 4, F32, sparse.withDenseLength(-1)), "dense_length", "-1");
    }
}
