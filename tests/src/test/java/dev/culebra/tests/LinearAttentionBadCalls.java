package dev.culebra.tests;

import static dev.culebra.DType.F16;
import static dev.culebra.DType.F32;
import static dev.culebra.DType.I32;
import static dev.culebra.DType.I64;

import dev.culebra.Activation;
import dev.culebra.Gate;
import dev.culebra.GateActivation;
import dev.culebra.LinearAttentionOptions;
import dev.culebra.LinearAttentionOptions.FeatureMap;
import dev.culebra.LocalLinearAttentionOptions;
import dev.culebra.MlstmOptions;
import dev.culebra.MlstmState;
import dev.culebra.Ops;
import dev.culebra.RecurrenceOptions;
import dev.culebra.Sequences;
import dev.culebra.Tensor;
import java.util.function.Consumer;

/** Bad calls of linear attention. */
final class LinearAttentionBadCalls {
    private LinearAttentionBadCalls() {}

    /** A call of [1, 5] tokens, 2 heads of 16, in f32, with what a bad call changes. */
    private static final class Recurrence {
        final TestDevice on;
        Tensor q;
        Tensor k;
        Tensor v;
        Tensor beta;
        Tensor g;
        Gate gate;
        Sequences sequences;
        Tensor initial;
        Tensor last;
        Tensor checkpoints;
        RecurrenceOptions options = RecurrenceOptions.DEFAULT;

        Recurrence(TestDevice on) {
            this.on = on;
            q = on.zeros(F32, 1, 5, 2, 16);
            k = on.zeros(F32, 1, 5, 2, 16);
            v = on.zeros(F32, 1, 5, 2, 16);
            beta = on.zeros(F32, 1, 5, 2);
            g = on.zeros(F32, 1, 5, 2);
        }

        void run(String op) {
            var o = on.zeros(v.dtype(), v.shape());
            var decay = gate == null ? Gate.log(g) : gate;
            switch (op) {
                case "simple_gla" -> Ops.simpleGla(on.stream, q, k, v, decay, sequences, initial, o, last, checkpoints, options);
                case "gated_linear_attention" ->
                        Ops.gatedLinearAttention(on.stream, q, k, v, g, sequences, initial, o, last, checkpoints, options);
                case "delta_rule" -> Ops.deltaRule(on.stream, q, k, v, beta, sequences, initial, o, last, checkpoints, options);
                case "kda" -> Ops.kda(on.stream, q, k, v, beta, decay, sequences, initial, o, last, checkpoints, options);
                default -> Ops.gatedDeltaRule(on.stream, q, k, v, beta, decay, sequences, initial, o, last, checkpoints, options);
            }
        }
    }

    private static void recurrence(BadCalls table, String op, String fault, Refused refused, Consumer<Recurrence> change,
            String... fragments) {
        table.bad(op, fault, refused, on -> {
            var call = new Recurrence(on);
            change.accept(call);
            call.run(op);
        }, fragments);
    }

