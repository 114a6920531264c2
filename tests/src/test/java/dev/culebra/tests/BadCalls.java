package dev.culebra.tests;

import static dev.culebra.DType.BF16;
import static dev.culebra.DType.F16;
import static dev.culebra.DType.F32;
import static dev.culebra.DType.F8E4M3;
import static dev.culebra.DType.I32;
import static dev.culebra.DType.I64;

import dev.culebra.Activation;
import dev.culebra.AttentionOptions;
import dev.culebra.DType;
import dev.culebra.DeltaRuleOptions;
import dev.culebra.ExpertActivation;
import dev.culebra.ExpertWeights;
import dev.culebra.Gate;
import dev.culebra.GateActivation;
import dev.culebra.Gelu;
import dev.culebra.Ops;
import dev.culebra.PagedCache;
import dev.culebra.RouteOptions;
import dev.culebra.Sequences;
import dev.culebra.Tensor;
import dev.culebra.tests.ContractSuite.BadCall;
import java.util.ArrayList;
import java.util.List;
import java.util.function.Consumer;

/** The table of bad calls. Each has one fault. */
final class BadCalls {
    private final List<BadCall> calls = new ArrayList<>();

    private BadCalls() {}

    static List<BadCall> all() {
        var table = new BadCalls();
        GemmBadCalls.add(table);
        PackedGemmBadCalls.add(table);
        table.glue();
        table.linearAttention();
        table.attention();
        table.experts();
        return table.calls;
    }

    void bad(String op, String fault, Refused refused, Consumer<TestDevice> call, String... fragments) {
        refusedBy(op, op, fault, refused, call, fragments);
    }

    /** A checkpoint for {@code op}, which the function that plans its packing refuses. */
    void unpackable(String op, String fault, Refused refused, Consumer<TestDevice> call, String... fragments) {
        refusedBy("pack_plan", op, fault, refused, call, fragments);
    }

    private void refusedBy(String refuser, String op, String fault, Refused refused, Consumer<TestDevice> call,
            String... fragments) {
        calls.add(new BadCall(refuser, op, fault, refused, List.of(fragments), call));
    }

