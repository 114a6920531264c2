package dev.culebra.oracles;

/** {@code lse = log sum exp(z)}, {@code logprob = z_target - lse}, {@code z = softcap(e c^T + bias)}. */
final class LinearLogprobOracle implements Oracle {
    @Override
    public void solve(Problem p) {
        var tokens = p.size("e", 0);
        var words = p.size("c", 0);
        var z = GemmOracle.multiply(p.values("e"), p.values("c"), p.values("bias", words, 0), tokens, words, p.size("c", 1));
        var softcap = p.attributes().number("softcap", 0);
        var ignored = p.attributes().integer("ignore_index", -100);
        var first = p.attributes().integer("vocab_start", 0);
        var targets = p.ints("targets");
        var logprob = new double[tokens];
        var lse = new double[tokens];
        for (var t = 0; t < tokens; t++) {
            var largest = Double.NEGATIVE_INFINITY;
            for (var v = t * words; v < (t + 1) * words; v++) {
                // A word that its bias masks stays masked.
                z[v] = softcap > 0 && z[v] > Double.NEGATIVE_INFINITY ? softcap * Math.tanh(z[v] / softcap) : z[v];
                largest = Math.max(largest, z[v]);
            }
            var sum = 0.0;
            for (var v = t * words; v < (t + 1) * words; v++) {
                sum += Math.exp(z[v] - largest);
            }
            lse[t] = largest + Math.log(sum);
            var target = targets[t] - first;
            logprob[t] = targets[t] == ignored ? 0
                    : target < 0 || target >= words ? Double.NEGATIVE_INFINITY : z[t * words + target] - lse[t];
        }
        p.out("logprob", logprob, tokens);
        p.out("lse", lse, tokens);
    }
}
