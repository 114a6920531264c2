package dev.culebra.tests;

import dev.culebra.DType;
import dev.culebra.conformance.Case;
import dev.culebra.conformance.HostTensor;
import dev.culebra.conformance.Metric;
import java.util.ArrayList;
import java.util.List;
import java.util.Random;
import java.util.stream.IntStream;

/** Linear attention, attention and mixture of experts: packed and empty sequences, pools with padding, every option. */
final class ModelCases {
    private static final DType[] DTYPES = {DType.F32, DType.F16, DType.BF16};

    private ModelCases() {}

    static List<Case> all(long seed) {
        var cases = new ArrayList<Case>();
        for (var i = 0; i < 9; i++) {
            var dtype = DTYPES[i % 3];
            cases.add(gatedDeltaRule(seed + i, i, dtype));
            cases.add(causalConv1d(seed + i, i, dtype));
            cases.add(gatedRmsNorm(seed + i, i, dtype));
            cases.add(attention(seed + i, i, dtype));
            cases.add(pagedAttention(seed + i, i, dtype));
            cases.add(pagedAppend(seed + i, i, dtype));
            cases.add(moeRoute(seed + i, i, dtype));
            cases.add(moeMlp(seed + i, i, i % 2 == 0 ? DType.F16 : DType.BF16));
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

    private static Case attention(long seed, int i, DType dtype) {
        var lengths = new int[][] {{7, 0, 33}, {1, 65, 3}, {0, 20, 5}}[i % 3];
        var keyLengths = new int[][] {{7, 4, 40}, {1, 65, 0}, {9, 13, 70}}[i % 3];
        var keyHeads = 1 + i % 2;
        var heads = keyHeads * (1 + i % 3);
        var width = new int[] {64, 40, 128}[i / 3];
        var valueWidth = i % 4 == 3 ? 32 : width;
        var queries = IntStream.of(lengths).sum();
        var keys = IntStream.of(keyLengths).sum();
        var builder = new CaseBuilder("attention", seed, dtype, i)
                .normal("q", dtype, 1, queries, heads, width)
                .normal("k", dtype, 1, keys, keyHeads, width)
                .normal("v", dtype, 1, keys, keyHeads, valueWidth)
                .in("cu_q", starts(lengths))
                .in("cu_k", starts(keyLengths))
                .attribute("causal", i % 2 == 0)
                .attribute("window_left", i % 3 == 2 ? 11 : -1)
                .attribute("window_right", i % 4 == 1 ? 3 : -1)
                .attribute("softcap", i % 3 == 1 ? 15.0 : 0.0)
                .check("lse", Metric.MAX_ABS, 1e-3);
        if (i % 2 == 1) {
            builder.normal("sink", DType.F32, 1, heads);
        }
        return builder.build(dtype);
    }

    private static HostTensor starts(int[] lengths) {
        var starts = new double[lengths.length + 1];
        for (var i = 0; i < lengths.length; i++) {
            starts[i + 1] = starts[i] + lengths[i];
        }
        return HostTensor.of(DType.I32, new long[] {starts.length}, starts);
    }

    private static Case pagedAttention(long seed, int i, DType dtype) {
        var page = new int[] {1, 4, 16}[i % 3];
        var keyHeads = 1 + i % 2;
        var heads = keyHeads * (1 + i % 4);
        var width = new int[] {64, 128, 32}[i % 3];
        var queries = 1 + 2 * (i % 3);
        var lengths = new int[] {0, 1, 29, 2};
        var columns = Math.ceilDiv(29, page) + 1;
        var used = IntStream.of(lengths).map(length -> Math.ceilDiv(length, page)).sum();
        var builder = new CaseBuilder("paged_attention", seed, dtype, i);
        var table = new double[lengths.length * columns];
        var next = used;
        for (var b = 0; b < lengths.length; b++) {
            for (var j = 0; j < columns; j++) {
                table[b * columns + j] = j < Math.ceilDiv(lengths[b], page) ? next-- : -1;
            }
        }
        var f8 = i % 4 == 3;
        var stored = f8 ? DType.F8E4M3 : dtype;
        var k = cache(builder.random, stored, lengths, table, columns, used + 1, page, keyHeads, width);
        var v = cache(builder.random, stored, lengths, table, columns, used + 1, page, keyHeads, width);
        builder.normal("q", dtype, 1, lengths.length, queries, heads, width)
                .in("k_cache", k)
                .in("v_cache", v)
                .in("page_table", HostTensor.of(DType.I32, new long[] {lengths.length, columns}, table))
                .ints("kv_len", DType.I32, lengths.length, b -> lengths[b])
                .attribute("causal", i % 5 != 4)
                .attribute("window_left", i % 2 == 0 ? -1 : 9)
                .attribute("softcap", i % 3 == 0 ? 20.0 : 0.0)
                .attribute("split_kv_tokens", i % 2 == 0 ? 0 : 16)
                .check("lse", Metric.MAX_ABS, 1e-3);
        if (f8) {
            builder.uniform("k_scale", DType.F32, 0.5, 2, keyHeads).uniform("v_scale", DType.F32, 0.5, 2, keyHeads);
        }
        if (i % 2 == 0) {
            builder.normal("sink", DType.F32, 1, heads);
        }
        return builder.build(dtype);
    }

    /** NaN wherever no token lies. */
    private static HostTensor cache(Random random, DType dtype, int[] lengths, double[] table, int columns, int pages, int page,
            int heads, int width) {
        var cache = HostTensor.zeros(dtype, pages, page, heads, width);
        for (var j = 0L; j < cache.elements(); j++) {
            cache.set(j, Double.NaN);
        }
        for (var b = 0; b < lengths.length; b++) {
            for (var t = 0; t < lengths[b]; t++) {
                var row = ((long) table[b * columns + t / page] * page + t % page) * heads * width;
                for (var j = 0; j < heads * width; j++) {
                    cache.set(row + j, random.nextGaussian());
                }
            }
        }
        return cache;
    }

    private static Case pagedAppend(long seed, int i, DType dtype) {
        var heads = 1 + i % 2;
        var width = new int[] {32, 64, 128}[i % 3];
        var tokens = new int[] {0, 1, 6}[i % 3];
        var page = new int[] {1, 4, 16}[i / 3];
        var stored = i % 4 == 3 ? DType.F8E4M3 : dtype;
        var builder = new CaseBuilder("paged_append", seed, dtype, "T", tokens, "page", page, "cache", stored);
        builder.normal("k", dtype, 1, tokens, heads, width)
                .normal("v", dtype, 1, tokens, heads, width)
                .ints("slot", DType.I64, tokens, t -> t == 3 ? -1 : 31 - 2 * t)
                .normal("k_cache", stored, 1, 32 / page, page, heads, width)
                .normal("v_cache", stored, 1, 32 / page, page, heads, width);
        if (stored == DType.F8E4M3) {
            builder.uniform("k_scale", DType.F32, 0.5, 2, heads).uniform("v_scale", DType.F32, 0.5, 2, heads)
                    .check("k_cache", Metric.MAX_ABS, 0).check("v_cache", Metric.MAX_ABS, 0);
        } else if (i % 2 == 0) {
            builder.uniform("cos", DType.F32, -1, 1, tokens, width / 4).uniform("sin", DType.F32, -1, 1, tokens, width / 4)
                    .attribute("interleaved", i % 4 == 0);
        }
        return builder.build(dtype);
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
                .uniform("weights", DType.F32, 0, 1, tokens, slots)
                .in("ids", HostTensor.of(DType.I32, new long[] {tokens, slots},
                        builder.random.ints((long) tokens * slots, -1, experts + 1).asDoubleStream().toArray()))
                .attribute("experts", kind)
                .attribute("group", group)
                .attribute("act", act)
                .attribute("alpha", 1.702)
                .attribute("limit", 7.0);
        matrices(builder, "w13", kind, dtype, group, experts, 2 * inner, width);
        matrices(builder, "w2", kind, dtype, group, experts, width, inner);
        if (i % 2 == 0) {
            builder.normal("b13", dtype, 1, experts, 2 * inner).normal("b2", dtype, 1, experts, width);
        }
        // Chained products with half intermediates; f8 experts may quantise the activations.
        return builder.check("y", Metric.RMS_RATIO, kind.equals("f8") ? 0.06 : 1.5 * CaseBuilder.bound(dtype)).build(dtype);
    }

    private static void matrices(CaseBuilder builder, String name, String kind, DType dtype, int group, int experts, int rows,
            int columns) {
        switch (kind) {
            case "half" -> builder.normal(name, dtype, 0.1, experts, rows, columns);
            case "f8" -> builder.normal(name, DType.F8E4M3, 10, experts, rows, columns)
                    .uniform(name + "_scale", DType.F32, 0.01, 0.02, experts, Math.ceilDiv(rows, 128), Math.ceilDiv(columns, 128));
            default -> {
                var groups = group > 0 ? columns / group : 1;
                builder.uniform(name + "_q", DType.U8, 0, 256, experts, rows, columns / 2)
                        .uniform(name + "_scales", DType.F16, 0.01, 0.02, experts, rows, groups)
                        .uniform(name + "_zeros", DType.U8, 0, 256, experts, rows / 2, groups);
            }
        }
    }
}