    /** What the check that all of them share refuses; once by each operator's own way into it. */
    private static void shared(BadCalls table, String op, boolean channel) {
        Consumer<Recurrence> gate = c -> c.g = channel ? c.on.zeros(F32, 1, 5, c.v.size(2), 16) : c.on.zeros(F32, 1, 5, c.v.size(2));
        recurrence(table, op, "HV % H", Refused.SHAPE, c -> {
            c.v = c.on.zeros(F32, 1, 5, 3, 16);
            c.beta = c.on.zeros(F32, 1, 5, 3);
            gate.accept(c);
        }, "3", "2");
        recurrence(table, op, "k is narrower than q", Refused.SHAPE, gate.andThen(c -> c.k = c.on.zeros(F32, 1, 5, 2, 8)), "k", "q", "8");
        recurrence(table, op, "K is no multiple of 8", Refused.SHAPE, gate.andThen(c -> {
            c.q = c.on.zeros(F32, 1, 5, 2, 12);
            c.k = c.on.zeros(F32, 1, 5, 2, 12);
        }), "12", "8");
        recurrence(table, op, "v in f16", Refused.DTYPE, gate.andThen(c -> c.v = c.on.zeros(F16, 1, 5, 2, 16)), "v", "f16", "f32");
        recurrence(table, op, "no q", Refused.NULL, gate.andThen(c -> c.q = null), "q");
        recurrence(table, op, "cu_seqlens in i64", Refused.DTYPE, gate.andThen(c ->
                c.sequences = Sequences.packed(c.on.zeros(I64, 2))), "cu_seqlens", "i64");
        recurrence(table, op, "one index", Refused.NULL, gate.andThen(c ->
                c.sequences = new Sequences(null, c.on.zeros(I32, 1), null)), "state_write_index");
        recurrence(table, op, "indices without a pool", Refused.NULL, gate.andThen(c ->
                c.sequences = Sequences.pooled(c.on.zeros(I32, 1), c.on.zeros(I32, 1))), "initial_state");
        recurrence(table, op, "two states for one sequence", Refused.SHAPE, gate.andThen(c ->
                c.initial = c.on.zeros(F32, 2, 2, 16, 16)), "initial_state", "2", "1");
        recurrence(table, op, "a state in f16", Refused.DTYPE, gate.andThen(c -> c.last = c.on.zeros(F16, 1, 2, 16, 16)),
                "final_state", "f16");
        recurrence(table, op, "a state of rank 3", Refused.SHAPE, gate.andThen(c -> c.initial = c.on.zeros(F32, 1, 2, 16)), "initial_state");
        recurrence(table, op, "checkpoint_every 32", Refused.RANGE, gate.andThen(c ->
                c.options = c.options.withCheckpointEvery(32)), "checkpoint_every", "32");
        recurrence(table, op, "checkpoint_every without checkpoints", Refused.NULL, gate.andThen(c ->
                c.options = c.options.withCheckpointEvery(64)), "checkpoints");
        recurrence(table, op, "an endless scale", Refused.RANGE, gate.andThen(c ->
                c.options = c.options.withScale(Float.POSITIVE_INFINITY)), "scale");
        recurrence(table, op, "the final state is q", Refused.UNSUPPORTED, gate.andThen(c -> {
            c.last = c.on.zeros(F32, 1, 2, 16, 16);
            c.q = c.last.reshape(512).slice(0, 0, 160).reshape(1, 5, 2, 16);
        }), "final_state", "q");
    }

