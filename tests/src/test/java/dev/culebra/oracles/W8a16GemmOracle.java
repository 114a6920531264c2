package dev.culebra.oracles;

import dev.culebra.DType;

/** {@code c = epilogue(a w^T + bias)}, w integers {@code (q - z) s} or floats {@code q s}, s of a group or a block. */
final class W8a16GemmOracle implements Oracle {
    @Override
    public void solve(Problem p) {
        if (!p.has("q") || p.in("scales").dtype() != DType.F32 && p.in("q").dtype() != DType.F8E4M3) {
            new WeightOnlyGemmOracle(8).solve(p);
            return;
        }
        var m = p.size("a", 0);
        var n = p.size("q", 0);
        var k = p.size("q", 1);
        var scales = p.values("scales");
        var columns = p.size("scales", 1);
        var blocks = p.in("scales").dtype() == DType.F32;
        var group = blocks ? 128 : p.attributes().integer("group", -1);
        var w = p.values("q");
        for (var i = 0; i < w.length; i++) {
            var row = i / k;
            w[i] *= scales[(blocks ? row / 128 : row) * columns + (group > 0 ? i % k / group : 0)];
        }
        Epilogues.apply(p, GemmOracle.multiply(p.values("a"), w, p.values("bias", n, 0), m, n, k), m, n);
    }
}
