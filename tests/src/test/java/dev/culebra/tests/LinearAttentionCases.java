package dev.culebra.tests;

import dev.culebra.DType;
import dev.culebra.conformance.Case;
import dev.culebra.conformance.HostTensor;
import dev.culebra.conformance.Metric;
import java.util.ArrayList;
import java.util.List;

/** Linear attention: packed and empty sequences, pools with padding, every option. */
final class LinearAttentionCases {
    private static final DType[] DTYPES = {DType.F32, DType.F16, DType.BF16};

    private LinearAttentionCases() {}

    static List<Case> all(long seed) {
        var cases = new ArrayList<Case>();
        for (var i = 0; i < 9; i++) {
            cases.add(gatedDeltaRule(seed + i, i, DTYPES[i % 3]));
            cases.add(causalConv1d(seed + i, i, DTYPES[i % 3]));
            cases.add(gatedRmsNorm(seed + i, i, DTYPES[i % 3]));
        }
        return cases;
    }

    /** [B, T], or B = 1 and packed sequences of these lengths; then pool rows, -1 for padding. Returns the tokens. */
    private static int[] tokens(CaseBuilder builder, int i) {
        if (i % 3 == 0) {
            return new int[] {2, i == 0 ? 0 : 5 + i};
        }
        if (i % 3 == 1) {
            builder.in("cu_seqlens", HostTensor.of(DType.I32, new long[] {5}, 0, 0, 1, 8, 8 + 7 * i));
            return new int[] {1, 8 + 7 * i};
        }
        builder.in("state_read_index", HostTensor.of(DType.I32, new long[] {3}, 4, -1, 2));
        builder.in("state_write_index", HostTensor.of(DType.I32, new long[] {3}, 4, -1, 0));
        return new int[] {3, 1 + i % 4};
    }

    private static int states(int i) {
        return new int[] {2, 4, 6}[i % 3];
    }

    private static Case gatedDeltaRule(long seed, int i, DType dtype) {
        var builder = new CaseBuilder("gated_delta_rule", seed, dtype, i);
        var shape = tokens(builder, i);
        var heads = 1 + i % 2;
        var valueHeads = heads * (1 + i % 3);
        var keys = new int[] {16, 64, 128}[i % 3];
        var values = new int[] {24, 32, 8}[i % 3];
        builder.normal("q", dtype, 1, shape[0], shape[1], heads, keys)
                .normal("k", dtype, 1 / Math.sqrt(keys), shape[0], shape[1], heads, keys)
                .normal("v", dtype, 1, shape[0], shape[1], valueHeads, values)
                .uniform("beta", DType.F32, 0, 1, shape[0], shape[1], valueHeads)
                .attribute("qk_l2norm", i % 2 == 0)
                .attribute("state_layout", i % 4 < 2 ? "vk" : "kv")
                .normal("initial_state", DType.F32, 1, states(i), valueHeads, i % 4 < 2 ? values : keys, i % 4 < 2 ? keys : values);
        if (i % 2 == 0) {
            builder.uniform("g", DType.F32, -3, 0, shape[0], shape[1], valueHeads);
        } else {
            builder.attribute("gate_mode", "softplus")
                    .normal("a", dtype, 1, shape[0], shape[1], valueHeads)
                    .uniform("A_log", DType.F32, -1, 1, valueHeads)
                    .normal("dt_bias", DType.F32, 1, valueHeads);
        }
        if (i == 3) {
            builder.attribute("checkpoint_every", 1).attribute("scale", 0.5);
        }
        return builder.build(dtype);
    }

    private static Case causalConv1d(long seed, int i, DType dtype) {
        var builder = new CaseBuilder("causal_conv1d", seed, dtype, i);
        var shape = tokens(builder, i);
        var channels = new int[] {1, 40, 75}[i % 3];
        var width = 2 + i % 3;
        builder.normal("x", dtype, 1, shape[0], shape[1], channels)
                .normal("w", dtype, 1, channels, width)
                .normal("state", dtype, 1, states(i), channels, width - 1)
                .attribute("act", i % 2 == 0 ? "silu" : "none")
                .check("final_state", Metric.MAX_ABS, 0);
        if (i % 2 == 0) {
            builder.normal("bias", dtype, 1, channels);
        }
        return builder.build(dtype);
    }

    private static Case gatedRmsNorm(long seed, int i, DType dtype) {
        var width = 48 + 16 * i;
        var shape = i % 2 == 0 ? new long[] {1 + 5 * i, width} : new long[] {2, 3, i, width};
        var builder = new CaseBuilder("gated_rms_norm", seed, dtype, i)
                .normal("x", dtype, 1, shape)
                .normal("weight", i % 4 == 0 ? DType.F32 : dtype, 1, width)
                .attribute("eps", 1e-6)
                .attribute("act", i % 2 == 0 ? "silu" : "sigmoid")
                .attribute("norm_before_gate", i % 4 < 2)
                .attribute("groups", i % 3 == 0 ? 2 : 1);
        if (i % 5 != 4) {
            builder.normal("gate", dtype, 1, shape);
        }
        return builder.build(dtype);
    }
}
