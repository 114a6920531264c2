package dev.culebra.oracles;

/**
 * {@code c = epilogue(a w^T + bias)} with integers {@code w = (q - z) s}.
 *
 * @param bits of q
 */
record WeightOnlyGemmOracle(int bits) implements Oracle {
    @Override
    public void solve(Problem p) {
        var weights = Checkpoint.decode(p, bits);
        var m = p.size("a", 0);
        var n = weights.n();
        var bias = p.values("bias", n, 0);
        Epilogues.apply(p, GemmOracle.multiply(p.values("a"), weights.dequantize(), bias, m, n, weights.k()), m, n);
    }
}