    private void glue() {
        bad("rms_norm", "weight is too short", Refused.SHAPE, on -> Ops.rmsNorm(on.stream, on.zeros(F16, 4, 64),
                on.zeros(F16, 63), null, on.zeros(F16, 4, 64), null, 1e-6f, false), "weight", "63", "64");
        bad("rms_norm", "a sum without a residual", Refused.NULL, on -> Ops.rmsNorm(on.stream, on.zeros(F16, 4, 64),
                on.zeros(F16, 64), null, on.zeros(F16, 4, 64), on.zeros(F16, 4, 64), 1e-6f, false), "residual");
        bad("rms_norm", "negative eps", Refused.RANGE, on -> Ops.rmsNorm(on.stream, on.zeros(F16, 4, 64),
                on.zeros(F16, 64), null, on.zeros(F16, 4, 64), null, -1, false), "eps", "-1");
        bad("rms_norm", "y overlaps x", Refused.UNSUPPORTED, on -> {
            var x = on.zeros(F16, 5, 64);
            Ops.rmsNorm(on.stream, x.slice(0, 0, 4), on.zeros(F16, 64), null, x.slice(0, 1, 5), null, 1e-6f, false);
        }, "y", "x");
        bad("layer_norm", "bias is too short", Refused.SHAPE, on -> Ops.layerNorm(on.stream, on.zeros(F32, 4, 64),
                on.zeros(F32, 64), on.zeros(F32, 32), on.zeros(F32, 4, 64), 1e-5f), "bias", "32", "64");
        bad("layer_norm", "two types", Refused.DTYPE, on -> Ops.layerNorm(on.stream, on.zeros(F32, 4, 64),
                on.zeros(F16, 64), null, on.zeros(F32, 4, 64), 1e-5f), "weight", "f16");
        bad("rope", "tables wider than a head", Refused.SHAPE, on -> Ops.rope(on.stream, on.zeros(BF16, 4, 2, 64),
                on.zeros(F32, 8, 40), on.zeros(F32, 8, 40), on.zeros(I64, 4), on.zeros(BF16, 4, 2, 64), false), "cos", "40", "64");
        bad("rope", "positions in i32", Refused.DTYPE, on -> Ops.rope(on.stream, on.zeros(BF16, 4, 2, 64),
                on.zeros(F32, 8, 32), on.zeros(F32, 8, 32), on.zeros(I32, 4), on.zeros(BF16, 4, 2, 64), false), "positions", "i32");
        bad("silu_mul", "shapes differ", Refused.SHAPE, on -> Ops.siluMul(on.stream, on.zeros(F16, 3, 16),
                on.zeros(F16, 3, 8), on.zeros(F16, 3, 16)), "up", "[3, 8]");
        bad("silu_mul", "no up", Refused.NULL, on -> Ops.siluMul(on.stream, on.zeros(F16, 3, 16), null,
                on.zeros(F16, 3, 16)), "up");
        bad("gelu_mul", "integers", Refused.DTYPE, on -> Ops.geluMul(on.stream, on.zeros(I32, 3, 16),
                on.zeros(I32, 3, 16), on.zeros(I32, 3, 16), Gelu.ERF), "i32");
        bad("sigmoid_mul", "two gates a row", Refused.SHAPE, on -> Ops.sigmoidMul(on.stream, on.zeros(F16, 3, 16),
                on.zeros(F16, 3, 2), on.zeros(F16, 3, 16)), "gate", "[3, 2]");
        bad("softmax", "integers", Refused.DTYPE, on -> Ops.softmax(on.stream, on.zeros(I32, 2, 8), on.zeros(I32, 2, 8)), "x", "i32");
        bad("softmax", "rank 1", Refused.SHAPE, on -> Ops.softmax(on.stream, on.zeros(F32, 8), on.zeros(F32, 8)), "x", "[8]");
        bad("embedding", "float ids", Refused.DTYPE, on -> Ops.embedding(on.stream, on.zeros(F16, 4, 8), on.zeros(F32, 3),
                on.zeros(F16, 3, 8)), "ids", "f32");
        bad("embedding", "y is too narrow", Refused.SHAPE, on -> Ops.embedding(on.stream, on.zeros(F16, 4, 8), on.zeros(I32, 3),
                on.zeros(F16, 3, 7)), "y", "[3, 7]");
        bad("argmax", "no candidate", Refused.SHAPE, on -> Ops.argmax(on.stream, on.zeros(F32, 2, 0), on.zeros(I32, 2)), "x", "[2, 0]");
        bad("argmax", "ids in i64", Refused.DTYPE, on -> Ops.argmax(on.stream, on.zeros(F32, 2, 4), on.zeros(I64, 2)), "ids", "i64");
        bad("add", "shapes differ", Refused.SHAPE, on -> Ops.add(on.stream, on.zeros(F32, 2, 4), on.zeros(F32, 2, 5),
                on.zeros(F32, 2, 4)), "b", "[2, 5]");
        bad("add", "elements of y overlap", Refused.STRIDE, on -> Ops.add(on.stream, on.zeros(F32, 2, 4), on.zeros(F32, 2, 4),
                on.zeros(F32, 1, 4).expand(0, 2)), "y");
        bad("scale", "integers", Refused.DTYPE, on -> Ops.scale(on.stream, on.zeros(I32, 2, 4), on.zeros(I32, 2, 4), 2), "x", "i32");
        bad("cast", "shapes differ", Refused.SHAPE, on -> Ops.cast(on.stream, on.zeros(F32, 2, 4), on.zeros(F16, 4, 2)), "y", "[4, 2]");
        bad("copy_strided", "two types", Refused.DTYPE, on -> Ops.copyStrided(on.stream, on.zeros(F32, 2, 4),
                on.zeros(I32, 2, 4)), "y", "i32");
        bad("copy_strided", "rank 7", Refused.SHAPE, on -> Ops.copyStrided(on.stream, on.zeros(F32, 1, 1, 1, 1, 1, 1, 2),
                on.zeros(F32, 1, 1, 1, 1, 1, 1, 2)), "x");
        bad("sample", "a seed for another batch", Refused.SHAPE, on -> Ops.sample(on.stream, on.zeros(F32, 2, 9), on.zeros(F32, 2),
                on.zeros(I32, 2), on.zeros(F32, 2), on.zeros(F32, 2), on.zeros(I64, 3), on.zeros(I64, 2), on.zeros(I32, 2), null),
                "seed", "3", "2");
        bad("sample", "no temperature", Refused.NULL, on -> Ops.sample(on.stream, on.zeros(F32, 2, 9), null,
                on.zeros(I32, 2), on.zeros(F32, 2), on.zeros(F32, 2), on.zeros(I64, 2), on.zeros(I64, 2), on.zeros(I32, 2), null),
                "temperature");
    }