    static void add(BadCalls table) {
        for (var op : new String[] {"simple_gla", "gated_linear_attention", "delta_rule", "gated_delta_rule", "kda"}) {
            shared(table, op, op.equals("kda") || op.equals("gated_linear_attention"));
        }
        for (var op : new String[] {"delta_rule", "gated_delta_rule", "kda"}) {
            recurrence(table, op, "no beta", Refused.NULL, c -> c.beta = null, "beta");
            recurrence(table, op, "beta in f16", Refused.DTYPE, c -> {
                c.beta = c.on.zeros(F16, 1, 5, 2);
                c.g = op.equals("kda") ? c.on.zeros(F32, 1, 5, 2, 16) : c.g;
            }, "beta", "f16");
        }
        recurrence(table, "simple_gla", "neither g nor g_head", Refused.NULL, c -> c.g = null, "g", "g_head");
        recurrence(table, "simple_gla", "g and g_head", Refused.UNSUPPORTED, c ->
                c.gate = new Gate(Gate.Mode.LOG, c.g, c.on.zeros(F32, 2), null, null, null, 0), "g_head");
        recurrence(table, "simple_gla", "g_head for three heads", Refused.SHAPE, c -> c.gate = Gate.head(c.on.zeros(F32, 3)), "g_head", "3");
        recurrence(table, "simple_gla", "raw gates", Refused.RANGE, c ->
                c.gate = Gate.softplus(c.g, c.on.zeros(F32, 2), c.on.zeros(F32, 2)), "gate_mode");
        recurrence(table, "simple_gla", "normalised keys", Refused.RANGE, c -> c.options = c.options.withQkL2norm(true), "qk_l2norm");
        recurrence(table, "gated_linear_attention", "g without channels", Refused.SHAPE, c -> {}, "g", "[B,T,HV,K]");
        recurrence(table, "gated_delta_rule", "no g", Refused.NULL, c -> c.g = null, "g");
        recurrence(table, "gated_delta_rule", "g in f16", Refused.DTYPE, c -> c.g = c.on.zeros(F16, 1, 5, 2), "g", "f16");
        recurrence(table, "gated_delta_rule", "softplus without A_log", Refused.NULL, c ->
                c.gate = Gate.softplus(c.g, null, c.on.zeros(F32, 2)), "a_log");
        recurrence(table, "gated_delta_rule", "gate_mode lower_bound", Refused.RANGE, c ->
                c.gate = Gate.lowerBound(c.g, c.on.zeros(F32, 2), c.on.zeros(F32, 2), -5), "gate_mode");
        for (var bound : new float[] {0, 1, -5.5f, Float.NaN}) {
            recurrence(table, "kda", "lower_bound " + bound, Refused.RANGE, c -> c.gate = Gate.lowerBound(
                    c.on.zeros(F32, 1, 5, 2, 16), c.on.zeros(F32, 2), c.on.zeros(F32, 2, 16), bound), "lower_bound");
        }
        recurrence(table, "kda", "dt_bias without channels", Refused.SHAPE, c -> c.gate = Gate.softplus(
                c.on.zeros(F32, 1, 5, 2, 16), c.on.zeros(F32, 2), c.on.zeros(F32, 2)), "dt_bias");
        recurrence(table, "kda", "a in another type", Refused.DTYPE, c -> c.gate = Gate.softplus(
                c.on.zeros(F16, 1, 5, 2, 16), c.on.zeros(F32, 2), c.on.zeros(F32, 2, 16)), "a", "f16");
        linearAttention(table);
        mlstm(table);
        mixtureOfMemories(table);
        localLinearAttention(table);
        table.bad("causal_conv1d", "W 5", Refused.SHAPE, on -> Ops.causalConv1d(on.stream, on.zeros(F32, 1, 6, 16), on.zeros(F32, 16, 5),
                null, null, null, on.zeros(F32, 1, 6, 16), null, Activation.NONE), "w", "5");
        table.bad("causal_conv1d", "gelu", Refused.RANGE, on -> Ops.causalConv1d(on.stream, on.zeros(F32, 1, 6, 16),
                on.zeros(F32, 16, 4), null, null, null, on.zeros(F32, 1, 6, 16), null, Activation.GELU), "act");
        table.bad("causal_conv1d", "a state of another type", Refused.DTYPE, on -> Ops.causalConv1d(on.stream, on.zeros(F16, 1, 6, 16),
                on.zeros(F16, 16, 4), null, on.zeros(F32, 1, 16, 3), null, on.zeros(F16, 1, 6, 16), null, Activation.NONE),
                "state", "f32");
        convFft(table);
        table.bad("gated_rms_norm", "weight is too long", Refused.SHAPE, on -> Ops.gatedRmsNorm(on.stream, on.zeros(F32, 4, 32),
                on.zeros(F32, 4, 32), on.zeros(F32, 64), on.zeros(F32, 4, 32), 1e-6f, GateActivation.SILU, true, 1),
                "weight", "64", "32");
        table.bad("gated_rms_norm", "groups do not divide D", Refused.SHAPE, on -> Ops.gatedRmsNorm(on.stream, on.zeros(F32, 4, 32),
                null, on.zeros(F32, 32), on.zeros(F32, 4, 32), 1e-6f, GateActivation.SILU, true, 3), "groups", "3");
    }

