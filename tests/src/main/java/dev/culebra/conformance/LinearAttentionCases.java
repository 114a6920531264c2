package dev.culebra.conformance;

import dev.culebra.Activation;
import dev.culebra.DType;
import dev.culebra.Gate;
import dev.culebra.GateActivation;
import dev.culebra.Ops;
import dev.culebra.RecurrenceOptions;
import dev.culebra.Sequences;
import dev.culebra.Tensor;
import java.util.Map;
import org.jspecify.annotations.Nullable;

/** Recurrences over a state per sequence. */
final class LinearAttentionCases {
    private LinearAttentionCases() {}

    static void register(Map<String, Binding> all) {
        all.put("simple_gla", LinearAttentionCases::simpleGla);
        all.put("gated_linear_attention", LinearAttentionCases::gatedLinearAttention);
        all.put("delta_rule", LinearAttentionCases::deltaRule);
        all.put("kda", LinearAttentionCases::kda);
        all.put("gated_delta_rule", LinearAttentionCases::gatedDeltaRule);
        all.put("causal_conv1d", LinearAttentionCases::causalConv1d);
        all.put("gated_rms_norm", LinearAttentionCases::gatedRmsNorm);
    }

    private interface Recurrence {
        void run(RecurrenceOptions options, @Nullable Tensor initial, Tensor o, @Nullable Tensor last,
                @Nullable Tensor checkpoints);
    }

    /** A recurrence with states [N, HV, V, K]. */
    private static void recurrence(Call call, Recurrence operator) {
        var attributes = call.attributes();
        var layout = attributes.oneOf("state_layout", RecurrenceOptions.StateLayout.VK);
        var every = attributes.integer("checkpoint_every", 0);
        var options = new RecurrenceOptions(
                attributes.number("scale", 0), layout, every, attributes.flag("qk_l2norm", false));
        var heads = call.size("v", 2);
        var keys = call.size("q", 3);
        var values = call.size("v", 3);
        var rows = layout == RecurrenceOptions.StateLayout.VK ? values : keys;
        var columns = layout == RecurrenceOptions.StateLayout.VK ? keys : values;
        var states = new States(call, "initial_state", "final_state", DType.F32, "q", heads, rows, columns);
        var checkpoints = every == 0 ? null
                : call.optionalOut("checkpoints", DType.F32, checkpoints(call, every), heads, rows, columns);
        operator.run(options, states.initial, call.out("o", call.dtype("v"), call.shape("v")), states.last, checkpoints);
    }

    private static Gate gate(Call call) {
        return new Gate(call.attributes().oneOf("gate_mode", Gate.Mode.LOG), call.in("g"), call.in("g_head"), call.in("a"),
                call.in("A_log"), call.in("dt_bias"), call.attributes().number("lower_bound", -5));
    }

    private static void simpleGla(Call call) {
        recurrence(call, (options, initial, o, last, checkpoints) -> Ops.simpleGla(call.stream(), call.in("q"), call.in("k"),
                call.in("v"), gate(call), sequences(call), initial, o, last, checkpoints, options));
    }

    private static void gatedLinearAttention(Call call) {
        recurrence(call, (options, initial, o, last, checkpoints) -> Ops.gatedLinearAttention(call.stream(), call.in("q"),
                call.in("k"), call.in("v"), call.in("g"), sequences(call), initial, o, last, checkpoints, options));
    }

    private static void deltaRule(Call call) {
        recurrence(call, (options, initial, o, last, checkpoints) -> Ops.deltaRule(call.stream(), call.in("q"), call.in("k"),
                call.in("v"), call.in("beta"), sequences(call), initial, o, last, checkpoints, options));
    }

    private static void gatedDeltaRule(Call call) {
        recurrence(call, (options, initial, o, last, checkpoints) -> Ops.gatedDeltaRule(call.stream(), call.in("q"),
                call.in("k"), call.in("v"), call.in("beta"), gate(call), sequences(call), initial, o, last, checkpoints,
                options));
    }

    private static void kda(Call call) {
        recurrence(call, (options, initial, o, last, checkpoints) -> Ops.kda(call.stream(), call.in("q"), call.in("k"),
                call.in("v"), call.in("beta"), gate(call), sequences(call), initial, o, last, checkpoints, options));
    }

    private static void causalConv1d(Call call) {
        var width = call.size("w", 1);
        var states = new States(call, "state", "final_state", call.dtype("x"), "x", call.size("x", 2), Math.max(0, width - 1));
        Ops.causalConv1d(call.stream(), call.in("x"), call.in("w"), call.in("bias"), states.initial, sequences(call),
                call.out("y", call.dtype("x"), call.shape("x")), states.last,
                call.attributes().oneOf("act", Activation.NONE));
    }

    private static void gatedRmsNorm(Call call) {
        var attributes = call.attributes();
        Ops.gatedRmsNorm(call.stream(), call.in("x"), call.in("gate"), call.in("weight"),
                call.out("y", call.dtype("x"), call.shape("x")), attributes.number("eps", 1e-6),
                attributes.oneOf("act", GateActivation.SILU), attributes.flag("norm_before_gate", true),
                attributes.integer("groups", 1));
    }

    /** The states before and after: with pool indices one and the same tensor. */
    private static final class States {
        final @Nullable Tensor initial;
        final @Nullable Tensor last;

        /** {@code tokens} is the tensor whose batch counts the sequences. */
        States(Call call, String before, String after, DType dtype, String tokens, long... state) {
            if (call.has("state_read_index") && call.has(before) && call.wants(after)) {
                initial = call.updated(after, before);
                last = initial;
            } else {
                var shape = new long[state.length + 1];
                shape[0] = call.has("cu_seqlens") ? Math.max(0, call.size("cu_seqlens", 0) - 1) : call.size(tokens, 0);
                System.arraycopy(state, 0, shape, 1, state.length);
                initial = call.in(before);
                last = call.optionalOut(after, dtype, shape);
            }
        }
    }

    private static @Nullable Sequences sequences(Call call) {
        var packed = call.in("cu_seqlens");
        var read = call.in("state_read_index");
        var write = call.in("state_write_index");
        return packed == null && read == null && write == null ? null : new Sequences(packed, read, write);
    }

    /** The number of states kept: floor(length / every) of each sequence. */
    private static long checkpoints(Call call, int every) {
        if (every < 1) {
            return 0;
        }
        if (!call.has("cu_seqlens")) {
            return call.size("q", 0) * (call.size("q", 1) / every);
        }
        var starts = call.host("cu_seqlens");
        var count = 0L;
        for (var i = 1L; i < starts.elements(); i++) {
            count += Math.max(0, starts.integer(i) - starts.integer(i - 1)) / every;
        }
        return count;
    }
}
