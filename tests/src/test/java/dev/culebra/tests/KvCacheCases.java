package dev.culebra.tests;

import dev.culebra.DType;
import dev.culebra.conformance.Case;
import dev.culebra.conformance.HostTensor;
import dev.culebra.conformance.Metric;
import java.lang.foreign.ValueLayout;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.List;
import java.util.Random;
import java.util.stream.IntStream;

/** KV caches: ragged and empty sequences, pages in any order, unused ones and rows that hold NaN, few distinct values for ties. */
final class KvCacheCases {
    private static final DType[] DTYPES = {DType.F32, DType.F16, DType.BF16};

    private KvCacheCases() {}

    static List<Case> all(long seed) {
        var cases = new ArrayList<Case>();
        for (var i = 0; i < 6; i++) {
            var dtype = DTYPES[i % 3];
            cases.add(compress(seed + i, i, dtype));
            cases.add(bitmapAttention(seed + i, i, dtype));
            cases.add(pageStats(seed + i, i, dtype));
            cases.add(select(seed + i, i, dtype));
            cases.add(merge(seed + i, i, dtype));
            cases.add(cca(seed + i, i, dtype));
        }
        for (var i = 0; i < 3; i++) {
            cases.add(indexTopk(seed + i, i));
        }
        return cases;
    }

    private static Case compress(long seed, int i, DType dtype) {
        var tokens = new int[] {0, 1, 9}[i % 3];
        var width = new int[] {64, 128, 320}[(i + 1) % 3];
        var keep = new int[] {8, width / 2, width}[i / 2];
        var builder = new CaseBuilder("bitmap_kv_compress", seed, dtype, i, "D", width, "keep", keep);
        if (i % 2 == 0) {
            builder.normal("x", dtype, 1, tokens, 2, width);
        } else {
            builder.integers("x", dtype, -3, 4, tokens, 2, width);
        }
        return builder.attribute("keep", keep).check("values", Metric.MAX_ABS, 0).build(dtype);
    }

    /** A table of shuffled pages for these many tokens; -1 behind them. */
    private static HostTensor table(Random random, int[] lengths, int page, int pages) {
        var shuffled = new ArrayList<>(IntStream.range(0, pages).boxed().toList());
        Collections.shuffle(shuffled, random);
        var columns = Arrays.stream(lengths).map(length -> Math.ceilDiv(length, page)).max().orElse(0) + 1;
        var table = new double[lengths.length * columns];
        Arrays.fill(table, -1);
        var next = 0;
        for (var b = 0; b < lengths.length; b++) {
            for (var j = 0; j * page < lengths[b]; j++) {
                table[b * columns + j] = shuffled.get(next++);
            }
        }
        return HostTensor.of(DType.I32, new long[] {lengths.length, columns}, table);
    }

    private static int pages(int[] lengths, int page) {
        return Arrays.stream(lengths).map(length -> Math.ceilDiv(length, page)).sum();
    }

    private static HostTensor nan(DType dtype, long... shape) {
        var tensor = HostTensor.zeros(dtype, shape);
        for (var j = 0L; j < tensor.elements(); j++) {
            tensor.set(j, Double.NaN);
        }
        return tensor;
    }

    private static Case bitmapAttention(long seed, int i, DType dtype) {
        var cached = new int[][] {{0, 37, 5}, {70, 1}, {16, 0, 33}}[i % 3];
        var tails = new int[][] {{3, 0, 7}, {5, 2}, {0, 0, 1}}[i % 3];
        var page = new int[] {16, 4, 1}[i % 3];
        var keyHeads = 1 + i % 2;
        var heads = keyHeads * (1 + i % 4);
        var width = i % 2 == 0 ? 64 : 128;
        var queries = new int[] {1, 3, 2}[i / 2];
        var used = pages(cached, page);
        var builder = new CaseBuilder("bitmap_kv_attention", seed, dtype, i);
        var table = table(builder.random, cached, page, used + 1);
        builder.normal("q", dtype, 1, cached.length, queries, heads, width).in("page_table", table)
                .ints("kv_len", DType.I32, cached.length, b -> cached[b])
                .ints("tail_len", DType.I32, tails.length, b -> tails[b])
                .attribute("split_kv_tokens", i % 2 == 0 ? 0 : 64)
                .check("lse", Metric.MAX_ABS, 1e-3);
        for (var name : List.of("k", "v")) {
            var keep = name.equals("k") ? 24 : 40;
            var values = nan(dtype, used + 1, page, keyHeads, keep);
            var bits = HostTensor.zeros(DType.I64, used + 1, page, keyHeads, width / 64);
            var tail = nan(dtype, cached.length, 8, keyHeads, width);
            for (var b = 0; b < cached.length; b++) {
                for (var t = 0; t < cached[b]; t++) {
                    var place = table.integer(b * table.size(1) + t / page) * page + t % page;
                    for (var h = 0; h < keyHeads; h++) {
                        var row = place * keyHeads + h;
                        for (var j = 0; j < keep; j++) {
                            values.set(row * keep + j, builder.random.nextGaussian());
                        }
                        var channels = builder.random.ints(0, width).distinct().limit(keep).toArray();
                        for (var c : channels) {
                            var word = row * (width / 64) + c / 64;
                            bits.setInteger(word, bits.integer(word) | 1L << c % 64);
                        }
                    }
                }
                for (var j = 0L; j < (long) tails[b] * keyHeads * width; j++) {
                    tail.set((long) b * 8 * keyHeads * width + j, builder.random.nextGaussian());
                }
            }
            builder.in(name + "_values", values).in(name + "_bits", bits).in(name + "_tail", tail);
        }
        return builder.build(dtype);
    }

