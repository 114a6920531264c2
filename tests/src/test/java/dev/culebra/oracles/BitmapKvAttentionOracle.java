package dev.culebra.oracles;

import dev.culebra.conformance.HostTensor;

/** Attention over expanded pages and the tail behind them: the Sq queries are the last tokens. */
final class BitmapKvAttentionOracle implements Oracle {
    @Override
    public void solve(Problem p) {
        var queries = p.size("q", 1);
        var heads = p.size("q", 2);
        var width = p.size("q", 3);
        var page = p.size("k_values", 1);
        var keyHeads = p.size("k_values", 2);
        var q = p.values("q");
        var kPages = expand(p, "k", width);
        var vPages = expand(p, "v", width);
        var kTail = p.values("k_tail");
        var vTail = p.values("v_tail");
        var tailRows = p.size("k_tail", 1);
        var table = p.ints("page_table");
        var pages = p.size("page_table", 1);
        var cached = p.ints("kv_len");
        var tails = p.ints("tail_len");
        var attention = SoftmaxAttention.of(p.attributes(), width, true);
        p.attributes().integer("split_kv_tokens", 0);
        var o = new double[q.length];
        var lse = new double[p.size("q", 0) * queries * heads];
        for (var b = 0; b < p.size("q", 0); b++) {
            var tokens = cached[b] + tails[b];
            for (var h = 0; h < keyHeads; h++) {
                var k = new double[tokens * width];
                var v = new double[tokens * width];
                for (var j = 0; j < tokens; j++) {
                    var inCache = j < cached[b];
                    var row = inCache ? table[b * pages + j / page] * page + j % page : b * tailRows + j - cached[b];
                    var from = (row * keyHeads + h) * width;
                    System.arraycopy(inCache ? kPages : kTail, from, k, j * width, width);
                    System.arraycopy(inCache ? vPages : vTail, from, v, j * width, width);
                }
                var group = heads / keyHeads;
                for (var i = 0; i < queries * group; i++) {
                    var at = (b * queries + i / group) * heads + h * group + i % group;
                    lse[at] = attention.attend(q, at * width, k, j -> j * width, v, j -> j * width, tokens,
                            tokens - queries + i / group, Double.NEGATIVE_INFINITY, width, width, o, at * width);
                }
            }
        }
        p.out("o", o, p.shape("q"));
        p.out("lse", lse, p.size("q", 0), queries, heads);
    }

    private static double[] expand(Problem p, String name, int width) {
        var values = p.values(name + "_values");
        HostTensor bits = p.in(name + "_bits");
        var keep = p.size(name + "_values", 3);
        var rows = values.length / keep;
        var dense = new double[rows * width];
        for (var row = 0; row < rows; row++) {
            var next = row * keep;
            for (var c = 0; c < width; c++) {
                if ((bits.integer((long) row * (width / 64) + c / 64) >>> c % 64 & 1) != 0 && next < (row + 1) * keep) {
                    dense[row * width + c] = values[next++];
                }
            }
        }
        return dense;
    }
}
