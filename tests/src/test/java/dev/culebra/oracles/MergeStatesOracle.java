package dev.culebra.oracles;

/** Attention over a union of keys from attention over its parts. */
final class MergeStatesOracle implements Oracle {
    @Override
    public void solve(Problem p) {
        var states = p.size("o", 0);
        var rows = p.size("o", 1) * p.size("o", 2);
        var width = p.size("o", 3);
        var o = p.values("o");
        var lse = p.values("lse");
        var merged = new double[rows * width];
        var logs = new double[rows];
        for (var row = 0; row < rows; row++) {
            var max = Double.NEGATIVE_INFINITY;
            for (var i = 0; i < states; i++) {
                max = Math.max(max, lse[i * rows + row]);
            }
            logs[row] = max;
            if (max == Double.NEGATIVE_INFINITY) {
                continue;
            }
            var sum = 0.0;
            for (var i = 0; i < states; i++) {
                sum += Math.exp(lse[i * rows + row] - max);
            }
            logs[row] = max + Math.log(sum);
            for (var i = 0; i < states; i++) {
                var weight = Math.exp(lse[i * rows + row] - logs[row]);
                for (var d = 0; weight > 0 && d < width; d++) {
                    merged[row * width + d] += weight * o[(i * rows + row) * width + d];
                }
            }
        }
        p.out("o", merged, p.size("o", 1), p.size("o", 2), width);
        p.out("lse", logs, p.size("o", 1), p.size("o", 2));
    }
}
