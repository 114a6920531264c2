package dev.culebra.tests;

import dev.culebra.DType;
import dev.culebra.conformance.Attributes;
import dev.culebra.conformance.Case;
import dev.culebra.conformance.HostTensor;
import dev.culebra.conformance.Metric;
import dev.culebra.oracles.NsaOracle;
import dev.culebra.oracles.Problem;
import java.util.ArrayList;
import java.util.List;
import java.util.stream.IntStream;

/** Attention to a part of the keys: ragged and empty sequences, masks of every kind, selections with and without a choice. */
final class SparseAttentionCases {
    private static final DType[] DTYPES = {DType.BF16, DType.F32, DType.F16};

    private SparseAttentionCases() {}

    static List<Case> all(long seed) {
        var cases = new ArrayList<Case>();
        for (var i = 0; i < 6; i++) {
            var dtype = DTYPES[i % 3];
            cases.add(blockSparse(seed + i, i, dtype));
            cases.add(neighborhood(seed + i, i, dtype));
            cases.add(compress(seed + i, i, dtype));
            cases.add(compressedAttention(seed + i, i, dtype));
            cases.add(select(seed + i, i, dtype));
            cases.add(selectedAttention(seed + i, i, dtype));
            cases.add(attention(seed + i, i, dtype));
        }
        return cases;
    }

    private static HostTensor starts(int... lengths) {
        var starts = new double[lengths.length + 1];
        for (var i = 0; i < lengths.length; i++) {
            starts[i + 1] = starts[i] + lengths[i];
        }
        return HostTensor.of(DType.I32, new long[] {starts.length}, starts);
    }

    private static Case blockSparse(long seed, int i, DType dtype) {
        var lengths = new int[][] {{50, 0, 33}, {1, 65}, {20, 5, 7}}[i % 3];
        var keyLengths = new int[][] {{50, 4, 40}, {70, 65}, {9, 0, 70}}[i % 3];
        var blockQ = new int[] {16, 48, 32}[i % 3];
        var blockK = new int[] {16, 20, 64}[(i + i / 3) % 3];
        var keyHeads = 1 + i % 2;
        var heads = keyHeads * (1 + (i + 1) % 3);
        var maskHeads = new int[] {1, keyHeads, heads}[(i + i / 3) % 3];
        var queries = IntStream.of(lengths).sum();
        var keys = IntStream.of(keyLengths).sum();
        var width = new int[] {64, 32, 40}[i % 3];
        var valueWidth = i % 2 == 0 ? width : 48;
        var builder = new CaseBuilder("block_sparse_attention", seed, dtype, i);
        var maskRows = Math.ceilDiv(IntStream.of(lengths).max().orElse(0), blockQ) + i % 2;
        var rows = new ArrayList<Double>(List.of(0.0));
        var columns = new ArrayList<Double>();
        for (var b = 0; b < lengths.length; b++) {
            for (var row = 0; row < maskHeads * maskRows; row++) {
                for (var block = 0; block < Math.ceilDiv(keyLengths[b], blockK); block++) {
                    if (builder.random.nextInt(3) > 0) {
                        columns.add((double) block);
                    }
                }
                if (builder.random.nextInt(3) == 0) {
                    columns.add(-1.0);
                }
                rows.add((double) columns.size());
            }
        }
        return builder.normal("q", dtype, 1, queries, heads, width)
                .normal("k", dtype, 1, keys, keyHeads, width)
                .normal("v", dtype, 1, keys, keyHeads, valueWidth)
                .in("cu_q", starts(lengths))
                .in("cu_k", starts(keyLengths))
                .in("row_ptr", integers(DType.I64, rows))
                .in("col", integers(DType.I32, columns))
                .attribute("block_q", blockQ)
                .attribute("block_k", blockK)
                .attribute("head_map", maskHeads)
                .attribute("causal", i % 2 == 1)
                .check("lse", Metric.MAX_ABS, 1e-3)
                .build(dtype);
    }

    private static HostTensor integers(DType dtype, List<Double> values) {
        return HostTensor.of(dtype, new long[] {values.size()}, values.stream().mapToDouble(x -> x).toArray());
    }

