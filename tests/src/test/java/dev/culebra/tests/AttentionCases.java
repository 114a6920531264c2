package dev.culebra.tests;

import dev.culebra.DType;
import dev.culebra.conformance.Case;
import dev.culebra.conformance.HostTensor;
import dev.culebra.conformance.Metric;
import java.util.ArrayList;
import java.util.List;
import java.util.Random;
import java.util.stream.IntStream;

/** Attention: ragged and empty sequences, windows, pages in any order and unused ones that hold NaN. */
final class AttentionCases {
    private static final DType[] DTYPES = {DType.F32, DType.F16, DType.BF16};

    private AttentionCases() {}

    static List<Case> all(long seed) {
        var cases = new ArrayList<Case>();
        for (var i = 0; i < 9; i++) {
            cases.add(attention(seed + i, i, DTYPES[i % 3]));
            cases.add(pagedAttention(seed + i, i, DTYPES[i % 3]));
            cases.add(pagedAppend(seed + i, i, DTYPES[i % 3]));
            cases.add(mergeStates(seed + i, i, DTYPES[i % 3]));
            cases.add(mlaAttention(seed + i, i, DTYPES[i % 3]));
        }
        return cases;
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

    /** Some states saw nothing and hold NaN; one row of all of them is such. */
    private static Case mergeStates(long seed, int i, DType dtype) {
        var states = new int[] {1, 2, 7}[i / 3];
        var tokens = new int[] {5, 1, 0}[i % 3];
        var heads = 1 + i % 4;
        var width = new int[] {64, 40, 12}[(i + i / 3) % 3];
        var builder = new CaseBuilder("merge_states", seed, dtype, "n", states, "T", tokens, "D", width);
        var o = CaseBuilder.normal(builder.random, dtype, 1, states, tokens, heads, width);
        var lse = CaseBuilder.normal(builder.random, DType.F32, 3, states, tokens, heads);
        for (var row = 0; row < lse.elements(); row++) {
            if (builder.random.nextInt(4) == 0 || row % (tokens * heads) == 1) {
                lse.set(row, Double.NEGATIVE_INFINITY);
                for (var d = 0; d < width; d++) {
                    o.set((long) row * width + d, Double.NaN);
                }
            }
        }
        return builder.in("o", o).in("lse", lse).check("lse", Metric.MAX_ABS, 1e-4).build(dtype);
    }

    /** Pages or lists of tokens, half, f32 or packed bytes, with NaN wherever no token lies. */
    private static Case mlaAttention(long seed, int i, DType dtype) {
        var page = new int[] {1, 4, 16}[i % 3];
        var lengths = new int[] {0, 33, 5};
        var queries = 1 + i % 2;
        var heads = new int[] {1, 5, 17}[i / 3];
        var packed = i % 4 == 1;
        var indexed = i % 2 == 1;
        var columns = Math.ceilDiv(33, page) + 1;
        var used = IntStream.of(lengths).map(length -> Math.ceilDiv(length, page)).sum();
        var builder = new CaseBuilder("mla_attention", seed, dtype, i);
        var table = new double[lengths.length * columns];
        var next = used;
        for (var b = 0; b < lengths.length; b++) {
            for (var j = 0; j < columns; j++) {
                table[b * columns + j] = j < Math.ceilDiv(lengths[b], page) ? next-- : -1;
            }
        }
        builder.normal("q", dtype, 1, lengths.length, queries, heads, 576)
                .in("cache", packed ? packedLatents(builder.random, lengths, table, columns, used + 1, page)
                        : new HostTensor(dtype, new long[] {used + 1, page, 576},
                                cache(builder.random, dtype, lengths, table, columns, used + 1, page, 1, 576).data()))
                .attribute("split_kv_tokens", i % 3 == 2 ? 16 : 0)
                .check("lse", Metric.MAX_ABS, 2e-3);
        if (indexed) {
            var indices = new double[lengths.length * queries * 12];
            for (var j = 0; j < indices.length; j++) {
                var b = j / (queries * 12);
                var token = lengths[b] == 0 ? 0 : builder.random.nextInt(lengths[b]);
                indices[j] = lengths[b] == 0 || builder.random.nextInt(3) == 0 ? -1
                        : table[b * columns + token / page] * page + token % page;
            }
            builder.in("indices", HostTensor.of(DType.I32, new long[] {lengths.length, queries, 12}, indices));
            if (i % 4 == 3) {
                builder.integers("topk_len", DType.I32, 0, 13, lengths.length, queries);
            }
        } else {
            builder.in("page_table", HostTensor.of(DType.I32, new long[] {lengths.length, columns}, table))
                    .ints("kv_len", DType.I32, lengths.length, b -> lengths[b])
                    .attribute("causal", i % 4 == 0);
        }
        if (i % 3 == 0) {
            builder.normal("sink", DType.F32, 1, heads);
        }
        return builder.build(dtype);
    }

    private static HostTensor packedLatents(Random random, int[] lengths, double[] table, int columns, int pages, int page) {
        var cache = HostTensor.zeros(DType.U8, pages, page, 656);
        for (var j = 0L; j < cache.elements(); j++) {
            cache.set(j, 0xFF);
        }
        for (var b = 0; b < lengths.length; b++) {
            for (var t = 0; t < lengths[b]; t++) {
                var token = ((long) table[b * columns + t / page] * page + t % page) * 656;
                pack(cache, token, CaseBuilder.normal(random, DType.F8E4M3, 2, 512));
                var scales = HostTensor.zeros(DType.F32, 4);
                for (var g = 0; g < 4; g++) {
                    scales.set(g, 0.25 + random.nextDouble());
                }
                pack(cache, token + 512, scales);
                pack(cache, token + 528, CaseBuilder.normal(random, DType.BF16, 1, 64));
            }
        }
        return cache;
    }

    private static void pack(HostTensor bytes, long at, HostTensor values) {
        bytes.data().asSlice(at, values.data().byteSize()).copyFrom(values.data());
    }
}
