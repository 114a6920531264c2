package dev.culebra.oracles;

/** {@code c = epilogue((a a_scale) w^T)} with {@code w = q group_scale channel_scale}, nothing rounded. */
final class W4a8GemmOracle implements Oracle {
    private static final int GROUP = 128;

    @Override
    public void solve(Problem p) {
        var m = p.size("a", 0);
        var n = p.size("q", 0);
        var k = p.size("q", 1);
        var groups = p.size("group_scale", 1);
        var groupScale = p.values("group_scale");
        var channelScale = p.values("channel_scale");
        var w = p.values("q");
        for (var i = 0; i < w.length; i++) {
            w[i] *= groupScale[i / k * groups + i % k / GROUP] * channelScale[i / k];
        }
        var a = Fp8GemmOracle.scaleRows(p.values("a"), p.values("a_scale"), m, k);
        Epilogues.apply(p, GemmOracle.multiply(a, w, new double[n], m, n, k), m, n);
    }
}
