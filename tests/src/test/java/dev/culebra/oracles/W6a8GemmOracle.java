package dev.culebra.oracles;

/** {@code c = epilogue((a a_scale) w^T + bias)} with {@code w = q s}, both integers. */
final class W6a8GemmOracle implements Oracle {
    @Override
    public void solve(Problem p) {
        var weights = Checkpoint.decode(p, 6);
        var m = p.size("a", 0);
        var n = weights.n();
        var a = Fp8GemmOracle.scaleRows(p.values("a"), p.values("a_scale"), m, weights.k());
        Epilogues.apply(p, GemmOracle.multiply(a, weights.dequantize(), p.values("bias", n, 0), m, n, weights.k()), m, n);
    }
}