    private static void convFft(BadCalls table) {
        var op = "conv_fft";
        table.bad(op, "a filter longer than x", Refused.SHAPE, on -> Ops.convFft(on.stream, on.zeros(F32, 1, 6, 16), on.zeros(F32, 16, 7), null,
                on.zeros(F32, 1, 6, 16)), "filter", "7", "6");
        table.bad(op, "a filter of other channels", Refused.SHAPE, on -> Ops.convFft(on.stream, on.zeros(F32, 1, 6, 16), on.zeros(F32, 8, 6),
                null, on.zeros(F32, 1, 6, 16)), "filter", "8", "16");
        table.bad(op, "x without a batch", Refused.SHAPE, on -> Ops.convFft(on.stream, on.zeros(F32, 6, 16), on.zeros(F32, 16, 6), null,
                on.zeros(F32, 6, 16)), "x", "[B,T,C]");
        table.bad(op, "a filter of rank 1", Refused.SHAPE, on -> Ops.convFft(on.stream, on.zeros(F32, 1, 6, 16), on.zeros(F32, 6), null,
                on.zeros(F32, 1, 6, 16)), "filter", "[C,L]");
        table.bad(op, "a filter in f16", Refused.DTYPE, on -> Ops.convFft(on.stream, on.zeros(F16, 1, 6, 16), on.zeros(F16, 16, 6), null,
                on.zeros(F16, 1, 6, 16)), "filter", "f16");
        table.bad(op, "skip of other channels", Refused.SHAPE, on -> Ops.convFft(on.stream, on.zeros(F32, 1, 6, 16), on.zeros(F32, 16, 6),
                on.zeros(F32, 8), on.zeros(F32, 1, 6, 16)), "skip", "8", "16");
        table.bad(op, "skip of another type", Refused.DTYPE, on -> Ops.convFft(on.stream, on.zeros(F32, 1, 6, 16), on.zeros(F32, 16, 6),
                on.zeros(F16, 16), on.zeros(F32, 1, 6, 16)), "skip", "f16");
        table.bad(op, "y of another type", Refused.DTYPE, on -> Ops.convFft(on.stream, on.zeros(F16, 1, 6, 16), on.zeros(F32, 16, 6), null,
                on.zeros(F32, 1, 6, 16)), "y", "f32");
        table.bad(op, "y of fewer tokens", Refused.SHAPE, on -> Ops.convFft(on.stream, on.zeros(F32, 1, 6, 16), on.zeros(F32, 16, 6), null,
                on.zeros(F32, 1, 5, 16)), "y", "5", "6");
        table.bad(op, "no filter", Refused.NULL, on -> Ops.convFft(on.stream, on.zeros(F32, 1, 6, 16), null, null,
                on.zeros(F32, 1, 6, 16)), "filter");
        table.bad(op, "in place", Refused.UNSUPPORTED, on -> {
            var x = on.zeros(F32, 1, 6, 16);
            Ops.convFft(on.stream, x, on.zeros(F32, 16, 6), null, x);
        }, "y", "x");
    }

    private static void linear(TestDevice on, Tensor k, Tensor state, Tensor z, Tensor lastZ, LinearAttentionOptions options) {
        Ops.linearAttention(on.stream, on.zeros(F32, 1, 5, 2, 16), k, on.zeros(F32, 1, 5, 2, 16), null, state, z,
                on.zeros(F32, 1, 5, 2, 16), null, lastZ, null, options);
    }

    private static void linearAttention(BadCalls table) {
        var op = "linear_attention";
        var plain = LinearAttentionOptions.DEFAULT;
        table.bad(op, "k is narrower than q", Refused.SHAPE, on -> linear(on, on.zeros(F32, 1, 5, 2, 8), null, null, null, plain), "k", "8");
        table.bad(op, "a state as wide as K behind hedgehog", Refused.SHAPE, on -> linear(on, on.zeros(F32, 1, 5, 2, 16),
                on.zeros(F32, 1, 2, 16, 16), null, null, plain.withFeatureMap(FeatureMap.HEDGEHOG)), "initial_state", "32");
        table.bad(op, "z without normalize", Refused.UNSUPPORTED, on -> linear(on, on.zeros(F32, 1, 5, 2, 16), null, null,
                on.zeros(F32, 1, 2, 16), plain), "final_z_state", "normalize");
        table.bad(op, "z without a state", Refused.NULL, on -> linear(on, on.zeros(F32, 1, 5, 2, 16), null, on.zeros(F32, 1, 2, 16),
                null, plain.normalized(0)), "initial_state", "z_state");
        table.bad(op, "a state without z", Refused.NULL, on -> linear(on, on.zeros(F32, 1, 5, 2, 16), on.zeros(F32, 1, 2, 16, 16),
                null, null, plain.normalized(0)), "z_state");
        table.bad(op, "two z for one sequence", Refused.SHAPE, on -> linear(on, on.zeros(F32, 1, 5, 2, 16), null, null,
                on.zeros(F32, 2, 2, 16), plain.normalized(0)), "final_z_state", "2");
        table.bad(op, "eps below 0", Refused.RANGE, on -> linear(on, on.zeros(F32, 1, 5, 2, 16), null, null, null,
                plain.normalized(-1)), "eps", "-1");
    }

