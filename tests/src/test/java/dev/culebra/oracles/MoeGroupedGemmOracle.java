package dev.culebra.oracles;

import dev.culebra.Epilogue;
import dev.culebra.ExpertWeights.Kind;

/** {@code c[r] = act(a[gather[r]] b[e]^T)} for the rows of expert e; rows of nobody are 0. */
final class MoeGroupedGemmOracle implements Oracle {
    @Override
    public void solve(Problem p) {
        var kind = p.attributes().oneOf("experts", Kind.HALF);
        var b = kind == Kind.INT4 ? "b_q" : "b";
        var experts = p.size(b, 0);
        var n = p.size(b, 1);
        var k = p.size("a", 1);
        var gated = p.attributes().oneOf("act", Epilogue.NONE) == Epilogue.SILU_MUL;
        var columns = gated ? n / 2 : n;
        var a = p.values("a");
        if (kind == Kind.F8) {
            var scales = p.values("a_scale");
            for (var i = 0; i < a.length; i++) {
                a[i] *= scales[i / k * Math.ceilDiv(k, 128) + i % k / 128];
            }
        }
        var w = Experts.matrices(p, "b", kind, n, k);
        var offsets = p.ints("offsets");
        var rows = p.has("gather") ? p.size("gather", 0) : p.size("a", 0);
        var c = new double[rows * columns];
        for (var e = 0; e < experts; e++) {
            for (var r = offsets[e]; r < offsets[e + 1]; r++) {
                var from = p.has("gather") ? p.ints("gather")[r] : r;
                for (var i = 0; i < columns && from >= 0; i++) {
                    var sum = Experts.dot(w, (e * n + i) * k, a, from * k, k);
                    c[r * columns + i] = gated ? Functions.silu(sum) * Experts.dot(w, (e * n + columns + i) * k, a, from * k, k) : sum;
                }
            }
        }
        p.out("c", c, rows, columns);
    }
}
