package dev.culebra.oracles;

import java.util.Arrays;

/** {@code y[t] = sum_j weights[t,j] rows[inverse[t k + j]]}; NaN where dispatch had no room for a slot. */
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
            if (inverse[slot] == -2 && p.attributes().flag("dispatched", false)) {
                Arrays.fill(y, slot / k * width, (slot / k + 1) * width, Double.NaN);
            }
        }
        p.out("y", y, p.size("weights", 0), width);
    }
}
