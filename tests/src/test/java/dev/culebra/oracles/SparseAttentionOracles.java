package dev.culebra.oracles;

import java.util.Arrays;
import java.util.Map;
import java.util.function.IntPredicate;
import java.util.stream.IntStream;

/** Attention to a part of the keys: each says which, and {@link SoftmaxAttention} does the rest. */
final class SparseAttentionOracles {
    private SparseAttentionOracles() {}

    static void register(Map<String, Oracle> all) {
        all.put("block_sparse_attention", SparseAttentionOracles::blockSparse);
        all.put("neighborhood_attention", SparseAttentionOracles::neighborhood);
        all.put("nsa_compress", SparseAttentionOracles::compress);
        all.put("nsa_compressed_attention", p -> {
            var nsa = NsaOracle.of(p);
            nsa.compressed();
            nsa.out(p);
        });
        all.put("nsa_select", p -> {
            var nsa = NsaOracle.of(p);
            nsa.lse = p.values("lse");
            nsa.select();
            p.out("idx", nsa.idx, nsa.keyHeads, nsa.queries, nsa.topk);
            p.out("count", nsa.count, nsa.keyHeads, nsa.queries);
        });
        all.put("nsa_selected_attention", p -> {
            var nsa = NsaOracle.of(p);
            nsa.topk = p.size("idx", 2);
            nsa.idx = p.ints("idx");
            nsa.selected();
            nsa.out(p);
        });
        all.put("nsa_attention", p -> {
            var nsa = NsaOracle.of(p);
            p.out("o", nsa.gated(p.values("gates"), p.attributes().integer("window", 512)), nsa.queries, nsa.heads, nsa.valueWidth);
            p.out("idx", nsa.idx, nsa.keyHeads, nsa.queries, nsa.topk);
        });
    }

    /** Which keys a query sees, in order. */
    static int[] keys(int count, IntPredicate seen) {
        return IntStream.range(0, count).filter(seen).toArray();
    }

    private static void blockSparse(Problem p) {
        var attributes = p.attributes();
        var blockQ = attributes.integer("block_q", 64);
        var blockK = attributes.integer("block_k", 64);
        var maskHeads = attributes.integer("head_map", 1);
        var heads = p.size("q", 1);
        var width = p.size("q", 2);
        var keyHeads = p.size("k", 1);
        var valueWidth = p.size("v", 2);
        var starts = p.ints("cu_q");
        var keyStarts = p.ints("cu_k");
        var rows = p.ints("row_ptr");
        var columns = p.ints("col");
        var sequences = starts.length - 1;
        var maskRows = sequences == 0 ? 0 : (rows.length - 1) / sequences / maskHeads;
        var attention = SoftmaxAttention.of(attributes, width, false);
        var q = p.values("q");
        var k = p.values("k");
        var v = p.values("v");
        var o = new double[p.size("q", 0) * heads * valueWidth];
        var lse = new double[p.size("q", 0) * heads];
        for (var b = 0; b < sequences; b++) {
            var length = keyStarts[b + 1] - keyStarts[b];
            for (var t = starts[b]; t < starts[b + 1]; t++) {
                var i = t - starts[b];
                for (var h = 0; h < heads; h++) {
                    var row = (b * maskHeads + h * maskHeads / heads) * maskRows + i / blockQ;
                    var blocks = Arrays.copyOfRange(columns, rows[row], rows[row + 1]);
                    var seen = keys(length, j -> Arrays.stream(blocks).anyMatch(block -> block == j / blockK));
                    var first = keyStarts[b] * keyHeads + h / (heads / keyHeads);
                    var position = i + length - (starts[b + 1] - starts[b]);
                    var visible = Arrays.stream(seen).filter(j -> attention.sees(position, j)).toArray();
                    lse[t * heads + h] = attention.attend(q, (t * heads + h) * width, k, j -> (first + visible[j] * keyHeads) * width,
                            v, j -> (first + visible[j] * keyHeads) * valueWidth, visible.length, length,
                            Double.NEGATIVE_INFINITY, width, valueWidth, o, (t * heads + h) * valueWidth);
                }
            }
        }
        p.out("o", o, p.size("q", 0), heads, valueWidth);
        p.out("lse", lse, p.size("q", 0), heads);
    }

