package dev.culebra.oracles;

import dev.culebra.Epilogue;

/** {@code c = epilogue(a w^T + bias)} with {@code w = (q - z) s}. */
final class W4a16GemmOracle implements Oracle {
    @Override
    public void solve(Problem p) {
        var weights = Checkpoint.decode(p, 4);
        var m = p.size("a", 0);
        var n = weights.n();
        var c = GemmOracle.multiply(p.values("a"), weights.dequantize(), p.values("bias", n, 0), m, n, weights.k());
        switch (p.attributes().oneOf("epilogue", Epilogue.NONE)) {
            case NONE -> p.out("c", c, m, n);
            case SILU -> {
                for (var i = 0; i < c.length; i++) {
                    c[i] = Functions.silu(c[i]);
                }
                p.out("c", c, m, n);
            }
            case SILU_MUL -> {
                var half = n / 2;
                var products = new double[m * half];
                for (var i = 0; i < products.length; i++) {
                    var row = i / half * n;
                    products[i] = Functions.silu(c[row + i % half]) * c[row + half + i % half];
                }
                p.out("c", products, m, half);
            }
        }
    }
}
