package dev.culebra.oracles;

/** {@code rows[inverse[t k + j]] = x[t]}, other rows 0. */
final class MoePermuteOracle implements Oracle {
    @Override
    public void solve(Problem p) {
        var width = p.size("x", 1);
        var k = p.attributes().integer("k", 0);
        var x = p.values("x");
        var inverse = p.ints("inverse");
        var rows = new double[inverse.length * width];
        for (var slot = 0; slot < inverse.length; slot++) {
            if (inverse[slot] >= 0) {
                System.arraycopy(x, slot / k * width, rows, inverse[slot] * width, width);
            }
        }
        p.out("rows", rows, inverse.length, width);
    }
}
