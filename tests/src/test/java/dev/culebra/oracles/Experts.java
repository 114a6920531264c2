package dev.culebra.oracles;

import dev.culebra.ExpertWeights.Kind;

/** Experts' matrices in their three forms. */
final class Experts {
    private Experts() {}

    /** {@code sum_l a[i + l] b[j + l]}. */
    static double dot(double[] a, int i, double[] b, int j, int count) {
        var sum = 0.0;
        for (var l = 0; l < count; l++) {
            sum += a[i + l] * b[j + l];
        }
        return sum;
    }

    /** [E, rows, columns] as numbers. */
    static double[] matrices(Problem p, String name, Kind kind, int rows, int columns) {
        if (kind == Kind.HALF) {
            return p.values(name);
        }
        if (kind == Kind.F8) {
            var w = p.values(name);
            var scales = p.values(name + "_scale");
            var down = Math.ceilDiv(rows, 128);
            var across = Math.ceilDiv(columns, 128);
            for (var i = 0; i < w.length; i++) {
                var e = i / (rows * columns);
                w[i] *= scales[(e * down + i / columns % rows / 128) * across + i % columns / 128];
            }
            return w;
        }
        var group = p.attributes().integer("group", -1);
        var groups = p.size(name + "_scales", 2);
        var q = p.ints(name + "_q");
        var scales = p.values(name + "_scales");
        var zeros = p.has(name + "_zeros") ? p.ints(name + "_zeros") : null;
        var w = new double[q.length * 2];
        for (var i = 0; i < w.length; i++) {
            var row = i / columns; // of all experts
            var g = group > 0 ? i % columns / group : 0;
            var zero = zeros == null ? 8 : zeros[row / 2 * groups + g] >> 4 * (row % 2) & 15;
            w[i] = ((q[i / 2] >> 4 * (i % 2) & 15) - zero) * scales[row * groups + g];
        }
        return w;
    }
}
