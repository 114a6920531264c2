package dev.culebra.oracles;

/** {@code y[t] = sum_(s < L) filter[s] x[t-s] + skip x[t]} per channel, term by term. */
final class ConvFftOracle implements Oracle {
    @Override
    public void solve(Problem p) {
        var rows = p.size("x", 0);
        var tokens = p.size("x", 1);
        var channels = p.size("x", 2);
        var taps = p.size("filter", 1);
        var x = p.values("x");
        var filter = p.values("filter");
        var skip = p.values("skip", channels, 0);
        var y = new double[x.length];
        for (var b = 0; b < rows; b++) {
            for (var t = 0; t < tokens; t++) {
                for (var c = 0; c < channels; c++) {
                    var at = (b * tokens + t) * channels + c;
                    var sum = skip[c] * x[at];
                    for (var s = 0; s < taps && s <= t; s++) {
                        sum += filter[c * taps + s] * x[at - s * channels];
                    }
                    y[at] = sum;
                }
            }
        }
        p.out("y", y, p.shape("x"));
    }
}