    private static Case pageStats(long seed, int i, DType dtype) {
        var lengths = new int[][] {{0, 37, 5}, {70, 1}, {16, 33}}[i % 3];
        var first = new int[][] {{0, 20, 0}, {64, 0}, {16, 9}}[i % 3];
        var page = new int[] {16, 4, 1}[i % 3];
        var heads = 1 + i % 2;
        var width = new int[] {64, 72, 128}[i / 2];
        var used = pages(lengths, page);
        var builder = new CaseBuilder("kv_page_stats", seed, dtype, i);
        return builder.normal("k_cache", dtype, 1, used + 1, page, heads, width)
                .in("page_table", table(builder.random, lengths, page, used + 1))
                .ints("first_token", DType.I32, first.length, b -> first[b])
                .ints("kv_len", DType.I32, lengths.length, b -> lengths[b])
                .normal("page_min", dtype, 1, used + 1, heads, width)
                .normal("page_max", dtype, 1, used + 1, heads, width)
                .check("page_min", Metric.MAX_ABS, 0).check("page_max", Metric.MAX_ABS, 0)
                .build(dtype);
    }

    private static Case select(long seed, int i, DType dtype) {
        var counts = new int[][] {{0, 37, 5}, {300, 1}, {16, 33}}[i % 3];
        var heads = 1 + i % 2;
        var group = 1 + i % 3;
        var width = new int[] {64, 40, 128}[i / 2];
        var topk = new int[] {6, 33, 1}[i / 2];
        var used = Arrays.stream(counts).sum();
        var builder = new CaseBuilder("kv_select", seed, dtype, i, "topk", topk);
        builder.in("page_table", table(builder.random, counts, 1, used + 1))
                .ints("page_count", DType.I32, counts.length, b -> counts[b])
                .attribute("topk", topk).attribute("sink", topk > 1 ? 1 : 0).attribute("recent", topk > 1 ? 2 : 0);
        if (i % 2 == 0) {
            builder.normal("q", dtype, 1, counts.length, heads * group, width)
                    .normal("page_min", dtype, 1, used + 1, heads, width)
                    .normal("page_max", dtype, 1, used + 1, heads, width);
        } else { // small integers: sums are exact, and many are equal
            builder.integers("q", dtype, -1, 2, counts.length, heads * group, width)
                    .integers("page_min", dtype, -1, 1, used + 1, heads, width)
                    .integers("page_max", dtype, 0, 2, used + 1, heads, width);
        }
        if (i >= 3) {
            builder.normal("q_ref", dtype, 1, counts.length, heads * group, width)
                    .integers("prev_idx", DType.I32, -1, 5, counts.length, heads, topk)
                    .attribute("theta", 0.01);
        }
        return builder.build(dtype);
    }

