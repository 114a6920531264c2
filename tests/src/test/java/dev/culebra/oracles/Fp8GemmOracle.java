package dev.culebra.oracles;

import dev.culebra.Fp8Scaling;

/** {@code c = (a a_scale) (b b_scale)^T + bias}. */
final class Fp8GemmOracle implements Oracle {
    private static final int BLOCK = 128;

    @Override
    public void solve(Problem p) {
        var m = p.size("a", 0);
        var n = p.size("b", 0);
        var k = p.size("a", 1);
        var a = p.values("a");
        var b = p.values("b");
        var aScale = p.values("a_scale");
        var bScale = p.values("b_scale");
        switch (p.attributes().oneOf("scaling", Fp8Scaling.TENSOR)) {
            case TENSOR -> {
                scaleBlocks(a, aScale, m, k, Math.max(m, 1), k);
                scaleBlocks(b, bScale, n, k, n, k);
            }
            case TOKEN_CHANNEL -> {
                scaleRows(a, aScale, m, k);
                scaleRows(b, bScale, n, k);
            }
            case BLOCK128 -> {
                scaleBlocks(a, aScale, m, k, 1, BLOCK);
                scaleBlocks(b, bScale, n, k, BLOCK, BLOCK);
            }
        }
        p.out("c", GemmOracle.multiply(a, b, p.values("bias", n, 0), m, n, k), m, n);
    }

    /** Multiplies each row by its own scale, in place. */
    static double[] scaleRows(double[] x, double[] scales, int rows, int columns) {
        return scaleBlocks(x, scales, rows, columns, 1, columns);
    }

    private static double[] scaleBlocks(double[] x, double[] scales, int rows, int columns, int down, int across) {
        var blocks = Math.ceilDiv(columns, across);
        for (var row = 0; row < rows; row++) {
            for (var column = 0; column < columns; column++) {
                x[row * columns + column] *= scales[row / down * blocks + column / across];
            }
        }
        return x;
    }
}