    private static void neighborhood(Problem p) {
        var shape = p.shape("q");
        var axes = shape.length - 3;
        var heads = p.size("q", axes + 1);
        var width = p.size("q", axes + 2);
        var keyHeads = p.size("k", axes + 1);
        var attributes = p.attributes();
        var windows = attributes.integers("window");
        var strides = attributes.integers("stride");
        var dilations = attributes.integers("dilation");
        var causal = attributes.flags("causal");
        var lengths = IntStream.range(0, axes).map(a -> p.size("q", 1 + a)).toArray();
        var tokens = Arrays.stream(lengths).reduce(1, (a, b) -> a * b);
        var extra = p.has("extra_k") ? p.size("extra_k", 1) : 0;
        var attention = SoftmaxAttention.listed(attributes, width);
        var q = p.values("q");
        var k = p.values("k");
        var v = p.values("v");
        var extraK = p.values("extra_k", 0, 0);
        var extraV = p.values("extra_v", 0, 0);
        // Both kinds of keys in one array, the extra ones behind.
        var keys = concatenate(k, extraK);
        var values = concatenate(v, extraV);
        var o = new double[q.length];
        var lse = new double[q.length / Math.max(width, 1)];
        for (var b = 0; b < shape[0]; b++) {
            for (var t = 0; t < tokens; t++) {
                var query = coordinates(t, lengths);
                var seen = keys(tokens, j -> {
                    var key = coordinates(j, lengths);
                    return IntStream.range(0, axes).allMatch(a -> sees(query[a], key[a], lengths[a], windows.get(a),
                            strides.isEmpty() ? 1 : strides.get(a), dilations.isEmpty() ? 1 : dilations.get(a),
                            !causal.isEmpty() && causal.get(a)));
                });
                for (var h = 0; h < heads; h++) {
                    var keyHead = h / (heads / keyHeads);
                    var batch = b;
                    SoftmaxAttention.Rows rows = j -> j < seen.length
                            ? ((batch * tokens + seen[j]) * keyHeads + keyHead) * width
                            : k.length + ((batch * extra + j - seen.length) * keyHeads + keyHead) * width;
                    var at = (b * tokens + t) * heads + h;
                    lse[at] = attention.attend(q, at * width, keys, rows, values, rows, seen.length + extra, 0,
                            Double.NEGATIVE_INFINITY, width, width, o, at * width);
                }
            }
        }
        p.out("o", o, shape);
        p.out("lse", lse, Arrays.copyOf(shape, shape.length - 1));
    }

    private static double[] concatenate(double[] a, double[] b) {
        var both = Arrays.copyOf(a, a.length + b.length);
        System.arraycopy(b, 0, both, a.length, b.length);
        return both;
    }

    private static int[] coordinates(int token, int[] lengths) {
        var at = new int[lengths.length];
        for (var a = lengths.length - 1; a >= 0; a--) {
            at[a] = token % lengths[a];
            token /= lengths[a];
        }
        return at;
    }

    /** The definition of one axis. */
    private static boolean sees(int query, int key, int length, int window, int stride, int dilation, boolean causal) {
        var group = query % dilation;
        if (key % dilation != group) {
            return false;
        }
        var n = (int) IntStream.range(0, length).filter(t -> t % dilation == group).count();
        var i = query / dilation;
        var j = key / dilation;
        if (causal) {
            var leader = Math.min(i / stride * stride + stride - 1, n - 1);
            return j <= i && j > leader - window;
        }
        var leader = Math.min(i / stride * stride + stride / 2, n - 1);
        var first = Math.max(0, Math.min(leader - window / 2, n - window));
        return j >= first && j < first + window;
    }

    private static void compress(Problem p) {
        var attributes = p.attributes();
        var starts = p.ints("cu_seqlens");
        var l = attributes.integer("l", 32);
        var d = attributes.integer("d", 16);
        var heads = p.size("x", 1);
        var width = p.size("x", 2);
        var linear = p.has("w");
        var x = p.values("x");
        var w = p.values("w", 0, 0);
        var pe = p.values("pe", heads * l * width, 0);
        var out = new int[starts.length];
        for (var b = 0; b + 1 < starts.length; b++) {
            out[b + 1] = out[b] + NsaOracle.compressedRows(starts[b + 1] - starts[b], l, d);
        }
        var y = new double[out[starts.length - 1] * heads * width];
        for (var b = 0; b + 1 < starts.length; b++) {
            for (var j = out[b]; j < out[b + 1]; j++) {
                for (var h = 0; h < heads; h++) {
                    var to = (j * heads + h) * width;
                    for (var i = 0; i < l; i++) {
                        var from = ((starts[b] + (j - out[b]) * d + i) * heads + h) * width;
                        for (var c = 0; c < width; c++) {
                            var value = x[from + c] + pe[(h * l + i) * width + c];
                            if (linear) {
                                for (var e = 0; e < width; e++) {
                                    y[to + e] += value * w[((h * l + i) * width + c) * width + e];
                                }
                            } else {
                                y[to + c] += value / l;
                            }
                        }
                    }
                }
            }
        }
        p.out("y", y, out[starts.length - 1], heads, width);
        p.out("cu_out", out, starts.length);
    }
}
