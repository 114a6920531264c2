package dev.culebra.tests;

import dev.culebra.DType;
import dev.culebra.conformance.Case;
import dev.culebra.conformance.HostTensor;
import dev.culebra.conformance.Metric;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import java.util.stream.Collectors;
import java.util.stream.IntStream;

/** Mixture of experts: every kind of expert, skipped ids, groups, empty batches. */
final class MoeCases {
    private static final DType[] DTYPES = {DType.F32, DType.F16, DType.BF16};

    private MoeCases() {}

    static List<Case> all(long seed) {
        var cases = new ArrayList<Case>();
        for (var i = 0; i < 9; i++) {
            cases.add(moeRoute(seed + i, i, DTYPES[i % 3]));
            cases.add(moeAlign(seed + i, i));
            cases.add(moePermute(seed + i, i, DTYPES[i % 3]));
            cases.add(moeCombine(seed + i, i, DTYPES[i % 3]));
            cases.add(moeCombineDispatched(seed + i, i, DTYPES[i % 3]));
            cases.add(moeDispatch(seed + i, i, DTYPES[i % 3]));
            cases.add(moeMlp(seed + i, i, i % 2 == 0 ? DType.F16 : DType.BF16));
            cases.add(moeGroupedGemm(seed + i, i, i % 2 == 0 ? DType.F16 : DType.BF16));
        }
        return cases;
    }

    private static Case moeRoute(long seed, int i, DType dtype) {
        var groups = new int[] {1, 4, 2}[i % 3];
        var experts = new int[] {8, 64, 30}[i % 3];
        var tokens = new int[] {0, 1, 33}[(i + 1) % 3];
        var k = 1 + i % 4;
        var builder = new CaseBuilder("moe_route", seed, dtype, "T", tokens, "E", experts, "k", k, "groups", groups);
        // Logits on a grid, a permutation each row: no two scores are nearly equal.
        var logits = HostTensor.zeros(dtype, tokens, experts);
        for (var t = 0; t < tokens; t++) {
            var order = builder.random.ints(0, experts).distinct().limit(experts).toArray();
            for (var e = 0; e < experts; e++) {
                logits.set(t * (long) experts + e, (order[e] - experts / 2) / 8.0);
            }
        }
        builder.in("logits", logits)
                .attribute("k", k)
                .attribute("score", i % 2 == 0 ? "softmax" : "sigmoid")
                .attribute("n_group", groups)
                .attribute("topk_group", Math.max(1, groups / 2))
                .attribute("renormalize", i % 3 != 0)
                .attribute("n_shared", i % 4 == 3 ? 1 : 0)
                .attribute("scale", i % 2 == 0 ? 1.0 : 2.5);
        if (i % 2 == 1) {
            builder.uniform("bias", DType.F32, -0.5, 0.5, experts);
        }
        return builder.build(DType.F32);
    }

    private static Case moeAlign(long seed, int i) {
        var tokens = new int[] {0, 1, 70, 700}[i % 4];
        var slots = 1 + i % 5;
        var experts = new int[] {1, 30, 300}[i % 3];
        var local = i % 2 == 0 ? experts : (experts + 1) / 2;
        var block = new int[] {8, 16, 32, 64, 128}[i % 5];
        var builder = new CaseBuilder("moe_align", seed, "T", tokens, "k", slots, "E", experts, "local", local, "block", block);
        builder.integers("ids", DType.I32, -1, experts + 1, tokens, slots)
                .attribute("experts", experts)
                .attribute("local_experts", local)
                .attribute("block", block);
        if (local < experts) {
            builder.integers("expert_map", DType.I32, -1, local, experts);
        }
        return builder.build(DType.I32);
    }

    /** Places of slots, as an alignment gives them: distinct, some of them -1. */
    private static HostTensor places(CaseBuilder builder, int slots) {
        var order = IntStream.range(0, slots).boxed().collect(Collectors.toList());
        Collections.shuffle(order, builder.random);
        return HostTensor.of(DType.I32, new long[] {slots},
                order.stream().mapToDouble(place -> place % 5 == 3 ? -1 : place).toArray());
    }