    private static void deltaRule(TestDevice on, int valueHeads, int keys, DType beta, boolean gated, Sequences sequences,
            DeltaRuleOptions options) {
        var v = on.zeros(F32, 1, 5, valueHeads, 16);
        Ops.gatedDeltaRule(on.stream, on.zeros(F32, 1, 5, 2, keys), on.zeros(F32, 1, 5, 2, keys), v,
                beta == null ? null : on.zeros(beta, 1, 5, valueHeads), Gate.log(gated ? on.zeros(F32, 1, 5, valueHeads) : null),
                sequences, null, on.zeros(F32, 1, 5, valueHeads, 16), null, null, options);
    }

    private void linearAttention() {
        var op = "gated_delta_rule";
        var plain = DeltaRuleOptions.DEFAULT;
        bad(op, "HV % H", Refused.SHAPE, on -> deltaRule(on, 3, 16, F32, true, null, plain), "3", "2");
        bad(op, "K is no multiple of 8", Refused.SHAPE, on -> deltaRule(on, 2, 12, F32, true, null, plain), "12", "8");
        bad(op, "no beta", Refused.NULL, on -> deltaRule(on, 2, 16, null, true, null, plain), "beta");
        bad(op, "no g", Refused.NULL, on -> deltaRule(on, 2, 16, F32, false, null, plain), "g");
        bad(op, "beta in f16", Refused.DTYPE, on -> deltaRule(on, 2, 16, F16, true, null, plain), "beta", "f16");
        bad(op, "cu_seqlens in i64", Refused.DTYPE, on -> deltaRule(on, 2, 16, F32, true,
                Sequences.packed(on.zeros(I64, 2)), plain), "cu_seqlens", "i64");
        bad(op, "one index", Refused.NULL, on -> deltaRule(on, 2, 16, F32, true,
                new Sequences(null, on.zeros(I32, 1), null), plain), "state_write_index");
        bad(op, "checkpoint_every 32", Refused.RANGE, on -> deltaRule(on, 2, 16, F32, true, null,
                plain.withCheckpointEvery(32)), "checkpoint_every", "32");
        bad("causal_conv1d", "W 5", Refused.SHAPE, on -> Ops.causalConv1d(on.stream, on.zeros(F32, 1, 6, 16), on.zeros(F32, 16, 5),
                null, null, null, on.zeros(F32, 1, 6, 16), null, Activation.NONE), "w", "5");
        bad("causal_conv1d", "gelu", Refused.RANGE, on -> Ops.causalConv1d(on.stream, on.zeros(F32, 1, 6, 16),
                on.zeros(F32, 16, 4), null, null, null, on.zeros(F32, 1, 6, 16), null, Activation.GELU), "act");
        bad("causal_conv1d", "a state of another type", Refused.DTYPE, on -> Ops.causalConv1d(on.stream, on.zeros(F16, 1, 6, 16),
                on.zeros(F16, 16, 4), null, on.zeros(F32, 1, 16, 3), null, on.zeros(F16, 1, 6, 16), null, Activation.NONE),
                "state", "f32");
        bad("gated_rms_norm", "weight is too long", Refused.SHAPE, on -> Ops.gatedRmsNorm(on.stream, on.zeros(F32, 4, 32),
                on.zeros(F32, 4, 32), on.zeros(F32, 64), on.zeros(F32, 4, 32), 1e-6f, GateActivation.SILU, true, 1),
                "weight", "64", "32");
        bad("gated_rms_norm", "groups do not divide D", Refused.SHAPE, on -> Ops.gatedRmsNorm(on.stream, on.zeros(F32, 4, 32),
                null, on.zeros(F32, 32), on.zeros(F32, 4, 32), 1e-6f, GateActivation.SILU, true, 3), "groups", "3");
    }

    private static void attention(TestDevice on, int heads, int keyWidth, DType starts, AttentionOptions options) {
        Ops.attention(on.stream, on.zeros(BF16, 8, heads, 64), on.zeros(BF16, 8, 2, keyWidth), on.zeros(BF16, 8, 2, 64),
                on.zeros(starts, 2), on.zeros(I32, 2), null, on.zeros(BF16, 8, heads, 64), null, options);
    }

    private static void paged(TestDevice on, DType stored, int queries) {
        Ops.pagedAttention(on.stream, on.zeros(BF16, 2, queries, 4, 64),
                new PagedCache(on.zeros(stored, 3, 16, 2, 64), on.zeros(stored, 3, 16, 2, 64)), on.zeros(I32, 2, 2),
                on.zeros(I32, 2), null, on.zeros(BF16, 2, queries, 4, 64), null, AttentionOptions.CAUSAL);
    }

