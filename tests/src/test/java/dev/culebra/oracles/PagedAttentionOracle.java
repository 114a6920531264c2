package dev.culebra.oracles;

/** Attention over pages: the Sq new tokens are the last of kv_len. */
final class PagedAttentionOracle implements Oracle {
    @Override
    public void solve(Problem p) {
        var batch = p.size("q", 0);
        var queries = p.size("q", 1);
        var heads = p.size("q", 2);
        var width = p.size("q", 3);
        var page = p.size("k_cache", 1);
        var keyHeads = p.size("k_cache", 2);
        var q = p.values("q");
        var k = scaled(p, "k_cache", "k_scale", keyHeads, width);
        var v = scaled(p, "v_cache", "v_scale", keyHeads, width);
        var sink = p.values("sink", heads, Double.NEGATIVE_INFINITY);
        var table = p.ints("page_table");
        var pages = p.size("page_table", 1);
        var lengths = p.ints("kv_len");
        var attention = SoftmaxAttention.of(p.attributes(), width, true);
        p.attributes().integer("split_kv_tokens", 0);
        var o = new double[q.length];
        var lse = new double[batch * queries * heads];
        for (var b = 0; b < batch; b++) {
            var sequence = b;
            for (var i = 0; i < queries; i++) {
                for (var h = 0; h < heads; h++) {
                    var keyHead = h / (heads / keyHeads);
                    SoftmaxAttention.Rows rows = j -> ((table[sequence * pages + j / page] * page + j % page) * keyHeads + keyHead) * width;
                    var at = (b * queries + i) * heads + h;
                    lse[at] = attention.attend(q, at * width, k, rows, v, rows, lengths[b], i + lengths[b] - queries, sink[h],
                            width, width, o, at * width);
                }
            }
        }
        p.out("o", o, p.shape("q"));
        p.out("lse", lse, batch, queries, heads);
    }

    private static double[] scaled(Problem p, String cache, String scale, int heads, int width) {
        var values = p.values(cache);
        if (p.has(scale)) {
            var factors = p.values(scale);
            for (var i = 0; i < values.length; i++) {
                values[i] *= factors[i / width % heads];
            }
        }
        return values;
    }
}
