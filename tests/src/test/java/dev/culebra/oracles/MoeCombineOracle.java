package dev.culebra.oracles;

/** {@code y[t] = sum_j weights[t,j] rows[inverse[t k + j]]}. */
final class MoeCombineOracle implements Oracle {
    @Override
    public void solve(Problem p) {
        var width = p.size("rows", 1);
        var k = p.attributes().integer("k", 0);
        var rows = p.values("rows");
        var weights = p.values("weights");
        var inverse = p.ints("inverse");
        var y = new double[p.size("weights", 0) * width];
        for (var slot = 0; slot < inverse.length; slot++) {
            for (var i = 0; inverse[slot] >= 0 && i < width; i++) {
                y[slot / k * width + i] += weights[slot] * rows[inverse[slot] * width + i];
            }
        }
        p.out("y", y, p.size("weights", 0), width);
    }
}