    private static void mlstm(TestDevice on, Tensor v, Tensor f, MlstmState initial, MlstmState last, MlstmOptions options) {
        Ops.mlstm(on.stream, on.zeros(F32, 1, 5, 2, 16), on.zeros(F32, 1, 5, 2, 16), v, on.zeros(F32, 1, 5, 2), f, null, initial,
                on.zeros(F32, v.shape()), last, null, options);
    }

    private static void mlstm(BadCalls table) {
        var op = "mlstm";
        var plain = MlstmOptions.DEFAULT;
        var sigmoid = plain.withInputGate(MlstmOptions.InputGate.SIGMOID, false);
        table.bad(op, "f of one head", Refused.SHAPE, on -> mlstm(on, on.zeros(F32, 1, 5, 2, 16), on.zeros(F32, 1, 5, 1), null, null,
                plain), "f", "1");
        table.bad(op, "f in f16", Refused.DTYPE, on -> mlstm(on, on.zeros(F32, 1, 5, 2, 16), on.zeros(F16, 1, 5, 2), null, null,
                plain), "f", "f16");
        table.bad(op, "no f", Refused.NULL, on -> mlstm(on, on.zeros(F32, 1, 5, 2, 16), null, null, null, plain), "f");
        table.bad(op, "four value heads", Refused.SHAPE, on -> mlstm(on, on.zeros(F32, 1, 5, 4, 16), on.zeros(F32, 1, 5, 2), null, null,
                plain), "4", "2");
        table.bad(op, "V 520", Refused.SHAPE, on -> mlstm(on, on.zeros(F32, 1, 5, 2, 520), on.zeros(F32, 1, 5, 2), null, null,
                plain), "520", "512");
        table.bad(op, "n without C", Refused.NULL, on -> mlstm(on, on.zeros(F32, 1, 5, 2, 16), on.zeros(F32, 1, 5, 2),
                new MlstmState(null, on.zeros(F32, 1, 2, 16), on.zeros(F32, 1, 2)), null, plain), "initial_state");
        table.bad(op, "C without m", Refused.NULL, on -> mlstm(on, on.zeros(F32, 1, 5, 2, 16), on.zeros(F32, 1, 5, 2),
                new MlstmState(on.zeros(F32, 1, 2, 16, 16), on.zeros(F32, 1, 2, 16), null), null, plain), "m_state");
        table.bad(op, "m with the sigmoid gate", Refused.UNSUPPORTED, on -> mlstm(on, on.zeros(F32, 1, 5, 2, 16), on.zeros(F32, 1, 5, 2),
                null, new MlstmState(null, null, on.zeros(F32, 1, 2)), sigmoid), "final_m_state");
        table.bad(op, "exp without normalize", Refused.UNSUPPORTED, on -> mlstm(on, on.zeros(F32, 1, 5, 2, 16), on.zeros(F32, 1, 5, 2),
                null, null, plain.withInputGate(MlstmOptions.InputGate.EXP, false)), "normalize");
        table.bad(op, "eps below 0", Refused.RANGE, on -> mlstm(on, on.zeros(F32, 1, 5, 2, 16), on.zeros(F32, 1, 5, 2), null, null,
                plain.withEps(-1)), "eps");
        table.bad(op, "soft_cap below 0", Refused.RANGE, on -> mlstm(on, on.zeros(F32, 1, 5, 2, 16), on.zeros(F32, 1, 5, 2), null, null,
                plain.withSoftCap(-1)), "soft_cap");
    }

    private static void memories(TestDevice on, Tensor v, Tensor ids, Tensor weights, Tensor state, Gate gate) {
        Ops.mixtureOfMemories(on.stream, on.zeros(F32, 1, 5, 2, 16), on.zeros(F32, 1, 5, 2, 16), v, on.zeros(F32, 1, 5, 2), gate, ids,
                weights, null, state, on.zeros(F32, 1, 5, 2, 16), null, null, RecurrenceOptions.DEFAULT);
    }

