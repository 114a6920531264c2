package dev.culebra.tests;

import static dev.culebra.DType.F16;
import static dev.culebra.DType.F32;
import static dev.culebra.DType.I32;
import static dev.culebra.DType.I64;

import dev.culebra.Activation;
import dev.culebra.DType;
import dev.culebra.Gate;
import dev.culebra.GateActivation;
import dev.culebra.Ops;
import dev.culebra.RecurrenceOptions;
import dev.culebra.Sequences;

/** Bad calls of linear attention. */
final class LinearAttentionBadCalls {
    private LinearAttentionBadCalls() {}

    private static void deltaRule(TestDevice on, int valueHeads, int keys, DType beta, boolean gated, Sequences sequences,
            RecurrenceOptions options) {
        var v = on.zeros(F32, 1, 5, valueHeads, 16);
        Ops.gatedDeltaRule(on.stream, on.zeros(F32, 1, 5, 2, keys), on.zeros(F32, 1, 5, 2, keys), v,
                beta == null ? null : on.zeros(beta, 1, 5, valueHeads), Gate.log(gated ? on.zeros(F32, 1, 5, valueHeads) : null),
                sequences, null, on.zeros(F32, 1, 5, valueHeads, 16), null, null, options);
    }

    static void add(BadCalls table) {
        var op = "gated_delta_rule";
        var plain = RecurrenceOptions.DEFAULT;
        table.bad(op, "HV % H", Refused.SHAPE, on -> deltaRule(on, 3, 16, F32, true, null, plain), "3", "2");
        table.bad(op, "K is no multiple of 8", Refused.SHAPE, on -> deltaRule(on, 2, 12, F32, true, null, plain), "12", "8");
        table.bad(op, "no beta", Refused.NULL, on -> deltaRule(on, 2, 16, null, true, null, plain), "beta");
        table.bad(op, "no g", Refused.NULL, on -> deltaRule(on, 2, 16, F32, false, null, plain), "g");
        table.bad(op, "beta in f16", Refused.DTYPE, on -> deltaRule(on, 2, 16, F16, true, null, plain), "beta", "f16");
        table.bad(op, "cu_seqlens in i64", Refused.DTYPE, on -> deltaRule(on, 2, 16, F32, true,
                Sequences.packed(on.zeros(I64, 2)), plain), "cu_seqlens", "i64");
        table.bad(op, "one index", Refused.NULL, on -> deltaRule(on, 2, 16, F32, true,
                new Sequences(null, on.zeros(I32, 1), null), plain), "state_write_index");
        table.bad(op, "checkpoint_every 32", Refused.RANGE, on -> deltaRule(on, 2, 16, F32, true, null,
                plain.withCheckpointEvery(32)), "checkpoint_every", "32");
        table.bad("causal_conv1d", "W 5", Refused.SHAPE, on -> Ops.causalConv1d(on.stream, on.zeros(F32, 1, 6, 16), on.zeros(F32, 16, 5),
                null, null, null, on.zeros(F32, 1, 6, 16), null, Activation.NONE), "w", "5");
        table.bad("causal_conv1d", "gelu", Refused.RANGE, on -> Ops.causalConv1d(on.stream, on.zeros(F32, 1, 6, 16),
                on.zeros(F32, 16, 4), null, null, null, on.zeros(F32, 1, 6, 16), null, Activation.GELU), "act");
        table.bad("causal_conv1d", "a state of another type", Refused.DTYPE, on -> Ops.causalConv1d(on.stream, on.zeros(F16, 1, 6, 16),
                on.zeros(F16, 16, 4), null, on.zeros(F32, 1, 16, 3), null, on.zeros(F16, 1, 6, 16), null, Activation.NONE),
                "state", "f32");
        table.bad("gated_rms_norm", "weight is too long", Refused.SHAPE, on -> Ops.gatedRmsNorm(on.stream, on.zeros(F32, 4, 32),
                on.zeros(F32, 4, 32), on.zeros(F32, 64), on.zeros(F32, 4, 32), 1e-6f, GateActivation.SILU, true, 1),
                "weight", "64", "32");
        table.bad("gated_rms_norm", "groups do not divide D", Refused.SHAPE, on -> Ops.gatedRmsNorm(on.stream, on.zeros(F32, 4, 32),
                null, on.zeros(F32, 32), on.zeros(F32, 4, 32), 1e-6f, GateActivation.SILU, true, 3), "groups", "3");
    }
}
