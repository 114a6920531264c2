package dev.culebra.oracles;

import java.util.Arrays;
import java.util.stream.IntStream;

/** The steps of native sparse attention, one after another. */
public final class NsaOracle {
    final int queries;
    final int heads;
    final int keyHeads;
    final int width;
    int valueWidth;
    int topk;
    int[] idx = {};
    int[] count = {};
    double[] o = {};
    double[] lse = {};

    private final int[] starts;
    private final int[] keyStarts;
    private int[] compressedStarts = {};
    private final int l;
    private final int d;
    private final int block;
    private final int init;
    private final int local;
    private final double[] q;
    private double[] k = {};
    private double[] v = {};
    private double[] kCmp = {};
    private double[] vCmp = {};
    private final SoftmaxAttention attention;

    private NsaOracle(Problem p) {
        var attributes = p.attributes();
        queries = p.size("q", 0);
        heads = p.size("q", 1);
        width = p.size("q", 2);
        starts = p.ints("cu_q");
        keyStarts = p.ints("cu_k");
        l = attributes.integer("l", 32);
        d = attributes.integer("d", 16);
        block = attributes.integer("block", 64);
        topk = attributes.integer("topk", 16);
        init = attributes.integer("init", 1);
        local = attributes.integer("local", 2);
        q = p.values("q");
        attention = SoftmaxAttention.listed(attributes, width);
        keyHeads = p.size(p.has("k") ? "k" : "k_cmp", 1);
        valueWidth = width;
        if (p.has("k")) {
            k = p.values("k");
            v = p.values("v");
            valueWidth = p.size("v", 2);
        }
        if (p.has("k_cmp")) {
            kCmp = p.values("k_cmp");
            vCmp = p.has("v_cmp") ? p.values("v_cmp") : kCmp;
            compressedStarts = p.ints("cu_cmp");
        } else if (p.has("gates")) {
            compressedStarts = new int[starts.length];
            for (var b = 0; b + 1 < starts.length; b++) {
                compressedStarts[b + 1] = compressedStarts[b] + compressedRows(keyStarts[b + 1] - keyStarts[b], l, d);
            }
            kCmp = averages(k, width);
            vCmp = averages(v, valueWidth);
        }
    }

    /** Of a problem's inputs and attributes. */
    public static NsaOracle of(Problem p) {
        return new NsaOracle(p);
    }

    static int compressedRows(int tokens, int l, int d) {
        return Math.max(0, Math.floorDiv(tokens - l, d) + 1);
    }

    private double[] averages(double[] from, int dim) {
        var to = new double[compressedStarts[compressedStarts.length - 1] * keyHeads * dim];
        for (var b = 0; b + 1 < starts.length; b++) {
            for (var j = 0; j < compressedStarts[b + 1] - compressedStarts[b]; j++) {
                for (var i = 0; i < l * keyHeads * dim; i++) {
                    to[(compressedStarts[b] + j) * keyHeads * dim + i % (keyHeads * dim)] +=
                            from[(keyStarts[b] + j * d) * keyHeads * dim + i] / l;
                }
            }
        }
        return to;
    }

    private interface Seen {
        int[] keys(int sequence, int query, int position, int keyHead);
    }

    private void attend(double[] keys, double[] values, int[] firsts, Seen seen) {
        o = new double[queries * heads * valueWidth];
        lse = new double[queries * heads];
        for (var b = 0; b + 1 < starts.length; b++) {
            for (var t = starts[b]; t < starts[b + 1]; t++) {
                var position = position(b, t);
                for (var h = 0; h < heads; h++) {
                    var keyHead = h / (heads / keyHeads);
                    var list = seen.keys(b, t, position, keyHead);
                    var first = firsts[b];
                    lse[t * heads + h] = attention.attend(q, (t * heads + h) * width,
                            keys, j -> ((first + list[j]) * keyHeads + keyHead) * width,
                            values, j -> ((first + list[j]) * keyHeads + keyHead) * valueWidth,
                            list.length, 0, Double.NEGATIVE_INFINITY, width, valueWidth, o, (t * heads + h) * valueWidth);
                }
            }
        }
    }

    private int position(int b, int t) {
        return t - starts[b] + keyStarts[b + 1] - keyStarts[b] - (starts[b + 1] - starts[b]);
    }

    /** Compressed keys that a query sees. */
    private int[] compressedKeys(int b, int position) {
        return SparseAttentionOracles.keys(compressedStarts[b + 1] - compressedStarts[b], j -> j * d + l - 1 <= position);
    }

