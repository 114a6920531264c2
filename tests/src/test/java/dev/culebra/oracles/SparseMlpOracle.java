package dev.culebra.oracles;

/** {@code h = silu(x w_gate^T)}, {@code y = (h [|h| >= threshold] (x w_up^T)) w_down_t}. */
public final class SparseMlpOracle implements Oracle {
    @Override
    public void solve(Problem p) {
        var rows = p.size("x", 0);
        var width = p.size("x", 1);
        var inner = p.size("w_gate", 0);
        var threshold = p.attributes().number("threshold", 0);
        var gates = gates(p.values("x"), p.values("w_gate"), rows, inner, width);
        var up = GemmOracle.multiply(p.values("x"), p.values("w_up"), new double[inner], rows, inner, width);
        var down = p.values("w_down_t");
        var y = new double[rows * width];
        var active = new int[rows];
        for (var i = 0; i < gates.length; i++) {
            if (Math.abs(gates[i]) >= threshold) {
                active[i / inner]++;
                for (var d = 0; d < width; d++) {
                    y[i / inner * width + d] += gates[i] * up[i] * down[i % inner * width + d];
                }
            }
        }
        p.out("y", y, rows, width);
        p.out("active", active, rows);
    }

    /** h, [rows, inner]. */
    public static double[] gates(double[] x, double[] weights, int rows, int inner, int width) {
        var h = GemmOracle.multiply(x, weights, new double[inner], rows, inner, width);
        for (var i = 0; i < h.length; i++) {
            h[i] = Functions.silu(h[i]);
        }
        return h;
    }
}
