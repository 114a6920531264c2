package dev.culebra.conformance;

import dev.culebra.DType;
import dev.culebra.EstimatedSparseOptions;
import dev.culebra.Ops;
import dev.culebra.SparseLinearOptions;
import java.util.Map;

/** Attention to the blocks of keys that an estimate chooses. */
final class EstimatedAttentionCases {
    private EstimatedAttentionCases() {}

    static void register(Map<String, Binding> all) {
        all.put("sparse_linear_attention", EstimatedAttentionCases::sparseLinear);
        all.put("estimated_sparse_attention", EstimatedAttentionCases::estimatedSparse);
    }

    private static void sparseLinear(Call call) {
        var attributes = call.attributes();
        var options = new SparseLinearOptions(
                attributes.integer("block", 64),
                attributes.real("critical", 0.05),
                attributes.real("negligible", 0.10),
                attributes.oneOf("phi", SparseLinearOptions.Phi.SOFTMAX),
                attributes.oneOf("mode", SparseLinearOptions.Mode.PAPER),
                attributes.number("eps", 1e-5),
                attributes.number("scale", 0));
        Ops.sparseLinearAttention(call.stream(), call.in("q"), call.in("k"), call.in("v"), call.in("proj_w"), call.in("proj_b"),
                call.out("o", call.dtype("q"), call.shape("q")), options);
    }

    private static void estimatedSparse(Call call) {
        var attributes = call.attributes();
        var options = new EstimatedSparseOptions(
                attributes.integer("block_q", 64),
                attributes.integer("block_k", 32),
                attributes.integer("sink", 32),
                attributes.integer("local", 128),
                attributes.oneOf("est", EstimatedSparseOptions.Estimate.INT8),
                attributes.integer("dense_length", 1024),
                attributes.number("scale", 0));
        var tokens = call.size("q", 0);
        var heads = call.size("q", 1);
        Ops.estimatedSparseAttention(call.stream(), call.in("q"), call.in("k"), call.in("v"), call.in("cu_q"), call.in("cu_k"),
                call.in("tau"), call.out("o", call.dtype("q"), tokens, heads, call.size("v", 2)),
                call.optionalOut("lse", DType.F32, tokens, heads), call.optionalOut("kept", DType.I64, heads), options);
    }
}