    void compressed() {
        attend(kCmp, vCmp, compressedStarts, (b, t, position, head) -> compressedKeys(b, position));
    }

    void selected() {
        attend(k, v, keyStarts, (b, t, position, head) -> {
            var blocks = Arrays.copyOfRange(idx, (head * queries + t) * topk, (head * queries + t + 1) * topk);
            return SparseAttentionOracles.keys(Math.max(0, position + 1),
                    j -> Arrays.stream(blocks).anyMatch(chosen -> chosen == j / block));
        });
    }

    void window(int tokens) {
        attend(k, v, keyStarts, (b, t, position, head) ->
                SparseAttentionOracles.keys(Math.max(0, position + 1), j -> j > position - tokens));
    }

    /** The scores of all blocks that a query can choose from. */
    private double[] scores(int b, int t, int head) {
        var position = position(b, t);
        var keys = compressedKeys(b, position);
        var group = heads / keyHeads;
        var probabilities = new double[keys.length];
        for (var j : keys) {
            for (var h = head * group; h < (head + 1) * group; h++) {
                var product = 0.0;
                for (var c = 0; c < width; c++) {
                    product += q[(t * heads + h) * width + c] * kCmp[((compressedStarts[b] + j) * keyHeads + head) * width + c];
                }
                probabilities[j] += Math.exp(attention.scale() * product - lse[t * heads + h]);
            }
        }
        var scores = new double[position < 0 ? 0 : position / block + 1];
        for (var chosen = 0; chosen < scores.length; chosen++) {
            for (var i = 0; i < l / d; i++) {
                for (var j = 0; j < block / d; j++) {
                    var at = chosen * (block / d) - (l / d - 1) + i + j;
                    scores[chosen] += at >= 0 && at < probabilities.length ? probabilities[at] : 0;
                }
            }
        }
        return scores;
    }

    private boolean forced(int chosen, int candidates) {
        return chosen < init || chosen >= candidates - local;
    }

    void select() {
        idx = new int[keyHeads * queries * topk];
        count = new int[keyHeads * queries];
        Arrays.fill(idx, -1);
        for (var b = 0; b + 1 < starts.length; b++) {
            for (var t = starts[b]; t < starts[b + 1]; t++) {
                for (var head = 0; head < keyHeads; head++) {
                    var scores = scores(b, t, head);
                    var chosen = IntStream.range(0, scores.length)
                            .boxed()
                            .sorted((x, y) -> Boolean.compare(forced(y, scores.length), forced(x, scores.length)) != 0
                                    ? Boolean.compare(forced(y, scores.length), forced(x, scores.length))
                                    : scores[x] != scores[y] ? Double.compare(scores[y], scores[x]) : Integer.compare(x, y))
                            .limit(topk)
                            .mapToInt(x -> x)
                            .sorted()
                            .toArray();
                    System.arraycopy(chosen, 0, idx, (head * queries + t) * topk, chosen.length);
                    count[head * queries + t] = chosen.length;
                }
            }
        }
    }

    /** The smallest relative difference, over all queries, between the worst score that is chosen and the best that is not. */
    public double margin() {
        compressed();
        var margin = Double.POSITIVE_INFINITY;
        for (var b = 0; b + 1 < starts.length; b++) {
            for (var t = starts[b]; t < starts[b + 1]; t++) {
                for (var head = 0; head < keyHeads; head++) {
                    var scores = scores(b, t, head);
                    var free = IntStream.range(0, scores.length).filter(x -> !forced(x, scores.length))
                            .mapToDouble(x -> scores[x]).sorted().toArray();
                    var refused = scores.length - topk;
                    if (refused > 0 && refused < free.length) {
                        margin = Math.min(margin, (free[refused] - free[refused - 1]) / free[refused]);
                    }
                }
            }
        }
        return margin;
    }

    /** The compressed attention's lse. */
    public double[] compressedLse() {
        compressed();
        return lse;
    }

    double[] gated(double[] gates, int window) {
        var sum = new double[queries * heads * valueWidth];
        compressed();
        add(sum, gates, 0);
        select();
        selected();
        add(sum, gates, 1);
        window(window);
        add(sum, gates, 2);
        return sum;
    }

    private void add(double[] sum, double[] gates, int branch) {
        for (var i = 0; i < sum.length; i++) {
            sum[i] += gates[i / valueWidth * 3 + branch] * o[i];
        }
    }

    void out(Problem p) {
        p.out("o", o, queries, heads, valueWidth);
        p.out("lse", lse, queries, heads);
    }
}
