package dev.culebra.oracles;

/** Softmax attention over packed sequences; row i stands at position i + Lk - Lq. */
final class AttentionOracle implements Oracle {
    @Override
    public void solve(Problem p) {
        var heads = p.size("q", 1);
        var width = p.size("q", 2);
        var keyHeads = p.size("k", 1);
        var valueWidth = p.size("v", 2);
        var q = p.values("q");
        var k = p.values("k");
        var v = p.values("v");
        var sink = p.values("sink", heads, Double.NEGATIVE_INFINITY);
        var starts = p.ints("cu_q");
        var keyStarts = p.ints("cu_k");
        var attention = SoftmaxAttention.of(p.attributes(), width, false);
        var o = new double[p.size("q", 0) * heads * valueWidth];
        var lse = new double[p.size("q", 0) * heads];
        for (var b = 0; b + 1 < starts.length; b++) {
            var length = keyStarts[b + 1] - keyStarts[b];
            for (var t = starts[b]; t < starts[b + 1]; t++) {
                var position = t - starts[b] + length - (starts[b + 1] - starts[b]);
                for (var h = 0; h < heads; h++) {
                    var first = keyStarts[b] * keyHeads + h / (heads / keyHeads);
                    lse[t * heads + h] = attention.attend(q, (t * heads + h) * width,
                            k, j -> (first + j * keyHeads) * width, v, j -> (first + j * keyHeads) * valueWidth,
                            length, position, sink[h], width, valueWidth, o, (t * heads + h) * valueWidth);
                }
            }
        }
        p.out("o", o, p.size("q", 0), heads, valueWidth);
        p.out("lse", lse, p.size("q", 0), heads);
    }
}