    private static Case merge(long seed, int i, DType dtype) {
        var lengths = new int[][] {{7, 0, 33}, {1, 65, 3}, {0, 20, 5}}[i % 3];
        var tokens = IntStream.of(lengths).sum();
        var heads = 1 + i % 2;
        var width = new int[] {64, 40, 72}[i / 2];
        var builder = new CaseBuilder("kv_merge", seed, dtype, i);
        var k = HostTensor.zeros(dtype, tokens, heads, width);
        for (var h = 0; h < heads; h++) {
            for (var t = 0; t < tokens; t++) {
                var like = t > 0 && builder.random.nextInt(3) > 0; // 2 of 3 tokens resemble their neighbour
                for (var c = 0; c < width; c++) {
                    var noise = builder.random.nextGaussian();
                    k.set(((long) t * heads + h) * width + c,
                            like ? k.get(((long) (t - 1) * heads + h) * width + c) + 0.3 * noise : noise);
                }
            }
        }
        builder.in("k", k).normal("v", dtype, 1, tokens, heads, i % 2 == 0 ? width : 32);
        if (i % 2 == 0) {
            builder.uniform("attn_mass", DType.F32, 0, 1, tokens, heads);
        } else {
            builder.integers("attn_mass", DType.F32, 0, 3, tokens, heads);
        }
        return builder.in("cu_seqlens", starts(lengths))
                .attribute("eps", 0.5).attribute("protect", new double[] {0, 0.3, 1}[i / 2])
                .build(dtype);
    }

    private static HostTensor starts(int[] lengths) {
        var starts = new double[lengths.length + 1];
        for (var i = 0; i < lengths.length; i++) {
            starts[i + 1] = starts[i] + lengths[i];
        }
        return HostTensor.of(DType.I32, new long[] {starts.length}, starts);
    }

    private static Case indexTopk(long seed, int i) {
        var lengths = new int[][] {{0, 37, 5}, {150, 2}, {16, 90}}[i];
        var queries = new int[][] {{1, 2, 1}, {3, 4}, {1, 1}}[i];
        var page = new int[] {16, 4, 64}[i];
        var topk = new int[] {8, 33, 64}[i];
        var used = pages(lengths, page);
        var tokens = IntStream.of(queries).sum();
        var builder = new CaseBuilder("mla_index_topk", seed, DType.F8E4M3, i, "topk", topk);
        var keys = HostTensor.zeros(DType.U8, used + 1, page, 132);
        var elements = CaseBuilder.normal(builder.random, DType.F8E4M3, 1, 128L * (used + 1) * page);
        for (var row = 0L; row < (long) (used + 1) * page; row++) {
            keys.data().asSlice(row * 132, 128).copyFrom(elements.data().asSlice(row * 128, 128));
            keys.data().set(ValueLayout.JAVA_FLOAT_UNALIGNED, row * 132 + 128, 0.5f + builder.random.nextFloat());
        }
        return builder.normal("q", DType.F8E4M3, 1, tokens, 64, 128).in("keys", keys)
                .normal("weights", DType.F32, 1, tokens, 64).in("cu_q", starts(queries))
                .in("page_table", table(builder.random, lengths, page, used + 1))
                .ints("kv_len", DType.I32, lengths.length, b -> lengths[b])
                .attribute("topk", topk).attribute("index", i == 1 ? "slot" : "position")
                .build(DType.F32);
    }

    private static Case cca(long seed, int i, DType dtype) {
        var batch = 1 + i % 2;
        var tokens = new int[] {1, 5, 0, 19, 2, 3}[i];
        var width = new int[] {32, 64, 24}[i / 2];
        var keyHeads = 1 + i % 2;
        var heads = keyHeads * (1 + i % 3);
        var channels = (heads + keyHeads) * width;
        var builder = new CaseBuilder("cca_qkv", seed, dtype, "T", tokens, "D", width);
        builder.normal("x_q", dtype, 1, batch, tokens, heads * width)
                .normal("x_k", dtype, 1, batch, tokens, keyHeads * width)
                .normal("x_v1", dtype, 1, batch, tokens, keyHeads * width / 2)
                .normal("x_v2", dtype, 1, batch, tokens, keyHeads * width / 2)
                .normal("conv1_w", dtype, 0.7, channels, 2)
                .normal("conv2_w", dtype, 0.7 / Math.sqrt(width), channels, width, 2)
                .uniform("temp", DType.F32, 0.5, 2, keyHeads)
                .check("v", Metric.MAX_ABS, 0).check("conv_state", Metric.MAX_ABS, 0).check("v_state", Metric.MAX_ABS, 0);
        if (i % 2 == 0) {
            builder.normal("conv1_b", dtype, 1, channels).normal("conv2_b", dtype, 1, channels);
        }
        if (i % 3 != 0) {
            builder.uniform("cos", DType.F32, -1, 1, batch, tokens, width / 4)
                    .uniform("sin", DType.F32, -1, 1, batch, tokens, width / 4);
        }
        if (i % 3 != 1) {
            builder.normal("conv_state", dtype, 1, batch, channels, 2).normal("v_state", dtype, 1, batch, keyHeads * width / 2);
        }
        return builder.build(dtype);
    }
}