    private static void mixtureOfMemories(BadCalls table) {
        var op = "mixture_of_memories";
        table.bad(op, "ids and weights differ", Refused.SHAPE, on -> memories(on, on.zeros(F32, 1, 5, 2, 16), on.zeros(I32, 1, 5, 2),
                on.zeros(F32, 1, 5, 1), on.zeros(F32, 1, 4, 2, 16, 16), Gate.log(on.zeros(F32, 1, 5, 2))), "weights", "ids");
        table.bad(op, "ids in i64", Refused.DTYPE, on -> memories(on, on.zeros(F32, 1, 5, 2, 16), on.zeros(I64, 1, 5, 2),
                on.zeros(F32, 1, 5, 2), on.zeros(F32, 1, 4, 2, 16, 16), Gate.log(on.zeros(F32, 1, 5, 2))), "ids", "i64");
        table.bad(op, "no slots", Refused.SHAPE, on -> memories(on, on.zeros(F32, 1, 5, 2, 16), on.zeros(I32, 1, 5, 0),
                on.zeros(F32, 1, 5, 0), on.zeros(F32, 1, 4, 2, 16, 16), Gate.log(on.zeros(F32, 1, 5, 2))), "ids", "0");
        table.bad(op, "no state", Refused.NULL, on -> memories(on, on.zeros(F32, 1, 5, 2, 16), on.zeros(I32, 1, 5, 2),
                on.zeros(F32, 1, 5, 2), null, Gate.log(on.zeros(F32, 1, 5, 2))), "initial_state");
        table.bad(op, "states without memories", Refused.SHAPE, on -> memories(on, on.zeros(F32, 1, 5, 2, 16), on.zeros(I32, 1, 5, 2),
                on.zeros(F32, 1, 5, 2), on.zeros(F32, 1, 2, 16, 16), Gate.log(on.zeros(F32, 1, 5, 2))), "initial_state");
        table.bad(op, "v alone has slots", Refused.SHAPE, on -> memories(on, on.zeros(F32, 1, 5, 2, 2, 16), on.zeros(I32, 1, 5, 2),
                on.zeros(F32, 1, 5, 2), on.zeros(F32, 1, 4, 2, 16, 16), Gate.log(on.zeros(F32, 1, 5, 2))), "v");
        table.bad(op, "no g", Refused.NULL, on -> memories(on, on.zeros(F32, 1, 5, 2, 16), on.zeros(I32, 1, 5, 2),
                on.zeros(F32, 1, 5, 2), on.zeros(F32, 1, 4, 2, 16, 16), Gate.log(null)), "g");
    }

    private static void local(TestDevice on, int cached, Tensor cuSeqlens, Tensor cuSeqlensK, LocalLinearAttentionOptions options) {
        Ops.localLinearAttention(on.stream, on.zeros(F32, 1, 3, 2, 16), on.zeros(F32, 1, cached, 2, 16),
                on.zeros(F32, 1, cached, 2, 16), cuSeqlens, cuSeqlensK, on.zeros(F32, 1, 3, 2, 16), options);
    }

    private static void localLinearAttention(BadCalls table) {
        var op = "local_linear_attention";
        var plain = LocalLinearAttentionOptions.DEFAULT;
        table.bad(op, "fewer keys than queries", Refused.SHAPE, on -> local(on, 2, null, null, plain), "2", "3");
        table.bad(op, "ridge_lambda 0", Refused.RANGE, on -> local(on, 7, null, null, plain.withRidgeLambda(0)), "ridge_lambda", "0");
        table.bad(op, "cg_iters 0", Refused.RANGE, on -> local(on, 7, null, null, plain.withSolver(0, 0)), "cg_iters", "0");
        table.bad(op, "tol below 0", Refused.RANGE, on -> local(on, 7, null, null, plain.withSolver(1, -1)), "tol", "-1");
        table.bad(op, "cu_seqlens alone", Refused.NULL, on -> local(on, 7, on.zeros(I32, 2), null, plain), "cu_seqlens_k");
        table.bad(op, "cu_seqlens_k in i64", Refused.DTYPE, on -> local(on, 7, on.zeros(I32, 2), on.zeros(I64, 2), plain),
                "cu_seqlens_k", "i64");
        table.bad(op, "as many sequences", Refused.SHAPE, on -> local(on, 7, on.zeros(I32, 2), on.zeros(I32, 3), plain),
                "cu_seqlens_k", "3");
    }
}