    private static Case neighborhood(long seed, int i, DType dtype) {
        var random = new java.util.Random(seed);
        var axes = 1 + i % 3;
        var width = new int[] {64, 32, 40}[i % 3];
        var keyHeads = 1 + i % 2;
        var heads = keyHeads * (1 + i % 3);
        var windows = new ArrayList<Long>();
        var strides = new ArrayList<Long>();
        var dilations = new ArrayList<Long>();
        var causal = new ArrayList<Boolean>();
        var shape = new long[axes + 3];
        shape[0] = 1 + i % 2;
        for (var a = 0; a < axes; a++) {
            var length = axes == 1 ? 37 + random.nextInt(60) : axes == 2 ? 5 + random.nextInt(9) : 2 + random.nextInt(5);
            var dilation = 1 + random.nextInt(Math.min(3, length));
            var window = 1 + random.nextInt(Math.min(length / dilation, 24));
            shape[1 + a] = length;
            windows.add((long) window);
            strides.add(1L + random.nextInt(window));
            dilations.add((long) dilation);
            causal.add(random.nextInt(3) == 0);
        }
        shape[axes + 2] = width;
        var builder = new CaseBuilder("neighborhood_attention", seed, dtype, axes, "axes", i);
        shape[axes + 1] = heads;
        builder.normal("q", dtype, 1, shape.clone());
        shape[axes + 1] = keyHeads;
        builder.normal("k", dtype, 1, shape.clone())
                .normal("v", dtype, 1, shape)
                .attribute("window", windows)
                .attribute("causal", causal)
                .check("lse", Metric.MAX_ABS, 1e-3);
        if (i % 4 != 3) {
            builder.attribute("stride", strides).attribute("dilation", dilations);
        }
        if (i % 2 == 1) {
            builder.normal("extra_k", dtype, 1, shape[0], 7, keyHeads, width).normal("extra_v", dtype, 1, shape[0], 7, keyHeads, width);
        }
        return builder.build(dtype);
    }

    private static Case compress(long seed, int i, DType dtype) {
        var lengths = new int[][] {{7, 0, 50}, {16}, {65, 31, 8}}[i % 3];
        var l = new int[] {8, 16, 32}[i % 3];
        var d = new int[] {4, 16, 8}[i % 3];
        var heads = 1 + i % 2;
        var width = new int[] {16, 24, 40}[(i + i / 3) % 3];
        var builder = new CaseBuilder("nsa_compress", seed, dtype, i)
                .normal("x", dtype, 1, IntStream.of(lengths).sum(), heads, width)
                .in("cu_seqlens", starts(lengths))
                .attribute("dialect", i % 2 == 0 ? "linear" : "mean")
                .attribute("l", l)
                .attribute("d", d);
        if (i % 2 == 0) {
            builder.normal("w", dtype, 0.1, heads, l, width, width);
        }
        if (i % 3 != 1) {
            builder.normal("pe", dtype, 1, heads, l, width);
        }
        return builder.build(dtype);
    }

    /** The last queries of sequences of these tokens, and what all nsa operators are given. */
    private static final class Nsa {
        final int[] lengths;
        final int[] keyLengths;
        final int[] compressed;
        final int keyHeads;
        final int heads;
        final int width;
        final int l;
        final int d;
        final int block;

        Nsa(int i, boolean mean) {
            lengths = new int[][] {{37, 0, 60}, {1, 3}, {90, 2}}[i % 3];
            keyLengths = new int[][] {{37, 5, 150}, {200, 3}, {80, 130}}[i % 3];
            keyHeads = 1 + i % 2;
            heads = keyHeads * new int[] {2, 1, 3, 4, 5, 16}[i % 6];
            width = new int[] {64, 32, 40}[i % 3];
            l = mean ? 16 : new int[] {16, 8, 32}[i % 3];
            d = mean ? 16 : new int[] {8, 8, 16}[i % 3];
            block = mean ? 16 : new int[] {16, 16, 16}[i % 3] * (1 + i / 3);
            compressed = IntStream.of(keyLengths).map(n -> Math.max(0, Math.floorDiv(n - l, d) + 1)).toArray();
        }

        int queries() {
            return IntStream.of(lengths).sum();
        }

        CaseBuilder base(String op, long seed, int i, DType dtype) {
            return new CaseBuilder(op, seed, dtype, "G", heads / keyHeads, i)
                    .normal("q", dtype, 1, queries(), heads, width)
                    .in("cu_q", starts(lengths))
                    .in("cu_k", starts(keyLengths));
        }