    private void attention() {
        var plain = AttentionOptions.DEFAULT;
        bad("attention", "Hq % Hkv", Refused.SHAPE, on -> attention(on, 5, 64, I32, plain), "5", "2");
        bad("attention", "D differs", Refused.SHAPE, on -> attention(on, 4, 32, I32, plain), "q", "k", "64", "32");
        bad("attention", "cu_q in i64", Refused.DTYPE, on -> attention(on, 4, 64, I64, plain), "cu_q", "i64");
        bad("attention", "window -2", Refused.RANGE, on -> attention(on, 4, 64, I32, plain.withWindow(-2, -1)), "window_left", "-2");
        bad("attention", "negative softcap", Refused.RANGE, on -> attention(on, 4, 64, I32, plain.withSoftcap(-1)), "softcap", "-1");
        bad("paged_attention", "f8 without scales", Refused.NULL, on -> paged(on, F8E4M3, 1), "k_scale");
        bad("paged_attention", "17 new tokens", Refused.UNSUPPORTED, on -> paged(on, BF16, 17), "17", "16");
        bad("paged_attention", "a cache of another type", Refused.DTYPE, on -> paged(on, F16, 1), "k_cache", "f16");
        bad("paged_append", "D differs", Refused.SHAPE, on -> Ops.pagedAppend(on.stream, on.zeros(BF16, 4, 2, 64),
                on.zeros(BF16, 4, 2, 64), on.zeros(I64, 4), null,
                new PagedCache(on.zeros(BF16, 2, 8, 2, 128), on.zeros(BF16, 2, 8, 2, 64))), "k_cache", "128", "64");
        bad("paged_append", "slot in i32", Refused.DTYPE, on -> Ops.pagedAppend(on.stream, on.zeros(BF16, 4, 2, 64),
                on.zeros(BF16, 4, 2, 64), on.zeros(I32, 4), null,
                new PagedCache(on.zeros(BF16, 2, 8, 2, 64), on.zeros(BF16, 2, 8, 2, 64))), "slot", "i32");
    }

    private void experts() {
        bad("moe_route", "k above E", Refused.RANGE, on -> Ops.moeRoute(on.stream, on.zeros(F32, 3, 4), null,
                on.zeros(F32, 3, 5), on.zeros(I32, 3, 5), RouteOptions.top(5)), "k", "5", "4");
        bad("moe_route", "groups do not divide E", Refused.RANGE, on -> Ops.moeRoute(on.stream, on.zeros(F32, 3, 10), null,
                on.zeros(F32, 3, 2), on.zeros(I32, 3, 2), RouteOptions.top(2).withGroups(4, 2)), "n_group", "4", "10");
        bad("moe_route", "ids are too narrow", Refused.SHAPE, on -> Ops.moeRoute(on.stream, on.zeros(F32, 3, 8), null,
                on.zeros(F32, 3, 2), on.zeros(I32, 3, 1), RouteOptions.top(2)), "ids", "[3, 1]");
        bad("moe_mlp", "w2 has another width", Refused.SHAPE, on -> Ops.moeMlp(on.stream, on.zeros(BF16, 3, 64),
                ExpertWeights.half(on.zeros(BF16, 4, 64, 64), on.zeros(BF16, 4, 64, 16)), on.zeros(F32, 3, 2), on.zeros(I32, 3, 2),
                on.zeros(BF16, 3, 64), ExpertActivation.SILU), "w2", "16", "32");
        bad("moe_mlp", "f32 activations", Refused.DTYPE, on -> Ops.moeMlp(on.stream, on.zeros(F32, 3, 64),
                ExpertWeights.half(on.zeros(F32, 4, 64, 64), on.zeros(F32, 4, 64, 32)), on.zeros(F32, 3, 2), on.zeros(I32, 3, 2),
                on.zeros(F32, 3, 64), ExpertActivation.SILU), "x", "f32");
        bad("moe_mlp", "f8 without scales", Refused.NULL, on -> Ops.moeMlp(on.stream, on.zeros(BF16, 3, 64),
                ExpertWeights.f8(on.zeros(F8E4M3, 4, 64, 64), null, on.zeros(F8E4M3, 4, 64, 32), null), on.zeros(F32, 3, 2),
                on.zeros(I32, 3, 2), on.zeros(BF16, 3, 64), ExpertActivation.SILU), "w13_scales");
    }
}