    private static Case moePermute(long seed, int i, DType dtype) {
        var tokens = new int[] {0, 1, 19}[i / 3];
        var width = new int[] {64, 72, 33}[i % 3];
        var k = 1 + i % 4;
        var builder = new CaseBuilder("moe_permute", seed, dtype, "T", tokens, "D", width, "k", k);
        return builder.normal("x", dtype, 1, tokens, width)
                .in("inverse", places(builder, tokens * k))
                .attribute("k", k)
                .check("rows", Metric.MAX_ABS, 0)
                .build(dtype);
    }

    private static Case moeCombine(long seed, int i, DType dtype) {
        var tokens = new int[] {19, 0, 1}[i / 3];
        var width = new int[] {33, 64, 72}[i % 3];
        var k = 1 + i % 4;
        var builder = new CaseBuilder("moe_combine", seed, dtype, "T", tokens, "D", width, "k", k);
        var places = places(builder, tokens * k);
        builder.normal("rows", dtype, 1, tokens * k, width)
                .in("inverse", places)
                .uniform("weights", DType.F32, 0, 1, tokens, k)
                .attribute("k", k);
        for (var row = 3L; row < tokens * k; row += 5) {
            builder.nan("rows", row * width); // of a row that no slot addresses
        }
        return builder.build(dtype);
    }

    /** More rows than slots, or fewer; for some slots there was no room. */
    private static Case moeCombineDispatched(long seed, int i, DType dtype) {
        var tokens = new int[] {19, 0, 1}[i / 3];
        var width = new int[] {33, 64, 72}[i % 3];
        var k = 1 + i % 4;
        var rows = new int[] {100, 7, 20}[i % 3];
        var builder = new CaseBuilder("moe_combine", seed, "dispatched", dtype, "T", tokens, "D", width, "k", k, "N", rows);
        return builder.normal("rows", dtype, 1, rows, width)
                .in("inverse", HostTensor.of(DType.I32, new long[] {tokens * k}, builder.random.ints(tokens * k, -1, rows)
                        .map(row -> row == 3 ? -2 : row).asDoubleStream().toArray()))
                .uniform("weights", DType.F32, 0, 1, tokens, k)
                .attribute("k", k)
                .attribute("dispatched", true)
                .build(dtype);
    }

    private static Case moeDispatch(long seed, int i, DType dtype) {
        var tokens = new int[] {0, 1, 40, 300}[i % 4];
        var width = new int[] {64, 72, 33}[i % 3];
        var slots = 1 + i % 5;
        var ranks = new int[] {1, 2, 5}[(i / 2) % 3];
        var experts = new int[] {1, 12, 70}[(i + 1) % 3];
        // Enough for all, for some, for none.
        var capacity = new int[] {tokens * slots, 3, 0}[i % 3];
        var builder = new CaseBuilder("moe_dispatch", seed, dtype, "T", tokens, "k", slots, "E", experts, "ranks", ranks,
                "capacity", capacity);
        return builder.normal("x", dtype, 1, tokens, width)
                .integers("ids", DType.I32, -1, experts + 1, tokens, slots)
                .integers("expert_rank", DType.I32, -1, ranks, experts)
                .integers("expert_local", DType.I32, 0, experts, experts)
                .attribute("ranks", ranks)
                .attribute("capacity", capacity)
                .check("rows", Metric.MAX_ABS, 0)
                .build(dtype);
    }

