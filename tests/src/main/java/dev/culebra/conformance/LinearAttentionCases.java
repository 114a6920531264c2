package dev.culebra.conformance;

import dev.culebra.Activation;
import dev.culebra.DType;
import dev.culebra.Gate;
import dev.culebra.GateActivation;
import dev.culebra.LinearAttentionOptions;
import dev.culebra.LocalLinearAttentionOptions;
import dev.culebra.MlstmOptions;
import dev.culebra.MlstmState;
import dev.culebra.Ops;
import dev.culebra.RecurrenceOptions;
import dev.culebra.RecurrenceOptions.StateLayout;
import dev.culebra.Sequences;
import dev.culebra.Tensor;
import java.util.Arrays;
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
        all.put("linear_attention", LinearAttentionCases::linearAttention);
        all.put("mlstm", LinearAttentionCases::mlstm);
        all.put("mixture_of_memories", LinearAttentionCases::mixtureOfMemories);
        all.put("local_linear_attention", LinearAttentionCases::localLinearAttention);
        all.put("causal_conv1d", LinearAttentionCases::causalConv1d);
        all.put("conv_fft", LinearAttentionCases::convFft);
        all.put("gated_rms_norm", LinearAttentionCases::gatedRmsNorm);
    }

    private interface Recurrence {
        void run(RecurrenceOptions options, @Nullable Tensor initial, Tensor o, @Nullable Tensor last,
                @Nullable Tensor checkpoints);
    }

    /** A recurrence with states [N, HV, V, K]. */
    private static void recurrence(Call call, Recurrence operator) {
        var attributes = call.attributes();
        var every = attributes.integer("checkpoint_every", 0);
        var options = new RecurrenceOptions(
                attributes.number("scale", 0), layout(call), every, attributes.flag("qk_l2norm", false));
        var shape = state(call, call.size("v", 3), call.size("q", 3), call.size("v", 2));
        var states = new States(call, "initial_state", "final_state", DType.F32, "q", shape);
        operator.run(options, states.initial, call.out("o", call.dtype("v"), call.shape("v")), states.last,
                checkpoints(call, every, shape));
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

    private static StateLayout layout(Call call) {
        return call.attributes().oneOf("state_layout", StateLayout.VK);
    }

    /** The shape of a state after its first dimension: {@code before}, then V and {@code columns} in the order of the layout. */
    private static long[] state(Call call, long values, long columns, long... before) {
        var shape = Arrays.copyOf(before, before.length + 2);
        var vk = layout(call) == StateLayout.VK;
        shape[before.length] = vk ? values : columns;
        shape[before.length + 1] = vk ? columns : values;
        return shape;
    }

    private static @Nullable Tensor checkpoints(Call call, int every, long[] state) {
        if (every == 0) {
            return null;
        }
        var shape = new long[state.length + 1];
        shape[0] = checkpoints(call, every);
        System.arraycopy(state, 0, shape, 1, state.length);
        return call.optionalOut("checkpoints", DType.F32, shape);
    }

    private static void linearAttention(Call call) {
        var attributes = call.attributes();
        var map = attributes.oneOf("feature_map", LinearAttentionOptions.FeatureMap.NONE);
        var normalize = attributes.flag("normalize", false);
        var every = attributes.integer("checkpoint_every", 0);
        var options = new LinearAttentionOptions(attributes.number("scale", 0), layout(call), every, map, normalize,
                attributes.number("eps", 1e-10), attributes.flag("causal", true));
        var width = map.width(Math.toIntExact(call.size("q", 3)));
        var shape = state(call, call.size("v", 3), width, call.size("v", 2));
        var states = new States(call, "initial_state", "final_state", DType.F32, "q", shape);
        var z = normalize || call.has("z_state")
                ? new States(call, "z_state", "final_z_state", DType.F32, "q", call.size("q", 2), width) : States.NONE;
        Ops.linearAttention(call.stream(), call.in("q"), call.in("k"), call.in("v"), sequences(call), states.initial, z.initial,
                call.out("o", call.dtype("v"), call.shape("v")), states.last, z.last, checkpoints(call, every, shape), options);
    }

    private static void mlstm(Call call) {
        var attributes = call.attributes();
        var every = attributes.integer("checkpoint_every", 0);
        var gate = attributes.oneOf("input_gate", MlstmOptions.InputGate.EXP);
        var normalize = attributes.flag("normalize", true);
        var options = new MlstmOptions(attributes.number("scale", 0), layout(call), every, gate, normalize,
                attributes.number("eps", 1e-6), attributes.number("soft_cap", 0));
        var heads = call.size("q", 2);
        var shape = state(call, call.size("v", 3), call.size("q", 3), heads);
        var c = new States(call, "initial_state", "final_state", DType.F32, "q", shape);
        var n = normalize || call.has("n_state")
                ? new States(call, "n_state", "final_n_state", DType.F32, "q", heads, call.size("q", 3)) : States.NONE;
        var m = gate == MlstmOptions.InputGate.EXP || call.has("m_state")
                ? new States(call, "m_state", "final_m_state", DType.F32, "q", heads) : States.NONE;
        Ops.mlstm(call.stream(), call.in("q"), call.in("k"), call.in("v"), call.in("i"), call.in("f"), sequences(call),
                new MlstmState(c.initial, n.initial, m.initial), call.out("o", call.dtype("v"), call.shape("v")),
                new MlstmState(c.last, n.last, m.last), checkpoints(call, every, shape), options);
    }

    private static void mixtureOfMemories(Call call) {
        var attributes = call.attributes();
        var every = attributes.integer("checkpoint_every", 0);
        var options = new RecurrenceOptions(
                attributes.number("scale", 0), layout(call), every, attributes.flag("qk_l2norm", false));
        var slots = call.shape("q").length == 5 ? 1 : 0;
        var heads = call.size("v", 2 + slots);
        var values = call.size("v", 3 + slots);
        var shape = state(call, values, call.size("q", 3 + slots), call.size("initial_state", 1), heads);
        var states = new States(call, "initial_state", "final_state", DType.F32, "q", shape);
        Ops.mixtureOfMemories(call.stream(), call.in("q"), call.in("k"), call.in("v"), call.in("beta"), gate(call), call.in("ids"),
                call.in("weights"), sequences(call), states.initial,
                call.out("o", call.dtype("v"), call.size("q", 0), call.size("q", 1), heads, values), states.last,
                checkpoints(call, every, shape), options);
    }

    private static void localLinearAttention(Call call) {
        var attributes = call.attributes();
        var absent = LocalLinearAttentionOptions.DEFAULT;
        var options = new LocalLinearAttentionOptions(attributes.number("scale", 0),
                attributes.number("ridge_lambda", absent.ridgeLambda()), attributes.integer("cg_iters", absent.cgIters()),
                attributes.number("tol", absent.tol()));
        Ops.localLinearAttention(call.stream(), call.in("q"), call.in("k"), call.in("v"), call.in("cu_seqlens"),
                call.in("cu_seqlens_k"), call.out("o", call.dtype("v"), call.size("q", 0), call.size("q", 1),
                        call.size("v", 2), call.size("v", 3)), options);
    }

    private static void causalConv1d(Call call) {
        var width = call.size("w", 1);
        var states = new States(call, "state", "final_state", call.dtype("x"), "x", call.size("x", 2), Math.max(0, width - 1));
        Ops.causalConv1d(call.stream(), call.in("x"), call.in("w"), call.in("bias"), states.initial, sequences(call),
                call.out("y", call.dtype("x"), call.shape("x")), states.last,
                call.attributes().oneOf("act", Activation.NONE));
    }

    private static void convFft(Call call) {
        Ops.convFft(call.stream(), call.in("x"), call.in("filter"), call.in("skip"), call.out("y", call.dtype("x"), call.shape("x")));
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

        /** Of an operator that has no such state. */
        static final States NONE = new States();

        private States() {
            initial = null;
            last = null;
        }

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