        CaseBuilder compressed(CaseBuilder builder, DType dtype) {
            return builder.normal("k_cmp", dtype, 1, IntStream.of(compressed).sum(), keyHeads, width)
                    .in("cu_cmp", starts(compressed))
                    .attribute("l", l)
                    .attribute("d", d);
        }

        CaseBuilder selection(CaseBuilder builder, int topk, int init, int local) {
            return builder.attribute("block", block).attribute("topk", topk).attribute("init", init).attribute("local", local);
        }
    }

    private static Case compressedAttention(long seed, int i, DType dtype) {
        var nsa = new Nsa(i, false);
        return nsa.compressed(nsa.base("nsa_compressed_attention", seed, i, dtype), dtype)
                .normal("v_cmp", dtype, 1, IntStream.of(nsa.compressed).sum(), nsa.keyHeads, nsa.width)
                .check("lse", Metric.MAX_ABS, 1e-3)
                .build(dtype);
    }

    /** A selection that rounding cannot change: seeds are tried until every choice is clear. */
    private static Case select(long seed, int i, DType dtype) {
        var nsa = new Nsa(i, i % 4 == 3);
        for (var attempt = 0;; attempt++) {
            var builder = nsa.selection(
                    nsa.compressed(nsa.base("nsa_select", seed + 1000L * attempt, i, dtype), dtype), 4, i % 2, 1 + i % 2);
            var problem = new Problem(builder.inputs(), new Attributes(builder.attributes()));
            var oracle = NsaOracle.of(problem);
            if (oracle.margin() > 1e-4) {
                return builder.in("lse", HostTensor.of(DType.F32, new long[] {nsa.queries(), nsa.heads}, oracle.compressedLse()))
                        .build(dtype);
            }
        }
    }

    private static Case selectedAttention(long seed, int i, DType dtype) {
        var nsa = new Nsa(i, false);
        var keys = IntStream.of(nsa.keyLengths).sum();
        var builder = nsa.base("nsa_selected_attention", seed, i, dtype);
        var entries = 4;
        var idx = new double[nsa.keyHeads * nsa.queries() * entries];
        for (var row = 0; row < idx.length; row += entries) {
            var blocks = builder.random.ints(-3, 12).distinct().limit(entries).toArray();
            for (var j = 0; j < entries; j++) {
                idx[row + j] = Math.max(-1, blocks[j]);
            }
        }
        return builder.normal("k", dtype, 1, keys, nsa.keyHeads, nsa.width)
                .normal("v", dtype, 1, keys, nsa.keyHeads, nsa.width + 8 * (i % 2))
                .in("idx", HostTensor.of(DType.I32, new long[] {nsa.keyHeads, nsa.queries(), entries}, idx))
                .attribute("block", nsa.block)
                .attribute("order", new String[] {"auto", "query", "kv"}[(i + i / 3) % 3])
                .check("lse", Metric.MAX_ABS, 1e-3)
                .build(dtype);
    }

    /** All blocks are selected, or the forced ones alone; f32 chooses. */
    private static Case attention(long seed, int i, DType dtype) {
        var mean = i % 2 == 0;
        var nsa = new Nsa(i, mean);
        var keys = IntStream.of(nsa.keyLengths).sum();
        var free = dtype == DType.F32;
        for (var attempt = 0;; attempt++) {
            var builder = nsa.base("nsa_attention", seed + 1000L * attempt, i, dtype)
                    .normal("k", dtype, 1, keys, nsa.keyHeads, nsa.width)
                    .normal("v", dtype, 1, keys, nsa.keyHeads, nsa.width)
                    .uniform("gates", DType.F32, 0, 1, nsa.queries(), nsa.heads, 3)
                    .attribute("dialect", mean ? "mean" : "linear")
                    .attribute("window", 1 + 20 * (i % 3));
            if (mean) {
                builder.attribute("l", nsa.l).attribute("d", nsa.d);
            } else {
                nsa.compressed(builder, dtype)
                        .normal("v_cmp", dtype, 1, IntStream.of(nsa.compressed).sum(), nsa.keyHeads, nsa.width);
            }
            nsa.selection(builder, free ? 4 : i % 2 == 0 ? 16 : 3, 1, 2);
            if (!free || NsaOracle.of(new Problem(builder.inputs(), new Attributes(builder.attributes()))).margin() > 1e-4) {
                return builder.build(dtype);
            }
        }
    }
}