    private static Case moeMlp(long seed, int i, DType dtype) {
        var kind = new String[] {"half", "int4", "f8"}[i % 3];
        var tokens = new int[] {0, 1, 17}[(i / 3 + 1) % 3];
        var width = 64 + 64 * (i % 2);
        var inner = 64;
        var experts = 5;
        var slots = 1 + i % 3;
        var act = new String[] {"silu", "gelu", "swiglu_oai"}[i / 3];
        var group = i % 2 == 0 ? 32 : -1;
        var builder = new CaseBuilder("moe_mlp", seed, kind, act, dtype, "T", tokens, "D", width);
        builder.normal("x", dtype, 1, tokens, width)
                .attribute("experts", kind)
                .attribute("batch_invariant", i % 4 == 2)
                .attribute("group", group)
                .attribute("act", act)
                .attribute("alpha", 1.702)
                .attribute("limit", 7.0);
        matrices(builder, "w13", kind, dtype, group, experts, 2 * inner, width);
        matrices(builder, "w2", kind, dtype, group, experts, width, inner);
        if (i % 2 == 0) {
            builder.normal("b13", dtype, 1, experts, 2 * inner).normal("b2", dtype, 1, experts, width);
        }
        if (i % 4 == 1) {
            // The last expert is a shared one. Logits on a grid, another order each row: no two scores are nearly equal.
            var logits = HostTensor.zeros(DType.F32, tokens, experts - 1);
            for (var t = 0; t < tokens; t++) {
                var order = builder.random.ints(0, experts - 1).distinct().limit(experts - 1).toArray();
                for (var e = 0; e < experts - 1; e++) {
                    logits.set(t * (experts - 1L) + e, order[e] / 2.0);
                }
            }
            builder.in("logits", logits).attribute("k", slots).attribute("n_shared", 1).attribute("renormalize", true);
        } else {
            builder.uniform("weights", DType.F32, 0, 1, tokens, slots)
                    .in("ids", HostTensor.of(DType.I32, new long[] {tokens, slots},
                            builder.random.ints((long) tokens * slots, -1, experts + 1).asDoubleStream().toArray()));
        }
        // Chained products with half intermediates; f8 experts may quantise the activations.
        return builder.check("y", Metric.RMS_RATIO, kind.equals("f8") ? 0.06 : 1.5 * CaseBuilder.bound(dtype)).build(dtype);
    }

    private static Case moeGroupedGemm(long seed, int i, DType dtype) {
        var kind = new String[] {"half", "int4", "f8"}[i % 3];
        var f8 = kind.equals("f8");
        var rows = new int[] {0, 30, 9}[(i / 3 + 1) % 3];
        var experts = new int[] {1, 5, 12}[(i + i / 3) % 3];
        var n = 40 + 90 * (i % 2);
        var k = 96 + 64 * (i / 3);
        var group = i % 2 == 0 ? 32 : -1;
        var gather = i % 4 == 1;
        var act = i % 2 == 1 ? "silu_mul" : "none";
        var out = new DType[] {DType.BF16, DType.F32, DType.F16}[i / 3];
        var builder = new CaseBuilder("moe_grouped_gemm", seed, kind, act, dtype, "R", rows, "E", experts, "N", n, "K", k);
        var aRows = gather ? rows / 2 + 1 : rows;
        builder.normal("a", f8 ? DType.F8E4M3 : dtype, 1, aRows, k)
                .attribute("experts", kind)
                .attribute("group", group)
                .attribute("act", act)
                .attribute("out_dtype", out.toString());
        if (f8) {
            builder.uniform("a_scale", DType.F32, 0.5, 2, aRows, Math.ceilDiv(k, 128));
        }
        matrices(builder, "b", kind, dtype, group, experts, n, k);
        // The rows' bounds in any order, sorted; some experts have none, some rows belong to nobody.
        var offsets = IntStream.concat(IntStream.of(0), builder.random.ints(experts, 0, rows + 1).sorted()).toArray();
        builder.ints("offsets", DType.I64, experts + 1, e -> offsets[e]);
        if (gather) {
            builder.integers("gather", DType.I32, -1, aRows, rows);
        }
        return builder.check("c", Metric.RMS_RATIO, f8 ? Math.max(2e-3, CaseBuilder.bound(out)) : CaseBuilder.bound(out)).build(out);
    }

    private static void matrices(CaseBuilder builder, String name, String kind, DType dtype, int group, int experts, int rows,
            int columns) {
        switch (kind) {
            case "half" -> builder.normal(name, dtype, 0.1, experts, rows, columns);
            case "f8" -> builder.normal(name, DType.F8E4M3, 10, experts, rows, columns)
                    .uniform(name + "_scale", DType.F32, 0.01, 0.02, experts, Math.ceilDiv(rows, 128), Math.ceilDiv(columns, 128));
            default -> {
                var groups = group > 0 ? Math.ceilDiv(columns, group) : 1;
                builder.uniform(name + "_q", DType.U8, 0, 256, experts, rows, columns / 2)
                        .uniform(name + "_scales", DType.F16, 0.01, 0.02, experts, rows, groups)
                        .uniform(name + "_zeros", DType.U8, 0, 256, experts, rows / 2, groups);
            }
        }
    }
}
