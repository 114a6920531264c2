package dev.culebra.oracles;

import dev.culebra.Activation;

/** {@code c = act(a b^T + bias)}. */
final class GemmOracle implements Oracle {
    @Override
    public void solve(Problem p) {
        var m = p.size("a", 0);
        var k = p.size("a", 1);
        var n = p.size("b", 0);
        var c = multiply(p.values("a"), p.values("b"), p.values("bias", n, 0), m, n, k);
        var act = p.attributes().oneOf("act", Activation.NONE);
        for (var i = 0; i < c.length; i++) {
            c[i] = Functions.apply(act, c[i]);
        }
        p.out("c", c, m, n);
    }

    static double[] multiply(double[] a, double[] b, double[] bias, int m, int n, int k) {
        var c = new double[m * n];
        for (var i = 0; i < m; i++) {
            for (var j = 0; j < n; j++) {
                var sum = bias[j];
                for (var l = 0; l < k; l++) {
                    sum += a[i * k + l] * b[j * k + l];
                }
                c[i * n + j] = sum;
            }
        }
        return c;
    }
}
